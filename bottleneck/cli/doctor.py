"""``bottleneck doctor``."""

import sys

import click

from bottleneck.cli.common import command
from bottleneck.cli.output import put_json, say, show
from bottleneck.utils.gc_paused import no_collection


@command("doctor", short_help="Check the installation and the machine, for a bug report.")
@click.option("--no-speed", is_flag=True, help="Do not measure the speed of the engines.")
@click.option("--paths", is_flag=True, help="Show paths, and the names of the user and the machine.")
def doctor(no_speed: bool, paths: bool, as_json: bool, cache: str, runs: str) -> None:
    """Show what works here and what is in the way, as text to paste into a bug report.

    It looks at versions, devices, the speed of each engine, the cache and runs, writable folders and known conflicts.
    What must be fixed is marked WRONG, and the exit code is then 1. Nothing is written or downloaded. Checksums are
    not verified: `bottleneck cache verify` does that.
    """
    with no_collection():
        from bottleneck.diagnostics.diagnose import diagnose

    say("Looking ...")
    found = diagnose(
        cache=cache, runs=runs, speed=not no_speed, paths=paths, progress=lambda group: show(*group.lines())
    )
    show(found.verdict())
    if as_json:
        put_json(found.to_json())
    if not found.works:
        sys.exit(1)
