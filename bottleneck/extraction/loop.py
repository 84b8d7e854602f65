"""One pass over a set of images: what has no features goes through all stages, and into the cache."""

from typing import TYPE_CHECKING

import numpy as np

from bottleneck.cache.store import Store
from bottleneck.engines.hardware import cores
from bottleneck.errors import CacheError, ImageError
from bottleneck.extraction.claims import Claims
from bottleneck.extraction.commits import Commits
from bottleneck.extraction.items import Settings, Work, items_of
from bottleneck.extraction.memory import MemoryBudget, usual_memory
from bottleneck.extraction.stages import Computed, Crashed, Read, Stages, Started, StartEngine
from bottleneck.images.file_index import FileIndex
from bottleneck.images.keys import as_digests
from bottleneck.images.scan import Progress

if TYPE_CHECKING:
    from bottleneck.engines.engine import Engine

_PATIENCE = 0.3  # seconds that threads have to end in after Ctrl-C


def run(
    survey: FileIndex,
    store: Store,
    start_engine: StartEngine,
    known: dict[bytes, ImageError],
    settings: Settings,
    work: Work,
    progress: Progress | None,
) -> None:
    """Read the files that are unknown, and send every image without features through decoding and the engine.

    Parameters
    ----------
    survey : FileIndex
        Learns the digests of the files that are read.
    store : Store
    start_engine : callable
        Takes what gives some images, ``uint8 (n, h, w, 3)``, and gives the engine; not called where none needs it.
    known : dict of bytes to ImageError
        Images that need not be tried again.
    settings : Settings
    work : Work
        Takes what was done.
    progress : callable or None

    Raises
    ------
    CacheError
        If features cannot be committed. What was committed before is kept, as it is after Ctrl-C.
    """
    claims = Claims(store.index(), known.keys() | work.undecodable.keys())
    items = items_of(survey, claims, settings.share)
    memory = MemoryBudget(usual_memory() if settings.memory is None else settings.memory)
    stages = Stages(
        survey.paths, store.spec.preprocessing, settings.max_pixels, claims, memory, settings.threads or cores()
    )
    commits = Commits(store, memory.committed)
    engine: Engine | None = None
    starting = False
    read = waiting = 0  # items that were read; images that are on their way through the engine
    try:
        stages.read(items)
        while read < len(items) or waiting:
            event = stages.events.get()
            if isinstance(event, Crashed):
                raise event.error
            if isinstance(event, Started):
                engine = event.engine
                work.engine = engine.name
                commits = Commits(store, memory.committed)  # whose clock begins now
                stages.compute(engine)
            elif isinstance(event, Computed):
                waiting -= event.count
                _commit(event, commits, work)
            elif event is not None:
                read += 1
                waiting += event.has_pixels
                _take(event, survey, work)
                if event.has_pixels and not starting:
                    starting = True
                    stages.start(start_engine)
            if progress:
                progress("extract", read - waiting, len(items))
    except CacheError:
        stages.stop(0)  # what is left cannot be committed either
        raise
    finally:
        try:
            for event in stages.events.rest():
                if isinstance(event, Computed):
                    _commit(event, commits, work)
            commits.flush()  # after Ctrl-C too: what is computed is kept
            survey.save()
        finally:
            stages.stop(_PATIENCE)
            if engine:
                engine.close()


def _take(read: Read, survey: FileIndex, work: Work) -> None:
    """Take what came of a file."""
    if read.problem:
        if read.item.digest is None:
            survey.fail(read.item.rows[0], read.problem)
        else:
            work.unread[read.item.digest] = read.problem
        return
    if read.signature is None:
        return  # others have committed its features
    if read.item.digest is None:
        survey.learn(read.row, read.digest, read.signature, read.when)
    if read.undecodable:
        work.undecodable[read.digest] = read.undecodable
    elif read.note:
        work.notes[read.digest] = read.note


def _commit(batch: Computed, commits: Commits, work: Work) -> None:
    """Take the features of a batch."""
    if batch.features is None:
        return
    good = np.asarray(np.isfinite(batch.features).all(axis=1))
    for digest in (digest for digest, fine in zip(batch.digests, good.tolist(), strict=True) if not fine):
        work.undecodable[digest] = ImageError(
            "not-finite", "the network gives NaN or infinity; are its weights intact?"
        )
    done = [digest for digest, fine in zip(batch.digests, good.tolist(), strict=True) if fine]
    if done:
        commits.add(as_digests(done), batch.features[good])
        work.computed.update(done)
