"""Cached activations at the freeze boundary: of the images without augmentation, and of augmented views of them."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.backbone import Backbone
from bottleneck.backbones.spec import Spec
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.index import Index
from bottleneck.cache.store import Store
from bottleneck.engines.torch_engine import TorchEngine
from bottleneck.errors import ImageError, TuningError
from bottleneck.extraction.job import ExtractionJob, Limits, Outcomes
from bottleneck.extraction.loop import run_pass
from bottleneck.extraction.plan import EngineStart
from bottleneck.finetuning.boundary import Boundary
from bottleneck.finetuning.loaders import ImageLoader
from bottleneck.finetuning.network import Network
from bottleneck.finetuning.precision import ActivationStats
from bottleneck.images.dataset import Dataset
from bottleneck.images.file_index import FileIndex
from bottleneck.images.keys import Digests
from bottleneck.images.scan import Progress
from bottleneck.images.view import View
from bottleneck.utils.text import counted

_HALF = np.dtype(np.float16)
_SAMPLE = 16  # images that decide how activations are stored
_PASSES = 3  # one is enough, unless another process deletes activations
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class RequiredActivations:
    """The images of a dataset whose activations a fine-tuning needs in a store."""

    store: Store
    dataset: Dataset


def view_stores(
    cache: FeatureCache, network: Network, boundary: Boundary, augment: str, views: int, seed: int
) -> tuple[Store, ...]:
    """Return the stores of the augmented views; for ``none``, the one store of the images without augmentation."""
    if augment == "none":
        return (clean_store(cache, network, boundary),)
    return tuple(
        cache.activations().store(_spec(network, boundary, View(augmentation=augment, seed=seed, number=number)))
        for number in range(views)
    )


def clean_store(cache: FeatureCache, network: Network, boundary: Boundary) -> Store:
    """Return the store of the images without augmentation."""
    return cache.activations().store(_spec(network, boundary, None))


def measure(network: Network, boundary: Boundary, dataset: Dataset, device: str | None) -> ActivationStats:
    """Compute the activations of a sample of the images, and decide whether float16 can store them.

    Images that cannot be read are left out; `fill` reports them.
    """
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(_SAMPLE, len(dataset))).astype(int)).tolist()
    read = [one for row in rows if (one := _pixels(dataset, row, network)) is not None]
    if not read:
        return ActivationStats(boundary.shape)
    frozen = boundary.frozen_part(network)
    try:
        spec = replace(network.backbone.spec, layer=boundary.module)
        with closing(TorchEngine(Backbone(frozen, spec, boundary.size), device=device)) as engine:
            size = engine.batch_size
            found = [engine(np.concatenate(read[start : start + size])) for start in range(0, len(read), size)]
    finally:
        frozen.release()
    return ActivationStats.of(np.concatenate(found), boundary.shape)


def _pixels(dataset: Dataset, row: int, network: Network) -> NDArray[np.uint8] | None:
    try:
        ((_, pixels),) = ImageLoader(dataset.subset([row]), network.backbone.spec.preprocessing).pixels(0, 1)
    except TuningError:
        return None
    return pixels


def missing_bytes(required: Sequence[RequiredActivations], boundary: Boundary, width: int = _HALF.itemsize) -> int:
    """Return the size of the activations that are not cached yet, with `width` bytes for each number."""
    rows = sum(len(one.dataset) - int(_stored(one.store, one.dataset.digests, width).sum()) for one in required)
    return rows * (boundary.size * width + _DIGEST_BYTES)


def all_bytes(required: Sequence[RequiredActivations], boundary: Boundary, width: int = _HALF.itemsize) -> int:
    """Return the size of all activations."""
    return sum(len(one.dataset) for one in required) * (boundary.size * width + _DIGEST_BYTES)


def _stored(store: Store, digests: Digests, width: int) -> NDArray[np.bool_]:
    """Return for each digest whether its activations are stored with at least this width."""
    index = store.index()
    for name in _narrow(index, width):
        index.lose(name)
    return index.has(digests)


def _narrow(index: Index, width: int) -> list[str]:
    return [name for name, entry in index.entries.items() if np.dtype(entry.dtype).itemsize < width]


def drop_narrow(required: Sequence[RequiredActivations], stats: ActivationStats) -> None:
    """Delete float16 activations of an earlier version if float16 loses information."""
    for one in required:
        for name in _narrow(one.store.index(), stats.width):
            one.store.drop(name)


def check_disk_space(
    required: Sequence[RequiredActivations],
    boundary: Boundary,
    limit: int,
    width: int = _HALF.itemsize,
    disk_usage: Callable[[Path], Any] = shutil.disk_usage,
) -> None:
    """Refuse activations that take more than `limit` bytes, or more than the free disk space.

    Raises
    ------
    TuningError
    """
    needed, missing = all_bytes(required, boundary, width), missing_bytes(required, boundary, width)
    advice = "lower --views; --views 0 caches none and runs the whole network in each epoch"
    if needed > limit:
        raise TuningError(
            f"expected activations of at most {limit / 1e9:g} GB, those at {boundary.module} take {needed / 1e9:,.3g} "
            f"GB: {advice}, or raise --views-limit"
        )
    root = required[0].store.folder
    while not root.exists():
        root = root.parent
    free = disk_usage(root).free
    if missing > free:
        raise TuningError(
            f"expected {missing / 1e9:,.2f} GB of free disk for the activations at {boundary.module}, found "
            f"{free / 1e9:,.2f} GB: {advice}"
        )


def fill(
    required: Sequence[RequiredActivations],
    network: Network,
    boundary: Boundary,
    *,
    device: str | None,
    stats: ActivationStats | None = None,
    share: tuple[int, int] = (0, 1),
    memory: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Compute and commit the activations that the cache lacks; those committed before a kill are not computed again.

    Parameters
    ----------
    required : sequence of RequiredActivations
    network : Network
        In eval mode.
    boundary : Boundary
    device : str, optional
        As for `bottleneck.engines.torch_engine.TorchEngine`.
    stats : ActivationStats, optional
        From `measure`; by default measured now.
    share : (int, int)
        The rank of this process and the number of processes: it computes its share.
    memory : int, optional
        See `bottleneck.extraction.job.Limits`.
    progress : callable, optional
        Called with "views", and the numbers of finished and of all activations.

    Raises
    ------
    TuningError
        If an image can no longer be read, or activations are not finite.
    CacheError
        If they cannot be written.
    """
    lacking = [one for one in required if len(one.store.missing(one.dataset.digests))]
    if not lacking:
        return
    stats = stats or measure(network, boundary, lacking[0].dataset, device)
    spec, limits = lacking[0].store.spec, Limits(memory=memory)
    frozen = boundary.frozen_part(network)
    try:
        with closing(TorchEngine(Backbone(frozen, spec, boundary.size), device=device)) as engine:
            for number, one in enumerate(lacking):
                images, shown = FileIndex.of(one.dataset), _part_of(progress, number, len(lacking))
                job = ExtractionJob(images=images, limits=limits, share=share, progress=shown)
                _fill_one(one, _StorageEngine(engine, stats), boundary, job)
    finally:
        frozen.release()


