"""Tune how a process handles memory: when glibc's malloc returns freed memory, and how often garbage is collected."""

import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_BYTES = 1 << 30
_NEW_OBJECTS = 10_000  # after which garbage is collected; 700 or 2,000 by default
_tunable = False


def tune_process() -> None:
    """Tune this process, which runs one command and then ends: a library call must not do that.

    Engines may tune malloc, whose settings cannot be read and therefore not restored. Garbage is collected less often:
    a full collection looks at the million objects of torch, torchvision and timm. That took half a second of the
    four from the start until a network is built.
    """
    global _tunable
    _tunable = True
    gc.set_threshold(_NEW_OBJECTS)


def keep_freed_memory() -> bool:
    """Make glibc's malloc keep freed blocks, if it may be tuned in this process; return whether it does.

    For the same effect in a program that calls the library, set the environment variables ``MALLOC_MMAP_THRESHOLD_``
    and ``MALLOC_TRIM_THRESHOLD_`` to 1073741824 before it starts.
    """
    return _tunable and Malloc().keep()


def return_freed_memory() -> None:
    """Make glibc's malloc return free memory to the kernel; see `Malloc.trim`."""
    Malloc().trim()


def _c_library() -> Any:
    import ctypes

    return ctypes.CDLL(None)


@dataclass(frozen=True)
class Malloc:
    """The allocator of the C library. Only glibc's is tuned.

    Parameters
    ----------
    system : str
        As `sys.platform`.
    load : callable
        Returns the C library, or raises OSError.
    """

    system: str = sys.platform
    load: Callable[[], Any] = _c_library

    def keep(self) -> bool:
        """Make it keep freed blocks of up to 1 GiB, and return whether it does.

        A network's activations are a few large blocks, allocated and freed for every batch. By default glibc maps each
        anew, and the kernel clears each page again: on 2 cores that took 40 % of the time of EfficientNet-Lite0 in
        fp32.
        """
        libc = self._libc()
        with suppress(AttributeError):
            return bool(libc.mallopt(_M_MMAP_THRESHOLD, _BYTES)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, _BYTES))
        return False

    def trim(self) -> None:
        """Make it return free memory to the kernel.

        Malloc keeps the memory that each thread has freed. Several threads that decode large images in turn would thus
        take as much memory as if they decoded them at the same time.
        """
        libc = self._libc()
        with suppress(AttributeError):
            libc.malloc_trim(0)

    def _libc(self) -> Any:
        if self.system.startswith("linux"):
            with suppress(OSError):
                return self.load()
        return None
