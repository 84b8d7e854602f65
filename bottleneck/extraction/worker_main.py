"""One of several processes that extract together: it has a device of its own and computes its share of the images."""

import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bottleneck.backbones.request import Request
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.engines.options import EngineOptions
from bottleneck.errors import BottleneckError
from bottleneck.extraction.items import Settings, Work
from bottleneck.extraction.lazy_backbone import LazyBackbone, until_settled
from bottleneck.extraction.loop import run
from bottleneck.images.file_index import survey
from bottleneck.images.splits import Shares
from bottleneck.images.undecodable import UndecodableMemo

_PATIENCE = 5.0  # seconds to commit in what is computed, once nobody wants more


def work(job: dict[str, Any]) -> None:
    """Compute the features of one share of the images.

    Parameters
    ----------
    job : dict
        What `bottleneck.extraction.workers.WorkerPool` wrote: images (a CSV), request, wish, cache and settings.

    Raises
    ------
    BottleneckError
        As `bottleneck.extract`. What was committed before is kept.
    """
    request, wish = Request(**job["request"]), EngineOptions(**job["wish"])
    settings = Settings(**{**job["settings"], "share": tuple(job["settings"]["share"])})
    home = FeatureCache(job["cache"])
    found = survey(job["images"], labels=False, shares=Shares(), cache=home.root, exclude=())
    pending = LazyBackbone(request, home, wish)
    memo = UndecodableMemo(home.root / "digests.sqlite")
    known, done = memo.load(), Work()
    until_settled(pending, lambda store: run(found, store, pending.engine, known, settings, done, None))
    memo.remember(done.undecodable)


def main() -> None:
    """Do the work that stands on stdin, unless its end comes first: the process that wants it is gone."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
    try:
        job = json.loads(sys.stdin.readline())
        threading.Thread(target=_end_with_stdin, args=(Path(job["images"]).parent,), daemon=True).start()
        work(job)
    except (BottleneckError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted")


def _end_with_stdin(folder: Path) -> None:
    """Send the main thread a Ctrl-C when stdin ends, and end the process if that is not heard.

    The crew's temporary folder goes, too: who made it can no longer delete it.
    """
    while os.read(sys.stdin.fileno(), 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    if sys.platform != "win32":
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(_PATIENCE)
    os._exit(1)
