"""One shard: an immutable HDF5 file of digests and features of one spec, named by the hash of its bytes."""

import errno
import hashlib
import json
import math
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.spec import Spec
from bottleneck.cache.kinds import remedy, tree_of_shard
from bottleneck.cache.structure import Read, Unsound, check_structure
from bottleneck.errors import CacheError, DamagedShard, NewerShard, ShardError
from bottleneck.images.digest import Signature, signature
from bottleneck.utils.files import NotRegularError, canonical_json, sha256_hex
from bottleneck.utils.text import counted

FORMAT_VERSION = 1
LARGEST_SHARD = 1 << 30  # bytes; a larger file is rejected without reading it

PIECE_BYTES = 1 << 19  # read at once
_DATASETS = ("digests", "features")
# Any other error number, such as that of a negative file offset, is caused by damaged bytes.
_SYSTEM_ERRORS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.EIO, errno.EACCES, errno.EPERM, errno.ENOMEM, errno.EAGAIN, errno.ESTALE}
)
_FLETCHER32_BYTES = 4  # that the filter appends to a chunk
# H5LT_FILE_IMAGE_DONT_COPY and _DONT_RELEASE: HDF5 reads our bytes in place, so they must outlive the open file.
_SHARE_IMAGE = 2 | 4


@dataclass(frozen=True)
class Rows:
    """The contents of a shard: row i of `features` belongs to row i of `digests`."""

    digests: NDArray[np.uint8]  # (n, 32)
    features: NDArray[Any]  # (n, d) float16 or float32


