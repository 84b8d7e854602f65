"""The pipeline that joins images, an engine and the cache: each image passes the network once in its life."""

import hashlib
import itertools
import os
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.request import DEFAULT_MODEL, Request, recall, remember_spec
from bottleneck.backbones.spec import Spec
from bottleneck.cache.scans import Last, load_last, save_last, save_scan
from bottleneck.cache.store import FeatureCache, Store
from bottleneck.errors import ImageError, ImagesError
from bottleneck.images.dataset import Dataset, Digests, Failure
from bottleneck.images.decode import decode
from bottleneck.images.digest import read_file
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.images.scan import Progress, remember_digests, scan

if TYPE_CHECKING:
    from bottleneck.engines.engine import Engine


# A commit loses nothing; work since the last one is lost to a kill. Early on that is two seconds' worth, later 2 %.
_FIRST_COMMIT_SECONDS = 2.0
_LAST_COMMIT_SECONDS = 60.0
_COMMIT_SHARE = 0.02
_COMMIT_ROWS = 16_384


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What `extract` did.

    ``unique`` images stand behind ``images`` paths; of these ``computed`` passed the network now, ``reused`` had
    their features in the cache, and the rest are among the ``failures``, as are files that could not be read.
    """

    dataset: Dataset
    store: Store
    dim: int
    computed: int
    reused: int
    failures: tuple[Failure, ...]
    seconds: float
    engine: str | None = None  # None where nothing had to be computed

    @property
    def usable(self) -> Dataset:
        """The part of the dataset that has features."""
        return self.dataset.subset(np.flatnonzero(self.store.has(self.dataset.digests)).tolist())

    @property
    def images(self) -> int:
        """How many image files there are, unreadable ones included."""
        return len(self.dataset) + len(self.dataset.failures)

    @property
    def unique(self) -> int:
        """How many different images could be read."""
        return len(self.dataset.first_rows())

    @property
    def ignored(self) -> int:
        """How many files were passed over."""
        return sum(self.dataset.ignored.values())


@dataclass
class _Work:
    """What one pass over the missing images has done so far."""

    store: Store
    reused: int
    computed: int = 0
    failures: list[Failure] = field(default_factory=list)
    engine: str | None = None


class _OtherSpec(Exception):
    """The network turned out to be of another spec than the memo said."""


def extract(
    images: "str | os.PathLike[str] | Dataset | None" = None,
    *,
    model: str = DEFAULT_MODEL,
    weights: str = "DEFAULT",
    seed: int = 0,
    cache: str | os.PathLike[str] = "cache",
    runs: str | os.PathLike[str] = "runs",
    labels: bool = True,
    batch_size: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    remember: bool = True,
    progress: Progress | None = None,
) -> Extraction:
    """Compute the features of those images that have none yet, and commit them to the cache.

    Parameters
    ----------
    images : path or Dataset, optional
        See `bottleneck.scan`. By default what was last extracted with this cache, else the current folder.
    model : str
        ``efficientnet_lite0`` or the name of a torchvision classifier.
    weights : str
        ``DEFAULT``, the name of a torchvision weights entry, the path of a file, or ``none`` for random weights.
    seed : int
        Of the random weights.
    cache, runs : path
        The cache's folder; both are never scanned.
    labels : bool
        Whether folders, or the CSV, give labels.
    batch_size, threads : int, optional
        Images that pass the network at once, and threads that decode.
    device : str, optional
        As in ``torch.device``; by default ``cuda`` where there is one.
    remember : bool
        Whether these images become the default of later commands.
    progress : callable, optional
        Called with a stage ("scan", "extract"), how many are done, and how many there are.

    Returns
    -------
    Extraction

    Raises
    ------
    ImagesError
        If there is no image, none that can be used, or only one class.
    ModelError
        If there is no such model, or its weights are not to be had.
    CacheError
        If the cache cannot be written. What was committed before is kept, as it is after Ctrl-C or a kill.

    Warns
    -----
    BottleneckWarning
        For random weights and for oddities of the folders.
    """
    started = time.perf_counter()
    home = FeatureCache(cache)
    request = Request(model=model, weights=weights, seed=seed)
    dataset = _dataset(images, home.root, Path(runs), labels, progress)
    pending = _Pending(request, home, batch_size, device)
    try:
        work = _compute(dataset, home.store(pending.spec), pending, threads, progress)
    except _OtherSpec:
        work = _compute(dataset, home.store(pending.spec), pending, threads, progress)
    store = work.store
    failures = (*dataset.failures, *sorted(work.failures, key=lambda failure: failure.path))
    if not work.computed + work.reused:
        raise ImagesError(f"none of the {len(failures)} images can be used: {_listed(failures)}")
    if work.computed:
        remember_digests(dataset.paths, home.root)  # of files that were too young when they were scanned
    store.remember_request(request.to_json())
    if remember:
        save_scan(home.root, replace(dataset, failures=failures))
        save_last(home.root, Last(str(dataset.source), dataset.labelled, store.name))
    return Extraction(
        dataset=dataset,
        store=store,
        dim=store.dim(),
        computed=work.computed,
        reused=work.reused,
        failures=failures,
        seconds=time.perf_counter() - started,
        engine=work.engine,
    )


def _dataset(
    images: "str | os.PathLike[str] | Dataset | None",
    cache: Path,
    runs: Path,
    labels: bool,
    progress: Progress | None,
) -> Dataset:
    if isinstance(images, Dataset):
        return images
    if images is None:
        last = load_last(cache)
        images, labels = (last.source, labels and last.labels) if last else (".", labels)
    return scan(images, labels=labels, cache=cache, exclude=(runs,), progress=progress)


class _Pending:
    """A backbone that is built, and torch imported, when the first batch of pixels is ready for it."""

    def __init__(self, request: Request, cache: FeatureCache, batch_size: int | None, device: str | None) -> None:
        self._request = request
        self._cache = cache
        self._batch_size = batch_size
        self._device = device
        self._engine: Engine | None = None
        recalled = recall(request, cache.root)
        self.spec: Spec = recalled or self._build()

    def engine(self) -> "Engine":
        """Return the engine.

        Raises
        ------
        _OtherSpec
            If the network is not of the spec that the memo gave; `spec` has been mended.
        """
        if self._engine is None:
            recalled = self.spec
            self.spec = self._build()
            if self.spec != recalled:
                raise _OtherSpec
        assert self._engine is not None
        return self._engine

    def _build(self) -> Spec:
        from bottleneck.backbones.registry import load
        from bottleneck.engines.torch_engine import TorchEngine

        backbone = load(self._request)
        self._engine = TorchEngine(backbone, batch_size=self._batch_size, device=self._device)
        remember_spec(self._request, backbone.spec, self._cache.root)
        return backbone.spec


def _compute(
    dataset: Dataset, store: Store, pending: _Pending, threads: int | None, progress: Progress | None
) -> _Work:
    """Send the images whose features are missing through decoding and the engine, and commit what comes out."""
    rows = dataset.first_rows()
    missing = rows[~store.has(dataset.digests[rows])]
    work = _Work(store, reused=len(rows) - len(missing))
    commits = _Commits(store)
    batch: list[tuple[int, NDArray[np.uint8]]] = []

    def fail(row: int, error: ImageError) -> None:
        digest = dataset.digests[row].tobytes().hex()
        work.failures.append(Failure(dataset.paths[row], error.code, str(error), digest))

    def run_batch() -> None:
        features = pending.engine()(np.stack([pixels for _, pixels in batch]))
        good = [bool(np.isfinite(row).all()) for row in features]
        for row, _ in itertools.compress(batch, (not fine for fine in good)):
            fail(row, ImageError("not-finite", "the network gives NaN or infinity; are its weights intact?"))
        if any(good):
            rows = [row for row, _ in itertools.compress(batch, good)]
            commits.add(dataset.digests[rows], features[good])
            work.computed += len(rows)
        batch.clear()

    try:
        for row, outcome in _decoded(dataset, missing, store.spec.preprocessing, threads):
            if isinstance(outcome, ImageError):
                fail(row, outcome)
            else:
                batch.append((row, outcome))
            if batch and len(batch) == pending.engine().batch_size:
                run_batch()
            if progress:
                progress("extract", work.computed + len(work.failures), len(missing))
        if batch:
            run_batch()
            if progress:
                progress("extract", len(missing), len(missing))
    finally:
        commits.flush()  # after Ctrl-C too: what is computed is kept
    if work.computed:
        work.engine = pending.engine().name
    return work


def _decoded(
    dataset: Dataset, rows: NDArray[np.intp], preprocessing: Preprocessing, threads: int | None
) -> Iterator[tuple[int, NDArray[np.uint8] | ImageError]]:
    """Yield each row's pixels, or why there are none, in order; threads work a bounded way ahead."""
    paths: defaultdict[bytes, list[str]] = defaultdict(list)
    for path, key in zip(dataset.paths, dataset.digests, strict=True):
        paths[key.tobytes()].append(path)
    count = threads or min(4, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(count, thread_name_prefix="decode")
    ahead: deque[tuple[int, Future[NDArray[np.uint8] | ImageError]]] = deque()
    try:
        for row in rows:
            digest = dataset.digests[row].tobytes()
            ahead.append((int(row), pool.submit(_pixels, paths[digest], digest, preprocessing)))
            if len(ahead) >= 16 * count:
                first, future = ahead.popleft()
                yield first, future.result()
        while ahead:
            first, future = ahead.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _pixels(paths: list[str], digest: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8] | ImageError:
    """Read one image from the first of its paths that still holds it, and decode the bytes whose digest was checked."""
    problems = []
    for path in paths:
        try:
            data, _ = read_file(path)
            if hashlib.sha256(data).digest() == digest:
                return decode(data, preprocessing)
            problems.append(ImageError("changed", "the file changed since it was scanned; run the command again"))
        except ImageError as error:
            problems.append(error)
            if error.code in ImageError.FINAL:
                break
    return problems[-1]


class _Commits:
    """Features on their way into the cache."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._digests: list[Digests] = []
        self._features: list[NDArray[np.float32]] = []
        self._started = self._last = time.monotonic()

    def add(self, digests: Digests, features: NDArray[np.float32]) -> None:
        """Take a batch, and commit when enough has come together."""
        self._digests.append(digests)
        self._features.append(features)
        now = time.monotonic()
        patience = min(max(_FIRST_COMMIT_SECONDS, _COMMIT_SHARE * (now - self._started)), _LAST_COMMIT_SECONDS)
        if now - self._last >= patience or sum(map(len, self._digests)) >= _COMMIT_ROWS:
            self.flush()

    def flush(self) -> None:
        """Commit what has come together; when this returns it survives any kill."""
        if self._digests:
            digests, features = np.concatenate(self._digests), np.concatenate(self._features)
            self._digests, self._features = [], []
            self._store.append(digests, features)
        self._last = time.monotonic()


def _listed(failures: tuple[Failure, ...]) -> str:
    shown = "; ".join(f"{failure.path}: {failure.message}" for failure in failures[:3])
    return shown + (f"; and {len(failures) - 3} more" if len(failures) > 3 else "")
