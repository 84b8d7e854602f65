"""How long the report of a run takes, and how much memory: in a process of its own, after fit.

python benchmarks/bench_report.py --work DIR [--count 20000] [--classes 20]

Images are small JPEGs of coloured noise (256 x 192 pixels). Their features are made up, 1280 numbers around the centre
of each class, because the time does not depend on where they come from. The first report decodes the pictures that it
shows; each later one does the same.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from bottleneck import fit, scan
from bottleneck.backbones.spec import Spec
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.last import Last, save_last
from bottleneck.cache.scans import save_scan
from bottleneck.images.preprocessing import Preprocessing

DIM, SPREAD = 1280, 9.0
SPEC = Spec(
    backbone="resnet18",
    weights="0" * 64,
    layer="fc:input",
    pooling="avg",
    preprocessing=Preprocessing(
        resize=32, crop=28, interpolation="bilinear", antialias=True, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2)
    ),
    transform_input=False,
    precision="fp32",
    decoder=1,
)


def make(count: int, classes: int) -> None:
    """Write images below the current folder, and cache features of them."""
    random = np.random.default_rng(0)
    for number in range(count):
        path = Path(f"images/{number % classes:04d}/{number:06d}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
        noise.resize((256, 192), Image.Resampling.BICUBIC).save(path, quality=85)
    dataset = scan("images", labels=True, cache="cache")
    codes = np.array([int(Path(path).stem) % classes for path in dataset.paths])
    centres = random.normal(size=(classes, DIM))
    features = 6 + centres[codes] + SPREAD * random.normal(size=(count, DIM))
    store = FeatureCache("cache").store(SPEC)
    store.append(dataset.digests, features.astype(np.float32))
    store.remember_request({"model": "resnet18", "weights": "none", "seed": 0})
    save_scan(Path("cache"), dataset)
    save_last(Path("cache"), Last(str(dataset.source), True, store.name))


def prepare(count: int, classes: int) -> None:
    """Make images and features, and fit a head."""
    make(count, classes)
    print(fit(head="ridge", split="80/0/20"), flush=True)


def measured(*options: str) -> str:
    """Write a report in a new process; return its time, its peak memory and its size."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "bottleneck", "report", "--json", *options]
    with open("found.json", "wb") as out:
        process = subprocess.Popen(command, stdout=out)
        _, _, usage = os.wait4(process.pid, 0)
    seconds, found = time.perf_counter() - started, json.loads(Path("found.json").read_text())
    return (
        f"{' '.join(options) or 'report':12} {seconds:6.1f} s, {usage.ru_utime + usage.ru_stime:6.1f} s of CPU, "
        f"{usage.ru_maxrss / 1e6:5.2f} GB, {found['pictures']} pictures, {found['bytes'] / 1e6:.1f} MB"
    )


def main() -> None:
    """Print a line for a report without an audit, and one with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="an empty folder")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--classes", type=int, default=20)
    given = parser.parse_args()
    given.work.mkdir(parents=True)
    os.chdir(given.work)
    # A process of its own: a later one would inherit its peak memory.
    preparing = multiprocessing.get_context("spawn").Process(target=prepare, args=(given.count, given.classes))
    preparing.start()
    preparing.join()
    for options in (("--no-audit",), ()):
        print(measured(*options), flush=True)


if __name__ == "__main__":
    main()
