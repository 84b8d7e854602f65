"""Run a function in another process, so that the server stays small and answers while it computes."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import numpy as np

from bottleneck.errors import BottleneckError, ImageError

Result = TypeVar("Result")
Report = Callable[[float], None]
_HEARTBEAT = 0.2  # seconds
_NICENESS = 5  # the server goes first


def in_child(function: Callable[..., Result], *arguments: Any, report: Report) -> Result:
    """Return ``function(*arguments, report)`` of a new process, which ends with this one.

    Parameters
    ----------
    function : callable
        A function of a module. Its last argument is a callable that takes the share that is done.
    *arguments : object
    report : callable
        Called in this process with the share that is done, several times a second. If it raises an error, the process
        is ended.

    Raises
    ------
    BottleneckError
        If the function raises an error, or its process is killed.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_run, args=(there,), daemon=True)
    process.start()
    there.close()
    try:
        _send(here, function, arguments)  # as arguments of the process, it would wait forever for one that has ended
        share = 0.0
        while True:
            if not here.poll(_HEARTBEAT):
                report(share)  # it may raise an error, which ends the process
                continue
            kind, value = here.recv()
            if kind == "report":
                share = value
                report(share)
            elif kind == "error":
                raise BottleneckError(value)
            else:
                found: Result = value
                return found
    except (EOFError, BrokenPipeError, ConnectionResetError):
        process.join()
        raise BottleneckError(
            f"expected a result, found that its process has ended (code {process.exitcode}), perhaps for lack of memory"
        ) from None
    finally:
        here.close()
        process.terminate()
        process.join()


class ChildService:
    """A function of bytes that another process makes at its first call, and keeps until the end.

    Parameters
    ----------
    make : callable
        A function or class of a module; called in that process, it returns the function.
    *arguments : object
        Of `make`.
    """

    def __init__(self, make: Callable[..., Callable[[bytes], Any]], *arguments: Any) -> None:
        self._made_by, self._lock = (make, arguments), threading.Lock()
        self._process: Any = None
        self._here: Any = None

    def __call__(self, data: bytes) -> Any:
        """Return what the function returns.

        Raises
        ------
        ImageError, BottleneckError
            If it raises one, or another error, or its process is killed.
        """
        with self._lock:
            if self._process is None:
                self._start()
            try:
                self._here.send_bytes(data)
                kind, *found = self._here.recv()
            except (EOFError, OSError) as error:
                self._end()
                raise BottleneckError(
                    "expected a result, found that its process has ended, perhaps for lack of memory"
                ) from error
        if kind == "image":
            raise ImageError(*found)
        if kind == "error":
            raise BottleneckError(*found)
        return found[0]

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there,), daemon=True)
        self._process.start()
        there.close()
        with suppress(OSError):  # the first call finds that it has ended
            self._here.send(self._made_by)

    def _end(self) -> None:
        if self._process is not None:
            self._here.close()
            self._process.terminate()
            self._process.join()
            self._process = None


def _serve(there: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError, EOFError):  # the other process has ended
        make, arguments = there.recv()
        function = None
        while True:
            data = there.recv_bytes()
            try:
                function = function or make(*arguments)
                answer: tuple[Any, ...] = "result", function(data)
            except ImageError as error:
                answer = "image", error.code, str(error)
            except BottleneckError as error:
                answer = "error", str(error)
            except Exception as error:
                answer = "error", f"unexpected {type(error).__name__}: {error}. This is a bug"
            there.send(answer)


@dataclass(frozen=True)
class _ArrayAhead:
    """Stands for an array whose bytes follow."""

    shape: tuple[int, ...]
    dtype: str


def _send(there: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Send a function and its arguments; arrays are sent as they are, because a message needs two copies of them."""
    arrays = [np.ascontiguousarray(one) for one in arguments if isinstance(one, np.ndarray)]
    plain = [_ArrayAhead(one.shape, one.dtype.str) if isinstance(one, np.ndarray) else one for one in arguments]
    there.send((function, plain))
    for array in arrays:
        there.send_bytes(array.reshape(-1).view(np.uint8).data)


def _received(here: Connection) -> tuple[Callable[..., Any], list[Any]]:
    function, arguments = here.recv()
    for place, one in enumerate(arguments):
        if isinstance(one, _ArrayAhead):
            array = np.empty(one.shape, one.dtype)
            if array.size:
                here.recv_bytes_into(array.reshape(-1).view(np.uint8).data)
            else:
                here.recv_bytes()
            arguments[place] = array
    return function, arguments


def _run(there: Connection) -> None:
    """Receive a function and its arguments, and send what it returns, or its error.

    The pipe breaks when the other process has ended.
    """
    warnings.filterwarnings("ignore", message="Loky-backed", category=UserWarning)  # of scikit-learn in openTSNE
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then ends this process
    with suppress(OSError, AttributeError):
        os.nice(_NICENESS)
    with suppress(OSError, EOFError):
        function, arguments = _received(there)
        try:
            there.send(("result", function(*arguments, lambda share: there.send(("report", share)))))
        except BrokenPipeError:
            raise
        except BottleneckError as error:
            there.send(("error", str(error)))
        except Exception as error:
            there.send(("error", f"unexpected {type(error).__name__}: {error}. This is a bug"))
