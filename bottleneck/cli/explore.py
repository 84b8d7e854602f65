"""``bottleneck explore``."""

from typing import Any

import click

from bottleneck.cli.column_options import column_options
from bottleneck.cli.common import check_out, command, progress_bar
from bottleneck.cli.defaults import images_line
from bottleneck.cli.numbers import WholeNumber
from bottleneck.cli.output import put_json, say
from bottleneck.cli.pages import open_in_browser
from bottleneck.utils.gc_paused import no_collection

_HEADS = ("logistic", "svm", "softmax", "ridge")


@command("explore", short_help="See the images on a map in the browser, and correct their labels.")
@click.argument("images", required=False)
@click.option("--run", help="Show the predictions of this run, on its images unless others are named.")
@click.option(
    "--model",
    help="Use the features of this model, or of a spec of `cache info`.  [default: the last extracted from IMAGES]",
)
@click.option("--head", type=click.Choice(_HEADS), help="Head that is trained on the labels.  [default: logistic]")
@column_options()
@click.option("--no-labels", is_flag=True, help="Ignore the labels of folders or of the table.")
@click.option(
    "--labels", metavar="FILE.csv", help="Table of the edited labels.  [default: labels-NAME.csv in this folder]"
)
@click.option("--port", type=WholeNumber(0, 65535), help="Port to listen on.  [default: the first free one from 8766]")
@click.option("--no-open", is_flag=True, help="Print the address, and do not open the browser.")
def explore(images: str | None, port: int | None, no_open: bool, as_json: bool, **options: Any) -> None:
    """Open a map of the images in the browser: similar images lie near each other.

    The features of IMAGES must be cached. IMAGES is what `extract` takes, or a run (run:NAME or its folder); it
    defaults to the images last extracted in this folder. Without a run, a head is trained on the labels, and images are
    predicted out of fold.

    Labels that you edit are written at once to a table, which `fit` takes as IMAGES. The page is served to this machine
    alone, at an address with a secret token, until Ctrl-C.
    """
    with no_collection():
        from bottleneck.exploring.server import check_installed, open_session, serve

    check_installed()
    check_out(options["labels"], [images] if images else [])
    if not options["run"]:
        images_line(images, options["cache"], options["model"])
    with progress_bar(hidden=as_json) as progress:
        session = open_session(images, progress=progress, **options)

    for remark in session.remarks:
        say(f"note: {remark}")

    def started(address: str) -> None:
        if as_json:
            put_json({"url": address, "labels": str(session.labels_file.path)})
        say(f"labels: {session.labels_file.path}", f"open {address}", "Ctrl-C stops the server")
        if not no_open:
            open_in_browser(address)

    serve(session, started, port=port)
