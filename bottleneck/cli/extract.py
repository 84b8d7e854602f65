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
@click.option("--model", help="Backbone; see `bottleneck models`.  [default: efficientnet_lite0, or that of the run]")
@click.option(
    "--weights",
    default="DEFAULT",
    show_default=True,
    help="DEFAULT, a name, a tag, a file (./PATH), a fine-tuned run (run:NAME), or none for random weights.",
)
@click.option("--seed", default=0, show_default=True, type=WholeNumber(0, 2**63 - 1), help="Seed of random weights.")
@click.option(
    "--layer",
    multiple=True,
    metavar="NAME",
    help="Use the output of this module, or its input (NAME:input); repeat to concatenate several.  "
    "[default: the classifier's input]",
)
@click.option(
    "--pool",
    type=click.Choice(POOLS),
    help="How the positions of a layer are pooled.  [default: avg, if it has positions]",
)
@click.option(
    "--flip", is_flag=True, help="Average the features of each image and its mirror image, which takes twice as long."
)
@click.option(
    "--resize",
    type=WholeNumber(1, LARGEST_SIDE),
    help="Size before the crop, in pixels.  [default: that of the weights]",
)
@click.option(
    "--crop",
    type=WholeNumber(1, LARGEST_SIDE),
    help="Size of the crop, in pixels.  [default: that of the weights]",
)
@click.option(
    "--restore-exclude",
    multiple=True,
    metavar="PATTERN",
    help="Do not restore these tensors of a weights file. May be repeated.",
)
@click.option("--allow-partial", is_flag=True, help="Restore the tensors that match; the others stay random.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="Precision of the computation. auto: the fastest that the hardware supports and that is accurate enough.",
)
@click.option(
    "--fast-jpeg", is_flag=True, help="Decode large JPEGs at a fraction of their size; features change slightly."
)
@click.option("--no-labels", is_flag=True, help="Use every image in IMAGES, without labels.")
@column_options()
@click.option("--batch-size", type=WholeNumber(1, 4096), help="Images per batch.")
@click.option("--threads", type=WholeNumber(1, 1024), help="Number of decoding threads.")
@click.option("--engine", type=click.Choice(ENGINES), default="auto", show_default=True, help="Inference engine.")
@click.option(
    "--device", help="Device as in torch.device, or several (cuda:0,cuda:1).  [default: all GPUs, otherwise cpu]"
)
@click.option("--compile", is_flag=True, help="Compile the network with torch.compile, which takes minutes.")
@click.option("--max-pixels", type=WholeNumber(1), help="Refuse images with more pixels.  [default: 178956970]")
@images_memory
@click.option("--rehash", is_flag=True, help="Read every file again instead of using stored digests.")
@click.option(
    "--max-failures",
    default="10%",
    show_default=True,
    callback=_limit,
    metavar="N|N%",
    help="Exit with 1 if more images fail; the features of usable images are kept.",
)
@click.option("--strict", is_flag=True, help="Same as --max-failures 0.")
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
    """Compute and cache the features of IMAGES that are not cached yet.

    IMAGES is a folder with one folder per class; a folder with train, val and test folders that contain the class
    folders; a CSV with columns path,label[,split][,group]; or, with --no-labels, any folder or file. If columns have
    other names, give them with --label-column and similar options; later commands remember them. IMAGES defaults to the
    images last extracted in this folder with this cache, otherwise to the folder itself.
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
