"""Tiles of a map: one picture with the cells of 64 images that lie near each other."""

import io
import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bottleneck.exploring.pictures import CELL, Pictures
from bottleneck.images.small_picture import as_jpeg

TILE = 64  # images
SIDE = 8  # cells in a row
SIZES = (32, 64)  # pixels of a cell
_GREY = 128
_QUALITY = 80
_KEPT = 64  # tiles in memory


class Atlas:
    """Makes tiles, and keeps the last ones.

    Parameters
    ----------
    pictures : Pictures
    """

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._kept: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def tile(self, rows: NDArray[np.uint32], size: int) -> bytes:
        """Return the tile of at most 64 rows as JPEG: 8 x 8 cells of `size` pixels; cells without a picture are grey.

        Parameters
        ----------
        rows : ndarray of int, shape (m,)
        size : int
            One of `SIZES`.
        """
        key = rows.tobytes(), size
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = self._made([int(row) for row in rows], size)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return made

    def _made(self, rows: list[int], size: int) -> bytes:
        cells = self._pictures.cells(rows)
        sheet = np.full((SIDE * CELL, SIDE * CELL, 3), _GREY, np.uint8)
        for place, row in enumerate(rows):
            if row in cells:
                down, right = divmod(place, SIDE)
                with Image.open(io.BytesIO(cells[row]), formats=["JPEG"]) as cell:
                    pixels = np.asarray(cell.convert("RGB"))
                if pixels.shape == (CELL, CELL, 3):  # a memo may hold anything
                    sheet[down * CELL : (down + 1) * CELL, right * CELL : (right + 1) * CELL] = pixels
        if size < CELL:
            sheet = np.asarray(Image.fromarray(sheet).reduce(CELL // size))
        return as_jpeg(sheet, _QUALITY)
