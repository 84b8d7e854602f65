"""Draw a deterministic sample of the images, on which the precision of the features is chosen."""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import ImageError
from bottleneck.extraction.loading import Loader
from bottleneck.images.decode import Decoded
from bottleneck.images.digest import ImageFile

SAMPLE = 8
_TRIES = 64
_KNOWN, _READ = 10_000, 16
_GOLDEN = (5**0.5 - 1) / 2


def some_images(paths: Sequence[str], loader: Loader) -> list[NDArray[np.uint8]]:
    """Return up to 8 different images that can be decoded, each ``uint8 (h, w, 3)``, spread over the list.

    The result depends only on the list, not on the time to read each file. At most 64 files are tried.
    """
    found: dict[bytes, NDArray[np.uint8]] = {}
    for row in spread_rows(len(paths), _TRIES):
        with suppress(ImageError):
            loaded = loader.load(paths[row], lambda digest: digest not in found)
            if isinstance(loaded.found, Decoded):
                found[loaded.digest] = loaded.found.pixels
        if len(found) == SAMPLE:
            break
    return list(found.values())


def some_digests(paths: Sequence[str], digests: Sequence[bytes | None]) -> list[bytes]:
    """Return up to 10,000 known digests, and those of up to 16 files that are read for this purpose."""
    step = max(1, len(digests) // _KNOWN)
    found = [digest for digest in digests[::step] if digest is not None]
    unknown = [row for row, digest in enumerate(digests) if digest is None]
    for place in spread_rows(len(unknown), _READ):
        with suppress(ImageError), ImageFile(paths[unknown[place]]) as file:
            found.append(file.digest())
    return found


def spread_rows(count: int, wanted: int) -> list[int]:
    """Return up to `wanted` distinct rows of `count`, such that the first few, however many, are far apart.

    They are the multiples of the golden ratio, modulo 1 (Knuth, "The Art of Computer Programming", volume 3, section
    6.4, theorem S).
    """
    if count <= wanted:
        return sorted(range(count), key=lambda row: (row * _GOLDEN) % 1)
    return list(dict.fromkeys(int(number * _GOLDEN % 1 * count) for number in range(wanted)))
