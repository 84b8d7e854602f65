"""What the supervisor and its workers say to each other."""

import mmap
import struct
import time
from dataclasses import dataclass, replace

STATE = struct.Struct("<qdd")  # the number of the case, and when it began: seconds of the process, and of the clock


@dataclass(frozen=True)
class Share:
    """Every so many-th of the cases of a kind.

    Parameters
    ----------
    kind : str
    seed, first : int
    last : int
        The number behind the last.
    step : int
    largest : int
        Bytes that a process may come to take.
    """

    kind: str
    seed: int
    first: int
    last: int
    step: int
    largest: int

    def numbers(self) -> range:
        return range(self.first, self.last, self.step)

    def behind(self, number: int) -> "Share":
        """Return what is left behind a case."""
        return replace(self, first=number + self.step)


@dataclass(frozen=True)
class Finding:
    """What is wrong with how a file was read: ``wrong``, ``exception``, ``crash``, ``hang`` or ``memory``."""

    what: str
    detail: str


def write_state(shared: mmap.mmap, number: int, started: float) -> None:
    """Say which case begins."""
    shared[: STATE.size] = STATE.pack(number, started, time.monotonic())
