"""Verify a shard once, piece by piece; its rows can then be read directly from the file."""

import hashlib
import math
import os
from contextlib import closing
from dataclasses import dataclass
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.spec import Spec
from bottleneck.cache.shard import PIECE_BYTES, DatasetLayout, damaged_error, expect_sound, layouts, opened, parsing
from bottleneck.errors import CacheError, ShardError
from bottleneck.images.clock import written_back
from bottleneck.images.digest import Signature, signature
from bottleneck.images.keys import Digests

BLOCK_BYTES = 2 << 20  # of features read at once; `write_shard` makes chunks half as large
_FLOAT16_INFINITY = 0x7C00  # without the sign bit; larger bit patterns are NaN


@dataclass(frozen=True)
class VerifiedShard:
    """Layout of a shard whose bytes match its name; valid as long as the file is unchanged.

    Parameters
    ----------
    path : Path
    file : Signature
        Of the file that was verified.
    dim : int
    dtype : dtype
        Of the features.
    starts : ndarray of int, shape (m + 1,)
        The first row of each block, followed by the number of rows. The rows of a block are contiguous.
    offsets : ndarray of int, shape (m,)
        Byte offset of each block in the file.
    """

    path: Path
    file: Signature
    dim: int
    dtype: np.dtype[Any]
    starts: NDArray[np.intp]
    offsets: NDArray[np.intp]

    @property
    def row_bytes(self) -> int:
        """Size of one row in bytes."""
        return self.dim * self.dtype.itemsize

    def read(self, descriptor: int, block: int, first: int, out: NDArray[Any]) -> bool:
        """Read rows of a block into `out`, starting at row `first` of the shard; return False if the file is too short.

        The rows are the verified ones only if `is_unchanged` returns True afterwards.
        """
        offset = self.offsets[block] + (first - self.starts[block]) * self.row_bytes
        return read_into(descriptor, out, int(offset))

    def is_unchanged(self, descriptor: int | None = None) -> bool:
        """Return whether the shard's file, or an open descriptor of it, is unchanged since it was verified."""
        try:
            return signature(os.stat(self.path) if descriptor is None else os.fstat(descriptor)) == self.file
        except OSError:
            return False


def verify_shard(path: Path, spec: Spec, block_bytes: int = BLOCK_BYTES) -> tuple[VerifiedShard, Digests]:
    """Verify a shard; return its layout, in blocks of at most `block_bytes`, and the digests ``(n, 32)`` of its rows.

    Raises
    ------
    ShardError
        If the shard is damaged, hostile, of another spec or of a newer format, or a feature is not finite.
    CacheError
        If the shard cannot be read at the moment. It may be intact.
    FileNotFoundError
        If the shard does not exist, or was replaced while it was read.
    """
    with opened(path) as (file, _):
        status = written_back(file.fileno())  # later changes through a memory map change the signature
        if _sha256(file) != path.stem:
            raise damaged_error(path)
        digests, features = _parsed(file, path, spec, status.st_size)
        dim, dtype = features.shape[1], features.dtype
        shard = VerifiedShard(path, signature(status), dim, dtype, *_blocks(features, block_bytes))
        found = _read_digests(file.fileno(), digests)
        finite = _all_finite(file.fileno(), shard)
        if not shard.is_unchanged(file.fileno()):  # the hashed bytes may not be the parsed ones
            raise FileNotFoundError(f"{path} changed while it was read")
        if not finite:
            raise ShardError(f"{path}: expected finite features, found NaN or infinity")
        return shard, found


def read_into(descriptor: int, out: NDArray[Any], offset: int) -> bool:
    """Fill the contiguous array `out` with bytes of a file from `offset`; return False if the file is too short."""
    view = out.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view) and (count := os.preadv(descriptor, [view[done:]], offset + done)):
        done += count
    return done == len(view)


def _sha256(file: FileIO) -> str:
    piece, digest = memoryview(bytearray(PIECE_BYTES)), hashlib.sha256()
    while count := file.readinto(piece):
        digest.update(piece[:count])
    return digest.hexdigest()


def _parsed(file: FileIO, path: Path, spec: Spec, size: int) -> tuple[DatasetLayout, DatasetLayout]:
    """Return the layouts of the digests and the features, parsed from the file that was hashed."""
    expect_sound(path, lambda offset, length: os.pread(file.fileno(), length, offset), size)
    reader = _ErrorKeepingReader(file, size)
    problem: BaseException | None = None
    try:
        with parsing(path), closing(h5py.File(reader, "r")) as parsed:
            found = layouts(parsed, path, spec, size)
    except CacheError as error:
        problem = error
    problem = reader.error or problem
    if problem is None:
        return found
    # Objects in h5py's frames that live until the process exits would crash it.
    problem.__traceback__ = problem.__cause__ = problem.__context__ = None
    raise problem


class _ErrorKeepingReader:
    """A file that stores its first error instead of raising it: an exception must not pass through HDF5."""

    def __init__(self, file: FileIO, size: int) -> None:
        self._file = file
        self._size = size
        self._position = 0
        self.error: BaseException | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to any position, even outside the file, which a damaged file may request."""
        self._position = offset + (self._size if whence == os.SEEK_END else 0)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer, with zeros outside the file."""
        done = 0
        try:
            if 0 <= self._position < self._size:
                self._file.seek(self._position)
                done = self._file.readinto(buffer)
        except BaseException as error:  # KeyboardInterrupt too
            self.error = self.error or error
        buffer[done:] = bytes(len(buffer) - done)
        self._position += len(buffer)
        return len(buffer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _blocks(layout: DatasetLayout, block_bytes: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first row of each block, followed by the number of rows, and the offset of each block.

    A block is a chunk, or an equal part of a chunk that is too large to read at once.
    """
    count, width = layout.shape
    row_bytes = width * layout.dtype.itemsize
    step = math.ceil(layout.height / math.ceil(layout.height * row_bytes / max(block_bytes, row_bytes)))
    starts, offsets = [], []
    for top, offset in zip(range(0, count, layout.height), layout.offsets, strict=True):
        for start in range(top, min(top + layout.height, count), step):
            starts.append(start)
            offsets.append(offset + (start - top) * row_bytes)
    return np.array([*starts, count], np.intp), np.array(offsets, np.intp)


def _read_digests(descriptor: int, layout: DatasetLayout) -> Digests:
    count, width = layout.shape
    digests = np.zeros((count, width), layout.dtype)
    for start, offset in zip(range(0, count, layout.height), layout.offsets, strict=True):
        read_into(descriptor, digests[start : start + layout.height], offset)
    return digests


def _all_finite(descriptor: int, shard: VerifiedShard) -> bool:
    buffer = np.zeros((int(np.diff(shard.starts).max()), shard.dim), shard.dtype)
    for block, (first, last) in enumerate(pairwise(shard.starts)):
        rows = buffer[: last - first]
        shard.read(descriptor, block, first, rows)
        if not _finite(rows):
            return False
    return True


def _finite(features: NDArray[Any]) -> bool:
    if features.dtype == np.float16:  # 15 times faster than `isfinite`
        return bool((features.view(np.uint16) & 0x7FFF).max() < _FLOAT16_INFINITY)
    return bool(np.isfinite(features).all())
