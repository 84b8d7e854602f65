"""The command ``bottleneck``."""

import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

import click

from bottleneck._version import __version__
from bottleneck.cli import stopping
from bottleneck.cli.audit import audit
from bottleneck.cli.cache import cache
from bottleneck.cli.common import InOrder, give_up, stopped
from bottleneck.cli.compare import compare
from bottleneck.cli.demo import demo
from bottleneck.cli.doctor import doctor
from bottleneck.cli.evaluate import evaluate
from bottleneck.cli.explore import explore
from bottleneck.cli.extract import extract
from bottleneck.cli.finetune import finetune
from bottleneck.cli.fit import fit
from bottleneck.cli.models import inspect, models
from bottleneck.cli.next import next_images
from bottleneck.cli.output import is_data_on_stdout, let_streams_take_anything, put_away, say, show_traceback
from bottleneck.cli.predict import predict
from bottleneck.cli.report import report
from bottleneck.cli.runs import runs_group
from bottleneck.engines.memory import tune_process

_HELP = """Turn folders of images into tested classifiers, without a training cluster.

\b
bottleneck extract photos/    compute features, once
bottleneck fit --head svm     tune and test a head
bottleneck finetune --last 1  fine-tune the network
bottleneck predict new/       classify with the best run
bottleneck evaluate test/     measure its accuracy
bottleneck report             write a page on the best run, with pictures
bottleneck audit              find wrong labels, duplicates and outliers
bottleneck next more/ ...     choose which images to label next
"""


@click.group(
    cls=InOrder, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="bottleneck")
def cli() -> None:
    """Group the commands."""


_WORK = (extract, fit, finetune, compare, predict, evaluate, report, audit, next_images, explore)
_ABOUT = (models, inspect, cache, runs_group, doctor, demo)
for _command in (*_WORK, *_ABOUT):
    cli.add_command(_command)


def main() -> None:
    """Run the command line."""
    stopping.listen(_stop_in_import)
    tune_process()
    let_streams_take_anything()
    sys.excepthook = show_traceback
    threading.excepthook = lambda what: show_traceback(what.exc_type, what.exc_value, what.exc_traceback)
    try:
        _run()
    except SystemExit as end:
        _leave_at_once(end.code)
        raise


def _stop_in_import() -> NoReturn:
    put_away()
    code: object = None
    try:
        stopped(as_json=is_data_on_stdout())
    except SystemExit as end:
        code = end.code
    finally:
        os._exit(code if isinstance(code, int) else 1)


def _run() -> None:
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        _show_usage(error)
        sys.exit(error.exit_code)
    except OSError as error:  # while printing the help
        give_up(f"cannot write to stdout: {error.strerror or error}")
    except (click.Abort, KeyboardInterrupt):  # before the command started
        stopped()
    sys.exit(code if isinstance(code, int) else 0)


def _show_usage(error: click.ClickException) -> None:
    """Print the usage of a command and the error."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # the help itself
        error.show()
        return
    if context is not None:
        say(*context.get_usage().splitlines(), f"Try '{context.command_path} --help' for help.", "")
    say(f"Error: {error.format_message()}")


def _leave_at_once(code: object) -> None:
    """End the process without finalising the interpreter, if that could change the exit code.

    Finalising may crash while threads of an interrupted extraction still run. After an interrupt inside of an extension
    module, Python ends itself by SIGINT instead of the exit code.
    """
    if not (stopping.was_stopped() or _has_threads_left()):
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _has_threads_left() -> bool:
    if threading.active_count() == 1:
        return False
    from bottleneck.extraction.stages import THREADS

    return any(thread.name.startswith(THREADS) for thread in threading.enumerate())
