"""Features for images: what the cache lacks is computed, and each image passes the network once in its life."""

import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.catalogue import check_request
from bottleneck.backbones.request import DEFAULT_MODEL, Request, looks_like_file
from bottleneck.backbones.spec import Spec
from bottleneck.backbones.spec_memo import file_digest
from bottleneck.backbones.tuned import Tuned, keep_tuned, read_tuned, weights_of_run
from bottleneck.backbones.weights_files import described
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.scans import conflicts_path, failures_path, has_scan, save_listing, save_scan
from bottleneck.cache.store import Store
from bottleneck.engines.options import EngineOptions
from bottleneck.errors import BottleneckWarning, CacheError, ImageError, ImagesError, ModelError
from bottleneck.extraction.image_source import ImageSource, listing_of, remembered
from bottleneck.extraction.items import Settings, Work
from bottleneck.extraction.lazy_backbone import LazyBackbone, until_settled
from bottleneck.extraction.loop import run
from bottleneck.extraction.workers import own, work_together
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.decode import MAX_PIXELS
from bottleneck.images.failures import by_reason, none_usable, write_conflicts
from bottleneck.images.file_index import FileIndex, conflicts
from bottleneck.images.given import Given
from bottleneck.images.listing import DataFrameLike, Images, Values
from bottleneck.images.scan import Progress, read_unknown
from bottleneck.images.undecodable import UndecodableMemo
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.paths import expanded
from bottleneck.utils.text import counted, one_line

if TYPE_CHECKING:
    from bottleneck.backbones.restore import Restored
    from bottleneck.engines.records import Check


