"""Recompute some features of another cache: the hash of a shard verifies its bytes, not their origin."""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.catalogue import entries
from bottleneck.backbones.request import Request
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.merge import Inspection, NewRows
from bottleneck.cache.scans import read_scan, scanned
from bottleneck.cache.shard import read_shard
from bottleneck.cache.store import Store
from bottleneck.engines.parity import lowest_cosine
from bottleneck.engines.records import LEAST_COSINE
from bottleneck.errors import BottleneckError, BottleneckWarning, CacheError, ImageError
from bottleneck.extraction.loading import Loader
from bottleneck.extraction.memory import MemoryBudget, usual_memory
from bottleneck.images.decode import DECODER_VERSION, Decoded
from bottleneck.images.keys import DigestSet, as_digests
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.utils.gc_paused import no_collection
from bottleneck.utils.process_settings import ignored_warnings
from bottleneck.utils.text import counted

RECOMPUTED = 3  # images of each spec
_TRIES = 16  # files that are read for each requested image, because files change
_MAX_CHECKS = 20_000  # checks whether a file exists
_LEAST_OF_LOW_PRECISION = 0.99  # cosine of bf16 and fp16 to torch in fp32, on random images
_NORMS = 0.05  # maximum relative difference of the norms of two rows


class Recomputation:
    """Recomputes the features of a few random images for `bottleneck.cache.merge.merge`.

    Nothing is downloaded: the images and the weights must be on this machine. The files are those listed in the scans
    of this cache, and those listed in the scans of the other cache that are next to it.

    Parameters
    ----------
    cache : FeatureCache
    source : path
        The other cache.
    count : int
        Images of each spec.
    loader : callable
        Returns a loader for a preprocessing; by default with the usual memory.
    """

    def __init__(
        self,
        cache: FeatureCache,
        source: str | os.PathLike[str],
        count: int = RECOMPUTED,
        loader: Callable[[Preprocessing], Loader] = lambda preprocessing: Loader(
            MemoryBudget(usual_memory()), preprocessing
        ),
    ) -> None:
        self._loader = loader
        self._cache = cache
        self._source = FeatureCache(source)
        self._count = count
        self._random = random.SystemRandom()  # whoever made the cache must not be able to predict the images

    def __call__(self, theirs: Store, held: Sequence[NewRows]) -> Inspection:
        """Compare the features that shards of the other cache hold with those that this machine computes."""
        try:
            drawn = self._drawn(theirs, held)
            if not drawn:
                return Inspection(
                    note=f"{theirs.short_name}: nothing was recomputed: none of its images is on this machine"
                )
            with ignored_warnings(".*random", BottleneckWarning):  # random weights are expected if the spec has them
                again = self._computed(theirs, np.stack([pixels for _, pixels, _ in drawn]))
        except (BottleneckError, RuntimeError, MemoryError) as error:
            reason = str(error).partition("\n")[0]
            return Inspection(note=f"{theirs.short_name}: nothing was recomputed: {reason}")
        wrong = [
            (path, difference)
            for (path, _, row), mine in zip(drawn, again, strict=True)
            if (difference := _difference(row, mine, theirs.spec.precision))
        ]
        if not wrong:
            return Inspection(images=len(drawn))
        path, difference = wrong[0]
        return Inspection(
            images=len(drawn),
            problem=f"{theirs.folder}: {len(wrong)} of {counted(len(drawn), 'image')} that were recomputed have "
            f"different features there ({path}: {difference}): no features of this spec are merged",
        )

    def _drawn(self, theirs: Store, held: Sequence[NewRows]) -> list[tuple[str, NDArray[np.uint8], NDArray[Any]]]:
        """Return the path, the pixels and the features of some images on this machine, drawn at random."""
        digests = np.concatenate([one.digests for one in held])
        starts = np.cumsum([0, *(len(one.digests) for one in held)])
        rows = np.flatnonzero(self._files.known.find(digests) >= 0).tolist()
        found = []
        tries = _TRIES * self._count
        for row in self._random.sample(rows, min(len(rows), _MAX_CHECKS)):
            if not (paths := self._files.of(digests[row])):
                continue
            if pixels := _pixels(paths, digests[row].tobytes(), self._loader(theirs.spec.preprocessing)):
                shard = int(np.searchsorted(starts, row, side="right")) - 1
                with suppress(FileNotFoundError, CacheError):
                    features = read_shard(held[shard].path, theirs.spec).features
                    found.append((*pixels, features[held[shard].rows[row - starts[shard]]].astype(np.float32)))
            tries -= 1
            if len(found) == self._count or not tries:
                break
        return found

    def _computed(self, theirs: Store, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features ``(n, d)`` of the backbone of a spec with torch in fp32.

        Raises
        ------
        BottleneckError
            If the backbone cannot be built on this machine.
        """
        with no_collection():
            from bottleneck.backbones.registry import load
            from bottleneck.engines.torch_engine import TorchEngine

        problem = BottleneckError("the weights of its backbone are not on this machine")
        for request in self._requests(theirs):
            try:
                backbone = load(replace(request, precision="fp32"))
            except BottleneckError as error:
                problem = error
                continue
            if replace(backbone.spec, precision=theirs.spec.precision) == theirs.spec:
                with closing(TorchEngine(backbone, batch_size=1, device="cpu", plain=True)) as engine:
                    return np.concatenate([engine(one[None]) for one in pixels])
            problem = CacheError("its backbone cannot be built: the recorded request now selects another one")
        raise problem

    def _requests(self, theirs: Store) -> Iterator[Request]:
        """Yield requests for the backbone of a spec whose weights are on this machine."""
        if theirs.spec.decoder != DECODER_VERSION:
            raise CacheError(f"its images were decoded by version {theirs.spec.decoder}, this is {DECODER_VERSION}")
        asked = [store.asked() for store in (self._cache.store(theirs.spec), theirs)]
        for request in (*asked, Request(model=theirs.spec.backbone)):  # the last one in case none is recorded
            if request and _is_here(request):
                yield request

    @cached_property
    def _files(self) -> "_ScannedFiles":
        return _ScannedFiles(self._cache.root, self._source.root)


class _ScannedFiles:
    """The files listed in the scans of two caches, by the digests that they had at the time.

    Parameters
    ----------
    ours : Path
    theirs : Path
        It is not trusted: its scans may list any file, even on a server, so only files next to it are read.
    """

    def __init__(self, ours: Path, theirs: Path) -> None:
        self._parent = Path(os.path.realpath(theirs)).parent
        self._places: list[tuple[str, Path, bool]] = []  # path, source, whether it is theirs
        digests = [as_digests([])]
        for cache in (ours, theirs):
            for scan in scanned(cache):
                with suppress(CacheError, FileNotFoundError, ValueError):
                    dataset = read_scan(scan)
                    digests.append(dataset.digests)
                    self._places += [(path, dataset.source, cache == theirs) for path in dataset.paths]
        self._digests = np.concatenate(digests)
        self.known = DigestSet(self._digests)

    def of(self, digest: NDArray[np.uint8]) -> list[str]:
        """Return the existing files that had a digest."""
        found = []
        for row in np.flatnonzero((self._digests == digest).all(axis=1)).tolist():
            path, source, is_theirs = self._places[row]
            for place in (Path(path).absolute(), source.parent / path):
                if (not is_theirs or self._parent in Path(os.path.realpath(place)).parents) and os.path.isfile(place):
                    found.append(str(place))
        return list(dict.fromkeys(found))


def _pixels(paths: Sequence[str], digest: bytes, loader: Loader) -> tuple[str, NDArray[np.uint8]] | None:
    """Return a path and the pixels of an image; None if no file has its bytes, or they cannot be decoded."""
    for path in paths:
        with suppress(ImageError):
            found = loader.load(path, lambda read: read == digest).found
            if isinstance(found, Decoded):
                return path, found.pixels
    return None


def _is_here(request: Request) -> bool:
    """Return whether the weights of a request are random, or on this machine."""
    if request.random:
        return True
    if request.file:
        return request.file.is_file()
    name, _, tag = request.model.partition(".")
    wanted = tag or ("" if request.weights == "DEFAULT" else request.weights)
    found = [entry for entry in entries() if entry.name == name and wanted.lower() in ("", entry.weights.lower())]
    return bool(found) and found[0].is_here


def _difference(row: NDArray[np.float32], again: NDArray[np.float32], precision: str) -> str | None:
    """Return how features differ from the recomputed ones; None if they are close."""
    if row.shape != again.shape:
        return f"{len(row)} features, {len(again)} when recomputed"
    cosine = lowest_cosine(row[None], again[None])
    least = LEAST_COSINE if precision == "fp32" else _LEAST_OF_LOW_PRECISION
    if cosine is None or cosine < least:
        return f"cosine {cosine}, expected {least} or more"
    lengths = float(np.linalg.norm(row)), float(np.linalg.norm(again))
    if abs(lengths[0] - lengths[1]) > _NORMS * lengths[1]:
        return f"length {lengths[0]:.4g}, expected {lengths[1]:.4g}"
    return None
