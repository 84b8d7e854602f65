"""Export features with paths, labels and splits to one file for other programs."""

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.store import Store
from bottleneck.errors import CacheError, OutputError
from bottleneck.images.dataset import Dataset
from bottleneck.images.given import names_in_table
from bottleneck.utils.output_file import check_output, write_output
from bottleneck.utils.paths import expanded

LAYOUTS = {".npz": "npz", ".h5": "h5", ".hdf5": "h5", ".parquet": "parquet"}
_CHUNK_BYTES = 1 << 20
_GROUP_ROWS = 16_384  # rows of a row group of a Parquet file

ExtraColumns = Callable[[slice], Mapping[str, Any]]  # arrays of Arrow by name, for some rows


def export(
    store: Store,
    dataset: Dataset,
    out: str | os.PathLike[str],
    layout: str | None = None,
    *,
    extra: ExtraColumns | None = None,
) -> None:
    r"""Write the features of a dataset, one row per path, in the order of the paths.

    The columns or arrays are ``digest`` (64 hexadecimal digits), ``path`` (for a CSV, as written in it), ``label``
    (empty, or null in Parquet, if there is none), ``split`` and ``features`` ``(n, d)``, float32 or float16 as stored.

    Parameters
    ----------
    store : Store
    dataset : Dataset
        All its images must have features.
    out : path
        The file, see `bottleneck.utils.output_file.write_output`. It must not be the table that lists the images.
    layout : str, optional
        ``npz``, ``h5`` or ``parquet``; by default the result of `layout_of`.
    extra : callable, optional
        Returns more columns of a Parquet file for a slice of the rows, as arrays of Arrow by name. It is called once
        for each row group, in their order.

    Raises
    ------
    ValueError
        If the layout is not given and does not follow from the file name.
    MissingFeatures
        If features are missing.
    CacheError
        If there is nothing to write, the file is not a regular file or cannot be written, or pyarrow is needed but not
        installed.

    Notes
    -----
    Bytes of a path or label that are not UTF-8 are written as ``\xNN``. All features are in memory at once.
    """
    path = expanded(out)
    layout = layout or layout_of(path)
    with _cache_errors():
        check_output(out, [dataset.source])
    if not len(dataset):
        raise CacheError(f"expected images of {dataset.source} with features, found none to write to {path}")
    names = names_in_table(dataset)
    texts = {
        "digest": [row.tobytes().hex() for row in dataset.digests],
        "path": [_utf8(names.get(path, path)) for path in dataset.paths],
        "label": [_utf8(label or "") for label in dataset.labels],
        "split": list(dataset.splits),
    }
    features = store.read(dataset.digests, as_stored=True)
    with _cache_errors():
        write_output(out, lambda file: _write(file, layout, texts, features, extra))


def _write(
    file: BinaryIO,
    layout: str,
    texts: dict[str, list[str]],
    features: NDArray[Any],
    extra: ExtraColumns | None,
) -> None:
    if extra is not None:
        _write_parquet(file, texts, features, extra)
    else:
        _WRITERS[layout](file, texts, features)


@contextmanager
def _cache_errors() -> Iterator[None]:
    """Convert OutputError to CacheError."""
    try:
        yield
    except OutputError as error:
        raise CacheError(str(error)) from error


def layout_of(path: Path) -> str:
    """Return the layout for a file name.

    Raises
    ------
    ValueError
        If the name does not end in a known format.
    """
    if path.suffix.lower() not in LAYOUTS:
        raise ValueError(f"expected a format {', '.join(_WRITERS)}, or a file name that ends in one; got {path.name!r}")
    return LAYOUTS[path.suffix.lower()]


def _utf8(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _write_npz(file: BinaryIO, texts: dict[str, list[str]], features: NDArray[Any]) -> None:
    with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        for name, values in texts.items():
            _add_array(archive, name, np.array(values, np.str_))
        _add_array(archive, "features", features)


def _add_array(archive: zipfile.ZipFile, name: str, values: NDArray[Any]) -> None:
    """Write an array as `numpy.savez` does, which requires names that end in ``.npz``."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, values, allow_pickle=False)


def _write_h5(file: BinaryIO, texts: dict[str, list[str]], features: NDArray[Any]) -> None:
    rows = max(1, _CHUNK_BYTES // max(1, features[:1].nbytes))
    writer = _ErrorKeepingWriter(getattr(file, "raw", file))
    problem: OSError | None = None
    try:
        with h5py.File(writer, "w") as h5:
            for name, values in texts.items():
                h5.create_dataset(name, data=np.array(values, object), dtype=h5py.string_dtype())
            chunks = (min(rows, len(features)), features.shape[1])
            h5.create_dataset("features", data=features, chunks=chunks, fletcher32=True)
    except RuntimeError as error:
        problem = OSError(str(error))
    if problem := writer.error or problem:
        # Without h5py's frames: objects of HDF5 that live until the process ends would crash it.
        raise problem.with_traceback(None)


class _ErrorKeepingWriter:
    """A file that stores its first error instead of raising it: HDF5 crashes if a write fails, e.g. on a full disk."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: memoryview) -> int:
        """Write all of `data`."""
        try:
            done = 0
            while done < len(data):
                done += self._file.write(data[done:])
        except (OSError, ValueError) as error:  # ValueError: HDF5 writes once more after the file was closed
            self.error = self.error or (error if isinstance(error, OSError) else OSError(str(error)))
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the size of the file."""
        try:
            return int(self._file.truncate(size))
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def expect_pyarrow() -> None:
    """Do nothing if pyarrow, which writes Parquet, is installed.

    Raises
    ------
    CacheError
        If it is not.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise CacheError(
            "expected pyarrow, which writes Parquet, and it is not installed: pip install 'bottleneck-vision[parquet]'"
        ) from error


def _write_parquet(
    file: BinaryIO, texts: dict[str, list[str]], features: NDArray[Any], extra: ExtraColumns = lambda part: {}
) -> None:
    expect_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for start in range(0, len(features), _GROUP_ROWS):
            part = slice(start, start + _GROUP_ROWS)
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(features[part].reshape(-1)), features.shape[1])
            columns = {name: pa.array(_nulls(values[part], name), pa.string()) for name, values in texts.items()}
            table = pa.table({**columns, "features": vectors, **extra(part)})
            writer = writer or stack.enter_context(pq.ParquetWriter(file, table.schema))
            writer.write_table(table)


def _nulls(values: Sequence[str], name: str) -> Sequence[str | None]:
    """Return the values of a column; a missing label is null."""
    return [value or None for value in values] if name == "label" else values


_WRITERS = {"npz": _write_npz, "h5": _write_h5, "parquet": _write_parquet}
