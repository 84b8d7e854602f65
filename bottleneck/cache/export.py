"""Features with paths, labels and splits in one file for other programs."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.store import Store
from bottleneck.errors import CacheError
from bottleneck.files import replacing
from bottleneck.images.dataset import Dataset

FORMATS = {".npz": "npz", ".h5": "h5", ".hdf5": "h5", ".parquet": "parquet"}
_CHUNK_BYTES = 1 << 20
_GROUP_ROWS = 16_384  # rows of a row group of a Parquet file


def export(store: Store, dataset: Dataset, out: str | os.PathLike[str], layout: str | None = None) -> str:
    r"""Write the features of a dataset, a row a path, in the order of the paths.

    Columns, or arrays, are ``digest`` (64 hexadecimal digits), ``path``, ``label`` (empty, or null in Parquet, where
    there is none), ``split`` and ``features`` ``(n, d)``, float32 or float16 as they are stored.

    Parameters
    ----------
    store : Store
    dataset : Dataset
        Every image of which has features.
    out : path
        The file; one that is there is replaced once the new one is complete.
    layout : str, optional
        ``npz``, ``h5`` or ``parquet``; by default as the name of `out` ends.

    Returns
    -------
    str
        The layout.

    Raises
    ------
    ValueError
        If the layout is not given, and the name does not tell it.
    MissingFeatures
        If features are missing.
    CacheError
        If the file cannot be written, or pyarrow is needed and not installed.

    Notes
    -----
    A path that is not UTF-8 has its odd bytes written as ``\xNN``. All features are held in memory at once.
    """
    path = Path(out)
    layout = layout or FORMATS.get(path.suffix.lower())
    if layout not in _WRITERS:
        raise ValueError(f"expected a format {', '.join(_WRITERS)}, or a file name that ends in one; got {path.name!r}")
    texts = {
        "digest": [row.tobytes().hex() for row in dataset.digests],
        "path": [os.fsencode(name).decode("utf-8", "backslashreplace") for name in dataset.paths],
        "label": [label or "" for label in dataset.labels],
        "split": list(dataset.splits),
    }
    features = store.read(dataset.digests, as_stored=True)
    try:
        with replacing(path) as temporary:
            _WRITERS[layout](temporary, texts, features)
    except CacheError:
        raise
    except (OSError, RuntimeError) as error:  # the latter from HDF5
        raise CacheError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    return layout


def _write_npz(path: Path, texts: dict[str, list[str]], features: NDArray[Any]) -> None:
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for name, values in texts.items():
            _add_array(archive, name, np.array(values, np.str_))
        _add_array(archive, "features", features)


def _add_array(archive: zipfile.ZipFile, name: str, values: NDArray[Any]) -> None:
    """Write an array as `numpy.savez` does, whose files must end in ``.npz``."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, values, allow_pickle=False)


def _write_h5(path: Path, texts: dict[str, list[str]], features: NDArray[Any]) -> None:
    rows = max(1, _CHUNK_BYTES // max(1, features[:1].nbytes))
    with h5py.File(path, "w") as file:
        for name, values in texts.items():
            file.create_dataset(name, data=np.array(values, object), dtype=h5py.string_dtype())
        file.create_dataset(
            "features", data=features, chunks=(min(rows, len(features)), features.shape[1]), fletcher32=True
        )


def _write_parquet(path: Path, texts: dict[str, list[str]], features: NDArray[Any]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise CacheError(
            "expected pyarrow, which writes Parquet, and it is not installed: pip install 'bottleneck-vision[parquet]'"
        ) from error
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), features.shape[1])
    columns = {name: pa.array(_nulls(values) if name == "label" else values) for name, values in texts.items()}
    pq.write_table(pa.table({**columns, "features": vectors}), path, row_group_size=_GROUP_ROWS)


def _nulls(labels: Sequence[str]) -> list[str | None]:
    return [label or None for label in labels]


_WRITERS = {"npz": _write_npz, "h5": _write_h5, "parquet": _write_parquet}
