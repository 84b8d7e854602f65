import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bottleneck.errors import BottleneckWarning, RunError
from bottleneck.finetuning import lock as module
from bottleneck.finetuning.lock import LOCK, at_work, unlock_for_good

HOLDER = """
import sys, time
from pathlib import Path
from bottleneck.finetuning.lock import at_work
with at_work(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
HOLDER_FILE = module.HOLDER


def test_it_is_held_by_one_process_which_is_named_and_free_when_that_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    for _ in range(2):  # asking leaves what the holder has said
        with pytest.raises(RunError, match=rf"process {holder.pid} on .* \(since 20.*wait for it"), at_work(tmp_path):
            pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with at_work(tmp_path):
        assert json.loads((tmp_path / HOLDER_FILE).read_text())["process"] == os.getpid()
    assert {path.name for path in tmp_path.iterdir()} <= {LOCK}


def test_another_thread_of_the_same_process_does_not_get_it(tmp_path):
    found = []

    def second():
        try:
            with at_work(tmp_path):
                found.append("held")
        except RunError as error:
            found.append(str(error))

    with at_work(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    (message,) = found
    assert f"process {os.getpid()}" in message


def test_it_is_free_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), at_work(tmp_path):
            raise KeyboardInterrupt


def test_two_runs_are_at_work_at_once(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    with at_work(tmp_path / "a"), at_work(tmp_path / "b"):
        for name in "ab":
            with pytest.raises(RunError, match="is fine-tuning it"), at_work(tmp_path / name):
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
@pytest.mark.parametrize("make", [as_link, as_dangling_link, as_fifo, as_folder])
def test_what_is_no_file_is_refused_and_left_alone(tmp_path, make):
    private = tmp_path / "thesis"
    private.write_text("years of work")
    run = tmp_path / "run"
    run.mkdir()
    make(run / LOCK, private)
    with pytest.raises(RunError, match="found a link, a folder or a device"), at_work(run):
        pass
    assert private.read_text() == "years of work"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "told",
    ["{", "[]", "null", '{"process": "1; rm", "host": "h", "since": ""}', '{"process": 5}', '{"process": 1e999}'],
)
def test_whoever_holds_it_without_a_clear_word_is_another_process(tmp_path, told):
    with at_work(tmp_path):
        (tmp_path / HOLDER_FILE).write_text(told)
        with pytest.raises(RunError, match="another process is fine-tuning it"), at_work(tmp_path):
            pass


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_what_a_link_leads_to_is_not_written(tmp_path):
    private = tmp_path / "thesis"
    private.write_text("years of work")
    run = tmp_path / "run"
    run.mkdir()
    (run / HOLDER_FILE).symlink_to(private)
    with at_work(run):
        pass
    assert private.read_text() == "years of work"


def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch):
    class NoLock:
        def __init__(self, path):
            pass

        def acquire(self, timeout):
            raise OSError(37, "No locks available")

        def release(self):
            pass

    monkeypatch.setattr(module, "FileLock", NoLock)
    with pytest.warns(BottleneckWarning, match="cannot be locked .*No locks available"), at_work(tmp_path):
        assert (tmp_path / HOLDER_FILE).exists()  # and the work goes on


def test_the_lock_of_what_has_ended_is_removed(tmp_path):
    with at_work(tmp_path):
        unlock_for_good(tmp_path)
    assert list(tmp_path.iterdir()) == []
    unlock_for_good(tmp_path)
