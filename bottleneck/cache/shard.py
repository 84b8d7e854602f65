"""One shard: an immutable HDF5 file of digests and features of one spec, named by the hash of its bytes."""

import json
import math
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.spec import Spec
from bottleneck.errors import CacheError, NewerShard, ShardError
from bottleneck.files import canonical_json, sha256_hex, write_atomic

FORMAT_VERSION = 1
_CHUNK_BYTES = 1 << 20
_DATASETS = ("digests", "features")


@dataclass(frozen=True)
class Rows:
    """What a shard holds: row i of `features` belongs to row i of `digests`."""

    digests: NDArray[np.uint8]  # (n, 32)
    features: NDArray[Any]  # (n, d) float16 or float32


@dataclass(frozen=True)
class Outline:
    """What a shard holds, seen without reading its features."""

    digests: NDArray[np.uint8]  # (n, 32)
    dim: int


def write_shard(folder: Path, spec: Spec, rows: Rows) -> Path:
    """Write one shard into `folder` and return its path; when this returns, the rows survive any kill.

    Raises
    ------
    ShardError
        If the rows do not add up, or a feature is not finite.
    OSError
        If the disk is full or fails; nothing is left behind.
    """
    _check_rows(rows)
    image = _build(spec, rows)
    path = folder / f"{sha256_hex(image)}.h5"
    write_atomic(path, image)
    return path


def read_shard(path: Path, spec: Spec) -> Rows:
    """Read a whole shard, after its bytes were found to match its name.

    Raises
    ------
    ShardError
        If the shard is damaged, hostile, of another spec or of a newer format.
    """
    return _parse(_proven(path), path, spec)


def read_outline(path: Path, spec: Spec) -> Outline:
    """Read what a shard holds, without its features and without hashing the file.

    Enough to tell what is missing: a feature is served only through `read_shard`.

    Raises
    ------
    ShardError
        As `read_shard`, for what can be seen without reading the features.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            digests, features = _datasets(file, path, spec)
            return Outline(digests[:], features.shape[1])
    except FileNotFoundError:
        raise
    except Exception as error:
        _refuse_system_errors(error, path)
        # Damage, or a disk, a memory or a limit that failed for a moment? Only the bytes can tell.
        rows = read_shard(path, spec)
        return Outline(rows.digests, rows.features.shape[1])


def _proven(path: Path) -> bytes:
    """Return the bytes of a shard, which hash to its name.

    Raises
    ------
    ShardError
        If they do not.
    CacheError
        If they cannot be read, which says nothing about them.
    """
    try:
        image = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CacheError(f"cannot read {path}: {error.strerror or error}") from error
    if sha256_hex(image) != path.stem:
        raise ShardError(f"{path}: the bytes do not match the name; the shard is damaged")
    return image


def _refuse_system_errors(error: Exception, path: Path) -> None:
    """Raise what the system could not do for a moment: it says nothing about the shard. HDF5's own have no number."""
    if isinstance(error, OSError) and not isinstance(error, ShardError) and error.errno:
        raise CacheError(f"cannot read {path}: {error}") from error


def _parse(image: bytes, path: Path, spec: Spec) -> Rows:
    try:
        # What was hashed is what is parsed: HDF5 reads the bytes in memory, not the file.
        with closing(h5py.File(h5py.h5f.open_file_image(image))) as file:
            digests, features = _datasets(file, path, spec)
            return Rows(digests[:], features[:])
    except (ShardError, MemoryError):
        raise
    except Exception as error:  # HDF5 raises OSError, KeyError, RuntimeError and ValueError
        _refuse_system_errors(error, path)
        raise ShardError(f"{path}: not a shard: {error}") from error


def _check_rows(rows: Rows) -> None:
    digests, features = rows.digests, rows.features
    if digests.shape != (len(features), 32) or digests.dtype != np.uint8 or features.ndim != 2 or not features.size:
        raise ShardError(
            f"expected digests (n, 32) uint8 and features (n, d), n and d above 0; got {digests.shape} "
            f"{digests.dtype} and {features.shape}"
        )
    if features.dtype not in (np.float16, np.float32) or not np.isfinite(features).all():
        raise ShardError(f"expected finite float16 or float32 features, got {features.dtype} or values not finite")


def _build(spec: Spec, rows: Rows) -> bytes:
    """Return the bytes of the HDF5 file; equal rows give equal bytes."""
    count = len(rows.digests)
    with h5py.File("shard", "w", driver="core", backing_store=False) as file:
        file.attrs["format_version"] = np.int64(FORMAT_VERSION)
        file.attrs["fingerprint"] = np.bytes_(spec.fingerprint)
        file.attrs["spec"] = np.bytes_(canonical_json(spec.to_json()))
        file.attrs["n"] = np.int64(count)
        for name, values in zip(_DATASETS, (rows.digests, rows.features), strict=True):
            pieces = math.ceil(values.nbytes / _CHUNK_BYTES)  # equal ones, so that the last is not mostly padding
            chunk = math.ceil(count / min(pieces, count))
            file.create_dataset(name, data=values, chunks=(chunk, values.shape[1]), fletcher32=True)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _datasets(file: h5py.File, path: Path, spec: Spec) -> tuple[h5py.Dataset, h5py.Dataset]:
    """Return the digests and the features of an open shard, having refused what a plain shard never has."""
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
    """Return the dataset `name` if it is an ordinary one: stored here, whole, of the shape that `n` gives."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ShardError(f"{path}: {name} is a link to elsewhere")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        raise ShardError(f"{path}: {name} is not stored in the shard")
    types, width = (("uint8",), 32) if name == "digests" else (("float16", "float32"), None)
    if dataset.dtype.name not in types or dataset.ndim != 2 or dataset.shape[0] != count or dataset.chunks is None:
        raise ShardError(f"{path}: {name} has shape {dataset.shape} and type {dataset.dtype}, expected {count} rows")
    if (width and dataset.shape[1] != width) or dataset.id.get_storage_size() < dataset.size * dataset.dtype.itemsize:
        raise ShardError(f"{path}: {name} claims {dataset.shape} values, more than the file holds")
    if dataset.id.get_num_chunks() != math.prod(
        -(-n // chunk) for n, chunk in zip(dataset.shape, dataset.chunks, strict=True)
    ):
        raise ShardError(f"{path}: {name} claims {dataset.shape} values, more than the file holds")
    return dataset


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
