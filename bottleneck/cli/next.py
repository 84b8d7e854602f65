"""``bottleneck next``."""

from typing import Any

import click

from bottleneck.cli.column_options import column_options
from bottleneck.cli.common import check_out, check_table, command, progress_bar, write_data
from bottleneck.cli.memory_option import images_memory
from bottleneck.cli.numbers import WholeNumber
from bottleneck.cli.output import put_json, say, show
from bottleneck.utils.csv_text import csv_lines
from bottleneck.utils.gc_paused import no_collection

_STRATEGIES = ("margin_sampling", "entropy", "core_set", "typi_clust", "random_sampling")


@command("next", short_help="Choose which images to label next.")
@click.argument("pool", nargs=-1, required=True)
@click.option("--budget", required=True, type=WholeNumber(1), help="Number of images to choose.")
@click.option("--run", help="Run to use: NAME or run:NAME in --runs, or ./PATH.  [default: that of `predict`]")
@click.option("--model", help="Use no run, and the features of this model.")
@click.option(
    "--strategy",
    type=click.Choice(_STRATEGIES),
    help="How images are chosen.  [default: margin_sampling with a run, typi_clust without]",
)
@column_options("path")
@images_memory
@click.option("--out", metavar="FILE.csv", help="Write a table with an empty column label to this file.")
@click.option("--with-labelled", is_flag=True, help="Also write the labelled images of the run to the table.")
@click.option("--seed", default=0, show_default=True, type=WholeNumber(0, 2**32 - 1), help="Random seed.")
def next_images(pool: tuple[str, ...], out: str | None, with_labelled: bool, as_json: bool, **options: Any) -> None:
    """Choose the images of a pool that are the most useful to label.

    POOL is any number of folders, images and CSVs with a column path. With a run, images of which it is uncertain are
    chosen, and which differ from each other and from its images. Without a run, typical and diverse images are chosen.
    Images of the run and copies are left out, and images like none that the run knows come last.

    --out writes a table: fill its column label, and use it as IMAGES.
    """
    with no_collection():
        from bottleneck.auditing.suggest import labelled_images, suggest
        from bottleneck.cli.show_next import suggestion_lines, suggestions_table
        from bottleneck.utils.paths import expanded

    if with_labelled and not out:
        raise click.UsageError("--with-labelled writes into a table: name it with --out FILE.csv")
    check_table(out)
    check_out(out, pool)
    labelled = labelled_images(options["run"], options["cache"], options["runs"]) if with_labelled else None
    with progress_bar(hidden=as_json) as progress:
        found = suggest(list(pool), progress=progress, **options)
    show(suggestions_table(found))
    suggestion_lines(found)
    if out:
        rows = found.to_rows(expanded(out), labelled)
        write_data(out, lambda target: target.writelines(csv_lines(rows)))
        say(f"images to label: {out}. Fill the column label, and use the table as IMAGES")
    if as_json:
        put_json(found.to_json())
