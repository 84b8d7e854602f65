import threading
from collections.abc import Callable
from contextlib import suppress

from bottleneck.images.decode_lock import SharedLock, can_allocate


def run_threads(*bodies: Callable[[], None]) -> None:
    threads = [threading.Thread(target=body) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def test_the_lock_is_shared_by_many_or_held_by_one() -> None:
    lock, met, passed = SharedLock(), threading.Barrier(3, timeout=10), []

    def share() -> None:
        with lock.shared():
            passed.append(met.wait())

    run_threads(share, share, share)
    assert sorted(passed) == [0, 1, 2]

    lock, sharing, seen = SharedLock(), [], []

    def share() -> None:
        for _ in range(200):
            with lock.shared():
                sharing.append(1)
                sharing.pop()

    def exclude() -> None:
        for _ in range(50):
            with lock.exclusive():
                seen.append(len(sharing))

    run_threads(share, share, exclude, exclude)
    assert seen == [0] * 100


def test_an_error_releases_the_lock() -> None:
    lock, entered = SharedLock(), []
    for hold in (lock.shared, lock.exclusive) * 2:
        with suppress(ValueError), hold():
            entered.append(hold)
            raise ValueError
    with lock.exclusive():
        entered.append(lock.exclusive)
    assert entered == [lock.shared, lock.exclusive, lock.shared, lock.exclusive, lock.exclusive]


def test_a_little_memory_can_be_allocated_and_an_absurd_amount_cannot() -> None:
    assert can_allocate(1 << 20)
    assert not can_allocate(1 << 62)
