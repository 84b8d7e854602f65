"""A shard is proven once, in pieces and little memory; its rows are then read from where they lie in the file."""

import hashlib
import math
import os
from contextlib import closing
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.spec import Spec
from bottleneck.cache.shard import PIECE_BYTES, DatasetLayout, damaged, expect_sound, layouts, opened, parsing
from bottleneck.errors import CacheError, ShardError
from bottleneck.images.clock import written_back
from bottleneck.images.digest import Signature, signature
from bottleneck.images.keys import Digests

_BLOCK_BYTES = 2 << 20  # of features that are read at once; `write_shard` makes chunks half as large
_NO_NUMBER = 0x7C00  # of float16 without its sign: infinity, and NaN above it


@dataclass(frozen=True)
class VerifiedShard:
    """What is known of a shard whose bytes match its name, as long as its file stays the same.

    Parameters
    ----------
    path : Path
    file : Signature
        Of the file that was proven.
    dim : int
    dtype : dtype
        Of the features.
    starts : ndarray of int, shape (m + 1,)
        The first row of each block, and the number of rows. The rows of a block lie side by side.
    offsets : ndarray of int, shape (m,)
        Where each block begins in the file.
    """

    path: Path
    file: Signature
    dim: int
    dtype: np.dtype[Any]
    starts: NDArray[np.intp]
    offsets: NDArray[np.intp]

    @property
    def row_bytes(self) -> int:
        """The size of one row."""
        return self.dim * self.dtype.itemsize

    def read(self, descriptor: int, block: int, first: int, out: NDArray[Any]) -> bool:
        """Read rows of a block, from row `first` of the shard on, into `out`; return whether all were there.

        They are those that were proven if the file is the one that was proven `still`, afterwards.
        """
        offset = self.offsets[block] + (first - self.starts[block]) * self.row_bytes
        return read_into(descriptor, out, int(offset))

    def still(self, descriptor: int | None = None) -> bool:
        """Return whether the shard's file, or one that is open, is as it was when it was proven."""
        try:
            return signature(os.stat(self.path) if descriptor is None else os.fstat(descriptor)) == self.file
        except OSError:
            return False


def prove(path: Path, spec: Spec) -> tuple[VerifiedShard, Digests]:
    """Return what is to be known of a shard, and the digests ``(n, 32)`` of its rows.

    Raises
    ------
    ShardError
        If the shard is damaged, hostile, of another spec or of a newer format, or a feature is not finite.
    CacheError
        If it cannot be read at the moment, which says nothing about it.
    FileNotFoundError
        If it is not there, or another file has taken its place meanwhile.
    """
    with opened(path) as (file, _):
        status = written_back(file.fileno())  # what a memory map changes from now on changes the signature
        if _sha256(file) != path.stem:
            raise damaged(path)
        digests, features = _parsed(file, path, spec, status.st_size)
        dim, dtype = features.shape[1], features.dtype
        proof = VerifiedShard(path, signature(status), dim, dtype, *_blocks(features))
        held = _held(file.fileno(), digests)
        finite = _all_finite(file.fileno(), proof)
        if not proof.still(file.fileno()):  # what was hashed may not be what was parsed
            raise FileNotFoundError(f"{path} has changed while it was read")
        if not finite:
            raise ShardError(f"{path}: expected finite features, found NaN or infinity")
        return proof, held


def read_into(descriptor: int, out: NDArray[Any], offset: int) -> bool:
    """Fill `out`, which is contiguous, with the bytes of a file from `offset` on; return whether there were enough."""
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
    """Return where the digests and the features lie, as the file that was hashed says."""
    expect_sound(path, lambda offset, length: os.pread(file.fileno(), length, offset), size)
    patient = _ErrorKeepingReader(file, size)
    problem: BaseException | None = None
    try:
        with parsing(path), closing(h5py.File(patient, "r")) as parsed:
            found = layouts(parsed, path, spec, size)
    except CacheError as error:
        problem = error
    problem = patient.error or problem
    if problem is None:
        return found
    # What h5py's frames hold must not live until the process ends, which would crash it.
    problem.__traceback__ = problem.__cause__ = problem.__context__ = None
    raise problem


class _ErrorKeepingReader:
    """A file that keeps its first error to itself: HDF5 is not to be left by an exception."""

    def __init__(self, file: FileIO, size: int) -> None:
        self._file = file
        self._size = size
        self._place = 0
        self.error: BaseException | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to any place, even to one that is not in the file, as a damaged one may ask for."""
        self._place = offset + (self._size if whence == os.SEEK_END else 0)
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer, with zeros where there is nothing."""
        done = 0
        try:
            if 0 <= self._place < self._size:
                self._file.seek(self._place)
                done = self._file.readinto(buffer)
        except BaseException as error:  # KeyboardInterrupt too
            self.error = self.error or error
        buffer[done:] = bytes(len(buffer) - done)
        self._place += len(buffer)
        return len(buffer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _blocks(layout: DatasetLayout) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first row of each block, with the number of rows at the end, and where each block begins.

    A block is a chunk, or an equal part of one that is too large to be read at once.
    """
    count, width = layout.shape
    row_bytes = width * layout.dtype.itemsize
    step = math.ceil(layout.height / math.ceil(layout.height * row_bytes / max(_BLOCK_BYTES, row_bytes)))
    starts, offsets = [], []
    for top, offset in zip(range(0, count, layout.height), layout.offsets, strict=True):
        for start in range(top, min(top + layout.height, count), step):
            starts.append(start)
            offsets.append(offset + (start - top) * row_bytes)
    return np.array([*starts, count], np.intp), np.array(offsets, np.intp)


def _held(descriptor: int, layout: DatasetLayout) -> Digests:
    """Return all rows of the digests."""
    count, width = layout.shape
    held = np.zeros((count, width), layout.dtype)
    for start, offset in zip(range(0, count, layout.height), layout.offsets, strict=True):
        read_into(descriptor, held[start : start + layout.height], offset)
    return held


def _all_finite(descriptor: int, proof: VerifiedShard) -> bool:
    buffer = np.zeros((int(np.diff(proof.starts).max()), proof.dim), proof.dtype)
    for block, (first, last) in enumerate(zip(proof.starts[:-1], proof.starts[1:], strict=True)):
        found = buffer[: last - first]
        proof.read(descriptor, block, first, found)
        if not _finite(found):
            return False
    return True


def _finite(features: NDArray[Any]) -> bool:
    if features.dtype == np.float16:  # 15 times as fast as `isfinite`
        return bool((features.view(np.uint16) & 0x7FFF).max() < _NO_NUMBER)
    return bool(np.isfinite(features).all())
