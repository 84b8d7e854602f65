import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest

from bottleneck.cache.lock import maintenance
from bottleneck.errors import CacheError

HOLDER = """
import sys, time
from pathlib import Path
from bottleneck.cache.lock import maintenance
with maintenance(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_it_is_held_by_one_process_at_a_time_and_free_when_that_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(CacheError, match="try again later"), maintenance(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with maintenance(tmp_path):
        pass


def test_it_is_free_after_an_error(tmp_path):
    with pytest.raises(OSError, match="within"), maintenance(tmp_path):
        raise OSError("within")
    with maintenance(tmp_path):
        pass


def test_a_folder_that_is_not_there_is_a_cache_error(tmp_path):
    with pytest.raises(CacheError, match="cannot write"), maintenance(tmp_path / "nothing"):
        pass


def test_a_file_system_without_locks_is_a_cache_error(tmp_path, monkeypatch):
    import fcntl

    def no_locks(*_: object) -> None:
        raise OSError(37, os.strerror(37))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(CacheError, match="cannot lock"), maintenance(tmp_path):
        pass


def test_a_patient_job_waits_for_one_that_ends(tmp_path):
    held, order = ExitStack(), []
    held.enter_context(maintenance(tmp_path))
    held.callback(order.append, "the first has ended")  # before its lock is given back
    ending = threading.Timer(0.1, held.close)
    ending.start()
    with maintenance(tmp_path, patience=60.0):
        order.append("the second is at work")
    ending.join()
    assert order == ["the first has ended", "the second is at work"]