def _fill_one(required: RequiredActivations, engine: "_StorageEngine", boundary: Boundary, job: ExtractionJob) -> None:
    for _ in range(_PASSES):
        outcomes = Outcomes()
        run_pass(job, required.store, outcomes, lambda sample: EngineStart(engine))
        failed = outcomes.undecodable | outcomes.unread
        if failed:
            raise _failed(required.dataset, failed, boundary)
        if job.share != (0, 1) or not len(required.store.missing(required.dataset.digests)):
            return


def _failed(dataset: Dataset, failed: dict[bytes, ImageError], boundary: Boundary) -> TuningError:
    if all(error.code == "not-finite" for error in failed.values()):
        return TuningError(
            f"expected finite activations at {boundary.module}, found NaN or infinity for "
            f"{counted(len(failed), 'image')}: --views 0 caches none and runs the whole network each epoch"
        )
    paths = {row.tobytes(): path for row, path in zip(dataset.digests, dataset.paths, strict=True)}
    digest, error = next(iter(failed.items()))
    return TuningError(
        f"expected to read {counted(len(dataset), 'image')}, {len(failed)} cannot be read "
        f"({paths.get(digest)}: {error}): put them back, or extract and fit without them"
    )


def _part_of(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Return a callback that reports one of several stores as a part of one progress bar."""
    if progress is None:
        return None
    return lambda _, done, total: progress("views", number * total + done, count * total)


class _StorageEngine:
    """An engine that returns activations in the precision in which they are stored; several pipelines share it."""

    def __init__(self, engine: TorchEngine, stats: ActivationStats) -> None:
        self._engine, self._stats = engine, stats
        self.name, self.precision = engine.name, engine.precision
        self.batch_size, self.parallel = engine.batch_size, engine.parallel

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        return self._stats.stored(self._engine(pixels))

    def close(self) -> None:
        """Do nothing; the caller closes the engine."""


def _spec(network: Network, boundary: Boundary, view: View | None) -> Spec:
    own = network.backbone.spec
    preprocessing = replace(own.preprocessing, view=view)
    return replace(own, layer=boundary.module, pooling="none", precision="fp32", preprocessing=preprocessing)
