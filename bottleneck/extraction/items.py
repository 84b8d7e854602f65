"""Select the files that a pass over the images must read, and their order."""

import random
from dataclasses import dataclass

import numpy as np

from bottleneck.extraction.claims import Claims
from bottleneck.images.file_index import FileIndex
from bottleneck.images.keys import DigestSet, as_digests

_BLOCK = 256  # files that are read in the order of their paths


@dataclass(frozen=True)
class Item:
    """An image to read from any of several rows of the index, with its digest if that is known."""

    rows: list[int]
    digest: bytes | None


def items_of(images: FileIndex, claims: Claims, share: tuple[int, int], block: int = _BLOCK) -> list[Item]:
    """Return the items to read: files of unknown digest, and known images without features.

    Parameters
    ----------
    images : FileIndex
    claims : Claims
    share : (int, int)
        See `bottleneck.extraction.job.ExtractionJob`.
    block : int
        Files that are read in the order of their paths, at most.
    """
    items = [Item([row], None) for row in images.unknown()]
    rows = [row for row, digest in enumerate(images.digests) if digest is not None]
    digests = as_digests([images.digests[row] or b"" for row in rows])
    first = DigestSet(digests).find(digests)
    copies: dict[int, list[int]] = {}
    for place in np.flatnonzero(~claims.index.has(digests)).tolist():
        copies.setdefault(int(first[place]), []).append(rows[place])
    for place, same in copies.items():
        digest = digests[place].tobytes()
        if digest not in claims.known:
            items.append(Item(same, digest))
    return _shuffled(sorted(items, key=lambda item: item.rows[0]), len(images.paths), share, block)


def _shuffled(items: list[Item], files: int, share: tuple[int, int], block: int) -> list[Item]:
    """Return this process's share of the items, in blocks of neighbours, the blocks in random order.

    Several processes that extract the same images then start at different places, and each skips the images that the
    others have committed. Neighbours stay together, because disks read ahead.
    """
    number, count = share
    size = max(1, min(block, files // (16 * count)))
    blocks: dict[int, list[Item]] = {}
    for item in items:
        blocks.setdefault(item.rows[0] // size, []).append(item)
    mine = [blocks[place] for place in blocks if place % count == number]  # by row: all processes divide alike
    random.SystemRandom().shuffle(mine)
    return [item for neighbours in mine for item in neighbours]
