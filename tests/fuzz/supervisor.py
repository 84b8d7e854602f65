"""Several workers, and what they found: a crash, a hang, and too much memory are found from outside."""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.fuzz.layout import STATE, Finding, Share

ROOT = Path(__file__).parents[2]
_LARGEST = 1500 << 20  # bytes
_MEMORY = "/dev/shm"  # where a file is written to the disk at once
_HANG = 10.0  # seconds of a processor
_STUCK = 120.0  # seconds by the clock, in which it need not have worked: on a machine with other work it may wait
_LOOK = 0.5


@dataclass
class Report:
    """What came of the files of a kind.

    Parameters
    ----------
    kind : str
    seed : int
    cases : int
    codes : Counter
        How many were accepted, and refused with which error.
    findings : list of (int, Finding)
        Numbers of cases, and what is wrong with how they were read.
    slowest : (float, int)
        Seconds of a processor, and the case.
    memory : int
        Bytes that a worker came to take.
    seconds : float
        By the clock.
    """

    kind: str
    seed: int
    cases: int
    codes: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[int, Finding]] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)
    memory: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        codes = ", ".join(f"{code} {count:,}" for code, count in self.codes.most_common())
        return (
            f"{self.kind}: {self.codes.total():,} of {self.cases:,} read in {self.seconds:.0f} s, "
            f"{len(self.findings)} findings; {codes}; slowest {self.slowest[0]:.2f} s (case {self.slowest[1]}), "
            f"most memory {self.memory / 1e6:.0f} MB"
        )

    def to_json(self) -> dict[str, Any]:
        findings = [{"case": number, **vars(found)} for number, found in self.findings]
        return {**vars(self), "codes": dict(self.codes), "findings": findings}


def fuzz(
    kind: str,
    cases: int,
    *,
    seed: int = 0,
    first: int = 0,
    workers: int = 1,
    longest: float = _HANG,
    largest: int = _LARGEST,
) -> Report:
    """Read the mutated files of a kind.

    Parameters
    ----------
    kind : str
        One of `tests.fuzz.kinds.KINDS`.
    cases : int
    seed, first : int
        Of the first case.
    workers : int
        Processes.
    longest : float
        Seconds of a processor for a file; one that takes more hangs.
    largest : int
        Bytes that a process may come to take.
    """
    report, started = Report(kind, seed, cases), time.monotonic()
    home = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=home) as name, selectors.DefaultSelector() as selector:
        for place in range(min(workers, cases)):
            share = Share(kind, seed, first + place, first + cases, workers, largest)
            _Worker(share, Path(name) / str(place)).watch(selector)
        while selector.get_map():
            for key, _ in selector.select(_LOOK):
                worker: _Worker = key.data
                line = worker.output.readline()
                if line:
                    _take(report, worker, json.loads(line))
                    continue
                selector.unregister(worker.output)
                left = worker.ended(report)
                if left is not None and left.numbers():
                    _Worker(left, worker.folder).watch(selector)
            for key in list(selector.get_map().values()):
                key.data.stop_if_stuck(longest)
    report.seconds = time.monotonic() - started
    return report


def _take(report: Report, worker: "_Worker", said: dict[str, Any]) -> None:
    if "finding" in said:
        report.findings.append((said["number"], Finding(**said["finding"])))
        return
    report.codes.update(said["codes"])
    report.slowest = max(report.slowest, (said["slowest"][0], said["slowest"][1]))
    report.memory = max(report.memory, said["memory"])
    worker.done = said.get("done", False)
    worker.reported = said["number"]


class _Worker:
    """A process that has a share of the files."""

    def __init__(self, share: Share, folder: Path) -> None:
        self.share, self.folder, self.done, self.reported, self._stopped = share, folder, False, -1, ""
        folder.mkdir(parents=True, exist_ok=True)
        self._state = folder / "state"
        self._state.write_bytes(STATE.pack(-1, 0.0, time.monotonic()))
        command = [sys.executable, "-m", "tests.fuzz", "--worker", json.dumps(vars(share)), str(folder)]
        self._errors = folder / "errors"  # a file: codecs write there, and none reads it meanwhile
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors)
        assert self._process.stdout is not None
        self.output: IO[bytes] = self._process.stdout

    def watch(self, selector: selectors.BaseSelector) -> None:
        selector.register(self.output, selectors.EVENT_READ, self)

    def stop_if_stuck(self, longest: float) -> None:
        """Kill the process if one file takes too long: so many seconds of a processor, or far more by the clock."""
        number, started, when = STATE.unpack(self._state.read_bytes())
        if number < 0:
            return
        spent = _processor_seconds(self._process.pid) - started
        if spent > longest or time.monotonic() - when > _STUCK:
            self._stopped = f"{spent:.1f} s of a processor, {time.monotonic() - when:.0f} s in all"
            self._process.send_signal(signal.SIGKILL)

    def ended(self, report: Report) -> Share | None:
        """Say how the process has ended; return what is left of its share, if anything is."""
        self._process.wait()
        self.output.close()
        errors = self._errors.read_bytes()[-2000:].decode(errors="replace")
        number = STATE.unpack(self._state.read_bytes())[0]
        if self.done:
            return None
        if self._process.returncode == 0:  # it takes too much memory, has said so, and is begun anew
            return self.share.behind(self.reported)
        if number < 0:
            raise RuntimeError(f"a worker for {self.share.kind} cannot begin: {errors}")
        found = (
            Finding("hang", self._stopped)
            if self._stopped
            else Finding("crash", f"ended with {self._process.returncode}: {errors}")
        )
        report.findings.append((number, found))
        unreported = [case for case in self.share.numbers() if self.reported < case <= number]
        report.codes.update({found.what: 1, "not said": len(unreported) - 1})
        return self.share.behind(number)


def _processor_seconds(process: int) -> float:
    """Return how long a process has worked; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0
