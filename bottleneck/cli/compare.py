"""``bottleneck compare``."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from bottleneck.cli.column_options import column_options
from bottleneck.cli.common import at_home, check_out, command, layout_of, progress_bar, write_data
from bottleneck.cli.defaults import extracted_line, images_line
from bottleneck.cli.head_options import HEADS, head_options, split_option
from bottleneck.cli.output import data_on_stdout, put_json
from bottleneck.cli.output_options import output_options
from bottleneck.cli.pages import check_page, write_page
from bottleneck.utils.gc_paused import no_collection

_COMPARED = (*HEADS, "svm-rbf")
_OWN = (
    "images",
    "models",
    "heads",
    "learning_curve",
    "layout",
    "out",
    "report",
    "as_json",
    "debug",
)  # not options of `fit`
_ENDINGS = {".txt": "table", ".csv": "csv", ".json": "json", ".md": "markdown"}


def _names(ctx: click.Context, parameter: click.Parameter, text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _heads(ctx: click.Context, parameter: click.Parameter, text: str) -> list[str]:
    names = _names(ctx, parameter, text)
    unknown = [name for name in names if name not in _COMPARED]
    if unknown or not names:
        raise click.BadParameter(f"expected some of {', '.join(_COMPARED)}, got {text!r}", ctx, parameter)
    return names


@command("compare", short_help="Rank models and heads on the same splits.")
@click.argument("images", required=False)
@click.option(
    "--models",
    default="",
    callback=_names,
    metavar="A,B,...",
    help="Models to compare: MODEL, MODEL@WEIGHTS, a spec of `cache info`, or a run of `finetune` (run:NAME).  "
    "[default: all cached for IMAGES]",
)
@click.option(
    "--heads",
    default="logistic,svm,softmax",
    show_default=True,
    callback=_heads,
    metavar="A,B,...",
    help=f"Heads to compare: {', '.join(_COMPARED)}.",
)
@split_option
@column_options()
@head_options
@click.option(
    "--learning-curve",
    is_flag=True,
    help="Also train the best head on fewer images, and forecast its accuracy with more images.",
)
@click.option("--allow-duplicates", is_flag=True, help="Allow an image or a group in more than one split.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, readable=False),
    callback=at_home,
    metavar="FILE.html",
    help="Also write a page with charts: intervals, which rows are told apart, and what accuracy costs.",
)
@output_options(_ENDINGS.values(), "Write the table to this .txt, .csv, .json or .md file.")
def compare(
    images: str | None, layout: str | None, out: str | None, report: str | None, as_json: bool, **options: Any
) -> None:
    """Train each head on the features of each model, on the same images, splits and folds, and rank them.

    Missing features are extracted first. IMAGES defaults to the images last extracted in this folder. Cross-validation
    selects the best row, and the other rows are tested against it on the held-out split. No run is saved; use `fit` for
    that.
    """
    layout = layout_of(out, layout, _ENDINGS, "table")
    is_written = bool(out) or (layout != "table" and not as_json)
    with no_collection():
        from bottleneck.cli.show_compare import comparison_report, comparison_text
        from bottleneck.comparison.compare import compare as run

    check_out(out, [images] if images else [])
    check_page("--report", report, images, out)
    if options["models"]:
        extracted_line(images, options["cache"])
    else:
        images_line(images, options["cache"], "all cached")
    with progress_bar(hidden=as_json) as progress:
        found = run(images, progress=progress, **options)
    with data_on_stdout(is_written):
        comparison_report(found, _given_options())
        if report:
            from bottleneck.reporting.comparison import comparison_page

            write_page(report, comparison_page(found, _given_options()))
    if is_written:
        write_data(out, lambda target: target.write(comparison_text(found, layout)))
    if as_json:
        put_json(found.to_json())


def _given_options() -> list[str]:
    """Return the words of the options that the user gave and that `fit` takes, too."""
    ctx, words = click.get_current_context(), []
    for option in ctx.command.params:
        name = option.name or ""
        if name in _OWN or ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[name]
        words.append(option.opts[0])
        if name == "C":
            words.append(",".join(map(str, value)))
        elif name == "memory":
            words.append(str(value / 1e9))
        elif value is not True:
            words.append(str(value))
    return words
