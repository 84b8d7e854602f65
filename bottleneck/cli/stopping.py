"""Ctrl-C and SIGTERM: the first ends the command cleanly, with exit code 130 or 143, the second immediately."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from bottleneck.cli.output import is_capable

_AT_ONCE = 1.0  # seconds in which a second signal counts as the first: a terminal and a parent may both send it
_SOON = 0.01  # seconds after which an interrupt that could not be raised is sent again
_SHOW_CURSOR = "\x1b[?25h"

_in_import: Callable[[], NoReturn] | None = None
_received: list[tuple[int, float]] = []  # number and time of the first signal


def listen(in_import: Callable[[], NoReturn]) -> None:
    """Handle SIGINT and SIGTERM by an interrupt, so that the command ends cleanly.

    Processes that torchrun has started keep the default action of SIGTERM, which ends them while they wait for each
    other.

    Parameters
    ----------
    in_import : callable
        Ends the process during an import, where an exception may pass through C++ code that aborts on it.
    """
    global _in_import
    _in_import = in_import
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # with nohup, or & in a script
        signal.signal(signal.SIGINT, _stop)
    if int(os.environ.get("WORLD_SIZE") or 1) < 2:
        signal.signal(signal.SIGTERM, _stop)
    sys.unraisablehook = _unraisable


def was_stopped() -> bool:
    """Whether a signal has arrived; it may be the cause of any later exception, for example in an import."""
    return bool(_received)


def exit_code() -> int:
    """Return 128 plus the number of the signal, as shells do: 130 after Ctrl-C."""
    return 128 + (_received[0][0] if _received else signal.SIGINT)


def _stop(number: int, frame: FrameType | None) -> None:
    if not _received:
        _received.append((number, time.monotonic()))
        if _in_import and _imports(frame):
            _in_import()
        raise KeyboardInterrupt
    if time.monotonic() - _received[0][1] > _AT_ONCE:
        if is_capable(sys.stderr):
            os.write(2, f"{_SHOW_CURSOR}\n".encode())
        os._exit(exit_code())


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported."""
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _unraisable(found: "sys.UnraisableHookArgs") -> None:
    """Raise an interrupt again that arrived in a destructor or a callback, where it is ignored."""
    if isinstance(found.exc_value, KeyboardInterrupt) and _received:
        _send_again(_received.pop()[0])
    else:
        sys.__unraisablehook__(found)


def _send_again(number: int) -> None:
    """Send a signal again after a moment, when the code that ignored it has returned."""
    delay = _SOON
    while True:
        again = threading.Timer(delay, os.kill, (os.getpid(), number))
        again.daemon = True
        try:
            again.start()
        except KeyboardInterrupt:  # it arrived while this thread waited for the timer to start
            _received.clear()
            delay *= 2
        else:
            return
