"""Heat maps of counts, such as confusion matrices."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bottleneck.charts.drawing import SMALL, WIDTH, drawing, label, nothing
from bottleneck.charts.labels import isolated, shortened, width_of
from bottleneck.charts.markup import Markup, element, number
from bottleneck.charts.numbers import percent
from bottleneck.charts.theme import FAINT, WRONG, colour

Link = Callable[[int, int], str | None]

_NUMBERED = 20  # up to this number of classes, cells show their count
_BLOCKS = 100  # rows and columns that are drawn; with more classes, neighbours share one
_OWN = 400  # cells with an element and tooltip; the others share one for each shade
_SHADES = 8
_STRONGEST = 0.62  # opacity of the shade of a full row, on which text is readable on white and on black
_FAINTEST = 0.1
_HEAD = 30.0  # height of the names above, without those of columns
_TURNED = 110.0  # largest length of a name of a column, which is turned
_NAMES = 0.34  # of the width, at most, for the names of rows


@dataclass(frozen=True)
class _Cell:
    row: int
    column: int
    count: int
    share: float


@dataclass(frozen=True)
class _Grid:
    """Where cells are: the upper left corner and the size of one."""

    left: float
    top: float
    side: float

    def x(self, column: float) -> float:
        return self.left + column * self.side

    def y(self, row: float) -> float:
        return self.top + row * self.side


def heatmap(
    cells: Iterable[Sequence[int]],
    names: Sequence[str],
    *,
    title: str,
    description: str | None = None,
    row_label: str = "label",
    column_label: str = "prediction",
    link: Link | None = None,
    width: float = WIDTH,
) -> Markup:
    """Return a square heat map of counts; each cell is shaded by its share of its row, errors more strongly.

    Parameters
    ----------
    cells : iterable of (int, int, int)
        Row, column and count of each nonzero cell, as `bottleneck.evaluation.confusion.cells_of` returns them.
    names : sequence of str
        Of the rows, and of the columns. With more than 100, neighbours share a row.
    title : str
    description : str, optional
        What the chart shows, in words; by default the largest cell outside of the diagonal.
    row_label, column_label : str
        What rows and columns are.
    link : callable, optional
        Takes the row and the column of a cell, and returns the address that it links to, or None. Cells that neighbours
        share are not linked.
    width : float
        Width in CSS pixels.

    Returns
    -------
    Markup
        An SVG element; its size does not grow with the number of names.
    """
    counts = [(int(row), int(column), int(count)) for row, column, count in cells if count > 0]
    if not names or not counts:
        return nothing(title, width)
    words = description or _words(counts, names, row_label, column_label)
    size = -(-len(names) // _BLOCKS)  # classes of a block
    found = _blocks(counts, size)
    many = -(-len(names) // size)
    shown = list(names) if many <= _NUMBERED * 2 else []
    longest = max((width_of(shortened(name, width * _NAMES, SMALL), SMALL) for name in shown), default=14.0)
    head = _HEAD + (min(longest, _TURNED) if shown else 0)
    side = min((width - longest - 12) / many, 64.0)
    grid = _Grid(longest + 10, head, side)
    tell = _Tooltips(names, size, row_label, column_label)
    parts = [*_captions(grid, many * side, row_label, column_label), *_names(grid, shown, longest)]
    own = sorted(found[:_OWN], key=lambda cell: (cell.row, cell.column))  # the order of the keyboard
    parts += _shades(found[_OWN:], grid)
    parts += [_linked(_cell(cell, grid, tell, many), cell, link if size == 1 else None) for cell in own]
    height = grid.y(many) + 10
    return drawing(parts, width=width, height=height, title=title, description=words, interactive=link is not None)


def _blocks(counts: Iterable[tuple[int, int, int]], size: int) -> list[_Cell]:
    """Return the cells, those of neighbouring classes together; outside of the diagonal the largest first."""
    sums: dict[tuple[int, int], int] = {}
    rows: dict[int, int] = {}
    for row, column, count in counts:
        place = row // size, column // size
        sums[place] = sums.get(place, 0) + count
        rows[place[0]] = rows.get(place[0], 0) + count
    cells = [_Cell(row, column, count, count / rows[row]) for (row, column), count in sums.items()]
    return sorted(cells, key=lambda cell: (cell.row != cell.column, -cell.count, cell.row, cell.column))


@dataclass(frozen=True)
class _Tooltips:
    names: Sequence[str]
    size: int
    row_label: str
    column_label: str

    def of(self, cell: _Cell) -> str:
        where = f"{self.row_label} {self._name(cell.row)}, {self.column_label} {self._name(cell.column)}"
        return f"{where}: {cell.count:,} ({percent(cell.share)} of the row)"

    def _name(self, block: int) -> str:
        first, last = block * self.size, min((block + 1) * self.size, len(self.names)) - 1
        name = isolated(self.names[first])
        return name if first == last else f"{name} to {isolated(self.names[last])}"


def _cell(cell: _Cell, grid: _Grid, tell: _Tooltips, many: int) -> Markup:
    """Return a shaded square, with its count if there is room."""
    ink = colour(0) if cell.row == cell.column else WRONG
    gap = 1.0 if grid.side > 8 else 0.0
    square = element(
        "rect",
        element("title", tell.of(cell)),
        x=grid.x(cell.column) + gap / 2,
        y=grid.y(cell.row) + gap / 2,
        width=grid.side - gap,
        height=grid.side - gap,
        style=f"fill:{ink};fill-opacity:{_opacity(cell):.2f}",
    )
    text = f"{cell.count:,}"
    size = min(13.0, grid.side * 0.42)
    if many > _NUMBERED or width_of(text, size) > grid.side - 2:
        return square
    x, y = grid.x(cell.column + 0.5), grid.y(cell.row + 0.5) + size * 0.36
    shown = element("text", text, x=x, y=y, font_size=size, text_anchor="middle", style="pointer-events:none")
    return Markup(square + shown)


def _linked(content: Markup, cell: _Cell, link: Link | None) -> Markup:
    address = link(cell.row, cell.column) if link else None
    return content if address is None else element("a", content, href=address)


def _shades(cells: Iterable[_Cell], grid: _Grid) -> list[Markup]:
    """Return one path for the cells of each shade."""
    paths: dict[tuple[str, float], list[str]] = {}
    for cell in cells:
        ink = colour(0) if cell.row == cell.column else WRONG
        level = round(_opacity(cell) * _SHADES) / _SHADES or _FAINTEST
        square = f"M{number(grid.x(cell.column))} {number(grid.y(cell.row))}h{number(grid.side)}v{number(grid.side)}"
        paths.setdefault((ink, level), []).append(f"{square}h-{number(grid.side)}z")
    return [
        element("path", d="".join(path), style=f"fill:{ink};fill-opacity:{level:.2f}")
        for (ink, level), path in paths.items()
    ]


def _opacity(cell: _Cell) -> float:
    """Return the opacity of a shade; that of an error grows with the root of its share, which shows rare ones."""
    share = cell.share if cell.row == cell.column else cell.share**0.5
    return _FAINTEST + (_STRONGEST - _FAINTEST) * share


def _captions(grid: _Grid, side: float, row_label: str, column_label: str) -> list[Markup]:
    """Return the frame, and what rows and columns are."""
    frame = element(
        "rect",
        x=grid.left,
        y=grid.top,
        width=side,
        height=side,
        fill="none",
        stroke="currentColor",
        stroke_opacity=FAINT,
    )
    down, across = f"{row_label} ↓", f"{column_label} →"
    room = (grid.left + side) / 2 - 14
    x = max(grid.left, width_of(shortened(down, room, SMALL), SMALL) + 14)
    left = label(down, 0, 12, size=SMALL, quiet=True, most=room)
    return [frame, left, label(across, x, 12, size=SMALL, quiet=True, most=grid.left + side - x)]


def _names(grid: _Grid, names: Sequence[str], longest: float) -> list[Markup]:
    """Return the names of rows and columns, every n-th of them if they are too close; columns are turned if need be."""
    if not names:
        return []
    every = max(1, -int(-13 // grid.side))
    wide = max(width_of(name, SMALL) for name in names) < grid.side - 4
    parts = []
    for place in range(0, len(names), every):
        x, y = grid.x(place + 0.5), grid.y(place + 0.5) + 4
        parts.append(label(names[place], grid.left - 6, y, anchor="end", size=SMALL, most=longest + 2))
        if wide:
            parts.append(label(names[place], x, grid.top - 6, anchor="middle", size=SMALL))
        else:
            turned = label(names[place], 0, 0, size=SMALL, most=_TURNED)
            parts.append(element("g", turned, transform=f"translate({x + 4:.1f} {grid.top - 6:.1f}) rotate(-90)"))
    return parts


def _words(counts: Iterable[tuple[int, int, int]], names: Sequence[str], row_label: str, column_label: str) -> str:
    """Return a sentence on the most frequent confusion."""
    wrong = [cell for cell in counts if cell[0] != cell[1]]
    if not wrong:
        return f"Each {row_label} agrees with its {column_label}."
    row, column, count = max(wrong, key=lambda cell: (cell[2], -cell[0], -cell[1]))
    return (
        f"The most frequent confusion: {row_label} {isolated(names[row])}, {column_label} {isolated(names[column])}, "
        f"{count:,} times."
    )
