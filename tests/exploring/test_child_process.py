import os
import signal

import pytest

from bottleneck.errors import BottleneckError, HeadError
from bottleneck.exploring.child_process import in_child


def half(number, report):
    report(0.5)
    return number / 2, os.getpid()


def fails(kind, report):
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise HeadError("expected two classes") if kind == "error" else ZeroDivisionError("by zero")


def test_a_function_runs_in_another_process_and_reports():
    told = []
    result, process = in_child(half, 7, report=told.append)
    assert result == 3.5
    assert process != os.getpid()
    assert told == [0.5]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("error", "^expected two classes$"),
        ("bug", "unexpected ZeroDivisionError: by zero. This is a bug"),
        ("killed", r"its process has ended \(code -9\)"),
    ],
)
def test_what_goes_wrong_there_is_raised_here(kind, message):
    with pytest.raises(BottleneckError, match=message):
        in_child(fails, kind, report=print)
