"""Threads that compute heads: the result does not depend on their number, not even in the last bit.

BLAS splits a product over its threads, and the order of its sums depends on their number. So each product runs on one
thread, and blocks of rows run in parallel; their sums are added in the order of the rows.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from bottleneck.utils.process_settings import SharedContext

_BLAS_MODULES = ("numpy", "scipy.linalg", "sklearn", "torch")  # they may load another BLAS
_MAX_THREADS = 8  # each holds a block of rows and its results

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def single_threaded_blas() -> Iterator[int]:
    """Limit BLAS to one thread; yield the number of threads that it would have used.

    This is also faster on a busy machine: BLAS threads spin while they wait for each other, and a search of 1 s took
    50 s while other processes ran.
    """
    cores = min(_MAX_THREADS, _blas_threads())
    with _one_thread:
        yield cores


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item], cores: int) -> Iterator[Result]:
    """Yield the results of ``map(function, items)`` in order, computed by `cores` threads; at most one more waits."""
    if cores == 1:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _blas_threads() -> int:
    """Return the number of threads of BLAS; 1 for OpenMP, whose limit would not hold in other Python threads."""
    libraries = [library for library in _controller().info() if library["user_api"] == "blas"]
    if any(library.get("threading_layer") == "openmp" for library in libraries):
        return 1
    return min([library["num_threads"] for library in libraries], default=1)


def _controller() -> ThreadpoolController:
    """Return the libraries that have threads, searched again if a module of `_BLAS_MODULES` was imported since."""
    return _libraries(*(name in sys.modules for name in _BLAS_MODULES))


@lru_cache(maxsize=1)
def _libraries(*imported: bool) -> ThreadpoolController:
    """Find the libraries, which takes 10 ms once PyTorch is loaded: as long as the fit of a small head."""
    return ThreadpoolController()


_one_thread = SharedContext(lambda: _controller().limit(limits=1, user_api="blas"))
