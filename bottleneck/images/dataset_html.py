"""A dataset in a notebook: the images of each class and split."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bottleneck.charts.html import block, html_table, line, note
from bottleneck.charts.markup import Markup
from bottleneck.images.splits import SPLITS
from bottleneck.utils.text import counted

_CLASSES = 20  # rows of the table
_NONE = "no label"


def dataset_html(
    source: Path, labels: Sequence[str | None], splits: Sequence[str], failures: int, most: int = _CLASSES
) -> Markup:
    """Return the number of images of each class and split; of many classes those of the largest.

    Parameters
    ----------
    source : Path
        Of the images; its last part is the title.
    labels : sequence of str or None, length n
    splits : sequence of str, length n
    failures : int
        Number of images that could not be read.
    most : int
        Number of classes that are shown.
    """
    counts = Counter(zip(labels, splits, strict=True))
    sizes, names = Counter(labels), [name for name in SPLITS if name in set(splits)]
    shown = (
        sizes.most_common(most) if len(sizes) > most else sorted(sizes.items(), key=lambda one: (one[0] is None, one))
    )
    header = ["class", *names, *(["all"] if len(names) > 1 else [])]
    rows = [
        [_NONE if label is None else label, *(f"{counts[label, name]:,}" for name in names)]
        + ([f"{size:,}"] if len(names) > 1 else [])
        for label, size in shown
    ]
    return block(
        source.name or str(source),
        line(f"{counted(len(labels), 'image')}, {counted(len(sizes.keys() - {None}), 'class')}"),
        html_table(header, rows, numbers=header[1:], more=len(sizes) - len(rows)) if labels else None,
        note(f"{counted(failures, 'image')} could not be read: see failures") if failures else None,
    )
