"""Export features for programs that show maps of images: coordinates, nearest neighbours and thumbnails."""

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.auditing.reduced import read_features, reduced
from bottleneck.cache.export import ExtraColumns, expect_pyarrow, export, layout_of
from bottleneck.cache.store import Store
from bottleneck.errors import CacheError, ImageError
from bottleneck.evaluation.neighbours import CosineNeighbours, nearest_neighbours, unit_rows
from bottleneck.extraction.loading import Loader
from bottleneck.extraction.memory import MemoryBudget, usual_memory
from bottleneck.extraction.picture_reader import PictureReader
from bottleneck.heads.features import InMemoryFeatures
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.keys import DigestSet
from bottleneck.images.scan import Progress
from bottleneck.images.small_picture import as_jpeg, fitted, without_border
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.paths import expanded
from bottleneck.utils.warn import warn

PARTS = ("map", "neighbours", "pictures")
NEIGHBOURS = 15  # of each image
SIDE = 96  # pixels of the longer side of a thumbnail
_BLOCK = 4096  # rows that are scaled at once
_REPORTED = 64  # thumbnails between two reports


def export_atlas(
    store: Store,
    dataset: Dataset,
    out: str | os.PathLike[str],
    layout: str | None = None,
    *,
    parts: Iterable[str] = (),
    memory: int | None = None,
    progress: Progress | None = None,
) -> tuple[Failure, ...]:
    """Write the features of a dataset as `bottleneck.cache.export.export` does, with more columns.

    ``map`` adds ``x`` and ``y``, float32, the first two principal components of the features. ``neighbours`` adds
    ``neighbours``, the 15 most similar other images by cosine: a struct of ``ids``, the zero-based rows of their first
    paths, the nearest first, and ``distances``, 1 minus the cosine. All images are compared with all. ``pictures`` adds
    ``image``, a struct of ``bytes``, a JPEG of at most 96 x 96 pixels, and ``path``; it is null if the file cannot be
    read or has changed.

    Parameters
    ----------
    store : Store
    dataset : Dataset
        All its images must have features.
    out : path
    layout : str, optional
        ``parquet`` if there are any parts.
    parts : iterable of str
        Of ``map``, ``neighbours`` and ``pictures``.
    memory : int, optional
        Bytes for the features from which maps and neighbours are computed; by default half of the free memory.
    progress : callable, optional
        As for `bottleneck.scan`.

    Returns
    -------
    tuple of Failure
        The images without a picture.

    Raises
    ------
    CacheError
        If a part is unknown or the layout is not Parquet; and as for `bottleneck.cache.export.export`.
    HeadError
        If not even 64 principal components fit in the memory.

    Notes
    -----
    Pictures are decoded and written by row groups, so the memory does not grow with their number. If the features and
    their copies do not fit in `memory`, neighbours are computed from principal components; a warning says so.
    """
    wanted = _checked(parts)
    if not wanted:
        export(store, dataset, out, layout)
        return ()
    if (layout or layout_of(expanded(out))) != "parquet":
        raise CacheError(f"expected a Parquet file for {', '.join(wanted)}, got {layout or Path(out).suffix}")
    expect_pyarrow()
    failures: list[Failure] = []
    makers: list[ExtraColumns] = []
    if len(dataset):
        makers += _of_features(store, dataset, wanted, memory, progress)
    with _thumbnails(dataset, failures, progress) as pictures:
        makers += [pictures] if "pictures" in wanted else []
        export(store, dataset, out, "parquet", extra=lambda part: _joined(makers, part))
    return tuple(failures)


def _checked(parts: Iterable[str]) -> tuple[str, ...]:
    """Return the parts in their usual order.

    Raises
    ------
    CacheError
        If one is unknown.
    """
    given = set(Arguments(CacheError).texts("parts", parts))
    if unknown := sorted(given - set(PARTS)):
        raise CacheError(f"expected parts among {', '.join(PARTS)}, got {', '.join(unknown)}")
    return tuple(part for part in PARTS if part in given)


def _joined(makers: Iterable[ExtraColumns], part: slice) -> dict[str, Any]:
    return {name: values for make in makers for name, values in make(part).items()}


