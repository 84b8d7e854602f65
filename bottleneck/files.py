"""Small files written whole or not at all, and the one way in which JSON is hashed."""

import contextlib
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp-"  # how the name of an unfinished file or folder begins


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, after any kill.

    The bytes go to a temporary name beside `path`, are fsynced and renamed; then the folder is fsynced.
    An error, from fsync too, is raised, never retried, and leaves no temporary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_changed(path: Path, data: bytes) -> None:
    """Write `data` atomically, unless that is what `path` holds: a memo that is up to date is not touched."""
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            return
    write_atomic(path, data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically, unless that is what `path` holds."""
    write_changed(path, (json.dumps(value, indent=2, ensure_ascii=True) + "\n").encode())


def canonical_json(value: Any) -> bytes:
    """Return the one byte string that stands for `value`: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
