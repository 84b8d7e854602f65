"""The command ``bottleneck``."""

import os
import sys
import threading

import click

from bottleneck import __version__
from bottleneck.cli.cache import cache
from bottleneck.cli.common import InOrder
from bottleneck.cli.compare import compare
from bottleneck.cli.demo import demo
from bottleneck.cli.evaluate import evaluate
from bottleneck.cli.extract import extract
from bottleneck.cli.finetune import finetune
from bottleneck.cli.fit import fit
from bottleneck.cli.models import inspect, models
from bottleneck.cli.predict import predict

_HELP = """Folders of images to tested classifiers, without a training cluster.

\b
bottleneck extract photos/       a frozen network sees each image once
bottleneck fit --head svm        a head is searched and tested
bottleneck finetune --last 1     the network is trained on from there, end to end
bottleneck predict new-photos/   the best run says what they show
bottleneck evaluate test-photos/ how often that is right
"""


@click.group(
    cls=InOrder, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="bottleneck")
def cli() -> None:
    """Hold the commands."""


for _command in (extract, fit, finetune, compare, predict, evaluate, models, inspect, cache, demo):
    cli.add_command(_command)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape" if stream is sys.stdout else "backslashreplace")
    try:
        cli()
    except SystemExit as end:
        _leave_threads_behind(end.code)
        raise


def _leave_threads_behind(code: object) -> None:
    """End the process at once, if an interrupted extraction has left threads in the middle of a batch or an image.

    The interpreter would take itself down under them, and a crash would hide the exit code.
    """
    if threading.active_count() == 1:
        return
    from bottleneck.pipeline.stages import THREADS

    if any(thread.name.startswith(THREADS) for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))
