import os
import platform
import subprocess
import sys

import pytest

from bottleneck.engines.memory import Malloc
from tests.variants import each

GLIBC = platform.libc_ver()[0] == "glibc"

# Page faults of ten rounds of allocating, filling and freeing 64 MiB, beyond those of the first.
ROUNDS = """
import ctypes, gc, resource, sys
from bottleneck.engines.memory import tune_process, keep_freed_memory, return_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def one_round():
    block = libc.malloc(64 << 20)
    libc.memset(block, 1, 64 << 20)
    libc.free(block)

if sys.argv[1] == "keep":
    tune_process()
kept = keep_freed_memory() if sys.argv[1] != "leave" else None
one_round()
before = faults()
for _ in range(10):
    one_round()
print(kept, faults() - before, gc.get_threshold()[0])
"""


def rounds(mode: str) -> tuple[str, int, int]:
    """Return whether malloc was tuned, the number of page faults, and after how many objects garbage is collected."""
    # glibc reads these as settings of its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", ROUNDS, mode]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    kept, faults, objects = done.stdout.split()
    return kept, int(faults), int(objects)


@pytest.mark.skipif(not GLIBC, reason="other C libraries have other allocators")
def test_a_process_of_one_command_uses_freed_memory_again_without_page_faults():
    kept, few, objects = rounds("keep")
    _, usual, default = rounds("leave")

    assert kept == "True"
    assert objects > 2 * default
    assert few < usual / 5


@pytest.mark.skipif(not GLIBC, reason="other C libraries have other allocators")
def test_a_process_of_the_caller_is_left_alone():
    kept, faults, objects = rounds("not allowed")
    _, usual, default = rounds("leave")

    assert kept == "False"
    assert objects == default
    assert faults > usual / 2


def never() -> object:
    raise AssertionError("the C library was loaded")


def missing() -> object:
    raise OSError("no such library")


class Refusing:
    def mallopt(self, *args: int) -> int:
        return 0


@each(
    "malloc",
    [
        Malloc("darwin", never),
        Malloc("win32", never),
        Malloc("linux", object),  # without mallopt and malloc_trim
        Malloc("linux", missing),
        Malloc("linux", Refusing),
    ],
)
def test_other_allocators_are_left_alone(malloc):
    malloc.trim()
    assert malloc.keep() is False


# By how many bytes a process shrinks that returns what it has freed.
RETURNED = """
import ctypes, re
from bottleneck.engines.memory import tune_process, keep_freed_memory, return_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
taken = lambda: int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10

tune_process()
keep_freed_memory()
blocks = [libc.malloc(64 << 10) for _ in range(1000)]
for block in blocks:
    libc.memset(block, 1, 64 << 10)
for block in blocks[:-1]:  # the last keeps the heap from shrinking
    libc.free(block)
before = taken()
return_freed_memory()
print(before - taken())
"""


@pytest.mark.skipif(not GLIBC, reason="other C libraries have other allocators")
def test_freed_memory_is_returned_to_the_system_on_request():
    found = subprocess.run([sys.executable, "-c", RETURNED], capture_output=True, text=True, check=True)
    assert int(found.stdout) > 50 << 20
