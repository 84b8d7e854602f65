"""The cache's promises, held against a writer that is broken at every call; the long form is ``make torture``."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TORTURE = "BOTTLENECK_TORTURE" in os.environ
JOBS = ("append", "service", "compact", "merge", "mend", "gc", "extract")
FAILURES = ("kill-before", "kill-after", "ENOSPC", "EIO")
SHORT = [(job, failure) for job in JOBS for failure in FAILURES if job == "append" or failure in ("kill-after", "EIO")]
EVERY = [(job, failure) for job in JOBS for failure in FAILURES]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork") or not os.path.isdir("/proc/self/fd"), reason="needs fork and /proc"),
]


def crash(*arguments: str) -> dict[str, Any]:
    """Run `crash.py` in a process of its own, and return what it found."""
    script = Path(__file__).with_name("crash.py")
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    print(*arguments, {**result, "broken": len(result["broken"])})
    return result


@pytest.mark.parametrize(("job", "failure"), EVERY if TORTURE else SHORT)
def test_whichever_call_fails_every_promise_holds(job, failure):
    found = crash(job, failure)

    assert found["broken"] == []
    assert (
        found["calls"]
        >= {"append": 40, "service": 60, "compact": 12, "merge": 40, "mend": 12, "gc": 12, "extract": 50}[job]
    )


@pytest.mark.parametrize(
    ("job", "failure", "flaw", "words"),
    [
        ("append", "kill-after", "in-place", "does not match its name"),
        ("append", "EIO", "error-swallowed", "was taken for a success"),
        ("service", "kill-after", "delete-first", "an acknowledged row is lost"),
        ("compact", "kill-after", "delete-first", "an acknowledged row is lost"),
    ],
)
def test_a_writer_with_a_known_fault_is_found_out(job, failure, flaw, words):
    # Else the tests of this file might be unable to fail.
    assert any(words in broken for broken in crash(job, failure, flaw)["broken"])


def test_killed_at_random_moments_an_extraction_goes_on_to_the_same_end():
    kills = 300 if TORTURE else 20
    found = crash("storm", str(kills))

    assert found["broken"] == []
    assert found["kills"] >= kills
    assert found["kills with rows"] > kills / 4


def test_many_processes_that_extract_compact_and_read_are_killed_and_leave_what_one_leaves():
    kills = 200 if TORTURE else 15
    found = crash("crowd", str(kills))

    assert found["broken"] == []
    assert found["kills"] >= kills
    assert found["rows"] == 440
