"""``bottleneck extract``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bottleneck.backbones.request import POOLS, PRECISIONS
from bottleneck.cli.column_options import column_options
from bottleneck.cli.common import command, give_up, progress_bar
from bottleneck.cli.defaults import extracted_line
from bottleneck.cli.memory_option import images_memory
from bottleneck.cli.numbers import WholeNumber
from bottleneck.cli.output import put_json, say, show
from bottleneck.engines.options import ENGINES
from bottleneck.images.bounds import LARGEST_SIDE
from bottleneck.utils.text import counted

if TYPE_CHECKING:
    from bottleneck.images.failures import Limit


def _limit(ctx: click.Context, parameter: click.Parameter, value: str) -> Limit:
    from bottleneck.images.failures import Limit

    try:
        return Limit.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from error


@command("extract", short_help="Compute and cache the features of images.")
@click.argument("images", required=False)
@click.option("--model", help="The backbone; see `bottleneck models`.  [default: efficientnet_lite0, or a run's own]")
@click.option(
    "--weights",
    default="DEFAULT",
    show_default=True,
    help="DEFAULT, a name, a tag, a file (./PATH), a fine-tuned run (run:NAME), or none: random.",
)
@click.option("--seed", default=0, show_default=True, type=WholeNumber(0, 2**63 - 1), help="Of random weights.")
@click.option(
    "--layer",
    multiple=True,
    metavar="NAME",
    help="Features of this module, or NAME:input; repeat to join several.  [default: the classifier's input]",
)
@click.option(
    "--pool",
    type=click.Choice(POOLS),
    help="How a layer's positions become one row.  [default: avg, where it has any]",
)
@click.option("--flip", is_flag=True, help="Average the features of each image and its mirror image; twice the work.")
@click.option(
    "--resize",
    type=WholeNumber(1, LARGEST_SIDE),
    help="Before the crop, in pixels.  [default: as the weights were trained]",
)
@click.option("--crop", type=WholeNumber(1, LARGEST_SIDE), help="In pixels.  [default: as the weights were trained]")
@click.option(
    "--restore-exclude", multiple=True, metavar="PATTERN", help="Tensors that are not taken from a weights file."
)
@click.option("--allow-partial", is_flag=True, help="Take what fits of a weights file; the rest is random.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="Of the computation; auto: the fastest that the hardware has natively and that is exact enough for IMAGES.",
)
@click.option(
    "--fast-jpeg", is_flag=True, help="Decode large JPEGs at a fraction of their size; slightly other features."
)
@click.option("--no-labels", is_flag=True, help="Take every image below IMAGES as it is.")
@column_options()
@click.option("--batch-size", type=WholeNumber(1, 4096), help="Images that pass the network at once.")
@click.option("--threads", type=WholeNumber(1, 1024), help="Threads that decode.")
@click.option("--engine", type=click.Choice(ENGINES), default="auto", show_default=True, help="What computes.")
@click.option("--device", help="As in torch.device.  [default: a GPU where there is one, else cpu]")
@click.option("--compile", is_flag=True, help="Let torch compile the network first, which takes minutes.")
@click.option("--max-pixels", type=WholeNumber(1), help="Refuse larger images.  [default: 178956970]")
@images_memory
@click.option("--rehash", is_flag=True, help="Read every file again, whatever is remembered of its digest.")
@click.option(
    "--max-failures",
    default="10%",
    show_default=True,
    callback=_limit,
    metavar="N|N%",
    help="Exit with 1 if more images cannot be used; the others are kept.",
)
@click.option("--strict", is_flag=True, help="As --max-failures 0.")
def extract(
    images: str | None,
    no_labels: bool,
    max_pixels: int | None,
    max_failures: Limit,
    strict: bool,
    as_json: bool,
    cache: str,
    runs: str,
    **options: Any,
) -> None:
    """Compute the features of those IMAGES that have none yet, and cache them.

    IMAGES is a folder of class folders, a folder of train, val and test folders of class folders, a CSV with columns
    path,label[,split][,group] (or others that --label-column and the like name, which later commands remember), or with
    --no-labels any folder or file. By default it is what was last extracted in this folder with this cache, else the
    folder itself.
    """
    from bottleneck.cli.show import columns_line, dataset_line, engine_line, failures_list, ignored_line, notes_list
    from bottleneck.extraction.extract import extract as run
    from bottleneck.images.failures import Limit

    extracted_line(images, cache)
    if max_pixels:
        options["max_pixels"] = max_pixels
    with progress_bar(hidden=as_json) as progress:
        done = run(images, labels=not no_labels, cache=cache, runs=runs, progress=progress, **options)
    if done.restored:
        say(done.restored.summary())
    failures_list(done.failures, done.failures_table)
    notes_list(done.notes)
    ignored_line(done.dataset.ignored)
    columns_line(done.dataset.columns)
    dataset_line(done.usable)
    engine_line(done)
    copies = f" ({counted(done.copies, 'copy', 'copies')})" if done.copies else ""
    show(
        f"{counted(done.images, 'image')}{copies}: {done.computed} computed, {done.reused} reused, "
        f"{len(done.failures)} failed; {done.dim} features each ({done.store.short_name}) in {done.seconds:.1f} s"
    )
    limit = Limit(0, percent=False) if strict else max_failures
    problem = limit.problem(len(done.failures), done.images, done.failures_table)
    if as_json:
        put_json({**done.to_json(), "problem": problem})
    if problem:
        give_up(problem)
