"""On how many cores heads are computed: how many there are changes no bit of them.

BLAS shares a product out to its threads, and sums it in another order for another number of them. So each product is
computed on one core, and what has several cores is whole blocks of rows, whose sums are added up in the order of the
rows.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from threadpoolctl import threadpool_info, threadpool_limits

_MOST = 8  # cores, each of which holds a block and what is computed of it

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def one_core_a_product() -> Iterator[int]:
    """Compute each product of BLAS on one core; yield how many cores it would have had.

    It also loses no time to other programs: the threads of BLAS wait for each other without rest, and on a machine that
    has other work a search of 1 s took 50.
    """
    cores = min(_MOST, _cores())
    with threadpool_limits(1, "blas"):
        yield cores


def in_order(function: Callable[[Item], Result], items: Iterable[Item], cores: int) -> Iterator[Result]:
    """Yield what `map` does, computed by so many threads; no more than one a core, and one more, are kept waiting."""
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


def _cores() -> int:
    """Return how many cores BLAS would use; 1 where its limit is that of a thread, which threads of ours would lack."""
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    if any(library.get("threading_layer") == "openmp" for library in libraries):
        return 1
    return min([library["num_threads"] for library in libraries], default=1)
