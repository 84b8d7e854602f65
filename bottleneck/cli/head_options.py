"""Options of heads that several commands share."""

from collections.abc import Callable
from typing import Any

import click

from bottleneck.cli.memory_option import memory_option
from bottleneck.cli.numbers import LARGEST, WholeNumber

MOST_GIGABYTES = 1e9
HEADS = ["logistic", "svm", "softmax", "ridge", "knn", "centroid"]


def _values(ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[float, ...] | None:
    """Read ``--C 0.1 --C 1`` and ``--C 0.1,1`` alike."""
    try:
        values = tuple(float(part) for text in texts for part in text.split(","))
    except ValueError:
        raise click.BadParameter(
            f"expected numbers such as 0.01,0.1,1, got {' '.join(texts)}", ctx, parameter
        ) from None
    if not all(0 < value <= LARGEST for value in values):
        raise click.BadParameter(f"expected numbers above 0, got {' '.join(texts)}", ctx, parameter)
    return values or None


def as_bytes(ctx: click.Context, parameter: click.Parameter, gigabytes: float | None) -> int | None:
    """Convert gigabytes to bytes."""
    if gigabytes is None:
        return None
    return int(gigabytes * 1e9)


def _shares(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """Read ``--split 80/10/10``."""
    from bottleneck.images.splits import Shares

    try:
        return str(Shares.parse(value))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from error


split_option = click.option(
    "--split",
    default="80/10/10",
    show_default=True,
    callback=_shares,
    help="Percentages of train/val/test, for images without a given split.",
)
_OPTIONS = (
    click.option(
        "--C",
        "C",
        multiple=True,
        callback=_values,
        metavar="X[,X...]",
        help="Inverse of the regularisation strength: one value, or values to search.",
    ),
    click.option("--cv", "folds", default=5, show_default=True, type=WholeNumber(2), help="Number of folds."),
    click.option(
        "--normalize",
        default="auto",
        show_default=True,
        type=click.Choice(["auto", "shrunk", "global", "standard", "l2", "none"]),
        help="How features are scaled. auto: shrunk, unless standard is significantly better.",
    ),
    click.option(
        "--select",
        default="log-loss",
        show_default=True,
        type=click.Choice(["log-loss", "simplest", "accuracy"]),
        help="How C is chosen. accuracy: by the best balanced accuracy. log-loss and simplest: by the lowest log-loss "
        "or the strongest regularisation, among the values within one standard error of the best.",
    ),
    click.option("--class-weight", type=click.Choice(["balanced"]), help="Give each class the same total weight."),
    click.option(
        "--search",
        default="fast",
        show_default=True,
        type=click.Choice(["fast", "full"]),
        help="fast: at most about 20,000 images. full: all images, and a finer and wider grid.",
    ),
    click.option("--device", default="cpu", show_default=True, help="Device on which heads are trained: cpu or cuda."),
    memory_option(
        "Memory for features, such as 2G or 500M; if they need more, they are read in blocks.  "
        "[default: half of the free memory]"
    ),
    click.option(
        "--seed",
        default=0,
        show_default=True,
        type=WholeNumber(0, 2**32 - 1),
        help="Random seed; equal seeds give equal heads.",
    ),
)


def head_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a search to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
