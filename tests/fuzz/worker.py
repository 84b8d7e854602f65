"""One process that reads mutated files one after the other, and says what came of them.

What it is at is in a small shared file, so that its supervisor knows which file killed it.
"""

import json
import mmap
import resource
import sys
import time
import traceback
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.fuzz.kinds import target_of
from tests.fuzz.layout import STATE, Finding, Share, write_state
from tests.fuzz.target import Case, Target, Wrong

_ADDRESSES = 8 << 30  # bytes of addresses, so that no file can take the memory of the machine
_REPORTED = 200  # cases, together


def work(share: Share, folder: Path, state: Path) -> None:
    """Read the files of a share; say on standard output what was found, a JSON object a line."""
    warnings.simplefilter("ignore")
    with suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    target = target_of(share.kind, folder)
    assert target.seeds
    with open(state, "r+b") as file, mmap.mmap(file.fileno(), STATE.size) as shared:
        codes: Counter[str] = Counter()
        slowest = (0.0, -1)
        for number in share.numbers():
            case = target.case(number, share.seed)
            started = time.process_time()
            write_state(shared, number, started)
            code, finding = judged(target, case)
            seconds = time.process_time() - started
            codes[code] += 1
            slowest = max(slowest, (seconds, number))
            taken = _most_memory()
            if taken > share.largest and not finding:
                finding = Finding("memory", f"the process came to take {taken / 1e9:.2f} GB")
            if finding:
                _say(finding=vars(finding), number=number)
            if codes.total() >= _REPORTED or taken > share.largest:
                _say(codes=codes, slowest=slowest, memory=taken, number=number)
                codes.clear()
            if taken > share.largest:
                return  # the supervisor begins anew behind it, as the mark stays
        _say(codes=codes, slowest=slowest, memory=_most_memory(), number=share.last, done=True)


def judged(target: Target, case: Case) -> tuple[str, Finding | None]:
    """Read a file; return its code, and what is wrong if anything is."""
    try:
        return target.read(case), None
    except Wrong as error:
        return "wrong", Finding("wrong", str(error))
    except MemoryError:
        return "MemoryError", Finding("exception", traceback.format_exc(limit=-6))
    except Exception:
        return "exception", Finding("exception", traceback.format_exc(limit=-6))


def _most_memory() -> int:
    """Return the most bytes that the process came to take; Linux's ``ru_maxrss`` also counts what began it."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_bytes().splitlines():
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) << 10
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)
