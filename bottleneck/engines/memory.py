"""What glibc's malloc does with freed memory: it keeps it for the next batch, or returns it after a large image."""

import sys
from contextlib import suppress
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_BYTES = 1 << 30
_tunable = False


def allow_malloc_tuning() -> None:
    """Let engines tune malloc in this process, which runs one command and then ends.

    Malloc's settings cannot be read, and so cannot be restored. They are the caller's, unless the process is ours.
    """
    global _tunable
    _tunable = True


def keep_freed_memory() -> bool:
    """Make glibc's malloc keep freed blocks of up to 1 GiB, if it may be tuned; return whether it does.

    A network's activations are a few large blocks, allocated and freed for every batch. By default glibc maps each
    anew, and the kernel clears each page again: on 2 cores that took 40 % of the time of EfficientNet-Lite0 in fp32.
    Other systems have other allocators and are left alone.

    A program that calls the library gets the same from the environment variables ``MALLOC_MMAP_THRESHOLD_`` and
    ``MALLOC_TRIM_THRESHOLD_``, both set to 1073741824 before it starts.
    """
    libc: Any = _libc() if _tunable else None
    with suppress(AttributeError):
        return bool(libc.mallopt(_M_MMAP_THRESHOLD, _BYTES)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, _BYTES))
    return False


def return_freed_memory() -> None:
    """Make glibc's malloc return free memory to the kernel; other allocators do so by themselves.

    Malloc keeps what each thread has freed: a few large images, decoded in turn by several threads, would take the
    memory of as many at once.
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
