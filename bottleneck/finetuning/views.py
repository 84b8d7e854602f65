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
from bottleneck.cache.store import FeatureCache, Store
from bottleneck.engines.torch_engine import TorchEngine
from bottleneck.errors import ImageError, TuningError
from bottleneck.finetuning.boundary import Boundary
from bottleneck.finetuning.network import Network
from bottleneck.images.dataset import Dataset
from bottleneck.images.scan import Progress
from bottleneck.images.survey import Survey
from bottleneck.images.view import View
from bottleneck.pipeline.run import run
from bottleneck.pipeline.work import Settings, Work
from bottleneck.utils.text import counted

_BYTES = 2  # of a float16
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


def missing_bytes(wanted: Sequence[Wanted], boundary: Boundary) -> int:
    """Return how many bytes have yet to be written."""
    rows = sum(len(one.store.missing(one.dataset.digests)) for one in wanted)
    return rows * (boundary.size * _BYTES + _DIGEST_BYTES)


def all_bytes(wanted: Sequence[Wanted], boundary: Boundary) -> int:
    """Return how many bytes all of them take."""
    return sum(len(one.dataset) for one in wanted) * (boundary.size * _BYTES + _DIGEST_BYTES)


def check_room(wanted: Sequence[Wanted], boundary: Boundary, limit: int) -> None:
    """Refuse activations that take more than `limit` bytes, or than the disk has.

    Raises
    ------
    TuningError
    """
    needed, missing = all_bytes(wanted, boundary), missing_bytes(wanted, boundary)
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
    share: tuple[int, int] = (0, 1),
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
    share : (int, int)
        As for `bottleneck.pipeline.work.Settings`.
    progress : callable, optional
        Called with "views", how many are done, and how many there are.

    Raises
    ------
    TuningError
        If an image cannot be read any more, or activations are beyond what float16 holds.
    CacheError
        If they cannot be written.
    """
    lacking = [one for one in wanted if len(one.store.missing(one.dataset.digests))]
    if not lacking:
        return
    spec = lacking[0].store.spec
    front = boundary.front(network)
    try:
        with closing(TorchEngine(Backbone(front, spec, boundary.size), device=device)) as engine:
            for number, one in enumerate(lacking):
                _fill_one(one, _Halves(engine), boundary, share, _scaled(progress, number, len(lacking)))
    finally:
        front.release()


def _fill_one(
    wanted: Wanted, engine: "_Halves", boundary: Boundary, share: tuple[int, int], progress: Progress | None
) -> None:
    for _ in range(_PASSES):
        work = Work()
        run(Survey.of(wanted.dataset), wanted.store, lambda _: engine, {}, Settings(share=share), work, progress)
        failed = work.undecodable | work.unread
        if failed:
            raise _failed(wanted.dataset, failed, boundary)
        if share != (0, 1) or not len(wanted.store.missing(wanted.dataset.digests)):
            return


def _failed(dataset: Dataset, failed: dict[bytes, ImageError], boundary: Boundary) -> TuningError:
    if all(error.code == "not-finite" for error in failed.values()):
        return TuningError(
            f"the activations at {boundary.module} of {counted(len(failed), 'image')} are beyond what float16 holds "
            f"(65,504), or not finite: --views 0 runs the whole network each epoch"
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


class _Halves:
    """An engine that gives float16, and outlives the pipeline that it is lent to."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine
        self.name, self.precision = engine.name, engine.precision
        self.batch_size, self.parallel = engine.batch_size, engine.parallel

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is then told
            return self._engine(pixels).astype(np.float16)

    def close(self) -> None:
        """Stay."""


def _spec(network: Network, boundary: Boundary, view: View | None) -> Spec:
    own = network.backbone.spec
    preprocessing = replace(own.preprocessing, view=view)
    return replace(own, layer=boundary.module, pooling="none", precision="fp32", preprocessing=preprocessing)
