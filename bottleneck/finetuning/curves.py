"""The learning curves of a fine-tuning, as a CSV table and as a plot."""

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bottleneck.utils.csv_text import csv_lines
from bottleneck.utils.process_settings import environment_variable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bottleneck.finetuning.history import Epoch

COLUMNS = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds")
_TRAIN, _VAL, _HEAD = "#6b7a8f", "#0b6bcb", "#c0392b"
_DPI = 120
_MARGINS = {"left": 0.09, "right": 0.985, "bottom": 0.14, "top": 0.88, "wspace": 0.24}  # as a share of the figure


def table(epochs: "Sequence[Epoch]") -> str:
    """Return the curves as CSV; values that epoch 0 lacks are empty."""
    rows: list[Sequence[str]] = [COLUMNS]
    for epoch in epochs:
        values = (
            epoch.number,
            epoch.train_loss,
            epoch.train_accuracy,
            epoch.val_loss,
            epoch.val_accuracy,
            epoch.lr,
            epoch.seconds,
        )
        rows.append(["" if value is None else f"{value:.6g}" for value in values])
    return "".join(csv_lines(rows))


def plot(epochs: "Sequence[Epoch]", best: int, title: str, head: bool) -> bytes:
    """Return a PNG of loss and accuracy by epoch, with the values of the head as horizontal lines.

    Parameters
    ----------
    epochs : sequence of Epoch
        The first is epoch 0.
    best : int
        The epoch to mark.
    title : str
    head : bool
        Whether epoch 0 is a fitted head, whose values are drawn as lines.
    """
    with temporary_matplotlib_folders():
        from matplotlib import style
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        with style.context("default"):  # ignores a matplotlibrc in the current folder
            figure = Figure(figsize=(9, 3.6))
            figure.subplots_adjust(**_MARGINS)
            FigureCanvasAgg(figure)
            draw(figure, epochs, best, title, head)
            data = io.BytesIO()
            figure.savefig(data, format="png", dpi=_DPI, metadata={"Software": None})
    return data.getvalue()


@contextmanager
def temporary_matplotlib_folders(imported: bool | None = None, platform: str = sys.platform) -> Iterator[None]:
    """Let matplotlib write its font list to a temporary folder instead of the home folder.

    Do nothing if the caller has imported matplotlib before, or has set ``MPLCONFIGDIR``.
    """
    if imported is None:
        imported = "matplotlib" in sys.modules
    if imported or os.environ.get("MPLCONFIGDIR"):
        yield
        return
    with TemporaryDirectory(prefix="bottleneck-", ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        for name in _variables(platform):
            stack.enter_context(environment_variable(name, folder))
        yield


def _variables(platform: str) -> tuple[str, ...]:
    """Return the environment variables of the folders that matplotlib writes to, except a folder with user settings."""
    if not platform.startswith(("linux", "freebsd")):
        settings = Path(os.path.expanduser("~"), ".matplotlib", "matplotlibrc")
        return () if settings.is_file() else ("MPLCONFIGDIR",)
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "matplotlib")
    return ("XDG_CACHE_HOME",) if settings.is_dir() else ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")


def draw(figure: "Figure", epochs: "Sequence[Epoch]", best: int, title: str, head: bool) -> None:
    """Draw loss and accuracy into an empty figure; see `plot`."""
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2)
    _draw(left, epochs, best, "loss", 1.0, head)
    _draw(right, epochs, best, "accuracy", 100.0, head)
    left.set_ylabel("loss (cross-entropy, nats)")
    right.set_ylabel("accuracy, %")
    left.set_ylim(bottom=0)
    left.ticklabel_format(axis="y", scilimits=(-2, 4))  # so that the numbers fit into the margin
    right.legend(fontsize=8, loc="best")


def _draw(axes: "Axes", epochs: "Sequence[Epoch]", best: int, what: str, scale: float, head: bool) -> None:
    for part, colour in (("train", _TRAIN), ("val", _VAL)):
        points = [(epoch.number, getattr(epoch, f"{part}_{what}")) for epoch in epochs]
        known = [(number, scale * value) for number, value in points if value is not None]
        name = {"train": "train", "val": "validation"}[part]
        if known:
            axes.plot(*zip(*known, strict=True), color=colour, marker="o", markersize=3, linewidth=1.5, label=name)
    if head:
        level = scale * getattr(epochs[0], f"val_{what}")
        axes.axhline(level, color=_HEAD, linestyle="--", linewidth=1, label="head (validation)")
    axes.plot(
        best,
        scale * getattr(epochs[best], f"val_{what}"),
        color=_VAL,
        marker="o",
        markersize=9,
        fillstyle="none",
        linestyle="none",
        label="best epoch",
    )
    last = max(1, epochs[-1].number)
    axes.set_xlim(-0.04 * last, 1.04 * last)
    axes.set_xlabel("epoch")
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
