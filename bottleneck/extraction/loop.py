"""Run one pass over the images: compute the features of those that have none, and commit them to the cache."""

from collections.abc import Callable
from functools import partial

import numpy as np

from bottleneck.cache.store import Store
from bottleneck.engines.parity import Sample
from bottleneck.errors import CacheError, ImageError
from bottleneck.extraction.claims import Claims
from bottleneck.extraction.commits import Commits
from bottleneck.extraction.items import items_of
from bottleneck.extraction.job import ExtractionJob, Outcomes
from bottleneck.extraction.memory import usual_memory
from bottleneck.extraction.plan import EngineStart, Plan, StartEngine
from bottleneck.extraction.stages import Computed, Crashed, Read, Stages
from bottleneck.images.file_index import FileIndex
from bottleneck.images.keys import as_digests

_PATIENCE = 0.3  # seconds to wait for threads after Ctrl-C


def run_pass(
    job: ExtractionJob, store: Store, outcomes: Outcomes, start_engine: Callable[[Sample], EngineStart]
) -> EngineStart | None:
    """Read the files whose digests are unknown, and compute the features of every image that has none.

    Parameters
    ----------
    job : ExtractionJob
    store : Store
    outcomes : Outcomes
        Receives the outcomes of the images.
    start_engine : callable
        Takes a function that returns some of the images, ``uint8 (n, h, w, 3)``. Called in a thread once the first
        pixels are ready.

    Returns
    -------
    EngineStart or None
        The result of `start_engine`; if it has no engine, the pass was stopped. None if no image needed an engine.

    Raises
    ------
    CacheError
        If features cannot be committed. Those that were committed before are kept, as after Ctrl-C.
    """
    images, tools = job.images, job.collaborators
    claims = Claims(store.index(), job.undecodable.keys() | outcomes.undecodable.keys(), tools.refresh_seconds)
    items = items_of(images, claims, job.share)
    memory = tools.budget(usual_memory() if job.limits.memory is None else job.limits.memory)
    stages = Stages(images.paths, job.limits, tools, store.spec.preprocessing, claims, memory)
    commits = Commits(store, memory.committed, tools.pace)
    start: EngineStart | None = None
    starting = False
    read = waiting = 0  # items that were read; images whose features are not computed yet
    try:
        stages.read(items)
        while read < len(items) or waiting:
            event = stages.events.get()
            if isinstance(event, Crashed):
                raise event.error
            if isinstance(event, EngineStart):
                start = event
                if not start.engine:
                    return start
                commits = Commits(store, memory.committed, tools.pace)  # its clock starts now
                stages.compute(start.engine)
            elif isinstance(event, Computed):
                waiting -= event.count
                _commit(event, commits, outcomes)
            elif event is not None:
                read += 1
                waiting += event.has_pixels
                _take(event, images, outcomes)
                if event.has_pixels and not starting:
                    starting = True
                    stages.start(start_engine)
            if job.progress:
                job.progress("extract", read - waiting, len(items))
        return start
    except CacheError:
        stages.stop(0)  # the remaining features cannot be committed either
        raise
    finally:
        try:
            for event in stages.events.rest():
                if isinstance(event, Computed):
                    _commit(event, commits, outcomes)
            commits.flush()  # after Ctrl-C too, so that computed features are kept
            images.save()
        finally:
            stages.stop(_PATIENCE)
            if start and start.engine:
                start.engine.close()


def run_until_settled(
    job: ExtractionJob,
    plan: Plan,
    outcomes: Outcomes,
    start_engine: StartEngine,
    begin: Callable[[Store], None] = lambda store: None,
) -> Plan:
    """Run passes until one completes without a change of plan, and return its plan with the engine.

    Parameters
    ----------
    job : ExtractionJob
    plan : Plan
    outcomes : Outcomes
    start_engine : callable
        `bottleneck.extraction.plan.start_engine`, or a replacement.
    begin : callable, optional
        Called with the store of each plan before its pass.

    Notes
    -----
    This terminates: a new plan is for the network that was built, or for the next precision.
    """
    while True:
        begin(plan.store)
        start = run_pass(job, plan.store, outcomes, partial(start_engine, plan))
        plan = (start and start.plan) or plan
        if start is None or start.engine:
            return plan


def _take(read: Read, images: FileIndex, outcomes: Outcomes) -> None:
    """Record the outcome of a file."""
    if read.problem:
        if read.item.digest is None:
            images.record_failure(read.item.rows[0], read.problem)
        else:
            outcomes.unread[read.item.digest] = read.problem
        return
    if read.signature is None:
        return  # another process has committed its features
    if read.item.digest is None:
        images.record_digest(read.row, read.digest, read.signature, read.when)
    if read.undecodable:
        outcomes.undecodable[read.digest] = read.undecodable
    elif read.note:
        outcomes.notes[read.digest] = read.note


def _commit(batch: Computed, commits: Commits, outcomes: Outcomes) -> None:
    """Add the features of a batch to the next commit."""
    if batch.features is None:
        return
    good = np.asarray(np.isfinite(batch.features).all(axis=1))
    for digest in (digest for digest, fine in zip(batch.digests, good.tolist(), strict=True) if not fine):
        outcomes.undecodable[digest] = ImageError(
            "not-finite", "the network returned NaN or infinity; check its weights"
        )
    done = [digest for digest, fine in zip(batch.digests, good.tolist(), strict=True) if fine]
    if done:
        commits.add(as_digests(done), batch.features[good])
        outcomes.computed.update(done)
