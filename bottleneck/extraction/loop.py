"""One pass over the images: those without features go through all stages, and their features into the cache."""

from collections.abc import Callable
from functools import partial

import numpy as np

from bottleneck.cache.store import Store
from bottleneck.engines.hardware import cores
from bottleneck.engines.parity import Sample
from bottleneck.errors import CacheError, ImageError
from bottleneck.extraction.claims import Claims
from bottleneck.extraction.commits import Commits
from bottleneck.extraction.items import items_of
from bottleneck.extraction.job import ExtractionJob, Outcomes
from bottleneck.extraction.memory import MemoryBudget, usual_memory
from bottleneck.extraction.plan import EngineStart, Plan, StartEngine
from bottleneck.extraction.stages import Computed, Crashed, Read, Stages
from bottleneck.images.file_index import FileIndex
from bottleneck.images.keys import as_digests

_PATIENCE = 0.3  # seconds that threads have to end in after Ctrl-C


def run_pass(
    job: ExtractionJob, store: Store, outcomes: Outcomes, start_engine: Callable[[Sample], EngineStart]
) -> EngineStart | None:
    """Read the files of unknown digest, and compute the features of every image that has none.

    Parameters
    ----------
    job : ExtractionJob
    store : Store
    outcomes : Outcomes
        Takes what becomes of the images.
    start_engine : callable
        Takes a function that returns some of the images, ``uint8 (n, h, w, 3)``. Called in a thread once the first
        pixels are ready.

    Returns
    -------
    EngineStart or None
        What `start_engine` returned; without an engine, the pass has ended there. None where no image needed one.

    Raises
    ------
    CacheError
        If features cannot be committed. What was committed before is kept, as it is after Ctrl-C.
    """
    images = job.images
    claims = Claims(store.index(), job.undecodable.keys() | outcomes.undecodable.keys())
    items = items_of(images, claims, job.share)
    memory = MemoryBudget(usual_memory() if job.limits.memory is None else job.limits.memory)
    threads = job.limits.threads or cores()
    stages = Stages(images.paths, store.spec.preprocessing, job.limits.max_pixels, claims, memory, threads)
    commits = Commits(store, memory.committed)
    start: EngineStart | None = None
    starting = False
    read = waiting = 0  # items that were read; images that are on their way through the engine
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
                commits = Commits(store, memory.committed)  # whose clock begins now
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
        stages.stop(0)  # what is left cannot be committed either
        raise
    finally:
        try:
            for event in stages.events.rest():
                if isinstance(event, Computed):
                    _commit(event, commits, outcomes)
            commits.flush()  # after Ctrl-C too: what is computed is kept
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
    """Run passes until the plan holds, and return it, with its engine.

    Parameters
    ----------
    job : ExtractionJob
    plan : Plan
    outcomes : Outcomes
    start_engine : callable
        `bottleneck.extraction.plan.start_engine`, or one in its place.
    begin : callable, optional
        Called with the store of each plan before its pass.

    Notes
    -----
    Each new plan is of the network as it was built, or of a later precision, so this ends.
    """
    while True:
        begin(plan.store)
        start = run_pass(job, plan.store, outcomes, partial(start_engine, plan))
        plan = (start and start.plan) or plan
        if start is None or start.engine:
            return plan


def _take(read: Read, images: FileIndex, outcomes: Outcomes) -> None:
    """Take what came of a file."""
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
    """Take the features of a batch."""
    if batch.features is None:
        return
    good = np.asarray(np.isfinite(batch.features).all(axis=1))
    for digest in (digest for digest, fine in zip(batch.digests, good.tolist(), strict=True) if not fine):
        outcomes.undecodable[digest] = ImageError(
            "not-finite", "the network gives NaN or infinity; are its weights intact?"
        )
    done = [digest for digest, fine in zip(batch.digests, good.tolist(), strict=True) if fine]
    if done:
        commits.add(as_digests(done), batch.features[good])
        outcomes.computed.update(done)
