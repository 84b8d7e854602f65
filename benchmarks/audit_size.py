"""Seconds and memory of an audit without refits, by the number of images; their features are synthetic."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CLASSES = 20
DIM = 1280
EXTRAPOLATED = 1_000_000
REDUCED = 256  # numbers per image for which there is memory in the last row

# Features of a class lie near a subspace of 12 dimensions, on a background with a decaying spectrum, as those of a
# network do; one label in 50 is wrong.
_MAKE = """
import sys
import numpy as np
from bottleneck.backbones.spec import Spec
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.images.preprocessing import Preprocessing

n, classes, d = map(int, sys.argv[1:4])
random = np.random.default_rng(0)
pixels = Preprocessing(resize=32, crop=32, interpolation="bilinear", antialias=True, mean=(0, 0, 0), std=(1, 1, 1))
spec = Spec(backbone="synthetic", weights="0" * 64, layer="fc:input", pooling="avg", preprocessing=pixels,
            transform_input=False, precision="fp32", decoder=1)
store = FeatureCache("cache").store(spec)
centres = random.normal(size=(classes, d)).astype(np.float32)
axes = random.normal(size=(classes, 12, d)).astype(np.float32)
mixing = (random.normal(size=(200, d)) * np.geomspace(1, 0.05, 200)[:, None]).astype(np.float32)
codes = random.integers(classes, size=n)
given = np.where(random.random(n) < 0.02, random.integers(classes, size=n), codes)
digests = random.integers(256, size=(n, 32), dtype=np.uint8)
for start in range(0, n, 5000):
    own = codes[start : start + 5000]
    rows = 2 + centres[own] + random.normal(size=(len(own), 200)).astype(np.float32) @ mixing / 2
    for code in range(classes):
        mine = own == code
        rows[mine] += 0.3 * random.normal(size=(mine.sum(), 12)).astype(np.float32) @ axes[code]
    store.append(digests[start : start + 5000], np.maximum(0, rows).astype(np.float32))
np.savez("labels.npz", digests=digests, codes=codes, given=given)
"""
_AUDIT = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from bottleneck.auditing.audit import audit
from bottleneck.images.dataset import Dataset

labels, memory = np.load("labels.npz"), int(sys.argv[1])
codes, given = labels["codes"], labels["given"]
n = len(codes)
dataset = Dataset(source=Path("synthetic"), paths=tuple(f"{row}.jpg" for row in range(n)), digests=labels["digests"],
                  labels=tuple(f"class {code:02d}" for code in given), given_splits=("train",) * n, groups=(None,) * n)
stages, started = {}, time.perf_counter()
def progress(stage, done, total):
    stages.setdefault(stage, [time.perf_counter(), 0])[1] = time.perf_counter()
found = audit(dataset, model="synthetic", pictures=False, refit=False, memory=memory or None, progress=progress)
named = [int(one.path[:-4]) for one in found.of_kind("label error")]
print(json.dumps({"seconds": time.perf_counter() - started, "named": len(named), "remarks": found.remarks,
                  "right": int((given[named] != codes[named]).sum()), "wrong": int((given != codes).sum()),
                  "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
                  "stages": {name: round(end - start, 1) for name, (start, end) in stages.items()}}))
"""


def section(work: Path, images: Path | None, *, quick: bool) -> Iterator[str]:
    """Yield a table; `images` is not used."""
    sizes = (5_000, 10_000, 20_000) if quick else (12_500, 25_000, 50_000, 100_000)
    yield (
        f"{DIM} features, {CLASSES} classes, 2 % of the labels wrong, {os.cpu_count()} cores; no refits, no pictures; "
        f"memory of the whole process\n"
    )
    yield "| images | seconds | peak memory, GB | named label errors | of them wrong | wrong labels | stages, s |"
    yield "|---|---|---|---|---|---|---|"
    seconds: dict[int, float] = {}
    neighbours: dict[int, float] = {}
    for n in sizes:
        found = _audited(work, n)
        seconds[n], neighbours[n] = found["seconds"], found["stages"]["neighbours"]
        yield _row(n, found)
    last, before = sizes[-1], sizes[-2]
    found = _audited(work, last, memory=last * REDUCED * 4 * 4)
    yield _row(last, found)
    yield f"\nthe last row has memory for {REDUCED} numbers per image: {' '.join(found['remarks'])}\n"
    square = max(0.0, neighbours[last] - 2 * neighbours[before]) / (last**2 - 2 * before**2)
    linear = (seconds[last] - square * last**2) / last
    minutes = (linear * EXTRAPOLATED + square * EXTRAPOLATED**2) / 60
    yield (
        f"seconds = {1e6 * linear:.0f} us n + {1e12 * square:.0f} ps n^2, the latter by the neighbours of the two "
        f"largest sizes: {EXTRAPOLATED:,} images would take {minutes:.0f} minutes"
    )


def _row(n: int, found: dict[str, Any]) -> str:
    stages = ", ".join(f"{name} {seconds}" for name, seconds in found["stages"].items())
    numbers = f"{found['named']} | {found['right']} | {found['wrong']}"
    return f"| {n:,} | {found['seconds']:.1f} | {found['gigabytes']:.2f} | {numbers} | {stages} |"


def _audited(work: Path, n: int, memory: int = 0) -> dict[str, Any]:
    """Audit n synthetic images in a process of its own."""
    folder = work / f"synthetic-{n}"
    if not (folder / "labels.npz").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-c", _MAKE, *map(str, (n, CLASSES, DIM))], cwd=folder, check=True)
    run = [sys.executable, "-c", _AUDIT, str(memory)]
    done = subprocess.run(run, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