def _of_features(
    store: Store, dataset: Dataset, wanted: tuple[str, ...], memory: int | None, progress: Progress | None
) -> Iterator[ExtraColumns]:
    """Yield the makers of the columns that are computed from features; each distinct image counts once."""
    first = np.asarray(dataset.first_rows())
    if not {"map", "neighbours"} & set(wanted):
        return
    distinct = dataset.digests[first]
    own = DigestSet(distinct).find(dataset.digests)  # of each row, its place among the distinct images
    read = read_features(store, distinct, memory)
    if read.remark and "neighbours" in wanted:
        warn(f"neighbours are approximate: {read.remark}")
    features = read.features
    if "map" in wanted:
        yield _map_maker(plane(features)[own])
    if "neighbours" in wanted:
        for start in range(0, len(features), _BLOCK):  # in place, since they may be large
            features[start : start + _BLOCK] = unit_rows(features[start : start + _BLOCK])
        yield _neighbours_maker(_nearest(features, progress), first, own)


def plane(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the first two principal components of features, centred; the sign of each is fixed.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)

    Returns
    -------
    ndarray of float32, shape (n, 2)
        Zeros for a component that does not exist.
    """
    found = np.zeros((len(features), 2), np.float32)
    along = features if features.shape[1] < 3 else reduced(InMemoryFeatures(features), 3).features[:, :2]
    found[:, : along.shape[1]] = along - along.mean(axis=0)
    farthest = np.abs(found).argmax(axis=0)
    signs: NDArray[np.float32] = np.where(found[farthest, (0, 1)] < 0, -1, 1).astype(np.float32)
    return found * signs


def _nearest(units: NDArray[np.float32], progress: Progress | None) -> CosineNeighbours:
    def report(done: int, total: int) -> None:
        if progress:
            progress("neighbours", done, total)

    k = max(1, min(NEIGHBOURS, len(units) - 1))
    return nearest_neighbours(units, k=k, most_exact=len(units), progress=report)


def _map_maker(points: NDArray[np.float32]) -> ExtraColumns:
    import pyarrow as pa

    return lambda part: {"x": pa.array(points[part, 0]), "y": pa.array(points[part, 1])}


def _neighbours_maker(found: CosineNeighbours, first: NDArray[np.intp], own: NDArray[np.intp]) -> ExtraColumns:
    import pyarrow as pa

    def make(part: slice) -> Mapping[str, Any]:
        rows, cosines = found.rows[own[part]], found.cosines[own[part]]
        kept = rows >= 0
        offsets = pa.array(np.concatenate([[0], kept.sum(axis=1).cumsum()]).astype(np.int32))
        ids = pa.ListArray.from_arrays(offsets, pa.array(first[rows[kept]].astype(np.int32)))
        distances = pa.ListArray.from_arrays(offsets, pa.array(np.maximum(0, 1 - cosines[kept])))
        return {"neighbours": pa.StructArray.from_arrays([ids, distances], ["ids", "distances"])}

    return make


@contextmanager
def _thumbnails(dataset: Dataset, failures: list[Failure], progress: Progress | None) -> Iterator[ExtraColumns]:
    """Yield the maker of the column of thumbnails, which adds images that cannot be decoded to `failures`."""
    reader = PictureReader(dataset, Loader(MemoryBudget(usual_memory()), fitted(SIDE)))
    first = DigestSet(dataset.digests).find(dataset.digests).tolist() if len(dataset) else []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:

        def make(part: slice) -> Mapping[str, Any]:
            import pyarrow as pa

            rows = range(len(dataset))[part]
            shown: list[dict[str, object] | None] = []
            for row, found in zip(rows, pool.map(lambda row: _jpeg(reader, first[row]), rows), strict=True):
                path = os.fsencode(dataset.paths[row]).decode("utf-8", "backslashreplace")
                shown.append(None if isinstance(found, ImageError) else {"bytes": found, "path": path})
                if isinstance(found, ImageError):
                    digest = dataset.digests[row].tobytes().hex()
                    failures.append(Failure(dataset.paths[row], found.code, str(found), digest))
                if progress and (row % _REPORTED == 0 or row + 1 == len(dataset)):
                    progress("thumbnails", row + 1, len(dataset))
            return {"image": pa.array(shown, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}

        yield make


def _jpeg(reader: PictureReader, row: int) -> bytes | ImageError:
    """Return the thumbnail of an image without the border that makes it square."""
    found = reader.read(row)
    if isinstance(found, ImageError):
        return found
    return as_jpeg(without_border(found, SIDE))
