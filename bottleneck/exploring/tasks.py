"""Work in the background: what is idle, running, ready or failed, and how far it is."""

import threading
from collections.abc import Callable
from typing import Any

from bottleneck.engines.memory import return_freed_memory
from bottleneck.errors import BottleneckError

IDLE, RUNNING, READY, FAILED = "idle", "running", "ready", "failed"

Report = Callable[[float], None]


class _Stopped(Exception):
    """The work is not needed any more."""


class BackgroundTask:
    """One job that runs in a thread, and may run again.

    Parameters
    ----------
    work : callable
        Called with a function that takes the share that is done.
    done : callable
        Called without arguments after the work has succeeded or failed, for example to increase a revision.
    """

    def __init__(self, work: Callable[[Report], None], done: Callable[[], None] = lambda: None) -> None:
        self._work, self._done = work, done
        self._lock = threading.Lock()
        self._again = self._stopped = False
        self._thread: threading.Thread | None = None
        self.state, self.progress = IDLE, 0.0
        self.error: str | None = None

    def start(self, *, again: bool = True) -> None:
        """Start the work; if it is running, run it once more afterwards, unless `again` is False."""
        with self._lock:
            if self._stopped:
                return
            if self.state == RUNNING:
                self._again = self._again or again
                return
            self.state, self.progress, self.error = RUNNING, 0.0, None
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def start_once(self) -> None:
        """Start the work if it was never started."""
        if self.state == IDLE:
            self.start(again=False)

    def stop(self) -> None:
        """Let the work end when it next reports; it does not start again."""
        self._stopped = True

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the work has ended."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _run(self) -> None:
        while True:
            state, error = READY, None
            try:
                self._work(self._report)
            except _Stopped:
                state = IDLE
            except (BottleneckError, OSError) as problem:
                state, error = FAILED, str(problem)
            except Exception as problem:
                state, error = FAILED, f"unexpected {type(problem).__name__}: {problem}. This is a bug"
            if not self._stopped:
                self._done()
                return_freed_memory()
            with self._lock:
                if self._stopped or not self._again:
                    self.state, self.error, self.progress = state, error, 1.0 if state == READY else self.progress
                    return
                self._again = False

    def _report(self, share: float) -> None:
        if self._stopped:
            raise _Stopped
        self.progress = max(0.0, min(1.0, share))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"state": self.state, "progress": round(self.progress, 3), "error": self.error}
