"""The activations at a boundary, cached: those of images as they are, and of some augmented views of each."""

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
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
from bottleneck.finetuning.float16 import Measured
from bottleneck.finetuning.loaders import Images
from bottleneck.finetuning.network import Network
from bottleneck.images.dataset import Dataset
from bottleneck.images.file_index import FileIndex
from bottleneck.images.keys import Digests
from bottleneck.images.scan import Progress
from bottleneck.images.view import View
from bottleneck.utils.text import counted

_HALF = np.dtype(np.float16)
_SAMPLE = 16  # images that decide how activations are stored
_PASSES = 3  # of which one is needed, unless activations vanish
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Wanted:
    """Activations that fine-tuning needs: of these images, in this store."""

    store: Store
    dataset: Dataset


def stores(
    cache: FeatureCache, network: Network, boundary: Boundary, augment: str, views: int, seed: int
) -> tuple[Store, ...]:
    """Return the stores of the views of training images; one, of the images as they are, for ``none``."""
    if augment == "none":
        return (clean(cache, network, boundary),)
    return tuple(
        cache.activations().store(_spec(network, boundary, View(augmentation=augment, seed=seed, number=number)))
        for number in range(views)
    )


def clean(cache: FeatureCache, network: Network, boundary: Boundary) -> Store:
    """Return the store of images as they are."""
    return cache.activations().store(_spec(network, boundary, None))


def measure(network: Network, boundary: Boundary, dataset: Dataset, device: str | None) -> Measured:
    """Run a sample of the images up to the boundary, and find out whether float16 holds what stands there.

    Images that cannot be read are left out: `fill` reports them.
    """
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(_SAMPLE, len(dataset))).astype(int)).tolist()
    read = [one for row in rows if (one := _pixels(dataset, row, network)) is not None]
    if not read:
        return Measured(boundary.shape)
    front = boundary.front(network)
    try:
        spec = replace(network.backbone.spec, layer=boundary.module)
        with closing(TorchEngine(Backbone(front, spec, boundary.size), device=device)) as engine:
            size = engine.batch_size
            found = [engine(np.concatenate(read[start : start + size])) for start in range(0, len(read), size)]
    finally:
        front.release()
    return Measured.of(np.concatenate(found), boundary.shape)


def _pixels(dataset: Dataset, row: int, network: Network) -> NDArray[np.uint8] | None:
    try:
        ((_, pixels),) = Images(dataset.subset([row]), network.backbone.spec.preprocessing).pixels(0, 1)
    except TuningError:
        return None
    return pixels


def missing_bytes(wanted: Sequence[Wanted], boundary: Boundary, width: int = _HALF.itemsize) -> int:
    """Return how many bytes have yet to be written, of numbers of this many bytes each."""
    rows = sum(len(one.dataset) - int(_stored(one.store, one.dataset.digests, width).sum()) for one in wanted)
    return rows * (boundary.size * width + _DIGEST_BYTES)


def all_bytes(wanted: Sequence[Wanted], boundary: Boundary, width: int = _HALF.itemsize) -> int:
    """Return how many bytes all of them take."""
    return sum(len(one.dataset) for one in wanted) * (boundary.size * width + _DIGEST_BYTES)


def _stored(store: Store, digests: Digests, width: int) -> NDArray[np.bool_]:
    """Return for each digest whether its activations are here, in numbers of this width or a larger one."""
    index = store.index()
    for name in _narrow(index, width):
        index.lose(name)
    return index.has(digests)


def _narrow(index: Index, width: int) -> list[str]:
    return [name for name, entry in index.entries.items() if np.dtype(entry.dtype).itemsize < width]


def drop_narrow(wanted: Sequence[Wanted], measured: Measured) -> None:
    """Delete activations in float16 where that loses a part of them; an earlier version has kept them so."""
    for one in wanted:
        for name in _narrow(one.store.index(), measured.width):
            one.store.drop(name)


