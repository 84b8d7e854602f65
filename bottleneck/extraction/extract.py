"""Compute the features of images that the cache lacks, so that each image passes through the network only once."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.catalogue import check_request
from bottleneck.backbones.request import DEFAULT_MODEL, Request, looks_like_file
from bottleneck.backbones.spec import Spec
from bottleneck.backbones.spec_memo import file_digest
from bottleneck.backbones.tuned import Tuned, read_tuned, record_tuned, weights_of_run
from bottleneck.backbones.weights_files import described
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.scans import conflicts_path, failures_path, has_scan, save_listing, save_scan
from bottleneck.cache.store import Store
from bottleneck.engines.options import EngineOptions
from bottleneck.errors import CacheError, ImageError, ModelError
from bottleneck.extraction.collaborators import Collaborators
from bottleneck.extraction.image_source import ImageSource, listing_of, remembered
from bottleneck.extraction.job import ExtractionJob, Limits, Outcomes
from bottleneck.extraction.loop import run_until_settled
from bottleneck.extraction.plan import Plan
from bottleneck.extraction.result import Extraction, Note, NothingUsable
from bottleneck.extraction.workers import on_first_device, work_together
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.decode import MAX_PIXELS
from bottleneck.images.failures import write_conflicts
from bottleneck.images.file_index import conflicts
from bottleneck.images.given import Given
from bottleneck.images.listing import DataFrameLike, Images, Values
from bottleneck.images.scan import Progress, read_unknown
from bottleneck.images.undecodable import UndecodableMemo
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.paths import expanded
from bottleneck.utils.warn import warn

_PASSES = 3  # one is enough, unless features are deleted meanwhile


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
    """Compute the features that the cache lacks, and commit them.

    Parameters
    ----------
    images : path, DataFrame, Dataset or Given, optional
        See `bottleneck.scan`. By default the images last extracted in the current folder with this cache, otherwise
        the current folder itself.
    paths, labels, splits, groups, path_column, label_column, split_column, group_column
        See `bottleneck.scan`. Named columns are remembered with the images.
    model, weights, seed, layer, pool, flip, resize, crop, restore_exclude, allow_partial, precision, fast_jpeg
        The backbone; see `bottleneck.backbones.request.Request`. `weights` may also be a fine-tuned run, as
        ``run:NAME`` of a folder in `runs` or as a path; it also determines the model and the sizes.
    cache, runs : path
        The folders of the cache and of the runs; neither is scanned.
    batch_size, threads : int, optional
        Images in a batch, and threads that decode.
    max_pixels : int
        Images with more pixels are refused before decoding, which needs at least three bytes of memory per pixel.
    memory : int, optional
        Bytes for files, pixels and features together, in all processes; the network needs memory in addition. By
        default two thirds of the free memory that the network leaves, within the limit of the control group. An image
        that needs more memory fails.
    engine, device, compile
        How the backbone is run; see `bottleneck.engines.options.EngineOptions`. Several devices, separated by
        commas, have one process each; the default is all CUDA devices.
    remember : bool
        Whether later commands use these images by default.
    rehash : bool
        Whether to read every file again, even if its digest is stored. This has no effect on a Dataset, which contains
        digests: scan it again.
    spec : Spec, optional
        The spec of the features, if a run records it. A missing weights file is then needed only for images without
        features.
    progress : callable, optional
        Called with the stage ("extract"), the number of files done, and the number of files to read.

    Returns
    -------
    Extraction

    Raises
    ------
    ImagesError
        If there is no image, if none can be used, or if there is only one class.
    ModelError
        If there is no such model or layer, its weights are not available or do not fit, or no engine computes it in
        the requested precision.
    CacheError
        If the cache cannot be written. Features committed before are kept, as after Ctrl-C or a kill.

    Warns
    -----
    BottleneckWarning
        If weights are random, or the folders have problems.
    """
    started = time.perf_counter()
    check = Arguments(ModelError)
    home, runs, remember = FeatureCache(cache), expanded(runs), check.flag("remember", remember)
    limits = Limits(threads=threads, max_pixels=max_pixels, memory=memory)
    columns = Columns(path_column, label_column, split_column, group_column)
    lists = {"paths": paths, "labels": labels, "splits": splits, "groups": groups}
    rows = None if isinstance(images, Given) else listing_of(home.root, images, lists, columns, remember=remember)
    source = ImageSource.of(rows or images, home.root, labels=rows is not None or bool(labels), columns=columns)
    with remembered(home.root, source.source, labels=source.labels, remember=remember) as default:
        check.path("--weights", weights)
        request, tuned = _requested(
            weights_of_run(weights, runs),
            model=model,
            seed=seed,
            layer=check.texts("--layer", layer),
            pool=pool,
            flip=flip,
            resize=resize,
            crop=crop,
            restore_exclude=check.texts("--restore-exclude", restore_exclude),
            allow_partial=allow_partial,
            precision=precision,
            fast_jpeg=fast_jpeg,
        )
        options = EngineOptions(engine=engine, device=device, batch_size=batch_size, compile=compile)
        spec = spec if request.file and not request.file.is_file() else None
        if spec is None:
            check_request(request)
        memo = UndecodableMemo(home.root / "digests.sqlite")
        found = source.index(home.root, runs)
        if check.flag("rehash", rehash):
            found.forget()
        tools = Collaborators()
        plan = tools.plan_features(request, on_first_device(options), home, found, spec)
        job = ExtractionJob(
            images=found, limits=limits, undecodable=memo.load(), progress=progress, collaborators=tools
        )
        outcomes = Outcomes()

        def begin(store: Store) -> None:
            """Record in the cache what a later command needs if this one is killed."""
            if default:
                default.takes(store.name)
            if store.request() is None:
                _record_request(store, request, tuned)

        if remember and rows:
            save_listing(home.root, rows)
        begin(plan.store)
        shared = work_together(job, plan, outcomes, tools.start_engine, options)
        if shared:  # the other processes have read files too
            plan = shared.plan
            job = replace(job, images=source.index(home.root, runs), undecodable=memo.load())
        filled = _fill(job, plan, outcomes, begin)
        plan, store, dataset, has = filled.plan, filled.plan.store, filled.dataset, filled.has
        failures = _failures(dataset, job.undecodable | outcomes.undecodable | outcomes.unread, has)
        memo.remember(outcomes.undecodable)
        if request.random and not plan.built:
            warn(request.warning())
        whole = dataset.decided is None or not has_scan(home.root, dataset.source)
        if remember and whole:
            save_scan(home.root, replace(dataset, failures=failures))
        if not isinstance(images, Dataset):
            _warn_of_conflicts(dataset, conflicts_path(home.root, dataset.source) if remember else None)
        table = failures_path(home.root, dataset.source)
        first = dataset.first_rows()
        unique = int(has[first].sum())
        computed = len(outcomes.computed)
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
            notes=_notes(dataset, outcomes),
            seconds=time.perf_counter() - started,
            engine=plan.engine,
            check=plan.check,
            remarks=(*(plan.remarks if computed else ()), *(shared.remarks if shared else ())),
            restored=plan.restored,
        )
        if not has.any():
            raise NothingUsable(done)
        read_unknown(job.images.recent())  # so that the next command need not read them
        _record_request(store, request, tuned)
        if default:
            default.done(dataset.labelled, store.name)
        return done


def _requested(weights: str, **options: Any) -> tuple[Request, Tuned | None]:
    """Return the request for a backbone, with the model and sizes of fine-tuned weights, and their metadata."""
    tuned = read_tuned(expanded(weights)) if looks_like_file(weights) else None
    if tuned:
        own = {"model": tuned.model, "resize": tuned.options.get("resize"), "crop": tuned.options.get("crop")}
        options |= {name: value for name, value in own.items() if options[name] is None}
        options["fast_jpeg"] = True if tuned.options.get("fast_jpeg") else options["fast_jpeg"]
    options["model"] = DEFAULT_MODEL if options["model"] is None else options["model"]
    return Request(weights=weights, **options), tuned


@dataclass(frozen=True)
class _Filled:
    """A dataset in which every image has features or a known reason to have none."""

    plan: Plan
    dataset: Dataset
    has: NDArray[np.bool_]  # whether each row has features, after the last pass
    dim: int


def _fill(job: ExtractionJob, plan: Plan, outcomes: Outcomes, begin: Callable[[Store], None]) -> _Filled:
    """Run passes until every image has features or a known reason to have none.

    Raises
    ------
    CacheError
        If features are deleted as fast as they are computed.
    """
    for _ in range(_PASSES):
        plan = run_until_settled(job, plan, outcomes, job.collaborators.start_engine, begin)
        store = plan.store
        dataset, index = job.images.dataset(), store.index()
        has = index.has(dataset.digests)
        excused = job.undecodable.keys() | outcomes.undecodable.keys() | outcomes.unread.keys()
        if all(dataset.digests[row].tobytes() in excused for row in np.flatnonzero(~has).tolist()):
            dim = next((entry.dim for entry in index.entries.values()), 0)
            return _Filled(plan, dataset, has, dim)
        # Features that were here at the start have been quarantined, or deleted by another process, meanwhile.
    raise CacheError(f"features disappear from {store.folder} during the extraction: is another program deleting them?")


def _record_request(store: Store, request: Request, tuned: Tuned | None) -> None:
    """Record the request of a store's backbone.

    A network that fine-tuning left unchanged has the spec of the initial network; the recorded request is then kept.
    """
    if tuned and store.request() is not None:
        return
    asked = replace(request, precision=store.spec.precision)
    if asked.file is None:
        store.remember_request(asked.to_json())
    elif asked.file.is_file():  # otherwise its features are cached
        found = described(asked, file_digest(asked.file, store.folder.parents[1]), store.folder)
        if {**(store.request() or {}), "weights": found["weights"]} != found:  # otherwise only the project has moved
            store.remember_request(found)
    if tuned:
        record_tuned(store.folder, tuned)


def _warn_of_conflicts(dataset: Dataset, table: Path | None) -> None:
    """Warn of images with two labels; write them to a table, if one is given."""
    where = "The card of a run lists them"
    if table:
        write_conflicts(table, dataset)
        where = f"Full list: {table}"
    if message := conflicts(dataset, where):
        warn(message)


def _failures(dataset: Dataset, errors: dict[bytes, ImageError], has: NDArray[np.bool_]) -> tuple[Failure, ...]:
    """Return the files that could not be read, and every path of the images that have no features."""
    found = []
    for row in np.flatnonzero(~has).tolist():
        digest = dataset.digests[row].tobytes()
        found.append(Failure(dataset.paths[row], errors[digest].code, str(errors[digest]), digest.hex()))
    return (*dataset.failures, *found)


def _notes(dataset: Dataset, outcomes: Outcomes) -> tuple[Note, ...]:
    rows = dataset.first_rows().tolist() if outcomes.notes else []
    return tuple(
        Note(dataset.paths[row], outcomes.notes[digest])
        for row in rows
        if (digest := dataset.digests[row].tobytes()) in outcomes.notes
    )
