"""``bottleneck audit``."""

import sys
from typing import Any

import click

from bottleneck.cli.column_options import column_options
from bottleneck.cli.common import check_out, check_table, command, progress_bar, write_data
from bottleneck.cli.defaults import images_line
from bottleneck.cli.memory_option import memory_option
from bottleneck.cli.numbers import WholeNumber
from bottleneck.cli.output import put_json, say, show
from bottleneck.utils.csv_text import csv_lines
from bottleneck.utils.gc_paused import no_collection

_HEADS = ("logistic", "svm", "softmax", "ridge")


@command("audit", short_help="Find label errors, duplicates, outliers and bad pictures.")
@click.argument("images", required=False)
@click.option("--run", help="Audit the images of this run, with its features and its kind of head.")
@click.option(
    "--model",
    help="Use the features of this model, or of a spec of `cache info`.  [default: the last extracted from IMAGES]",
)
@click.option("--head", type=click.Choice(_HEADS), help="Head whose predictions are used.  [default: logistic]")
@column_options()
@click.option("--no-labels", is_flag=True, help="Audit images without labels.")
@click.option("--no-pictures", is_flag=True, help="Decode no images: skip bad pictures, borders and picture hashes.")
@click.option("--no-refit", is_flag=True, help="Do not measure what removing or correcting images is worth.")
@click.option("--top", default=10, show_default=True, type=WholeNumber(1), help="Findings of each kind to print.")
@click.option("--out", metavar="FILE.csv", help="Write all images to this table, with a column label to correct.")
@click.option("--strict", is_flag=True, help="Exit with 1 if anything is found.")
@memory_option("Memory for features, such as 2G or 500M.  [default: half of the free memory]")
@click.option("--seed", default=0, show_default=True, type=WholeNumber(0, 2**32 - 1), help="Random seed.")
def audit(
    images: str | None,
    no_labels: bool,
    no_pictures: bool,
    no_refit: bool,
    top: int,
    out: str | None,
    strict: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Find what may be wrong with images and their labels, and measure what fixing it is worth.

    The features of IMAGES must be cached. IMAGES defaults to the images last extracted in this folder. Training and
    held-out images are audited alike: probable label errors, exact and near duplicates, outliers, bad pictures, classes
    that overlap, and borders that tell the class. Nothing is changed or deleted.

    --out writes a table of all images with their labels, suggested labels and findings. Correct the column label, and
    give the table to `extract` and `fit` as IMAGES.
    """
    with no_collection():
        from bottleneck.auditing.audit import audit as run
        from bottleneck.auditing.table import correction_rows
        from bottleneck.cli.show import failures_list
        from bottleneck.cli.show_audit import audit_report
        from bottleneck.utils.paths import expanded

    check_table(out)
    check_out(out, [images] if images else [])
    if not options["run"]:
        images_line(images, options["cache"], options["model"])
    with progress_bar(hidden=as_json) as progress:
        options |= {"labels": False if no_labels else None, "pictures": not no_pictures, "refit": not no_refit}
        found = run(images, progress=progress, **options)
    show(*audit_report(found, top))
    failures_list(found.failures)
    if out:
        rows = correction_rows(found.dataset, found.findings, found.failures, expanded(out))
        write_data(out, lambda target: target.writelines(csv_lines(rows)))
        verb = "Correct" if found.dataset.labelled else "Fill"
        say(f"all images with their labels: {out}. {verb} the column label, and use the table as IMAGES")
    if as_json:
        put_json(found.to_json())
    if strict and found.found_anything:
        sys.exit(1)
