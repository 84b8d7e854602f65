"""What stands between two stages holds so many bytes and no more, and lets go of everybody when the work is stopped."""

import time

import pytest

from bottleneck.extraction.queues import ByteBoundedQueue, Cancelled
from tests.extraction.conftest import ends, in_a_thread, steady
from tests.variants import each

# --- a channel --------------------------------------------------------------------------------------------------


def put_all(channel: ByteBoundedQueue[int], sizes: list[int], done: list[int]) -> None:
    for number, size in enumerate(sizes):
        channel.put(number, size)
        done.append(number)


def test_items_come_out_in_the_order_in_which_they_went_in():
    channel: ByteBoundedQueue[int] = ByteBoundedQueue()
    for number in range(5):
        channel.put(number)
    channel.close()

    assert [channel.get() for _ in range(6)] == [0, 1, 2, 3, 4, None]


@each("limit, waiting", [(30, 3), (35, 3), (39, 3), (40, 4), (1, 1), (0, 1)])
def test_no_more_bytes_wait_than_the_limit(limit, waiting):
    channel: ByteBoundedQueue[int] = ByteBoundedQueue(limit)
    done: list[int] = []
    thread = in_a_thread(lambda: put_all(channel, [10] * 8, done))

    assert steady(lambda: len(done)) == waiting
    assert channel.get() == 0
    assert steady(lambda: len(done)) == waiting + 1
    assert [channel.get() for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]
    assert ends(thread)


def test_without_a_limit_no_thread_waits():
    channel: ByteBoundedQueue[int] = ByteBoundedQueue()
    thread = in_a_thread(lambda: put_all(channel, [1 << 40] * 1000, []))

    assert ends(thread)


def test_one_item_that_is_larger_than_the_limit_passes_but_alone():
    channel: ByteBoundedQueue[int] = ByteBoundedQueue(10)
    done: list[int] = []
    thread = in_a_thread(lambda: put_all(channel, [1000, 1, 1000, 1], done))

    assert steady(lambda: len(done)) == 1
    assert channel.get() == 0
    assert steady(lambda: len(done)) == 2  # the next large one waits for the small one to go
    assert [channel.get() for _ in range(3)] == [1, 2, 3]
    assert ends(thread)


def test_get_waits_for_an_item():
    channel: ByteBoundedQueue[int] = ByteBoundedQueue()
    found: list[int | None] = []
    thread = in_a_thread(lambda: found.append(channel.get()))

    assert steady(lambda: len(found), 0.05) == 0
    channel.put(7)
    assert ends(thread)
    assert found == [7]


def test_closing_ends_all_threads_that_wait_for_an_item():
    channel: ByteBoundedQueue[int] = ByteBoundedQueue()
    found: list[int | None] = []
    threads = [in_a_thread(lambda: found.append(channel.get())) for _ in range(3)]
    time.sleep(0.02)
    channel.close()

    assert all(map(ends, threads))
    assert found == [None] * 3


def test_what_was_put_before_it_closed_still_comes_out():
    channel: ByteBoundedQueue[int] = ByteBoundedQueue(100)
    channel.put(1, 60)
    channel.close()

    assert channel.get() == 1
    assert channel.get() is None
    assert channel.get() is None


def test_each_item_reaches_one_of_many_threads():
    channel: ByteBoundedQueue[int] = ByteBoundedQueue(50)
    found: list[int] = []

    def take() -> None:
        while (item := channel.get()) is not None:
            found.append(item)

    takers = [in_a_thread(take) for _ in range(4)]
    givers = [in_a_thread(lambda: put_all(channel, [10] * 200, [])) for _ in range(3)]
    assert all(map(ends, givers))
    channel.close()

    assert all(map(ends, takers))
    assert sorted(found) == sorted([*range(200)] * 3)


def test_cancelling_ends_all_waiting_threads():
    full: ByteBoundedQueue[int] = ByteBoundedQueue(1)
    full.put(1, 1)
    empty: ByteBoundedQueue[int] = ByteBoundedQueue()
    raised: list[str] = []

    def wait(name: str) -> None:
        try:
            full.put(2, 1) if name == "put" else empty.get()
        except Cancelled:
            raised.append(name)

    threads = [in_a_thread(lambda name=name: wait(name)) for name in ("put", "put", "get", "get")]
    time.sleep(0.02)
    assert raised == []
    full.cancel(), empty.cancel()

    assert all(map(ends, threads))
    assert sorted(raised) == ["get", "get", "put", "put"]


def test_a_cancelled_queue_refuses_later_calls():
    channel: ByteBoundedQueue[int] = ByteBoundedQueue()
    channel.put(1)
    channel.cancel()

    with pytest.raises(Cancelled):
        channel.get()
    with pytest.raises(Cancelled):
        channel.put(2)
    channel.close()
    with pytest.raises(Cancelled):
        channel.get()


# --- what waits in it -------------------------------------------------------------------------------------------


def test_what_waits_can_be_seen_and_stays():
    channel: ByteBoundedQueue[int] = ByteBoundedQueue()
    assert channel.waiting() == []
    for number in range(5):
        channel.put(number)

    assert channel.waiting() == [0, 1, 2, 3, 4]
    assert [channel.get() for _ in range(5)] == [0, 1, 2, 3, 4]
