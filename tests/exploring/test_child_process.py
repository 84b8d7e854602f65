import os
import signal
import time

import numpy as np
import pytest

from bottleneck.errors import BottleneckError, HeadError, ImageError
from bottleneck.exploring.child_process import ChildService, in_child


def half(number, report):
    report(0.5)
    return number / 2, os.getpid()


def sleeps(report):
    time.sleep(60)


def doubled(array, empty, report):
    return 2 * array, empty.shape


def fails(kind, report):
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise HeadError("expected two classes")


class Counter:
    """Counts its calls, and fails in all ways that a function of bytes can."""

    def __init__(self, start):
        self.calls = start

    def __call__(self, data):
        self.calls += 1
        if data == b"kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if data == b"image":
            raise ImageError("corrupt", "in words")
        if data:
            raise HeadError("other words")
        return self.calls, os.getpid()


def test_a_service_keeps_its_process_until_it_ends_or_is_killed():
    service = ChildService(Counter, 5)
    assert service(b"")[0] == 6
    with pytest.raises(ImageError, match="in words") as failed:
        service(b"image")
    assert failed.value.code == "corrupt"
    with pytest.raises(BottleneckError, match="other words"):
        service(b"other")
    assert service(b"")[0] == 9
    with pytest.raises(BottleneckError, match="its process has ended"):
        service(b"kill")
    calls, process = service(b"")
    assert calls == 6
    assert process != os.getpid()
    service.close()
    service.close()


def test_a_function_runs_in_another_process_and_reports():
    told = []
    result, process = in_child(half, 7, report=told.append)
    assert result == 3.5
    assert process != os.getpid()
    assert told[-1] == 0.5


def test_arrays_arrive_as_they_are():
    array = np.arange(60_000, dtype=np.float32).reshape(300, 200)[:, ::2]
    found, shape = in_child(doubled, array, np.empty((0, 3), bool), report=print)
    np.testing.assert_array_equal(found, 2 * array)
    assert shape == (0, 3)


def test_a_process_is_ended_when_its_result_is_not_needed_any_more():
    def stop(share):
        raise TimeoutError

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        in_child(sleeps, report=stop)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("error", "^expected two classes$"),
        ("killed", r"its process has ended \(code -9\)"),
    ],
)
def test_what_goes_wrong_there_is_raised_here(kind, message):
    with pytest.raises(BottleneckError, match=message):
        in_child(fails, kind, report=print)
