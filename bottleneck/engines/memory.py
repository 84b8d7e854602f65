"""Control glibc's malloc: keep freed memory for the next batch, or return it to the system after a large image."""

import sys
from contextlib import suppress
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_BYTES = 1 << 30
_tunable = False


def allow_malloc_tuning() -> None:
    """Let engines tune malloc in this process, which runs one command and then ends.

    The settings of malloc cannot be read, so they cannot be restored. A library must not change them; the command line,
    which owns its process, may.
    """
    global _tunable
    _tunable = True


def keep_freed_memory() -> bool:
    """Make glibc's malloc keep freed blocks of up to 1 GiB, if it may be tuned; return whether it does.

    A network's activations are a few large blocks, allocated and freed for every batch. By default glibc maps each
    anew, and the kernel clears each page again: on 2 cores that took 40 % of the time of EfficientNet-Lite0 in fp32.
    Other allocators are not changed.

    For the same effect in a program that calls the library, set the environment variables ``MALLOC_MMAP_THRESHOLD_``
    and ``MALLOC_TRIM_THRESHOLD_`` to 1073741824 before it starts.
    """
    libc: Any = _libc() if _tunable else None
    with suppress(AttributeError):
        return bool(libc.mallopt(_M_MMAP_THRESHOLD, _BYTES)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, _BYTES))
    return False


def return_freed_memory() -> None:
    """Make glibc's malloc return free memory to the kernel; other allocators do so by themselves.

    Malloc keeps the memory that each thread has freed. Several threads that decode large images in turn would thus take
    as much memory as if they decoded them at the same time.
    """
    libc = _libc()
    with suppress(AttributeError):
        libc.malloc_trim(0)


def _libc() -> Any:
    """Return the C library; None on other systems than Linux, or if it cannot be loaded."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    with suppress(OSError):
        return ctypes.CDLL(None)
    return None
