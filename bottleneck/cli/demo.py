"""``bottleneck demo``."""

import time
from pathlib import Path

import click

from bottleneck.cli.common import at_home, command, progress_bar
from bottleneck.cli.output import put_json, show

_EXAMPLES = 8
_HEADS = ("logistic", "svm", "softmax")


@command("demo", short_help="Run the main steps on handwritten digits, offline.")
@click.option(
    "--dataset",
    default="digits",
    show_default=True,
    type=click.Choice(["digits", "flowers", "hymenoptera"]),
    help="flowers (229 MB) and hymenoptera (47 MB) are downloaded from their public addresses.",
)
@click.option(
    "--dir",
    "folder",
    default="demo",
    show_default=True,
    metavar="DIR",
    callback=at_home,
    help="Folder for the images.",
)
def demo(dataset: str, folder: str, as_json: bool, cache: str, runs: str) -> None:
    """Turn a folder of images into a tested classifier.

    Extract features with the default backbone, fit three heads, and show their accuracy and the next commands.
    """
    from bottleneck.demo.tour import prepare

    started = time.perf_counter()
    with progress_bar(hidden=as_json) as progress:
        images = prepare(dataset, Path(folder), progress)
        show(f"1. Images: {images}, one folder per class")
    take_tour(images, started=started, as_json=as_json, cache=cache, runs=runs)


def take_tour(images: Path, *, started: float, as_json: bool, cache: str, runs: str) -> None:
    """Extract features, fit three heads, and show their accuracy and the next commands."""
    from bottleneck.cli.show import engine_line, examples_table, runs_table
    from bottleneck.demo.tour import examples
    from bottleneck.extraction.extract import extract
    from bottleneck.fitting.fit import fit
    from bottleneck.runs.ranking import default_run

    with progress_bar(hidden=as_json) as progress:
        show("2. Extract: a frozen EfficientNet-Lite0 processes each image once")
        done = extract(images, cache=cache, runs=runs, progress=progress)
        show(f"   {done.computed} computed, {done.reused} reused, {done.dim} features each, {done.seconds:.1f} s")
        engine_line(done, "   ")
    show("3. Fit: three heads on the cached features")
    fitted = [fit(images, head=head, cache=cache, runs=runs) for head in _HEADS]
    show(runs_table(fitted))
    chosen = default_run(runs)
    best = chosen.run
    show(f"4. Predict: with the {best.card['head']} head, {chosen.reason}; some images that it was not trained on")
    show(examples_table(examples(best, _EXAMPLES)))
    seconds = time.perf_counter() - started
    show(f"{seconds:.0f} s in total. Next:")
    for line, comment in (
        (f"bottleneck predict {images}", "classify the images with that head, from the cache"),
        ("bottleneck extract YOUR/IMAGES", "your own images, one folder per class"),
        ("bottleneck fit", "train and test a classifier"),
    ):
        show(f"   {line:<33} # {comment}")
    if as_json:
        put_json(
            {
                "images": str(images),
                "computed": done.computed,
                "reused": done.reused,
                "runs": [str(run.path) for run in fitted],
                "best": str(best.path),
                "cv_accuracy": best.cv_accuracy,
                "accuracy": best.metrics["accuracy"],
                "seconds": round(seconds, 3),
            }
        )
