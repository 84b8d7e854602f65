"""What becomes of freed memory: it is kept for the next batch, or goes back to the system after a large image."""

import ctypes
import sys
from contextlib import suppress
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep freed blocks of up to 1 GiB; return whether it could be told.

    A network's activations are a few large blocks, allocated and freed for every batch. By default glibc maps each
    anew, and the kernel clears each page again: on 2 cores that took 40 % of the time of EfficientNet-Lite0 in fp32.
    The setting holds for the whole process; other systems have other allocators and are left alone.
    """
    libc = _libc()
    with suppress(AttributeError):
        return bool(libc.mallopt(_M_MMAP_THRESHOLD, _BYTES)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, _BYTES))
    return False


def return_freed_memory() -> None:
    """Let glibc's malloc hand back what is free to the kernel; other allocators do so by themselves.

    Each thread of malloc's keeps what it has freed: some large images, decoded in turn by several threads, would take
    the memory of as many at once.
    """
    libc = _libc()
    with suppress(AttributeError):
        libc.malloc_trim(0)


def _libc() -> Any:
    """Return the C library; None where it is not that of Linux, or cannot be loaded."""
    if not sys.platform.startswith("linux"):
        return None
    with suppress(OSError):
        return ctypes.CDLL(None)
    return None
