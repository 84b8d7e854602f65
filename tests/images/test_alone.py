import threading
from contextlib import suppress

from bottleneck.images.alone import SharedExclusiveLock, has_room


def test_many_are_inside_together() -> None:
    gate, met = SharedExclusiveLock(), threading.Barrier(3, timeout=10)

    def body() -> None:
        with gate.together():
            met.wait()

    threads = [threading.Thread(target=body) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not met.broken


def test_who_is_alone_has_nobody_beside() -> None:
    gate, inside, most = SharedExclusiveLock(), [], []

    def together() -> None:
        for _ in range(200):
            with gate.together():
                inside.append(1)
                inside.pop()

    def alone() -> None:
        for _ in range(50):
            with gate.alone():
                most.append(len(inside))

    threads = [threading.Thread(target=body) for body in (together, together, alone, alone)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [0] * 100


def test_an_error_inside_opens_the_gate_again() -> None:
    gate, inside = SharedExclusiveLock(), []
    for way in (gate.together, gate.alone) * 2:
        with suppress(ValueError), way():
            inside.append(way)
            raise ValueError
    with gate.alone():
        inside.append(gate.alone)
    assert inside == [gate.together, gate.alone, gate.together, gate.alone, gate.alone]


def test_there_is_room_for_a_little_and_not_for_everything() -> None:
    assert has_room(1 << 20)
    assert not has_room(1 << 62)
