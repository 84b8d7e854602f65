"""What is to be done for a set of images, and what has been done so far."""

import random
from dataclasses import dataclass, field, replace

import numpy as np

from bottleneck.errors import ImageError, ImagesError
from bottleneck.extraction.claims import Claims
from bottleneck.extraction.memory import LEAST_MEMORY, usual_memory
from bottleneck.images.decode import MAX_PIXELS
from bottleneck.images.file_index import FileIndex
from bottleneck.images.keys import DigestSet, as_digests
from bottleneck.utils.arguments import Arguments

_BLOCK = 256  # files that are read in the order of their paths


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How images are read and decoded.

    Parameters
    ----------
    threads : int or None
        That decode; by default one a core.
    max_pixels : int
        Larger images are refused.
    memory : int, optional
        Bytes that files, pixels and features may take together; by default what `usual_memory` says.
    share : (int, int)
        ``(i, n)``: of n processes that divide the images this is the i-th, from 0.
    """

    threads: int | None = None
    max_pixels: int = MAX_PIXELS
    memory: int | None = None
    share: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        check = Arguments(ImagesError)
        memory = check.optional(check.whole, "--memory", self.memory, least=LEAST_MEMORY)
        object.__setattr__(self, "memory", memory)
        object.__setattr__(self, "threads", check.optional(check.whole, "--threads", self.threads, least=1))
        object.__setattr__(self, "max_pixels", check.whole("--max-pixels", self.max_pixels, least=1))

    def divided(self, processes: int) -> "Settings":
        """Return those of each of several processes on this machine, which have the memory together."""
        each = usual_memory(processes) if self.memory is None else self.memory // processes
        return replace(self, memory=max(LEAST_MEMORY, each))


@dataclass
class Work:
    """What one pass over the images has done so far."""

    computed: set[bytes] = field(default_factory=set)  # digests
    undecodable: dict[bytes, ImageError] = field(default_factory=dict)  # by digest
    unread: dict[bytes, ImageError] = field(default_factory=dict)  # by digest, of known files not to be read again
    notes: dict[bytes, str] = field(default_factory=dict)  # by digest
    engine: str | None = None


@dataclass(frozen=True)
class Item:
    """An image to read, at any of these rows of the survey; its digest, where it is known."""

    rows: list[int]
    digest: bytes | None


def items_of(survey: FileIndex, claims: Claims, share: tuple[int, int]) -> list[Item]:
    """Return what must be read: unknown files, and known images without features."""
    items = [Item([row], None) for row in survey.unknown()]
    rows = [row for row, digest in enumerate(survey.digests) if digest is not None]
    digests = as_digests([survey.digests[row] or b"" for row in rows])
    first = DigestSet(digests).find(digests)
    copies: dict[int, list[int]] = {}
    for place in np.flatnonzero(~claims.index.has(digests)).tolist():
        copies.setdefault(int(first[place]), []).append(rows[place])
    for place, same in copies.items():
        digest = digests[place].tobytes()
        if digest not in claims.known:
            items.append(Item(same, digest))
    return _shuffled(sorted(items, key=lambda item: item.rows[0]), len(survey.paths), share)


def _shuffled(items: list[Item], files: int, share: tuple[int, int]) -> list[Item]:
    """Return the share of the items in blocks of neighbours, the blocks in an order of this process's own.

    Processes that extract the same images at once then begin in different places, and each skips what the others have
    committed. Neighbours stay together, since disks read on.
    """
    number, count = share
    size = max(1, min(_BLOCK, files // (16 * count)))
    blocks: dict[int, list[Item]] = {}
    for item in items:
        blocks.setdefault(item.rows[0] // size, []).append(item)
    mine = [blocks[block] for block in blocks if block % count == number]  # by row: the same for all, whatever is left
    random.SystemRandom().shuffle(mine)
    return [item for block in mine for item in block]
