import threading

from bottleneck.errors import HeadError
from bottleneck.exploring.tasks import BackgroundTask


def test_a_task_says_how_far_it_is_and_when_it_is_ready():
    going, seen, ended = threading.Event(), threading.Event(), []

    def work(report):
        report(0.4)
        seen.set()
        going.wait(5)

    task = BackgroundTask(work, lambda: ended.append(1))
    assert task.to_json() == {"state": "idle", "progress": 0.0, "error": None}
    task.start_once()
    seen.wait(5)
    assert task.to_json() == {"state": "running", "progress": 0.4, "error": None}
    going.set()
    task.wait()
    assert task.to_json() == {"state": "ready", "progress": 1.0, "error": None}
    task.start_once()
    task.wait()
    assert ended == [1]


def test_a_start_while_it_runs_makes_it_run_once_more():
    going, times = threading.Event(), []

    def work(report):
        times.append(1)
        going.wait(5)

    task = BackgroundTask(work)
    task.start()
    task.start()
    task.start()
    going.set()
    task.wait()
    assert len(times) == 2


def test_a_task_that_is_stopped_ends_when_it_next_reports_and_starts_no_more():
    going, ended = threading.Event(), []

    def work(report):
        going.wait(5)
        report(0.5)
        ended.append("work")

    task = BackgroundTask(work, lambda: ended.append("done"))
    task.start()
    task.start()
    task.stop()
    going.set()
    task.wait()
    task.start()
    assert (task.state, ended) == ("idle", [])


def test_errors_are_told():
    def work(report):
        raise (HeadError("expected two classes") if not told else KeyError("x"))

    told = []
    task = BackgroundTask(work)
    for expected in ("expected two classes", "unexpected KeyError: 'x'. This is a bug"):
        task.start()
        task.wait()
        told.append(task.to_json())
        assert told[-1] == {"state": "failed", "progress": 0.0, "error": expected}
