"""``bottleneck predict``."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

import click

from bottleneck.cli.column_options import column_options
from bottleneck.cli.common import check_out, command, give_up, layout_of, progress_bar, write_data
from bottleneck.cli.memory_option import images_memory
from bottleneck.cli.numbers import RealNumber, WholeNumber
from bottleneck.cli.output import say
from bottleneck.cli.output_options import output_options
from bottleneck.utils.csv_text import csv_lines
from bottleneck.utils.gc_paused import no_collection

if TYPE_CHECKING:
    from bottleneck.runs.run import Run

_ENDINGS = {".txt": "table", ".csv": "csv", ".json": "jsonl", ".jsonl": "jsonl"}


@command("predict", short_help="Classify images with a run.")
@click.argument("images", nargs=-1, required=True)
@click.option("--run", help="Run to use: NAME or run:NAME in --runs, or ./PATH.  [default: see above]")
@click.option("--no-labels", is_flag=True, help="Do not compare predictions with the labels of the images.")
@column_options("path", "label")
@images_memory
@output_options(_ENDINGS.values(), "Write to this .txt, .csv, .json or .jsonl file instead of to stdout.")
@click.option("--top", default=3, show_default=True, type=WholeNumber(1), help="Number of classes per image.")
@click.option(
    "--unfamiliar",
    default=0.01,
    show_default=True,
    metavar="P",
    type=RealNumber(0, 1, max_open=True),
    help="Call images with a familiarity of at most P unfamiliar.",
)
@click.option("--reject", is_flag=True, help="Give unfamiliar images no label.")
@click.option(
    "--coverage",
    metavar="SHARE",
    type=RealNumber(0, 1, min_open=True, max_open=True),
    help="Add a set of labels to each image, which contains the right one with this probability.",
)
def predict(
    images: tuple[str, ...],
    run: str | None,
    runs: str,
    no_labels: bool,
    layout: str | None,
    out: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Predict each image's label and probability, and the next two labels.

    IMAGES are any number of folders, images and CSVs with a column path. The output has one row for each file and
    for each row of a CSV, in the same order and with the same path. An image that cannot be used has no label, but a
    code and a message. --json prints one JSON object per line, like --format jsonl.

    Familiarity is a p-value: of images like those of the training set, 1 % have a familiarity of at most 0.01. The
    label of an unfamiliar image means little, however probable it is.

    If images have labels (class folders, or a column label), a line on stderr reports the accuracy. Images that the
    run was trained on are left out.

    The default run is the first one on the images of the latest run, unless a later one is significantly better.
    """
    layout = layout_of(out, "jsonl" if as_json else layout, _ENDINGS, "table")
    with no_collection():
        from bottleneck.cli.show import failures_list
        from bottleneck.cli.show_evaluate import summary_lines
        from bottleneck.cli.show_predict import familiarity_lines, predictions_table
        from bottleneck.images.failures import none_usable
        from bottleneck.prediction.evaluate import summary
        from bottleneck.prediction.predict import predict as classify
        from bottleneck.prediction.predict import run_for

    check_out(out, images)
    chosen = run_for(run, runs)
    say(str(chosen))
    with progress_bar(hidden=as_json) as progress:
        found = classify(list(images), run=chosen.run, runs=runs, progress=progress, **options)
    writers: dict[str, Callable[[TextIO], object]] = {
        "table": lambda target: predictions_table(found, target),
        "csv": lambda target: target.writelines(csv_lines(found.to_rows())),
        "jsonl": lambda target: target.writelines(f"{json.dumps(item.to_json())}\n" for item in found),
    }
    write_data(out, writers[layout])
    failures_list(found.failures)
    for remark in found.remarks:
        say(remark)
    if not found.usable:
        give_up(none_usable(len(found)))
    if not no_labels and (compared := summary(found)):
        summary_lines(compared, found.run)
    familiarity_lines(found)
    say(f"{len(found.usable)} predicted, {len(found.failures)} failed, by {found.run.path} ({_accuracy(found.run)})")


def _accuracy(run: "Run") -> str:
    """Return the accuracy of a run on images that it was not trained on, other than held-out images."""
    if run.is_tuned:
        kept = run.card["curves"][run.card["best_epoch"]]
        return f"validation {kept['val_accuracy']:.1%}"
    return f"cv {run.cv_accuracy:.1%}"
