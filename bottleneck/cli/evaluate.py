"""``bottleneck evaluate``."""

import json
from typing import Any

import click

from bottleneck.cli.column_options import column_options
from bottleneck.cli.common import check_out, command, is_file, layout_of, progress_bar, write_data
from bottleneck.cli.memory_option import images_memory
from bottleneck.cli.output import data_on_stdout, lines_of, put_json, say, show
from bottleneck.cli.output_options import output_options
from bottleneck.utils.csv_text import csv_lines
from bottleneck.utils.gc_paused import no_collection

_ENDINGS = {".txt": "table", ".csv": "csv", ".json": "json"}


@command("evaluate", short_help="Test a run on labelled images.")
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--run", help="Run to test: NAME or run:NAME in --runs, or ./PATH.  [default: that of `bottleneck predict`]"
)
@click.option("--against", metavar="RUN", help="Compare with this run on the same images, by McNemar's test.")
@column_options("path", "label")
@images_memory
@output_options(
    _ENDINGS.values(),
    "Also write to this .txt, .csv or .json file.",
    "Format of the output; csv contains only the errors.",
)
def evaluate(
    images: tuple[str, ...],
    run: str | None,
    runs: str,
    layout: str | None,
    out: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare a run's predictions with the labels of images that it was not trained on.

    IMAGES are any number of CSVs with columns path,label, and of folders with one folder per class, which may be in
    train, val and test folders. Images that the run, or the run of --against, was trained on are left out, and their
    number is reported. Each image counts once.

    Prints the accuracy with its 95 % interval, metrics of each class, the confusion matrix, the calibration, and the
    most confident errors. --format csv, --out errors.csv and --json list all errors.
    """
    layout = layout_of(out, layout, _ENDINGS, "table")
    with no_collection():
        from bottleneck.cli.show_evaluate import evaluation_lines, evaluation_report
        from bottleneck.prediction.evaluate import evaluate as test
        from bottleneck.prediction.predict import run_for

    check_out(out, images)
    chosen = run_for(run, runs)
    say(str(chosen))
    with progress_bar(hidden=as_json) as progress:
        found = test(list(images), run=chosen.run, runs=runs, progress=progress, **options)
    texts = {
        "csv": lambda: "".join(csv_lines(found.to_rows())),
        "json": lambda: json.dumps(found.to_json()) + "\n",
        "table": lambda: "".join(f"{line}\n" for thing in evaluation_report(found) for line in lines_of(thing, None)),
    }
    evaluation_lines(found)
    is_data = layout != "table" and not is_file(out) and not as_json
    with data_on_stdout(is_data):
        show(*evaluation_report(found))
    if is_file(out) or is_data:
        write_data(out, lambda target: target.write(texts[layout]()))
    if as_json:
        put_json(found.to_json())
