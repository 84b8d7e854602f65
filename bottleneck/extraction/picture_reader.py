"""Read pictures of a dataset by row: a file counts only if its bytes are still those that were scanned."""

import numpy as np

from bottleneck.errors import ImageError
from bottleneck.extraction.loading import Loader
from bottleneck.images.dataset import Dataset
from bottleneck.images.decode import Decoded
from bottleneck.images.keys import DigestSet


class PictureReader:
    """Reads pictures by the first row of their digest; a copy at another path is tried if a file has changed.

    Parameters
    ----------
    dataset : Dataset
    loader : Loader
        Decides the size of the pixels.
    """

    def __init__(self, dataset: Dataset, loader: Loader) -> None:
        self._dataset, self._loader = dataset, loader
        self._copies: dict[int, list[int]] = {}
        places = DigestSet(dataset.digests).find(dataset.digests)
        for row in np.flatnonzero(places != np.arange(len(dataset))).tolist():
            self._copies.setdefault(int(places[row]), []).append(row)

    def read(self, row: int) -> Decoded | ImageError:
        """Return the pixels of an image, or the error of the last of its files."""
        digest, problem = self._dataset.digests[row].tobytes(), ImageError("unreadable", "no path")
        for place in (row, *self._copies.get(row, ())):
            try:
                loaded = self._loader.load(self._dataset.paths[place], lambda read: read == digest)
            except ImageError as error:
                problem = error
                continue
            if isinstance(loaded.found, Decoded):
                return loaded.found
            problem = loaded.found or ImageError("changed", "the file changed since it was scanned")
        return problem
