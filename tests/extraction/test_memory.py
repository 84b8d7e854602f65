"""What all stages hold together: nobody gets more than there is, all get their turn, and none waits for ever."""

import random
import threading
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bottleneck.extraction import memory as module
from bottleneck.extraction.memory import LEAST_MEMORY, ByteBudget, MemoryBudget, NoRoom, Reservation, usual_memory
from bottleneck.extraction.queues import Cancelled
from tests.extraction.conftest import SOON, ends, in_a_thread, soon, steady
from tests.variants import each

PLENTY = 1 << 50


def room_of(limit: int, free: int = PLENTY) -> ByteBudget:
    return ByteBudget(limit, lambda: free)


class Guests:
    """Threads that each take some room, and leave when they are told to."""

    def __init__(self, room: ByteBudget) -> None:
        self._room = room
        self.inside: list[int] = []
        self.leave: dict[int, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def send(self, size: int) -> int:
        number = len(self._threads)
        self.leave[number] = threading.Event()

        def stay() -> None:
            with Reservation(self._room) as share:
                share.grow(size)
                self.inside.append(number)
                self.leave[number].wait(SOON)
                self.inside.remove(number)

        self._threads.append(in_a_thread(stay))
        return number

    def gone(self) -> bool:
        for event in self.leave.values():
            event.set()
        return all(map(ends, self._threads))


# --- room ---------------------------------------------------------------------------------------------------------


def test_several_have_room_at_once_within_the_limit():
    guests = Guests(room_of(100))
    for _ in range(5):
        guests.send(30)

    assert steady(lambda: len(guests.inside)) == 3
    first = guests.inside[0]
    guests.leave[first].set()
    assert soon(lambda: first not in guests.inside and len(guests.inside) == 3)
    assert guests.gone()


@each("size", [101, 10_000, 1 << 60])
def test_what_is_larger_than_all_room_is_refused_at_once(size):
    room = room_of(100)
    room.take(60)
    with pytest.raises(NoRoom, match="--memory sets the limit") as error:
        room.take(size)

    assert error.value.code == "no-memory"
    with pytest.raises(NoRoom):
        room.try_to_take(size)
    assert room.try_to_take(40)


def test_threads_are_served_in_order_so_that_small_requests_never_keep_a_large_one_waiting():
    guests = Guests(room_of(100))
    first = guests.send(50)
    assert soon(lambda: guests.inside == [first])
    large = guests.send(100)
    steady(lambda: len(guests.inside), 0.05)
    small = guests.send(1)

    assert steady(lambda: len(guests.inside)) == 1
    guests.leave[first].set()
    assert soon(lambda: guests.inside == [large])
    guests.leave[large].set()
    assert soon(lambda: guests.inside == [small])
    assert guests.gone()


def test_a_request_that_does_not_wait_takes_nothing_from_waiting_threads():
    room = room_of(100)
    room.take(50)
    assert room.try_to_take(10)
    thread = in_a_thread(lambda: room.take(60))
    assert soon(lambda: room._waiting)

    assert not room.try_to_take(1)
    room.give(60)
    assert ends(thread)
    assert room.try_to_take(40)


@each("error", [MemoryError, KeyboardInterrupt])
def test_room_is_given_back_after_an_exception(error):
    room = room_of(100)
    for _ in range(3):
        with suppress(error), Reservation(room) as share:
            share.grow(100)
            raise error

    assert room.try_to_take(100)


def test_cancelling_ends_all_waiting_threads_and_refuses_later_ones():
    room = room_of(100)
    room.take(100)
    raised: list[int] = []

    def wait(size: int) -> None:
        try:
            room.take(size)
        except Cancelled:
            raised.append(size)

    threads = [in_a_thread(lambda size=size: wait(size)) for size in (1, 2, 100)]
    assert steady(lambda: len(raised), 0.05) == 0
    room.cancel()

    assert all(map(ends, threads))
    assert sorted(raised) == [1, 2, 100]
    for come in (room.take, room.try_to_take):
        with pytest.raises(Cancelled):
            come(1)


# --- free memory ----------------------------------------------------------------------------------------------------

LARGE = module._LARGE


def test_a_large_image_needs_free_memory_when_it_is_alone():
    room = room_of(100 * LARGE, 3 * LARGE)
    room.take(3 * LARGE)
    room.give(3 * LARGE)
    with pytest.raises(NoRoom, match="free memory"):
        room.take(3 * LARGE + 1)

    assert room.try_to_take(LARGE)


def test_a_large_image_waits_for_free_memory_while_others_may_leave_some():
    free = [LARGE]
    room = ByteBudget(100 * LARGE, lambda: free[0])
    room.take(10)
    thread = in_a_thread(lambda: room.take(5 * LARGE))
    thread.join(0.1)
    assert thread.is_alive()
    free[0] = 5 * LARGE
    room.give(10)

    assert ends(thread)
    assert room._taken == 5 * LARGE


def test_small_images_do_not_query_free_memory():
    def never() -> int:
        raise AssertionError("asked")

    room = ByteBudget(100 * LARGE, never)
    for _ in range(100):
        room.take(LARGE - 1)

    assert room._taken == 100 * (LARGE - 1)
    with pytest.raises(AssertionError, match="asked"):
        ByteBudget(LARGE, never).take(LARGE)


# --- a share --------------------------------------------------------------------------------------------------------


def test_a_share_grows_waiting_with_nothing():
    room = room_of(100)
    one, other = Reservation(room), Reservation(room)
    one.grow(60)
    other.grow(40)
    thread = in_a_thread(lambda: one.grow(70))  # with its 60 it would wait for ever, were the other to do the same
    assert soon(lambda: room._taken == 40)
    other.release()

    assert ends(thread)
    assert (one.size, room._taken) == (70, 70)


def test_a_share_that_grows_at_once_keeps_what_it_has():
    room = room_of(100)
    one, other = Reservation(room), Reservation(room)
    one.grow(60)
    other.grow(30)

    assert one.grow_at_once(70)
    assert not one.grow_at_once(71)
    assert (one.size, room._taken) == (70, 100)
    with pytest.raises(NoRoom):
        one.grow_at_once(101)
    one.release(), one.release(), other.release()
    assert room._taken == 0


@each("grow", [Reservation.grow, Reservation.grow_at_once])
def test_a_share_never_shrinks_before_its_end(grow):
    with Reservation(room_of(100)) as share:
        share.grow(60)
        grow(share, 10)
        assert share.size == 60


# --- the budget -----------------------------------------------------------------------------------------------------


@each("total", [LEAST_MEMORY, 64_000_000, 10**9, 10**11])
def test_the_parts_are_not_more_than_the_whole(total):
    memory = MemoryBudget(total)
    parts = memory.files.limit + memory.decoding.limit + memory.waiting_pixels + memory.waiting_features

    assert parts + 3 * memory.committed <= total
    assert memory.decoding.limit >= 0.65 * total
    assert 0 < memory.small < memory.files.limit / 3


@each(
    "free, expected",
    [
        (100 << 30, 66 << 30),
        (4 << 30, 2 << 30),
        (2 << 30, (2 << 30) / 3),
        (1 << 30, (1 << 30) / 3),
        (0, LEAST_MEMORY),
    ],
)
def test_by_default_it_is_two_thirds_of_what_a_network_leaves(free, expected):
    assert usual_memory(1, lambda: free) == pytest.approx(expected, rel=1e-6)
    each = max(LEAST_MEMORY, 2 * max(free / 4, free / 2 - (1 << 30)) / 3)
    assert usual_memory(2, lambda: free) == pytest.approx(each, rel=1e-6)


# --- many at once ---------------------------------------------------------------------------------------------------


@settings(max_examples=5)
@given(seed=st.integers(0, 1000))
def test_many_threads_with_files_and_images_of_any_size_all_come_to_an_end(seed):
    """Readers, decoders and large files as the stages have them; sizes are near the limits, where threads block."""
    files, decoding = room_of(100), room_of(100)
    channel: list[Reservation] = []
    done, lock, changed = [0], threading.Lock(), threading.Condition()
    held = [0]

    def size(draw: random.Random) -> int:
        return draw.choice([1, 2, 30, 49, 50, 51, 70, 99, 100])

    def read(draw: random.Random) -> None:
        for _ in range(60):
            share = Reservation(files)
            share.grow(size(draw))
            with changed:
                channel.append(share)
                changed.notify_all()

    def decode(draw: random.Random) -> None:
        while True:
            with changed:
                while not channel:
                    if done[0] >= readers * 60:
                        return
                    changed.wait(0.05)
                share = channel.pop(0)
            with Reservation(decoding) as own:
                own.grow(size(draw))
                with lock:
                    held[0] = max(held[0], decoding._taken, files._taken)
                own.grow(size(draw))
            share.release()
            with changed:
                done[0] += 1
                changed.notify_all()

    def large(draw: random.Random) -> None:
        for _ in range(40):
            with Reservation(decoding) as share:
                share.grow(size(draw))
                more = size(draw)
                if not share.grow_at_once(more):
                    share.grow(more)

    draw = random.Random(seed)
    readers, decoders = draw.choice([(1, 8), (8, 1), (8, 8)])
    bodies = [read] * readers + [decode] * decoders + [large] * 4
    threads = [in_a_thread(lambda body=body, n=n: body(random.Random(100 * seed + n))) for n, body in enumerate(bodies)]

    assert all(map(ends, threads))
    assert done[0] == readers * 60
    assert held[0] <= 100
    assert (files._taken, decoding._taken) == (0, 0)
