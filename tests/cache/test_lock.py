import errno
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest

from bottleneck.cache.lock import maintenance
from bottleneck.errors import CacheError
from tests.faults import Fault, system_error

HOLDER = """
import sys, time
from pathlib import Path
from bottleneck.cache.lock import maintenance
with maintenance(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_at_a_time_holds_the_lock_and_a_kill_releases_it(tmp_path):
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


def test_an_error_releases_the_lock(tmp_path):
    with pytest.raises(OSError, match="within"), maintenance(tmp_path):
        raise OSError("within")
    with maintenance(tmp_path):
        pass


def test_a_missing_folder_is_a_cache_error(tmp_path):
    with pytest.raises(CacheError, match="cannot write"), maintenance(tmp_path / "nothing"):
        pass


def test_a_file_system_without_locks_is_a_cache_error(tmp_path, wrap):
    wrap(__import__("fcntl"), "flock", Fault(system_error(errno.ENOLCK)))
    with pytest.raises(CacheError, match="cannot lock"), maintenance(tmp_path):
        pass


def test_a_job_with_patience_waits_for_another_to_finish(tmp_path):
    held, order = ExitStack(), []
    held.enter_context(maintenance(tmp_path))
    held.callback(order.append, "the first has finished")  # before its lock is released
    ending = threading.Timer(0.1, held.close)
    ending.start()
    with maintenance(tmp_path, patience=60.0):
        order.append("the second is running")
    ending.join()
    assert order == ["the first has finished", "the second is running"]