@dataclass(frozen=True)
class Note:
    """Something to know of an image that was used: that its file has several frames, say."""

    path: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What `extract` did.

    Of ``images`` paths some are among the ``failures``, some are ``copies`` of others, and of the rest ``computed``
    passed the network now and ``reused`` had their features in the cache.
    """

    dataset: Dataset
    store: Store
    dim: int
    computed: int
    reused: int
    copies: int
    failures: tuple[Failure, ...]
    failures_table: Path | None  # the CSV that lists them, where there are any
    notes: tuple[Note, ...]  # of images that were computed now
    seconds: float
    engine: str | None = None  # None where nothing had to be computed
    check: "Check | None" = None  # how near the engine came to torch in fp32
    remarks: tuple[str, ...] = ()  # on the choice of the engine
    restored: "Restored | None" = None  # of a weights file, where the network was built from one

    def __repr__(self) -> str:
        done = f"{self.computed:,} computed", f"{self.reused:,} reused", f"{len(self.failures):,} failed"
        return one_line(self, counted(self.images, "image"), *done, f"{self.dim} features", self.store.short_name)

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


class NothingUsable(ImagesError):
    """None of the images can be used.

    Parameters
    ----------
    done : Extraction
        Whose failures say why of each.
    """

    def __init__(self, done: Extraction) -> None:
        counts = ", ".join(f"{len(group)} {code}" for code, group in by_reason(done.failures).items())
        shown = "; ".join(f"{failure.path}: {failure.message}" for failure in done.failures[:3])
        listed = f". {done.failures_table} lists all" if done.failures_table else ""
        super().__init__(f"{none_usable(len(done.failures))} ({counts}): {shown}{listed}")
        self.done = done


_PASSES = 3  # of which one is needed, unless features vanish


def extract(
    images: Images | Given | None = None,
    *,
    paths: Values | DataFrameLike | None = None,
    labels: bool | Values = True,
    splits: Values | None = None,
    groups: Values | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    model: str | None = None,
    weights: str = "DEFAULT",
    seed: int = 0,
    layer: str | Sequence[str] = (),
    pool: str | None = None,
    flip: bool = False,
    resize: int | None = None,
    crop: int | None = None,
    restore_exclude: str | Sequence[str] = (),
    allow_partial: bool = False,
    precision: str = "auto",
    fast_jpeg: bool = False,
    cache: str | os.PathLike[str] = "cache",
    runs: str | os.PathLike[str] = "runs",
    batch_size: int | None = None,
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
    memory: int | None = None,
    engine: str = "auto",
    device: str | None = None,
    compile: bool = False,
    remember: bool = True,
    rehash: bool = False,
    spec: Spec | None = None,
    progress: Progress | None = None,
) -> Extraction:
    """Compute the features of those images that have none yet, and commit them to the cache.

    Parameters
    ----------
    images : path, DataFrame, Dataset or Given, optional
        See `bottleneck.scan`. By default what was last extracted in the current folder with this cache, else the
        current folder itself.
    paths, labels, splits, groups, path_column, label_column, split_column, group_column
        See `bottleneck.scan`. The columns that are named are remembered with the images.
    model, weights, seed, layer, pool, flip, resize, crop, restore_exclude, allow_partial, precision, fast_jpeg
        The backbone; see `bottleneck.backbones.request.Request`. `weights` may also be a fine-tuned run, as
        ``run:NAME`` of a folder in `runs` or as a path; it brings its own model and sizes.
    cache, runs : path
        The cache's folder; both are never scanned.
    batch_size, threads : int, optional
        Images that pass the network at once, and threads that decode.
    max_pixels : int
        An image of more pixels is refused before it is decoded; it would take three bytes of memory a pixel or more.
    memory : int, optional
        Bytes that files, pixels and features may take together, in all processes; the network takes more. By default
        two thirds of what a network leaves of the free memory, which a control group may limit. An image that needs
        more is a failure.
    engine, device, compile
        What runs the backbone; see `bottleneck.engines.options.EngineOptions`. Several devices, with commas
        between, have a process each; by default all CUDA devices do.
    remember : bool
        Whether these images become the default of later commands.
    rehash : bool
        Whether every file is read again, whatever is remembered of its digest; what is remembered is replaced. The
        digests of a Dataset are given: scan it again.
    spec : Spec, optional
        That the features have, where a run says it: a weights file that is missing is then needed only for images
        without features.
    progress : callable, optional
        Called with a stage ("extract"), how many files are done, and how many there are to read.

    Returns
    -------
    Extraction

    Raises
    ------
    ImagesError
        If there is no image, none that can be used, or only one class.
    ModelError
        If there is no such model or layer, its weights are not to be had or do not fit, or no engine computes it in
        the precision asked for.
    CacheError
        If the cache cannot be written. What was committed before is kept, as it is after Ctrl-C or a kill.

    Warns
    -----
    BottleneckWarning
        For random weights and for oddities of the folders.
    """
    started = time.perf_counter()
    check = Arguments(ModelError)
    home, runs, remember = FeatureCache(cache), expanded(runs), check.flag("remember", remember)
    settings = Settings(threads=threads, max_pixels=max_pixels, memory=memory)
    named = Columns(path_column, label_column, split_column, group_column)
    lists = {"paths": paths, "labels": labels, "splits": splits, "groups": groups}
    rows = None if isinstance(images, Given) else listing_of(home.root, images, lists, named, remember=remember)
    chosen = ImageSource.of(rows or images, home.root, labels=rows is not None or bool(labels), columns=named)
    with remembered(home.root, chosen.source, labels=chosen.labels, remember=remember) as default:
        check.path("--weights", weights)
        weights = weights_of_run(weights, runs)
        tuned = read_tuned(expanded(weights)) if looks_like_file(weights) else None
        request = Request(
            model=(tuned.model if tuned else DEFAULT_MODEL) if model is None else model,
            weights=weights,
            seed=seed,
            layer=check.texts("--layer", layer),
            pool=pool,
            flip=flip,
            resize=tuned.options.get("resize") if tuned and resize is None else resize,
            crop=tuned.options.get("crop") if tuned and crop is None else crop,
            restore_exclude=check.texts("--restore-exclude", restore_exclude),
            allow_partial=allow_partial,
            precision=precision,
            fast_jpeg=True if tuned and tuned.options.get("fast_jpeg") else fast_jpeg,
        )
        wish = EngineOptions(engine=engine, device=device, batch_size=batch_size, compile=compile)
        trusted = [spec] if spec and request.file and not request.file.is_file() else []
        if not trusted:
            check_request(request)
        found = chosen.survey(home.root, runs)
        if check.flag("rehash", rehash):
            found.forget()
        pending = LazyBackbone(request, home, own(wish), found, *trusted)
        memo = UndecodableMemo(home.root / "digests.sqlite")
        known = memo.load()

        def begin(store: Store) -> None:
            """Leave in the cache what a command needs that comes after a kill."""
            if default:
                default.takes(store.name)
            if store.request() is None:
                _keep_request(store, request, tuned)

        if remember and rows:
            save_listing(home.root, rows)
        begin(pending.store)
        work = Work()
        shared = work_together(found, wish, request, home, pending, known, settings, work, progress)
        if shared:  # the others have read files, too
            found = chosen.survey(home.root, runs)
            known = memo.load()
        filled = _fill(found, pending, known, settings, work, progress, begin)
        store, dataset, has = filled.store, filled.dataset, filled.has
        failures = _failures(dataset, known | work.undecodable | work.unread, has)
        memo.remember(work.undecodable)
        if request.random and not pending.built:
            warnings.warn(request.warning(), BottleneckWarning, stacklevel=2)
        whole = dataset.decided is None or not has_scan(home.root, dataset.source)
        if remember and whole:
            save_scan(home.root, replace(dataset, failures=failures))
        if not isinstance(images, Dataset):
            _warn_of_conflicts(dataset, conflicts_path(home.root, dataset.source) if remember else None)
        table = failures_path(home.root, dataset.source)
        first = dataset.first_rows()
        unique = int(has[first].sum())
        computed = len(work.computed)
        if shared:
            computed = int((has & ~shared.before.has(dataset.digests))[first].sum())
        done = Extraction(
            dataset=dataset,
            store=store,
            dim=filled.dim,
            computed=computed,
            reused=unique - computed,
            copies=int(has.sum()) - unique,
            failures=failures,
            failures_table=table if failures and remember else None,
            notes=_notes(dataset, work),
            seconds=time.perf_counter() - started,
            engine=work.engine,
            check=pending.check,
            remarks=(*(pending.remarks if computed else ()), *(shared.remarks if shared else ())),
            restored=pending.restored,
        )
        if not has.any():
            raise NothingUsable(done)
        read_unknown(found.young())  # so that the next command need not
        _keep_request(store, request, tuned)
        if default:
            default.done(dataset.labelled, store.name)
        return done


@dataclass(frozen=True)
class _Filled:
    """A dataset of which every image has features, or a reason to have none."""

    store: Store
    dataset: Dataset
    has: NDArray[np.bool_]  # whether each row has features, when the pipeline had run
    dim: int


def _fill(
    found: FileIndex,
    pending: "LazyBackbone",
    known: dict[bytes, ImageError],
    settings: Settings,
    work: Work,
    progress: Progress | None,
    begin: Callable[[Store], None],
) -> _Filled:
    """Run the pipeline until every image has features, or a reason to have none.

    Raises
    ------
    CacheError
        If features vanish as fast as they are computed.
    """

    def compute(store: Store) -> None:
        begin(store)
        run(found, store, pending.engine, known, settings, work, progress)

    for _ in range(_PASSES):
        until_settled(pending, compute)
        store = pending.store
        dataset, index = found.dataset(), store.index()
        has = index.has(dataset.digests)
        excused = known.keys() | work.undecodable.keys() | work.unread.keys()
        if all(dataset.digests[row].tobytes() in excused for row in np.flatnonzero(~has).tolist()):
            dim = next((entry.dim for entry in index.entries.values()), 0)
            return _Filled(store, dataset, has, dim)
        # Features that were here at the start have been quarantined, or deleted by another process, meanwhile.
    raise CacheError(f"features vanish from {store.folder} while others are computed: is something deleting them?")


def _keep_request(store: Store, request: Request, tuned: Tuned | None) -> None:
    """Keep how the backbone of a store was asked for.

    A network that came back from fine-tuning as it was has the spec of the one it began as, whose request is kept.
    """
    if tuned and store.request() is not None:
        return
    asked = replace(request, precision=store.spec.precision)
    if asked.file is None:
        store.remember_request(asked.to_json())
    elif asked.file.is_file():  # else its features are cached
        found = described(asked, file_digest(asked.file, store.folder.parents[1]), store.folder)
        if {**(store.request() or {}), "weights": found["weights"]} != found:  # else only the project has moved
            store.remember_request(found)
    if tuned:
        keep_tuned(store.folder, tuned)


def _warn_of_conflicts(dataset: Dataset, table: Path | None) -> None:
    """Say which images are under two labels, and write all of them to a table where there is one to be written."""
    where = "The card of a run lists them"
    if table:
        write_conflicts(table, dataset)
        where = f"All: {table}"
    if message := conflicts(dataset, where):
        warnings.warn(message, BottleneckWarning, stacklevel=3)


def _failures(dataset: Dataset, errors: dict[bytes, ImageError], has: NDArray[np.bool_]) -> tuple[Failure, ...]:
    """Return the files that could not be read, and every path of the images that have no features."""
    found = []
    for row in np.flatnonzero(~has).tolist():
        digest = dataset.digests[row].tobytes()
        found.append(Failure(dataset.paths[row], errors[digest].code, str(errors[digest]), digest.hex()))
    return (*dataset.failures, *found)


def _notes(dataset: Dataset, work: Work) -> tuple[Note, ...]:
    rows = dataset.first_rows().tolist() if work.notes else []
    return tuple(
        Note(dataset.paths[row], work.notes[digest])
        for row in rows
        if (digest := dataset.digests[row].tobytes()) in work.notes
    )
