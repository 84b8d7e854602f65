"""A reader with every fault that there is, each of one case: what the fuzzer must find."""

import ctypes
import time
from collections.abc import Sequence
from functools import cached_property

from tests.fuzz.mutate import Mutator
from tests.fuzz.target import Case, Target, Wrong


class Trap(Target):
    """Its files are numbers, which decide what happens."""

    name, cases, short = "trap", 40, 40

    @cached_property
    def seeds(self) -> dict[str, bytes]:
        return {"number": b"0"}

    def special(self, seed: str, data: bytes) -> Sequence[Mutator]:
        return ()

    def case(self, number: int, seed: int) -> Case:
        return Case("number", str(number).encode(), ("count",))

    def read(self, case: Case) -> str:
        match int(case.data):
            case 3:
                raise Wrong("a row that differs")
            case 7:
                raise ZeroDivisionError
            case 11:
                ctypes.string_at(0)
            case 15:
                while True:
                    time.process_time()
            case 19:
                del [b"x" * (310 << 20)][:]
            case 23:
                raise MemoryError
        return "accepted"
