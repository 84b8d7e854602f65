import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bottleneck.errors import BottleneckWarning, RunError
from bottleneck.runs import lock as module
from bottleneck.runs.lock import LOCK, locked, remove_lock
from tests.variants import each

HOLDER = """
import sys, time
from pathlib import Path
from bottleneck.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
HOLDER_FILE = module.HOLDER


def test_it_is_held_by_one_process_and_released_when_that_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    for _ in range(2):  # an attempt does not change the recorded holder
        message = rf"process {holder.pid} on .* \(since 20.*wait until it ends"
        with pytest.raises(RunError, match=message), locked(tmp_path):
            pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with locked(tmp_path):
        assert json.loads((tmp_path / HOLDER_FILE).read_text())["process"] == os.getpid()
    assert {path.name for path in tmp_path.iterdir()} <= {LOCK}


def test_another_thread_does_not_get_it(tmp_path):
    found = []

    def second():
        try:
            with locked(tmp_path):
                found.append("held")
        except RunError as error:
            found.append(str(error))

    with locked(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    (message,) = found
    assert f"process {os.getpid()}" in message


def test_it_is_released_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), locked(tmp_path):
            raise KeyboardInterrupt


def test_two_runs_are_locked_at_once(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    with locked(tmp_path / "a"), locked(tmp_path / "b"):
        for name in "ab":
            with pytest.raises(RunError, match="is fine-tuning it"), locked(tmp_path / name):
                pytest.fail("two are at work on one run")


def as_link(path: Path, private: Path) -> None:
    path.symlink_to(private)


def as_dangling_link(path: Path, private: Path) -> None:
    path.symlink_to(private.with_name("new"))


def as_fifo(path: Path, private: Path) -> None:
    os.mkfifo(path)


def as_folder(path: Path, private: Path) -> None:
    path.mkdir()


@pytest.mark.skipif(os.name == "nt", reason="links and FIFOs of POSIX")
@each("make", [as_link, as_dangling_link, as_fifo, as_folder])
def test_a_lock_that_is_not_a_regular_file_is_refused(tmp_path, make):
    private = tmp_path / "thesis"
    private.write_text("years of work")
    run = tmp_path / "run"
    run.mkdir()
    make(run / LOCK, private)
    with pytest.raises(RunError, match="found a link, a folder or a device"), locked(run):
        pass
    assert private.read_text() == "years of work"
    assert not (tmp_path / "new").exists()


@each(
    "told",
    ["{", "[]", "null", '{"process": "1; rm", "host": "h", "since": ""}', '{"process": 5}', '{"process": 1e999}'],
)
def test_an_unreadable_holder_is_another_process(tmp_path, told):
    with locked(tmp_path):
        (tmp_path / HOLDER_FILE).write_text(told)
        with pytest.raises(RunError, match="another process is fine-tuning it"), locked(tmp_path):
            pass


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_the_target_of_a_link_is_not_written(tmp_path):
    private = tmp_path / "thesis"
    private.write_text("years of work")
    run = tmp_path / "run"
    run.mkdir()
    (run / HOLDER_FILE).symlink_to(private)
    with locked(run):
        pass
    assert private.read_text() == "years of work"


def test_a_file_system_without_locks_gives_a_warning(tmp_path):
    class NoLock:
        def __init__(self, path):
            pass

        def acquire(self, timeout):
            raise OSError(37, "No locks available")

        def release(self):
            pass

    with pytest.warns(BottleneckWarning, match="cannot be locked .*No locks available"), locked(tmp_path, NoLock):
        assert (tmp_path / HOLDER_FILE).exists()  # and the block runs


def test_the_lock_of_a_finished_run_is_removed(tmp_path):
    with locked(tmp_path):
        remove_lock(tmp_path)
    assert list(tmp_path.iterdir()) == []
    remove_lock(tmp_path)