@dataclass(frozen=True)
class Blocks:
    """The contents of a shard, with consecutive rows of its features as views of the bytes that were read."""

    digests: NDArray[np.uint8]  # (n, 32)
    features: tuple[NDArray[Any], ...]  # each (rows of a chunk, d), float16 or float32
    file: Signature  # of the file that was read

    @property
    def dim(self) -> int:
        """Number of features per image."""
        return int(self.features[0].shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the features."""
        return self.features[0].dtype


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Convert OSError to CacheError: the cache cannot be written."""
    try:
        yield
    except CacheError:
        raise
    except OSError as error:
        raise CacheError(
            f"cannot write to the cache {folder}: {error.strerror or error}. Features committed before are kept"
        ) from error


def write_shard(folder: Path, spec: Spec, rows: Rows, chunk_bytes: int = 1 << 20) -> Path:
    """Write one shard into `folder` and return its path; once this returns, the rows survive any kill.

    Raises
    ------
    ShardError
        If the shapes or types are wrong, or a feature is not finite.
    OSError
        If the disk is full or fails; no file is left behind.
    """
    _check_rows(rows)
    data = _build(spec, rows, chunk_bytes)
    path = folder / f"{sha256_hex(data)}.h5"
    tree_of_shard(path).write(path, data)
    return path


def read_shard(path: Path, spec: Spec) -> Rows:
    """Read a whole shard after verifying that its bytes match its name.

    Raises
    ------
    ShardError
        If the shard is damaged, hostile, of another spec or of a newer format.
    CacheError
        If the shard cannot be read at the moment. It may be intact.
    FileNotFoundError
        If the shard does not exist.
    """
    blocks = read_blocks(path, spec)
    return Rows(blocks.digests, np.concatenate(blocks.features))


def read_blocks(path: Path, spec: Spec, buffer: "Buffer | None" = None) -> Blocks:
    """Read a whole shard as `read_shard` does, without copying its features.

    Parameters
    ----------
    path : Path
    spec : Spec
    buffer : Buffer, optional
        Memory to read into; the blocks are valid until it is used again.

    Raises
    ------
    ShardError, CacheError, FileNotFoundError
        As `read_shard`.
    """
    data, digest, status = (buffer or Buffer()).read(path)
    if digest != path.stem:
        raise damaged_error(path)
    # The parsed bytes are the hashed ones: HDF5 reads them from memory, not from the file.
    expect_sound(path, lambda offset, size: data[offset : offset + size], len(data))
    with parsing(path), closing(h5py.File(h5py.h5f.open_file_image(data, _SHARE_IMAGE))) as file:
        digests, features = layouts(file, path, spec, len(data))
        return Blocks(np.concatenate(list(digests.views(data))), tuple(features.views(data)), signature(status))


def damaged_error(path: Path) -> DamagedShard:
    """Return the error for a shard whose bytes do not match its name."""
    return DamagedShard(f"{path}: the bytes do not match the name; the shard is damaged")


def expect_sound(path: Path, read: Read, size: int) -> None:
    """Refuse a file of `size` bytes that HDF5 cannot parse safely; see `bottleneck.cache.structure`.

    Raises
    ------
    ShardError
        If the structure is damaged.
    """
    try:
        check_structure(read, size)
    except Unsound as error:
        raise ShardError(f"{path}: not a shard: {error}") from None


@contextmanager
def parsing(path: Path) -> Iterator[None]:
    """Convert the errors of HDF5 to ShardError, and those of the operating system to CacheError."""
    try:
        yield
    except (ShardError, MemoryError):
        raise
    except Exception as error:  # OSError, KeyError, RuntimeError, ValueError
        if isinstance(error, OSError) and error.errno in _SYSTEM_ERRORS:
            raise CacheError(f"cannot read {path}: {error}") from error
        raise ShardError(f"{path}: not a shard: {error}") from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert OSError to CacheError: the shard cannot be read, but may be intact."""
    try:
        yield
    except (FileNotFoundError, CacheError):
        raise
    except NotRegularError as error:
        raise ShardError(f"{path}: expected a regular file") from error
    except OSError as error:
        if error.errno == errno.ESTALE:  # from NFS, for a file that another machine has deleted
            raise FileNotFoundError(error.errno, os.strerror(error.errno), str(path)) from error
        raise CacheError(
            f"cannot read {path}: {error.strerror or error}. If this persists, move the file away: "
            f"{remedy(path.parents[1])} computes its images again"
        ) from error


@contextmanager
def opened(path: Path) -> Iterator[tuple[FileIO, os.stat_result]]:
    """Open a shard; yield it with its status.

    Raises
    ------
    ShardError
        If it is larger than any shard.
    CacheError
        If it cannot be read. It may be intact.
    """
    with reading(path), open(path, "rb", buffering=0, opener=tree_of_shard(path).open) as file:
        status = os.fstat(file.fileno())
        if status.st_size > LARGEST_SHARD:
            raise ShardError(f"{path}: expected a shard of at most {LARGEST_SHARD:,} bytes, found {status.st_size:,}")
        yield file, status


def matches_name(path: Path, name: str) -> bool:
    """Return whether the bytes of a shard match its name."""
    with suppress(CacheError, FileNotFoundError):
        return Buffer().read(path)[1] == name
    return False


class Buffer:
    """Memory that is reused for reading shards: allocating it costs as much as reading."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def read(self, path: Path) -> tuple[memoryview, str, os.stat_result]:
        """Return the bytes of a file, valid until the next call, their SHA-256, and the file's status.

        Raises
        ------
        ShardError, CacheError
            As `opened`.
        """
        with opened(path) as (file, status):
            size = status.st_size
            if size > len(self._bytes):
                self._bytes = np.empty(size, np.uint8)
            view = self._bytes.data[:size]
            digest, done = hashlib.sha256(), 0
            # Small pieces are still in the CPU cache when they are hashed.
            while done < size and (count := file.readinto(view[done : done + PIECE_BYTES])):
                digest.update(view[done : done + count])
                done += count
            return view[:done], digest.hexdigest(), status


@dataclass(frozen=True)
class DatasetLayout:
    """Location of a plain dataset in its file: uncompressed chunks of whole rows.

    Parameters
    ----------
    shape : (int, int)
    dtype : dtype
    height : int
        Rows per chunk; the last may have fewer.
    offsets : tuple of int
        Byte offset of each chunk, in the order of the rows.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    height: int
    offsets: tuple[int, ...]

    def views(self, data: memoryview) -> Iterator[NDArray[Any]]:
        """Yield the chunks as views of the file's bytes; these were verified, so no filter needs to run."""
        count, width = self.shape
        for start, offset in zip(range(0, count, self.height), self.offsets, strict=True):
            rows = min(self.height, count - start)
            yield np.frombuffer(data, self.dtype, rows * width, offset).reshape(rows, width)


def layouts(file: h5py.File, path: Path, spec: Spec, size: int) -> tuple[DatasetLayout, DatasetLayout]:
    """Return the layouts of the digests and the features of an open shard of `size` bytes.

    Raises
    ------
    ShardError
        If the shard contains anything unexpected, or is of another spec or a newer format.
    """
    digests, features = _datasets(file, path, spec)
    if digests.nbytes + features.nbytes > size:
        raise ShardError(f"{path}: claims more values than the file holds")
    return _layout(digests, size, path), _layout(features, size, path)


def _layout(dataset: h5py.Dataset, file_size: int, path: Path) -> DatasetLayout:
    count, width = dataset.shape
    height = dataset.chunks[0]
    size = height * width * dataset.dtype.itemsize
    found = {}
    for number in range(dataset.id.get_num_chunks()):
        chunk = dataset.id.get_chunk_info(number)
        if chunk.size != size + _FLETCHER32_BYTES or chunk.filter_mask or chunk.byte_offset + size > file_size:
            raise ShardError(f"{path}: a chunk of {dataset.name} has an unexpected place or size")
        found[int(chunk.chunk_offset[0])] = int(chunk.byte_offset)
    offsets = tuple(found[start] for start in sorted(found))
    if sorted(found) != list(range(0, count, height)) or len(set(offsets)) != dataset.id.get_num_chunks():
        raise ShardError(f"{path}: {dataset.name} has chunks that overlap or are missing")
    return DatasetLayout((int(count), int(width)), dataset.dtype, int(height), offsets)


def _check_rows(rows: Rows) -> None:
    digests, features = rows.digests, rows.features
    if digests.shape != (len(features), 32) or digests.dtype != np.uint8 or features.ndim != 2 or not features.size:
        raise ShardError(
            f"expected digests (n, 32) uint8 and features (n, d), n and d above 0; got {digests.shape} "
            f"{digests.dtype} and {features.shape}"
        )
    if features.dtype not in (np.float16, np.float32) or not np.isfinite(features).all():
        raise ShardError(f"expected finite float16 or float32 features, got {features.dtype} or values not finite")


def _build(spec: Spec, rows: Rows, chunk_bytes: int) -> bytes:
    """Return the bytes of the HDF5 file; equal rows give equal bytes."""
    count = len(rows.digests)
    name = f"shard-{threading.get_ident()}"  # HDF5 does not open a name twice, and several threads write
    with h5py.File(name, "w", driver="core", backing_store=False, libver="earliest") as file:
        file.attrs["format_version"] = np.int64(FORMAT_VERSION)
        file.attrs["fingerprint"] = np.bytes_(spec.fingerprint)
        file.attrs["spec"] = np.bytes_(canonical_json(spec.to_json()))
        file.attrs["n"] = np.int64(count)
        for name, values in zip(_DATASETS, (rows.digests, rows.features), strict=True):
            pieces = math.ceil(values.nbytes / chunk_bytes)  # of equal size, so that the last is not mostly padding
            chunk = math.ceil(count / min(pieces, count))
            file.create_dataset(name, data=values, chunks=(chunk, values.shape[1]), fletcher32=True)
        file.flush()
        data: bytes = file.id.get_file_image()
    return data


def _datasets(file: h5py.File, path: Path, spec: Spec) -> tuple[h5py.Dataset, h5py.Dataset]:
    """Return the digests and the features of an open shard after checking that it contains nothing else."""
    version = int(file.attrs["format_version"])
    if version != FORMAT_VERSION:
        kind = NewerShard if version > FORMAT_VERSION else ShardError
        raise kind(f"{path}: expected format version {FORMAT_VERSION}, found {version}: update bottleneck")
    if _text(file.attrs["fingerprint"]) != spec.fingerprint or json.loads(_text(file.attrs["spec"])) != spec.to_json():
        raise ShardError(f"{path}: expected features of spec {spec.fingerprint[:16]}, found another spec")
    if sorted(file) != sorted(_DATASETS):
        raise ShardError(f"{path}: expected the datasets digests and features, found {sorted(file)}")
    count = int(file.attrs["n"])
    return _plain(file, "digests", path, count), _plain(file, "features", path, count)


def _plain(file: h5py.File, name: str, path: Path, count: int) -> h5py.Dataset:
    """Return the dataset `name` if it is stored completely in this file, with the shape that `n` implies."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ShardError(f"{path}: {name} is a link")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        raise ShardError(f"{path}: {name} is not stored in the shard")
    types, width = (("|u1",), 32) if name == "digests" else (("<f2", "<f4"), None)
    if dataset.dtype.str not in types or dataset.ndim != 2 or dataset.shape[0] != count or dataset.chunks is None:
        raise ShardError(
            f"{path}: {name} has shape {dataset.shape} and type {dataset.dtype}, expected {counted(count, 'row')}"
        )
    filters = dataset.id.get_create_plist()
    if filters.get_nfilters() != 1 or filters.get_filter(0)[0] != h5py.h5z.FILTER_FLETCHER32:
        raise ShardError(f"{path}: {name} has another filter than fletcher32")
    if dataset.chunks[1] != dataset.shape[1] or not dataset.size:
        raise ShardError(f"{path}: {name} has chunks {dataset.chunks} of {dataset.shape} values, expected whole rows")
    if (width and dataset.shape[1] != width) or dataset.id.get_storage_size() < dataset.size * dataset.dtype.itemsize:
        raise ShardError(f"{path}: {name} claims {dataset.shape} values, more than the file holds")
    if dataset.id.get_num_chunks() != math.ceil(dataset.shape[0] / dataset.chunks[0]):
        raise ShardError(f"{path}: {name} claims {dataset.shape} values, more than the file holds")
    return dataset


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
