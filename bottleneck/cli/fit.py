"""``bottleneck fit``."""

from typing import Any

import click

from bottleneck.cli.column_options import column_options
from bottleneck.cli.common import command, progress_bar
from bottleneck.cli.defaults import images_line
from bottleneck.cli.head_options import HEADS, head_options, split_option
from bottleneck.cli.numbers import RealNumber, WholeNumber
from bottleneck.cli.output import put_json
from bottleneck.utils.gc_paused import no_collection


@command("fit", short_help="Train a head on cached features and test it.")
@click.argument("images", required=False)
@click.option("--head", default="logistic", show_default=True, type=click.Choice(HEADS), help="Kind of head.")
@click.option(
    "--model",
    help="Use the features of this model, or of a spec of `cache info`.  [default: the last extracted from IMAGES]",
)
@split_option
@column_options()
@head_options
@click.option(
    "--kernel", default="linear", show_default=True, type=click.Choice(["linear", "rbf"]), help="Kernel of svm."
)
@click.option(
    "--dropout", default=0.0, show_default=True, type=RealNumber(0, 1, max_open=True), help="Dropout of softmax."
)
@click.option("--epochs", type=WholeNumber(1), help="Epochs of softmax.  [default: 40, fewer for very many images]")
@click.option(
    "--final", is_flag=True, help="After the test, retrain the head on all labelled images and save this head."
)
@click.option("--allow-duplicates", is_flag=True, help="Allow an image or a group in more than one split.")
def fit(images: str | None, as_json: bool, **options: Any) -> None:
    """Choose C by cross-validation, train a head on the training split, and test it once on the held-out split.

    The features of IMAGES must be cached. IMAGES defaults to the images last extracted in this folder. The held-out
    split is test if there is one, otherwise val.
    """
    with no_collection():
        from bottleneck.cli.show import run_report
        from bottleneck.fitting.fit import fit as run

    images_line(images, options["cache"], options["model"])
    with progress_bar(hidden=as_json) as progress:
        done = run(images, progress=progress, **options)
    run_report(done)
    if as_json:
        put_json(done.to_json())
