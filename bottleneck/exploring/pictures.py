"""Pictures of the dataset as JPEG: small cells for the map, and whole ones, made by the decoder of extractions."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from bottleneck.errors import ImageError
from bottleneck.extraction.loading import Loader
from bottleneck.extraction.memory import MemoryBudget
from bottleneck.extraction.picture_reader import PictureReader
from bottleneck.images.dataset import Dataset
from bottleneck.images.decode import Decoded, Reserve, decode
from bottleneck.images.picture_memo import PictureMemo
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.images.small_picture import as_jpeg, fitted, without_border

CELL = 64  # pixels of a side of a cell in an atlas
SIZES = (96, 256, 1024)  # of the longest side of a whole picture
NAME = "cells.sqlite"  # in the folder of a cache
_TABLE = "cells_1"
_QUALITY, _CELL_QUALITY = 88, 85
_MEMORY = 256 << 20  # bytes for the files and pixels that are decoded at once
_THREADS = 2


class Pictures:
    """The pictures of a dataset, whose files are read only if they are unchanged since the scan.

    Parameters
    ----------
    dataset : Dataset
        All images, copies too.
    cache : Path
        The folder with the memo of cells.
    memory : int
        Bytes for files and pixels.
    """

    def __init__(self, dataset: Dataset, cache: Path, memory: int = _MEMORY) -> None:
        budget = MemoryBudget(memory)
        self._digests = dataset.digests
        self._memo = PictureMemo(cache / NAME, _TABLE)
        self._cells = PictureReader(dataset, Loader(budget, fitted(CELL, "center")))
        self._wholes = {
            size: PictureReader(dataset, Loader(budget, fitted(size), decode=_decode_whole)) for size in SIZES
        }
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="cells")

    def cells(self, rows: Iterable[int]) -> dict[int, bytes]:
        """Return the cells of some images as JPEG of 64 x 64 pixels, by row; those that cannot be decoded have none.

        A cell shows the largest square in the middle of the picture.
        """
        digest_of = {row: self._digests[row].tobytes() for row in rows}
        known = self._memo.get(list(digest_of.values()))
        lacking = [row for row, digest in digest_of.items() if digest not in known]
        fresh: dict[bytes, bytes] = {}
        for row, found in zip(lacking, self._pool.map(self._cells.read, lacking), strict=True):
            if isinstance(found, Decoded):
                fresh[digest_of[row]] = as_jpeg(found.pixels, _CELL_QUALITY)
        self._memo.put(fresh.items())
        known |= fresh
        return {row: known[digest] for row, digest in digest_of.items() if digest in known}

    def whole(self, row: int, size: int) -> bytes:
        """Return a whole picture as JPEG, upright; its longest side has at most `size` pixels, one of `SIZES`.

        Raises
        ------
        ImageError
            If its file cannot be read or decoded, or has changed.
        """
        found = self._wholes[size].read(row)
        if isinstance(found, ImageError):
            raise found
        return as_jpeg(found.pixels, _QUALITY)

    def size(self, row: int) -> tuple[int, int]:
        """Return the width and height of a picture, upright; see `whole` for errors."""
        found = self._wholes[SIZES[0]].read(row)
        if isinstance(found, ImageError):
            raise found
        return found.size

    def close(self) -> None:
        """End the threads that decode."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _decode_whole(data: bytes, preprocessing: Preprocessing, max_pixels: int, reserve: Reserve) -> Decoded:
    """Decode a picture whose longest side is at most the size of the preprocessing; a smaller one is not enlarged."""
    found = decode(data, preprocessing, max_pixels, reserve)
    side, longest = preprocessing.resize_size[0], max(found.size)
    if longest < side:
        side, found = longest, decode(data, fitted(longest), max_pixels, reserve)
    return replace(found, pixels=without_border(found, side))
