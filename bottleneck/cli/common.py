"""What all commands share: common options, messages of errors and warnings, the progress bar."""

import functools
import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click

from bottleneck import errors
from bottleneck.cli import stopping
from bottleneck.cli.output import data_on_stdout, drawing, is_capable, is_terminal, put, put_json, say, width_of
from bottleneck.errors import BottleneckError, BottleneckWarning, OtherFailed, WeightsMismatch
from bottleneck.finetuning.rank import is_rank_zero

_STAGES = {
    "scan": "reading",
    "extract": "extracting",
    "download": "downloading",
    "verify": "verifying",
    "merge": "merging",
    "train": "training",
    "views": "activations",
    "neighbours": "comparing",
    "thumbnails": "decoding",
    "folds": "fitting",
    "worth": "fitting again",
}

_MESSAGE_TIME = 3  # seconds in which another process prints its message

Command = Callable[..., None]


class InOrder(click.Group):
    """Lists commands in the order in which they are added, not alphabetically."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which they were added."""
        return list(self.commands)


def command(name: str, **settings: Any) -> Callable[[Command], click.Command]:
    """Return a decorator for click commands, which adds the common options and prints errors as messages."""

    def decorate(body: Command) -> click.Command:
        @functools.wraps(body)
        def guarded(*args: Any, debug: bool, **kwargs: Any) -> None:
            as_json = kwargs["as_json"]
            with data_on_stdout(as_json), printed_errors(debug=debug, as_json=as_json):
                _expect_current_folder()
                body(*args, **kwargs)

        make: Callable[[Command], click.Command] = click.command(name, **settings)
        made = make(guarded)
        made.params += _common_options()
        return made

    return decorate


def _expect_current_folder() -> None:
    """Check that the current folder was not deleted: libraries do not survive being loaded there."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise errors.BottleneckError(
            "expected a current folder, found that it was deleted: change to another one"
        ) from error


def _common_options() -> list[click.Option]:
    return [
        _folder("--cache", "Folder of the feature cache."),
        _folder("--runs", "Folder of the runs."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print the result as JSON on stdout."),
        click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
    ]


def _folder(name: str, text: str) -> click.Option:
    default = name.removeprefix("--")
    return click.Option([name], default=default, show_default=True, metavar="DIR", callback=at_home, help=text)


def at_home(ctx: click.Context, parameter: click.Parameter, path: str | None) -> str | None:
    """Expand the home folder in a path that the shell has not expanded, as in ``--cache=~/x``."""
    if not path or not path.startswith("~"):
        return path
    from bottleneck.utils.paths import expanded

    try:
        return str(expanded(path))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from error


@contextmanager
def printed_errors(*, debug: bool, as_json: bool) -> Iterator[None]:
    """Print errors on stderr and exit with 1; print warnings on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", BottleneckWarning)
        warnings.showwarning = _once(_show_warning)
        try:
            yield
        except KeyboardInterrupt as interrupt:
            stopped(str(interrupt), as_json=as_json)
        except OtherFailed:
            if debug:
                raise
            exit_silently()
        except (BottleneckError, OSError) as error:
            if debug:
                raise
            if isinstance(error, WeightsMismatch) and not as_json:
                _show_mismatch(error)
            _fail(_kind(error), str(error), as_json)
        except click.ClickException:
            raise
        except Exception as error:
            if stopping.was_stopped():  # an interrupted import may raise anything
                stopped(as_json=as_json)
            if debug:
                raise
            message = f"unexpected {type(error).__name__}: {error}. This is a bug; --debug shows the traceback"
            _fail(type(error).__name__, message, as_json)


@contextmanager
def progress_bar(*, hidden: bool = False) -> Iterator[Callable[[str, int, int], None] | None]:
    """Yield a callback ``(stage, done, total)`` that draws a bar with images/s and the remaining time on stderr.

    Yield None if stderr is no terminal that can redraw lines.
    """
    if hidden or not is_capable(sys.stderr):
        yield None
        return
    from bottleneck.cli.bar import Bar

    with Bar(_STAGES, width_of(sys.stderr) or 80) as bar, drawing(bar):
        yield bar.update


