"""Many processes that extract into one cache at once, while others read it; no image passes a real network here."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.extraction.extract import extract
from tests import tiny
from tests.conftest import photo

CHECKOUT = Path(__file__).parents[2]
COUNT = 80  # images, of which each process extracts a part that overlaps those of two others
WRITERS = 4

WRITER = """
import json, sys, time
from dataclasses import replace
from pathlib import Path
from bottleneck.extraction.extract import extract
from bottleneck.extraction.plan import EngineStart
from bottleneck.extraction.commits import CommitPace
from tests import tiny

def start_engine(plan, sample):
    return EngineStart(tiny.TinyEngine(before=lambda: time.sleep(0.02)), replace(plan, engine="tiny"))

pace = CommitPace(first_seconds=0.0, share=0.0)
tiny.use_for_ever(start_engine=start_engine, refresh_seconds=0.01, pace=pace)
Path(f"ready-{sys.argv[1]}").touch()
while not Path("go").exists():
    time.sleep(0.001)
done = extract(sys.argv[1], labels=False, cache="shared", threads=2)
assert "torch" not in sys.modules
print(json.dumps([done.unique, done.computed, done.reused, len(done.failures)]))
"""

READER = """
import sys
from pathlib import Path
import numpy as np
from bottleneck.cache.feature_cache import FeatureCache
from tests import tiny

expected = dict(np.load("expected.npz"))
store = FeatureCache("shared").store(tiny.SPEC)
rounds = seen = 0
while not Path("stop").exists() or not rounds:
    digests = store.digests()
    assert len(digests) >= seen, "images vanished"
    seen = len(digests)
    for row, features in zip(digests, store.read(digests), strict=True):
        assert np.array_equal(features, expected[row.tobytes().hex()])
    rounds += 1
print(rounds)
"""


def start(code: str, *words: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-W", "error::UserWarning", "-c", code, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


@pytest.mark.slow
def test_many_processes_at_once_leave_the_map_of_one_and_readers_never_wait(folder, monkeypatch):
    tiny.use(monkeypatch)
    part = COUNT // WRITERS
    contents = [photo(number, size=(24, 16)) for number in range(COUNT)]
    names = [f"part-{place}" for place in range(WRITERS)]
    for place, name in enumerate(names):
        numbers = [(place * part + number) % COUNT for number in range(3 * part)]
        folder({f"{number}.jpg": contents[number] for number in numbers}, name=name)
    folder({f"{number}.jpg": data for number, data in enumerate(contents)}, name="all")
    alone = extract("all", labels=False, cache="alone")
    wanted = alone.store.read(digests := alone.store.digests())
    np.savez("expected.npz", **{row.tobytes().hex(): x for row, x in zip(digests, wanted, strict=True)})

    writers = [start(WRITER, name) for name in names]
    deadline = time.monotonic() + 60
    while len(list(Path().glob("ready-*"))) < WRITERS and time.monotonic() < deadline:
        time.sleep(0.01)
    readers = [start(READER)]
    Path("go").touch()
    try:
        told = [json.loads(finish(writer)) for writer in writers]
        Path("stop").touch()
        rounds = [int(finish(reader)) for reader in readers]
    finally:
        for process in (*writers, *readers):
            process.kill()

    store = FeatureCache("shared").store(tiny.SPEC)
    assert np.array_equal(store.digests(), digests)
    assert store.read(digests).tobytes() == wanted.tobytes()
    for unique, computed, reused, failed in told:
        assert (unique, computed + reused, failed) == (3 * part, 3 * part, 0)
    computed = sum(computed for _, computed, _, _ in told)
    assert COUNT <= computed < 2 * COUNT, "processes that work side by side leave each other's images alone"
    assert all(rounds)
    assert not (store.folder / "quarantine").exists()
    assert not [name for name in os.listdir(store.folder / "shards") if name.startswith(".tmp")]
    assert extract("all", labels=False, cache="shared").computed == 0
