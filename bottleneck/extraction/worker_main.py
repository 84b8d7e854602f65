"""The main function of a worker: a process with its own device that computes its share of the images."""

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
from bottleneck.engines.memory import tune_process
from bottleneck.engines.options import EngineOptions
from bottleneck.errors import BottleneckError
from bottleneck.extraction.job import ExtractionJob, Limits, Outcomes
from bottleneck.extraction.loop import run_until_settled
from bottleneck.extraction.plan import plan_features, start_engine
from bottleneck.images.file_index import index_files
from bottleneck.images.splits import Shares
from bottleneck.images.undecodable import UndecodableMemo

_PATIENCE = 5.0  # seconds to commit computed features once the main process has ended


def work(data: dict[str, Any]) -> None:
    """Compute the features of one share of the images.

    Parameters
    ----------
    data : dict
        The job written by `bottleneck.extraction.workers.WorkerPool`: images (a CSV), request, options, cache, limits,
        share.

    Raises
    ------
    BottleneckError
        See `bottleneck.extract`. Features that were committed before are kept.
    """
    cache = FeatureCache(data["cache"])
    images = index_files(data["images"], labels=False, shares=Shares(), cache=cache.root, exclude=())
    memo, outcomes = UndecodableMemo(cache.root / "digests.sqlite"), Outcomes()
    limits, share = Limits(**data["limits"]), tuple(data["share"])
    job = ExtractionJob(images=images, limits=limits, undecodable=memo.load(), share=share)
    plan = plan_features(Request(**data["request"]), EngineOptions(**data["options"]), cache, images)
    run_until_settled(job, plan, outcomes, start_engine)
    memo.remember(outcomes.undecodable)


def main() -> None:
    """Run the job read from stdin; stop when stdin is closed, because the main process has then ended."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits the setting to ignore it
    tune_process()
    try:
        job = json.loads(sys.stdin.readline())
        threading.Thread(target=_end_with_stdin, args=(Path(job["images"]).parent,), daemon=True).start()
        work(job)
    except (BottleneckError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted")


def _end_with_stdin(folder: Path) -> None:
    """Interrupt the main thread when stdin is closed, and exit if it does not react.

    Also delete the temporary folder of the pool, because the process that created it no longer can.
    """
    while os.read(sys.stdin.fileno(), 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    if sys.platform != "win32":
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(_PATIENCE)
    os._exit(1)
