"""``bottleneck predict``."""

import csv
from pathlib import Path

import click

from bottleneck.cli.common import at_home, command, progress_bar, say
from bottleneck.garbage import no_collection


@command("predict", short_help="Classify images with a run.")
@click.argument("images")
@click.option("--run", help="A run's folder or name.  [default: the best of the last images by cross-validation]")
@click.option(
    "--format",
    "layout",
    type=click.Choice(["table", "csv", "jsonl"]),
    help="[default: as the name of --out ends, else table]",
)
@click.option("--out", type=click.Path(dir_okay=False), callback=at_home, help="Write there instead of to stdout.")
@click.option("--top", default=3, show_default=True, type=click.IntRange(1), help="Classes told of each image.")
def predict(
    images: str,
    run: str | None,
    layout: str | None,
    out: str | None,
    top: int,
    as_json: bool,
    cache: str,
    runs: str,
) -> None:
    """Say of each image its label, how probable it is, and the next two.

    IMAGES is any folder, image, or CSV with a column path. --json prints one JSON object a line, as --format jsonl.
    """
    with no_collection():
        from bottleneck.cli.show import failures_list, prediction_lines, prediction_rows, predictions_table
        from bottleneck.prediction import predict as classify

    by_suffix = {".csv": "csv", ".json": "jsonl", ".jsonl": "jsonl"}.get(Path(out or "").suffix.lower(), "table")
    layout = "jsonl" if as_json else layout or by_suffix
    with progress_bar(hidden=as_json) as progress:
        found = classify(images, run=run, cache=cache, runs=runs, top=top, progress=progress)
    with click.open_file(out or "-", "w", encoding="utf-8", errors="surrogateescape") as target:
        if layout == "table":
            predictions_table(found, target)
        elif layout == "csv":
            csv.writer(target, lineterminator="\n").writerows(prediction_rows(found, top))
        else:
            target.writelines(line + "\n" for line in prediction_lines(found))
    failures_list(found.failures)
    for remark in found.remarks:
        say(remark)
    kind = "validated" if found.run.is_tuned else "cv"
    say(f"{len(found)} predicted, {len(found.failures)} failed, by {found.run.path} ({kind} {found.run.score:.1%})")
