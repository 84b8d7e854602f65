"""The memory that a process takes at its peak, on folders that are made to take as much as they can."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import photo, write

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells the peak")

BUDGET = 64_000_000
BESIDE = 24_000_000  # bytes: threads, what allocators keep, and pixels in the hands of threads
CODE = """
import json, os, re, sys, warnings
from collections import Counter
from pathlib import Path

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.images.splits import Shares
from bottleneck.images.file_index import index_files
from bottleneck.extraction.job import ExtractionJob, Limits, Outcomes
from bottleneck.extraction.loop import run_pass
from bottleneck.extraction.plan import EngineStart
from tests import tiny

def peak(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10

def extract(folder, cache):
    found = index_files(folder, labels=False, shares=Shares(), cache=cache, exclude=())
    outcomes, engine = Outcomes(), tiny.TinyEngine()
    store = FeatureCache(cache).store(tiny.SPEC)
    job = ExtractionJob(images=found, limits=Limits(memory=int(sys.argv[1]), threads=4))
    run_pass(job, store, outcomes, lambda sample: EngineStart(engine))
    codes = Counter(error.code for error in outcomes.undecodable.values())
    return [str(len(outcomes.computed)), *(f"{code} {number}" for code, number in sorted(codes.items()))]

warnings.simplefilter("ignore")
for name in sorted(os.listdir("folders")):  # in a process each, whose peak begins with what it takes then
    if os.fork() == 0:
        extract("before", f"caches/{name}")
        before = peak("VmRSS")
        done = extract(f"folders/{name}", f"caches/{name}")
        print(json.dumps([name, peak("VmHWM") - before, done]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, name
"""


def sparse(start: bytes, size: int) -> Callable[[Path], None]:
    """Return what writes a file of a size, with a start and zeros behind."""

    def write(path: Path) -> None:
        path.write_bytes(start)
        os.truncate(path, size)

    return write


def pixels(width: int, height: int, kind: str = "PNG") -> Callable[[Path], None]:
    """Return what writes an image of one colour, which differs from file to file."""

    def write(path: Path) -> None:
        colour = tuple(np.random.default_rng(len(path.name) + int(path.stem)).integers(0, 256, 3).tolist())
        Image.new("RGB", (width, height), colour).save(path, kind)

    return write


def mb(count: float) -> int:
    return int(count * 1e6)


NO_IMAGE, BROKEN = b"MZ\x90\0 no image at all ", b"II*\x001"
FOLDERS = {
    "huge files that are no images": [(5, lambda n: sparse(NO_IMAGE + bytes([n]), mb(150)))],
    "huge files whose headers are broken": [(5, lambda n: sparse(BROKEN + bytes([n]), mb(150)))],
    "one huge image": [(1, lambda n: sparse(photo(0), mb(300)))],
    "many large images": [(16, lambda n: sparse(photo(n), mb(12)))],
    "many small images": [(100, lambda n: sparse(photo(n), mb(1.5)))],
    "many images of many pixels": [(12, lambda n: pixels(2000, 1500))],
    "images of too many pixels for the budget": [(2, lambda n: pixels(6000, 4000))],
    "all of them in turn": [
        (2, lambda n: sparse(BROKEN + bytes([n]), mb(150))),
        (2, lambda n: sparse(photo(n), mb(18))),
        (8, lambda n: sparse(photo(10 + n), mb(1.9))),
        (4, lambda n: pixels(2000, 1500)),
        (1, lambda n: sparse(photo(20), mb(150))),
        (1, lambda n: pixels(6000, 4000)),
    ],
}
EXPECTED = {
    "huge files that are no images": ["0", "not-an-image 5"],
    "huge files whose headers are broken": ["0", "truncated 5"],
    "one huge image": ["0", "no-memory 1"],
    "many large images": ["16"],
    "many small images": ["100"],
    "many images of many pixels": ["12"],
    "images of too many pixels for the budget": ["0", "no-memory 2"],
    "all of them in turn": ["14", "no-memory 2", "truncated 2"],
}


def test_no_folder_takes_more_than_the_budget(tmp_path):
    write(tmp_path / "before" / "1.jpg", photo(99))
    for name, contents in FOLDERS.items():
        (tmp_path / "folders" / name).mkdir(parents=True)
        makers = [make(place) for count, make in contents for place in range(count)]
        for number, make in enumerate(makers):
            make(tmp_path / "folders" / name / f"{number}.png")
    found = subprocess.run(
        [sys.executable, "-c", CODE, str(BUDGET)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    lines = [json.loads(line) for line in found.stdout.splitlines()]

    assert {name: done for name, _, done in lines} == EXPECTED
    assert {name: peak for name, peak, _ in lines if peak >= BUDGET + BESIDE} == {}
