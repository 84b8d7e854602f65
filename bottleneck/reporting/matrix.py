"""The confusion matrix of a page: a table of few classes, or a heat map and the most confused pairs of many."""

from collections.abc import Sequence
from dataclasses import dataclass

from bottleneck.charts.heatmap import heatmap
from bottleneck.charts.markup import Markup
from bottleneck.reporting.held_out import Cell, HeldOutImage, HeldOutImages

TABLE_CLASSES = 30  # with more, a table is not readable
PAIRS = 20
OPENED = 24  # images of a cell, at most


@dataclass(frozen=True, kw_only=True)
class MatrixCell:
    """A cell of the matrix, or a pair of classes.

    Parameters
    ----------
    label, predicted : str
    count : int
    share : float
        Of the images of the label.
    key : str
        The name of the part of the page that shows its images; empty if there is none.
    """

    label: str
    predicted: str
    count: int
    share: float
    key: str

    @property
    def is_right(self) -> bool:
        """Whether the prediction is the label."""
        return self.label == self.predicted


@dataclass(frozen=True, kw_only=True)
class MatrixView:
    """The confusion matrix of held-out images.

    Parameters
    ----------
    classes : tuple of str
    rows : tuple of tuple of MatrixCell
        All cells in the order of the classes; empty with more than `TABLE_CLASSES`.
    picture : Markup or None
        The heat map of more classes.
    pairs : tuple of MatrixCell
        The most confused pairs of classes.
    opened : tuple of MatrixCell
        The cells whose images are shown, those of errors first.
    """

    classes: tuple[str, ...]
    rows: tuple[tuple[MatrixCell, ...], ...]
    picture: Markup | None
    pairs: tuple[MatrixCell, ...]
    opened: tuple[MatrixCell, ...]

    def images_of(self, cell: MatrixCell, tested: HeldOutImages) -> Sequence[HeldOutImage]:
        """Return the images of a cell that are shown, the most confident prediction first."""
        return tested.cells.get((cell.label, cell.predicted), [])[:OPENED]


def matrix_view(classes: Sequence[str], tested: HeldOutImages) -> MatrixView:
    """Return the confusion matrix of held-out images.

    Parameters
    ----------
    classes : sequence of str
        The evaluated classes.
    tested : HeldOutImages
    """
    code = {name: place for place, name in enumerate(classes)}
    code |= {name: place for place, name in enumerate(_unknown(code, tested), len(code))}
    counts = {cell: len(images) for cell, images in tested.cells.items()}
    totals: dict[str, int] = {}
    for (label, _), count in counts.items():
        totals[label] = totals.get(label, 0) + count
    wrong = sorted((cell for cell in counts if cell[0] != cell[1]), key=lambda cell: (-counts[cell], cell))
    is_table = len(code) <= TABLE_CLASSES
    right = sorted((cell for cell in counts if cell[0] == cell[1]), key=lambda cell: code[cell[0]]) if is_table else []
    keys = {cell: f"cell-{code[cell[0]]}-{code[cell[1]]}" for cell in [*(wrong if is_table else wrong[:PAIRS]), *right]}

    def made(cell: Cell) -> MatrixCell:
        count = counts.get(cell, 0)
        share = count / totals[cell[0]] if count else 0.0
        return MatrixCell(label=cell[0], predicted=cell[1], count=count, share=share, key=keys.get(cell, ""))

    return MatrixView(
        classes=tuple(code),
        rows=tuple(tuple(made((a, b)) for b in code) for a in code) if is_table else (),
        picture=None if is_table else _picture(code, counts, keys),
        pairs=tuple(map(made, wrong[:PAIRS])),
        opened=tuple(map(made, keys)),
    )


def _unknown(code: dict[str, int], tested: HeldOutImages) -> list[str]:
    return sorted({name for cell in tested.cells for name in cell} - set(code))


def _picture(code: dict[str, int], counts: dict[Cell, int], keys: dict[Cell, str]) -> Markup:
    names = list(code)

    def link(row: int, column: int) -> str | None:
        key = keys.get((names[row], names[column]))
        return f"#{key}" if key else None

    cells = [(code[a], code[b], count) for (a, b), count in sorted(counts.items())]
    return heatmap(cells, names, title="Labels and predictions", link=link)
