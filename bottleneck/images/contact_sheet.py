"""Contact sheets: small pictures with captions, which notebooks show."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottleneck.charts.html import note
from bottleneck.charts.markup import Markup, element, markup
from bottleneck.errors import ImageError, ImagesError
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.text import counted, one_line

MOST = 24  # pictures, by default
SIDE = 128  # pixels, by default
LARGEST_SIDE = 1024
_FRAME = "1px dashed var(--jp-border-color2,rgba(127,127,127,.5))"


@dataclass(frozen=True)
class Tile:
    """One picture of a contact sheet.

    Parameters
    ----------
    path : str
    caption : str
        Below the picture.
    digest : bytes, optional
        SHA-256 that the file must have.
    tooltip : str, optional
        By default the path.
    """

    path: str
    caption: str
    digest: bytes | None = None
    tooltip: str | None = None


class ContactSheet(Sequence[Tile]):
    """Small pictures with captions, which notebooks show.

    A sequence of `Tile`. The pictures are decoded when it is shown; one that cannot be decoded is shown as such.

    Parameters
    ----------
    tiles : iterable of Tile
    left_out : int
        Number of images that are not shown, which it tells.
    columns : int, optional
        By default as many as there is room for.
    size : int
        Length of the longer side of each picture, in pixels.
    """

    def __init__(
        self, tiles: Iterable[Tile], *, left_out: int = 0, columns: int | None = None, size: int = SIDE
    ) -> None:
        self.tiles = tuple(tiles)
        self.left_out = left_out
        self.columns = columns
        self.size = size

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: Any) -> Any:
        return self.tiles[index]

    def __repr__(self) -> str:
        left_out = f"{self.left_out:,} left out" if self.left_out else ""
        return one_line(self, counted(len(self), "image"), left_out)

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> Markup:
        """Return the sheet as HTML, which loads nothing."""
        count = "auto-fill" if self.columns is None else str(self.columns)
        style = (
            f"display:grid;grid-template-columns:repeat({count},{self.size}px);gap:12px;margin:.5em 0;overflow-x:auto"
        )
        sheet = element("div", *(_figure(tile, self.size) for tile in self.tiles), style=style)
        return markup(sheet, note(f"{counted(self.left_out, 'more image')} left out") if self.left_out else None)


def contact_sheet(
    tiles: Callable[[int], Tile],
    count: int,
    rows: Any = None,
    *,
    columns: Any = None,
    size: Any = SIDE,
    most: Any = MOST,
) -> ContactSheet:
    """Return a contact sheet of some images.

    Parameters
    ----------
    tiles : callable
        Returns the tile of a row.
    count : int
        Number of rows.
    rows, columns, size, most
        See `bottleneck.images.dataset.Dataset.show`.

    Raises
    ------
    ImagesError
        If there is no such row, or the sheet cannot be laid out.
    """
    check = Arguments(ImagesError)
    columns = check.optional(check.whole, "columns", columns, least=1)
    size, most = check.whole("size", size, least=16, most=LARGEST_SIDE), check.whole("most", most, least=1)
    chosen = spread_rows(count, most) if rows is None else _given_rows(rows, count)
    left_out = (count if rows is None else len(chosen)) - len(chosen[:most])
    return ContactSheet(map(tiles, chosen[:most]), left_out=left_out, columns=columns, size=size)


def spread_rows(count: int, most: int) -> list[int]:
    """Return at most so many rows, evenly spread over all of them."""
    shown = min(count, most)
    return [place * count // shown for place in range(shown)]


def _given_rows(rows: Any, count: int) -> list[int]:
    """Return the rows that a caller names: numbers, a slice, or a mask.

    Raises
    ------
    ImagesError
        If one does not exist.
    """
    if isinstance(rows, slice):
        return list(range(count)[rows])
    listed = np.atleast_1d(np.asarray(rows if isinstance(rows, np.ndarray | int) else list(rows)))
    if listed.dtype == bool and listed.shape == (count,):
        return [int(row) for row in np.flatnonzero(listed)]
    if listed.size and (listed.ndim != 1 or not np.issubdtype(listed.dtype, np.integer)):
        raise ImagesError(f"expected numbers of rows, a slice, or a mask of {count} values, got {rows!r:.80}")
    beyond = [row for row in listed.tolist() if not -count <= row < count]
    if beyond:
        raise ImagesError(f"expected rows from 0 to {count - 1}, got {beyond[0]}")
    return [range(count)[row] for row in listed.tolist()]


def _figure(tile: Tile, size: int) -> Markup:
    text = "font-size:12px;line-height:1.3;margin-top:3px;max-height:2.6em;overflow:hidden;overflow-wrap:anywhere"
    caption = element("figcaption", element("bdi", tile.caption), style=text)
    return element(
        "figure", _picture(tile, size), caption, title=tile.tooltip or tile.path, style="margin:0;min-width:0"
    )


def _picture(tile: Tile, size: int) -> Markup:
    """Return a picture, or a frame that says why there is none."""
    from bottleneck.images.small_picture import (
        small_picture,
    )  # Pillow is slow to import, and datasets need it here only

    box = f"height:{size}px;display:flex;align-items:flex-end"
    try:
        address = small_picture(tile.path, size, tile.digest)
    except ImageError as error:
        why = element("div", f"{error.code}: {error}", style="font-size:11px;overflow:hidden;padding:4px")
        return element("div", why, style=f"{box};box-sizing:border-box;border:{_FRAME};overflow:hidden")
    image = element("img", src=address, alt=tile.caption, style="max-width:100%;max-height:100%;margin:0")
    return element("div", image, style=box)
