"""The lock of a running fine-tuning, so that only one process writes its checkpoint."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from bottleneck.errors import RunError
from bottleneck.utils.files import NotRegularError
from bottleneck.utils.tree import Tree
from bottleneck.utils.warn import warn

LOCK = "finetune.lock"
HOLDER = "finetune.holder.json"  # not in the lock file, which some versions of filelock truncate before they lock it


@contextmanager
def locked(path: Path, kind: Callable[[Path], BaseFileLock] = FileLock) -> Iterator[None]:
    """Hold the lock of a fine-tuning; the system releases it when the process ends, however it ends.

    Parameters
    ----------
    path : Path
        The folder of the run.
    kind : callable
        Returns the lock at a path.

    Raises
    ------
    RunError
        If another process holds it, or its name is taken by something other than a file.

    Warns
    -----
    BottleneckWarning
        If the file system does not support locks.
    """
    _expect_file(path)
    lock = kind(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"expected {path} to be unlocked, {_holder(path)} is fine-tuning it: wait until it ends, or stop it; then "
            f"`bottleneck finetune --resume {path.name}` continues it"
        ) from None
    except PermissionError as error:
        raise RunError(f"cannot lock {path}: {error.strerror or error}") from error
    except (OSError, NotImplementedError) as error:  # filelock raises the second on a system without locks
        warn(f"{path} cannot be locked ({error}): resume it in only one process at a time")
    try:
        with suppress(OSError):
            since = datetime.now().astimezone().isoformat(timespec="seconds")
            holder = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
            Tree.above(path, 1).write_json(path / HOLDER, holder)
        yield
    finally:
        with suppress(OSError):
            Tree.above(path, 1).unlink(path / HOLDER)
        lock.release()


def remove_lock(path: Path) -> None:
    """Remove the lock of a finished fine-tuning while it is held: a finished run is never resumed."""
    with suppress(OSError):  # Windows does not delete an open file
        Tree.above(path, 1).unlink(path / LOCK)


def _expect_file(path: Path) -> None:
    """Refuse a symbolic link: filelock would follow it, and might truncate its target."""
    try:
        with Tree.above(path, 1).at(path) as folder:
            folder.expect_regular(LOCK)
    except FileNotFoundError:
        pass
    except NotRegularError as error:
        raise RunError(
            f"expected a regular file or nothing at {path / LOCK}, found a link, a folder or a device: remove it"
        ) from error
    except OSError as error:
        raise RunError(f"cannot lock {path}: {error.strerror or error}") from error


def _holder(path: Path) -> str:
    """Return which process holds the lock, if it is recorded."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        holder = Tree.above(path, 1).read_json(path / HOLDER)
        process, host, since = holder["process"], holder["host"], holder["since"]
        if isinstance(process, int) and isinstance(host, str) and isinstance(since, str):
            return f"process {process} on {host} (since {since})"
    return "another process"
