"""The cache's guarantees, checked with a writer that is broken at every call; ``make torture`` runs the long form."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TORTURE = "BOTTLENECK_TORTURE" in os.environ
FAILURES = ("kill-before", "kill-after", "ENOSPC", "EIO")
CALLS = {"append": 40, "service": 60, "compact": 12, "merge": 40, "mend": 12, "gc": 12, "extract": 50}  # at least
# Every call fails, in turns in one way or another; in the long form, in all ways.
SHORT = {job: ("kill-before/ENOSPC", "EIO/kill-after") if job == "append" else ("kill-after/EIO",) for job in CALLS}
EVERY = dict.fromkeys(CALLS, FAILURES)
FLAWS = [  # of a known fault, in a job with a failure, what is found
    ("append", "kill-after", "in-place", "does not match its name"),
    ("append", "EIO", "error-swallowed", "was taken for a success"),
    ("service", "kill-after", "delete-first", "an acknowledged row is lost"),
    ("compact", "kill-after", "delete-first", "an acknowledged row is lost"),
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork") or not os.path.isdir("/proc/self/fd"), reason="needs fork and /proc"),
]


def crash(*scenarios: str) -> dict[str, dict[str, Any]]:
    """Run `crash.py` in its own process, and return what it found in each scenario."""
    script = Path(__file__).with_name("crash.py")
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script), *scenarios], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = dict(zip(scenarios, json.loads(done.stdout), strict=True))
    print({scenario: {**one, "broken": len(one["broken"])} for scenario, one in found.items()})
    return found


@pytest.mark.parametrize("job", CALLS)
def test_every_guarantee_holds_whichever_call_fails(job):
    found = crash(*(f"{job}:{failure}" for failure in (EVERY if TORTURE else SHORT)[job]))

    assert {scenario: one["broken"] for scenario, one in found.items()} == {scenario: [] for scenario in found}
    assert min(one["calls"] for one in found.values()) >= CALLS[job]


def test_a_writer_with_a_known_fault_is_detected():
    # Otherwise the tests of this file might be unable to fail.
    found = crash(*map(":".join, FLAWS))

    missed = [scenario for scenario, one in found.items() if scenario.split(":")[3] not in " ".join(one["broken"])]
    assert missed == []


def test_an_extraction_that_is_killed_at_random_times_ends_as_an_undisturbed_one():
    kills = 300 if TORTURE else 20
    (found,) = crash(f"storm:{kills}").values()

    assert found["broken"] == []
    assert found["kills"] >= kills
    assert found["kills with rows"] > kills / 4


def test_processes_that_extract_compact_and_read_while_being_killed_leave_the_rows_of_one_process():
    kills = 200 if TORTURE else 15
    (found,) = crash(f"crowd:{kills}").values()

    assert found["broken"] == []
    assert found["kills"] >= kills
    assert found["rows"] == 440