def check_room(wanted: Sequence[Wanted], boundary: Boundary, limit: int, width: int = _HALF.itemsize) -> None:
    """Refuse activations that take more than `limit` bytes, or than the disk has, in numbers of `width` bytes.

    Raises
    ------
    TuningError
    """
    needed, missing = all_bytes(wanted, boundary, width), missing_bytes(wanted, boundary, width)
    advice = "take fewer with --views, none with --views 0, which runs the whole network each epoch"
    if needed > limit:
        raise TuningError(
            f"expected activations of at most {limit / 1e9:g} GB, those at {boundary.module} take {needed / 1e9:,.3g} "
            f"GB: {advice}, or raise --views-limit"
        )
    root = wanted[0].store.folder
    while not root.exists():
        root = root.parent
    free = shutil.disk_usage(root).free
    if missing > free:
        raise TuningError(
            f"expected {missing / 1e9:,.2f} GB of free disk for the activations at {boundary.module}, found "
            f"{free / 1e9:,.2f} GB: {advice}"
        )


def fill(
    wanted: Sequence[Wanted],
    network: Network,
    boundary: Boundary,
    *,
    device: str | None,
    measured: Measured | None = None,
    share: tuple[int, int] = (0, 1),
    memory: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Compute and commit what the cache lacks; what was committed before a kill is not computed again.

    Parameters
    ----------
    wanted : sequence of Wanted
    network : Network
        In eval mode.
    boundary : Boundary
    device : str, optional
        As for `bottleneck.engines.torch_engine.TorchEngine`.
    measured : Measured, optional
        What `measure` found; else it is found now.
    share : (int, int)
    memory : int, optional
        See `bottleneck.extraction.job.Limits`.
    progress : callable, optional
        Called with "views", how many are done, and how many there are.

    Raises
    ------
    TuningError
        If an image cannot be read any more, or activations are not finite.
    CacheError
        If they cannot be written.
    """
    lacking = [one for one in wanted if len(one.store.missing(one.dataset.digests))]
    if not lacking:
        return
    measured = measured or measure(network, boundary, lacking[0].dataset, device)
    spec, limits = lacking[0].store.spec, Limits(memory=memory)
    front = boundary.front(network)
    try:
        with closing(TorchEngine(Backbone(front, spec, boundary.size), device=device)) as engine:
            for number, one in enumerate(lacking):
                images, shown = FileIndex.of(one.dataset), _scaled(progress, number, len(lacking))
                job = ExtractionJob(images=images, limits=limits, share=share, progress=shown)
                _fill_one(one, _Storing(engine, measured), boundary, job)
    finally:
        front.release()


def _fill_one(wanted: Wanted, engine: "_Storing", boundary: Boundary, job: ExtractionJob) -> None:
    for _ in range(_PASSES):
        outcomes = Outcomes()
        run_pass(job, wanted.store, outcomes, lambda sample: EngineStart(engine))
        failed = outcomes.undecodable | outcomes.unread
        if failed:
            raise _failed(wanted.dataset, failed, boundary)
        if job.share != (0, 1) or not len(wanted.store.missing(wanted.dataset.digests)):
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


def _scaled(progress: Progress | None, place: int, count: int) -> Progress | None:
    """Let several stores share one bar."""
    if progress is None:
        return None
    return lambda _, done, total: progress("views", place * total + done, count * total)


class _Storing:
    """An engine that gives activations as they are stored, and outlives the pipeline that it is lent to."""

    def __init__(self, engine: TorchEngine, measured: Measured) -> None:
        self._engine, self._measured = engine, measured
        self.name, self.precision = engine.name, engine.precision
        self.batch_size, self.parallel = engine.batch_size, engine.parallel

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        return self._measured.stored(self._engine(pixels))

    def close(self) -> None:
        """Do nothing; the caller closes the engine."""


def _spec(network: Network, boundary: Boundary, view: View | None) -> Spec:
    own = network.backbone.spec
    preprocessing = replace(own.preprocessing, view=view)
    return replace(own, layer=boundary.module, pooling="none", precision="fp32", preprocessing=preprocessing)
