"""``bottleneck report``."""

from typing import Any

import click

from bottleneck.cli.common import at_home, command, progress_bar
from bottleneck.cli.numbers import WholeNumber
from bottleneck.cli.output import put_json, say
from bottleneck.cli.pages import check_page, open_in_browser
from bottleneck.utils.gc_paused import no_collection

_PICTURES, _MOST_PICTURES = 400, 100_000


@command("report", short_help="Write a page that shows what a run does and where it fails.")
@click.argument("run", required=False)
@click.option("--out", metavar="FILE.html", callback=at_home, help="Write this file.  [default: report-RUN.html]")
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
@click.option(
    "--pictures",
    default=_PICTURES,
    show_default=True,
    type=WholeNumber(0, _MOST_PICTURES),
    help="Pictures in the page, at most.",
)
@click.option("--no-audit", is_flag=True, help="Do not search for label errors, copies and outliers.")
def report(run: str | None, out: str | None, opens: bool, no_audit: bool, as_json: bool, **options: Any) -> None:
    """Write one HTML file that shows how well a run does, where it fails and how it was made.

    RUN is NAME or run:NAME in --runs, or ./PATH, by default the run that `predict` uses. The file loads nothing from
    elsewhere, and can be sent to others: it has small pictures, and no path outside of the folder of images. It shows
    the accuracy in plain words, the confusion matrix with the pictures of each cell, the worst mistakes, the most
    similar training images, whether the probabilities can be trusted, unfamiliar images, the findings of `audit`, and
    the commands that make the run again. Nothing is trained, and no feature is computed.
    """
    with no_collection():
        from bottleneck.prediction.predict import run_for
        from bottleneck.reporting.report import report as write

    check_page("--out", out)
    chosen = run_for(run, options["runs"])
    say(str(chosen))
    with progress_bar(hidden=as_json) as progress:
        found = write(chosen.run, out, audit=not no_audit, progress=progress, **options)
    missing = f", {found.missing} missing" if found.missing else ""
    say(f"{found.path}: {found.bytes / 1e6:.1f} MB, {found.pictures} pictures{missing}, in {found.seconds:.1f} s")
    if opens:
        open_in_browser(str(found.path))
    if as_json:
        put_json(found.to_json())