def layout_of(out: str | None, layout: str | None, endings: Mapping[str, str], default: str | None = None) -> str:
    """Return the format by ``--format``, or else by the ending of ``--out``.

    Parameters
    ----------
    out : str or None
        The value of ``--out``; a dash is stdout.
    layout : str or None
        The value of ``--format``, which takes precedence.
    endings : mapping of str to str
        The format by ending; endings are in lower case and have a dot.
    default : str, optional
        The format of a name without an ending, and of stdout. Without a default the format is required.

    Raises
    ------
    click.UsageError
        If the ending is unknown.
    """
    name = Path(out or "").name
    ending = Path(name).suffix.lower()
    found = layout or endings.get(ending) or (None if ending else default)
    if found is None:
        listed = ", ".join(endings)
        raise click.UsageError(f"expected --out FILE to end in one of {listed}, or --format; got {name!r}")
    return found


def is_file(out: str | None) -> bool:
    """Whether ``--out`` names a file; a dash or None is stdout."""
    return bool(out) and out != "-"


def check_out(out: str | None, images: Iterable[str]) -> None:
    """Refuse an ``--out`` that must not be overwritten, such as an image.

    Raises
    ------
    OutputError
        See `bottleneck.utils.output_file.check_output`.
    """
    if not is_file(out):
        return
    from bottleneck.images.folders import IMAGE_SUFFIXES
    from bottleneck.utils.output_file import check_output

    place = check_output(str(out), images)
    if place.suffix.lower() in IMAGE_SUFFIXES and place.exists():
        raise errors.OutputError(f"expected another name for the output, found the image {out}. Choose a new name")


def check_table(out: str | None) -> None:
    """Refuse an ``--out`` that is not a CSV.

    Raises
    ------
    click.UsageError
        If the name does not end in .csv.
    """
    if out is not None and Path(out).suffix.lower() != ".csv":
        raise click.UsageError(f"expected --out FILE.csv, got {out!r}")


def write_data(out: str | None, write: Callable[[TextIO], object]) -> None:
    """Write data to a file atomically, or to stdout if `out` is a dash or None.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    if is_file(out):
        from bottleneck.utils.output_file import in_utf8, write_output

        write_output(str(out), in_utf8(write))
        return
    data = _Stdout()
    write(data)
    put(data.getvalue())


class _Stdout(io.StringIO):
    """Data that is laid out for stdout and written to it later."""

    def isatty(self) -> bool:
        """Whether stdout is a terminal."""
        return is_terminal(sys.stdout)

    def fileno(self) -> int:
        """Return the file descriptor of stdout."""
        return sys.stdout.fileno()


def _show_mismatch(error: WeightsMismatch) -> None:
    from bottleneck.cli.show_models import mismatch_table

    say(mismatch_table(error.found))


def _once(show: Callable[..., None]) -> Callable[..., None]:
    """Return a function that shows each warning once in a command."""
    shown: set[str] = set()

    def show_once(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if str(message) not in shown:
            shown.add(str(message))
            show(message, category, *rest, **named)

    return show_once


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, BottleneckWarning):
        say(f"warning: {message}", style="yellow")


def exit_silently() -> NoReturn:
    """Exit with 1 after another process has printed the error: when one ends, torchrun ends the others."""
    time.sleep(_MESSAGE_TIME)
    sys.exit(1)


def give_up(message: str) -> NoReturn:
    """Print an error and exit with 1."""
    say(f"error: {message}", style="red")
    sys.exit(1)


def stopped(message: str = "", *, as_json: bool = False) -> NoReturn:
    """Print what is kept after Ctrl-C and how to continue; exit with 130."""
    if not is_rank_zero():
        exit_silently()
    message = message or "Stopped. Committed work is kept; run the same command again to continue."
    if as_json:
        put_json({"error": {"type": "interrupted", "message": message}})
    if is_terminal(sys.stderr):
        say()  # after the ^C that the terminal prints
    say(message)
    sys.exit(stopping.exit_code())


def _kind(error: Exception) -> str:
    """Return the name of an error for --json: its class, or the public class that a private one derives from."""
    return next((kind.__name__ for kind in type(error).__mro__ if hasattr(errors, kind.__name__)), type(error).__name__)


def _fail(kind: str, message: str, as_json: bool) -> None:
    if as_json:
        put_json({"error": {"type": kind, "message": message}})
    give_up(message)
