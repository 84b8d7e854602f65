"""What all commands share: their common options, how errors and warnings are said, the progress bar."""

import functools
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from bottleneck.errors import BottleneckError, BottleneckWarning, OtherFailed, WeightsMismatch

_STAGES = {
    "scan": "reading",
    "extract": "extracting",
    "download": "downloading",
    "verify": "verifying",
    "merge": "merging",
    "train": "training",
    "views": "activations",
}

_SAYING = 3  # seconds

Command = Callable[..., None]


class InOrder(click.Group):
    """Lists commands in the order of the work, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names as they were added."""
        return list(self.commands)


def command(name: str, **settings: Any) -> Callable[[Command], click.Command]:
    """Make a click command with the options that every command has, whose errors are sentences."""

    def decorate(body: Command) -> click.Command:
        @functools.wraps(body)
        def guarded(*args: Any, debug: bool, **kwargs: Any) -> None:
            with errors_as_sentences(debug=debug, as_json=kwargs["as_json"]):
                body(*args, **kwargs)

        make: Callable[[Command], click.Command] = click.command(name, **settings)
        made = make(guarded)
        made.params += _common_options()
        return made

    return decorate


def _common_options() -> list[click.Option]:
    return [
        _folder("--cache", "Where features are kept."),
        _folder("--runs", "Where runs are kept."),
        click.Option(["--json", "as_json"], is_flag=True, help="One JSON object on stdout."),
        click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
    ]


def _folder(name: str, text: str) -> click.Option:
    default = name.removeprefix("--")
    return click.Option([name], default=default, show_default=True, metavar="DIR", callback=at_home, help=text)


def at_home(ctx: click.Context, parameter: click.Parameter, path: str | None) -> str | None:
    """Expand the home folder in a path that the shell has left as it is, as in ``--cache=~/x``."""
    if not path or not path.startswith("~"):
        return path
    from bottleneck.utils.paths import expanded

    try:
        return str(expanded(path))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from error


@contextmanager
def errors_as_sentences(*, debug: bool, as_json: bool) -> Iterator[None]:
    """Turn errors into a sentence on stderr and exit code 1, warnings into lines on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", BottleneckWarning)
        warnings.showwarning = _once(_show_warning)
        try:
            yield
        except KeyboardInterrupt as interrupt:
            if not is_first_process():
                leave_it_to_another()
            usual = "Stopped. What was committed is kept; the same command goes on from there."
            _fail("interrupted", str(interrupt) or usual, as_json)
        except OtherFailed:
            if debug:
                raise
            leave_it_to_another()
        except BrokenPipeError:
            raise  # `bottleneck predict ... | head`: click ends in silence
        except (BottleneckError, OSError) as error:
            if debug:
                raise
            if isinstance(error, WeightsMismatch) and not as_json:
                _show_misfit(error)
            _fail(type(error).__name__, str(error), as_json)
        except click.ClickException:
            raise
        except Exception as error:
            if debug:
                raise
            message = f"unexpected {type(error).__name__}: {error}. This is a bug; --debug shows where"
            _fail(type(error).__name__, message, as_json)


def say(message: str = "") -> None:
    """Print a line for people, on stderr."""
    click.echo(message, err=True)


def put_json(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout."""
    click.echo(json.dumps(value, ensure_ascii=True))


@contextmanager
def progress_bar(*, hidden: bool = False) -> Iterator[Callable[[str, int, int], None] | None]:
    """Give a callback ``(stage, done, total)`` that draws a bar with images/s and the time to go, on stderr."""
    if hidden or not sys.stderr.isatty():
        yield None
        return
    from bottleneck.cli.bar import Bar

    with Bar(_STAGES) as bar:
        yield bar.update


def _show_misfit(error: WeightsMismatch) -> None:
    from bottleneck.cli.show import plain_console
    from bottleneck.cli.show_models import misfit_table

    plain_console().print(misfit_table(error.found))


def _once(show: Callable[..., None]) -> Callable[..., None]:
    """Return what shows each warning once in a command, wherever it comes from."""
    said: set[str] = set()

    def show_once(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if str(message) not in said:
            said.add(str(message))
            show(message, category, *rest, **named)

    return show_once


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, BottleneckWarning):
        say(click.style("warning: ", fg="yellow") + str(message))


def is_first_process() -> bool:
    """Whether this is the process that speaks, of those that a torchrun has started."""
    return int(os.environ.get("WORLD_SIZE") or 1) < 2 or os.environ.get("RANK", "0") == "0"


def leave_it_to_another() -> NoReturn:
    """Exit with 1, once another process has said why: when one ends, torchrun ends the others."""
    time.sleep(_SAYING)
    sys.exit(1)


def give_up(message: str) -> NoReturn:
    """Say what went wrong, and exit with 1; what there was to print has been printed."""
    say(click.style("error: ", fg="red") + message)
    sys.exit(1)


def _fail(kind: str, message: str, as_json: bool) -> None:
    if as_json:
        put_json({"error": {"type": kind, "message": message}})
    give_up(message)
