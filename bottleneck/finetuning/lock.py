"""A fine-tuning that is at work is locked: its checkpoint has one writer."""

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from bottleneck.errors import BottleneckWarning, RunError
from bottleneck.utils.files import NotRegularError
from bottleneck.utils.tree import Tree

LOCK = "finetune.lock"
HOLDER = "finetune.holder.json"  # not in the lock's file, which some versions of filelock empty before they lock it


@contextmanager
def at_work(path: Path) -> Iterator[None]:
    """Hold the lock of a fine-tuning; the system frees it when the process ends, however it ends.

    Parameters
    ----------
    path : Path
        The folder of the run.

    Raises
    ------
    RunError
        If another process holds it, or something else than a file has its name.

    Warns
    -----
    BottleneckWarning
        If the file system has no locks.
    """
    _expect_file(path)
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"expected {path} to be free, {_holder(path)} is fine-tuning it: wait for it to end, or stop it; then "
            f"`bottleneck finetune --resume {path.name}` goes on with it"
        ) from None
    except PermissionError as error:
        raise RunError(f"cannot lock {path}: {error.strerror or error}") from error
    except (OSError, NotImplementedError) as error:  # the second is filelock's, of a system without locks
        warnings.warn(
            f"{path} cannot be locked ({error}): resume it in one process at a time", BottleneckWarning, stacklevel=4
        )
    try:
        with suppress(OSError):
            since = datetime.now().astimezone().isoformat(timespec="seconds")
            told = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
            Tree.above(path, 1).write_json(path / HOLDER, told)
        yield
    finally:
        with suppress(OSError):
            Tree.above(path, 1).unlink(path / HOLDER)
        lock.release()


def unlock_for_good(path: Path) -> None:
    """Remove the lock of a fine-tuning that has become a run, while it is held: nobody resumes a run."""
    with suppress(OSError):  # Windows does not delete an open file
        Tree.above(path, 1).unlink(path / LOCK)


def _expect_file(path: Path) -> None:
    """Refuse a link, which filelock follows, and it may empty what that leads to."""
    try:
        with Tree.above(path, 1).at(path) as folder:
            folder.expect_regular(LOCK)
    except FileNotFoundError:
        pass
    except NotRegularError as error:
        raise RunError(
            f"expected a file or nothing at {path / LOCK}, found a link, a folder or a device: remove it"
        ) from error
    except OSError as error:
        raise RunError(f"cannot lock {path}: {error.strerror or error}") from error


def _holder(path: Path) -> str:
    """Return which process holds the lock, as far as it has said so."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        told = Tree.above(path, 1).read_json(path / HOLDER)
        process, host, since = told["process"], told["host"], told["since"]
        if isinstance(process, int) and isinstance(host, str) and isinstance(since, str):
            return f"process {process} on {host} (since {since})"
    return "another process"
