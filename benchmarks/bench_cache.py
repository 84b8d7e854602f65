"""Growth of the cache: ``python benchmarks/bench_cache.py [--rows 10000 --rows 100000 --rows 1000000] [--dir DIR]``.

Writes synthetic caches of 2048 float16 features and prints Markdown tables of bytes, times and peak memory,
extrapolated to 1e8 rows. A million rows take 4.2 GB in DIR, and the scan needs a million files. Each figure is measured
in a separate process. Reading is compared with plain h5py, which reads the same bytes in the order in which they are
stored.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from bottleneck.backbones.spec import Spec
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.store import Store
from bottleneck.images.preprocessing import Preprocessing

DIM = 2048
SHARD = 16_384  # rows of a full shard, as an extraction of many images commits them
PART = 100_000  # rows that are read from a large cache

SPEC = Spec(
    backbone="synthetic",
    weights="0" * 64,
    layer="fc:input",
    pooling="none",
    preprocessing=Preprocessing(
        resize=256, crop=224, interpolation="bilinear", antialias=True, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    ),
    transform_input=False,
    precision="fp32",
    decoder=1,
)


def store_in(folder: Path) -> Store:
    return FeatureCache(folder / "cache").store(SPEC)


def digests_of(folder: Path) -> np.ndarray:
    return np.load(folder / "digests.npy")


def rss() -> float:
    """Return the peak memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- measurements, each in a separate process -------------------------------------------------------------------


def write(folder: Path, rows: int) -> dict[str, float]:
    random = np.random.default_rng(0)
    digests = random.integers(0, 256, (rows, 32), np.uint8)
    np.save(folder / "digests.npy", digests)
    store, seconds = store_in(folder), 0.0
    for start in range(0, rows, SHARD):
        features = random.standard_normal((min(SHARD, rows - start), DIM), np.float32).astype(np.float16)
        started = time.perf_counter()
        store.append(digests[start : start + SHARD], features)
        seconds += time.perf_counter() - started
    written = sum(path.stat().st_size for path in store.folder.rglob("*") if path.is_file())
    return {"seconds": seconds, "bytes beyond": written / rows - DIM * 2, "overhead": written / rows / (DIM * 2) - 1}


def open_(folder: Path, rows: int) -> dict[str, float]:
    before, started = rss(), time.perf_counter()
    assert len(store_in(folder).index().digests()) == rows
    return {"seconds": time.perf_counter() - started, "MB": rss() - before}


def rebuild(folder: Path, rows: int) -> dict[str, float]:
    shutil.rmtree(store_in(folder).folder / "index")
    return open_(folder, rows)


def missing(folder: Path, rows: int) -> dict[str, float]:
    requested = digests_of(folder)
    requested[::2, -1] ^= 1  # half of them are missing
    np.random.default_rng(1).shuffle(requested)
    before, started = rss(), time.perf_counter()
    lost = store_in(folder).missing(requested)
    assert len(lost) == (rows + 1) // 2
    return {"seconds": time.perf_counter() - started, "MB": rss() - before}


def shuffled(folder: Path, rows: int) -> dict[str, float]:
    return _read(folder, np.random.default_rng(2).permutation(rows))


def together(folder: Path, rows: int) -> dict[str, float]:
    start = min(rows // 2, rows - PART)
    return _read(folder, start + np.random.default_rng(3).permutation(PART))


def scattered(folder: Path, rows: int) -> dict[str, float]:
    return _read(folder, np.random.default_rng(4).permutation(rows)[:PART])


def _read(folder: Path, rows: np.ndarray) -> dict[str, float]:
    """Read rows in random order, and their shards sequentially with plain h5py; return the best time of three each."""
    digests = digests_of(folder)[rows]
    store = store_in(folder)
    paths = [store.folder / "shards" / f"{name}.h5" for name in store.index().shards_of(digests)]
    before = rss()
    ours = []
    for _ in range(3):
        started = time.perf_counter()
        features = store.read(digests, as_stored=True)
        ours.append(time.perf_counter() - started)
        assert features.shape == (len(rows), DIM)
        size = features.nbytes
        del features
    held = rss() - before - size / 2**20
    plain = min(_plain(paths) for _ in range(3))
    size = sum(path.stat().st_size for path in paths)
    return {
        "seconds": min(ours),
        "plain h5py": plain,
        "ratio": plain / min(ours),
        "MB": held,
        "shards MB": size / 2**20,
    }


def _plain(paths: list[Path]) -> float:
    import h5py

    started = time.perf_counter()
    for path in paths:
        with h5py.File(path, "r") as file:
            assert file["digests"][:].size
            assert file["features"][:].size
    return time.perf_counter() - started


def scan(folder: Path, rows: int) -> dict[str, float]:
    from bottleneck.images.scan import scan as scan_images

    before, started = rss(), time.perf_counter()
    assert len(scan_images(folder / "images", cache=folder / "scans")) == rows
    return {"seconds": time.perf_counter() - started, "MB": rss() - before}


def files(folder: Path, rows: int) -> dict[str, float]:
    """Write as many small files of two classes, in folders of 1,000; they are hashed but never decoded."""
    import os

    for number in range(rows):
        path = folder / "images" / "ab"[number % 2] / str(number // 2000) / f"{number}.jpg"
        if number % 2000 < 2:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"%d" % number)
        os.utime(path, (1e9, 1e9))
    time.sleep(2.1)  # the memo ignores more recent files, which may change again within the same tick of the clock
    return {}


MEASURES: dict[str, Callable[[Path, int], dict[str, float]]] = {
    measure.__name__: measure
    for measure in (write, open_, rebuild, missing, shuffled, together, scattered, files, scan)
}


def measure(name: str, folder: Path, rows: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", name, "--dir", str(folder), "--rows", str(rows)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


# --- tables -----------------------------------------------------------------------------------------------------


def bench(home: Path, rows: int, with_scan: bool) -> dict[str, dict[str, float]]:
    folder = home / str(rows)
    folder.mkdir()
    names = ["write", "open_", "missing", "shuffled", "rebuild"]
    names += ["together", "scattered"] if rows > PART else []
    names += ["files", "scan", "scan"] if with_scan else []  # the second scan finds a warm memo
    try:
        return {name: measure(name, folder, rows) for name in names}
    finally:
        shutil.rmtree(folder)


def table(found: dict[int, dict[str, dict[str, float]]]) -> list[str]:
    counts = list(found)
    lines = [
        "| measurement | " + " | ".join(f"{rows:.0e} rows" for rows in counts) + " | extrapolated to 1e8 rows |",
        "|---|" + "---|" * (len(counts) + 1),
    ]

    def row(title: str, name: str, cell: Callable[[dict[str, float]], str], scale: Callable[..., str] | None) -> None:
        cells = [cell(found[rows][name]) if name in found[rows] else "" for rows in counts]
        last = found[counts[-1]].get(name)
        lines.append(f"| {title} | {' | '.join(cells)} | {scale(last, 1e8 / counts[-1]) if scale and last else ''} |")

    def seconds(value: dict[str, float]) -> str:
        return f"{value['seconds']:.2f} s, {value['MB']:.0f} MB"

    def grown(value: dict[str, float], factor: float) -> str:
        return f"{value['seconds'] * factor / 60:.1f} min, {value['MB'] * factor / 1024:.1f} GB"

    def bytes_grown(value: dict[str, float], factor: float) -> str:
        return f"{value['bytes beyond'] * 1e8 / 1e9:.1f} GB"

    row(
        "bytes per row in addition to its features",
        "write",
        lambda v: f"{v['bytes beyond']:.0f} ({v['overhead']:.1%})",
        bytes_grown,
    )
    row("open the cache: list all digests", "open_", seconds, grown)
    row("open the cache after deleting `index/`", "rebuild", seconds, grown)
    row("`missing()` for as many digests", "missing", seconds, grown)
    row("read all rows in random order", "shuffled", seconds, lambda v, factor: f"{v['seconds'] * factor / 60:.1f} min")
    row("speed relative to plain h5py, sequentially", "shuffled", lambda v: f"{v['ratio']:.2f}x", None)
    row("scan as many files with a warm memo", "scan", seconds, grown)
    return lines


def parts_table(rows: int, found: dict[str, dict[str, float]]) -> list[str]:
    lines = ["| rows | seconds | plain h5py, the same shards in order | ratio | shards |", "|---|---|---|---|---|"]
    titles = {"together": "of images that were extracted together", "scattered": "scattered over all shards"}
    for name, title in titles.items():
        if name in found:
            value = found[name]
            lines.append(
                f"| {PART:,} of {rows:,} rows in random order, {title} | {value['seconds']:.2f} | "
                f"{value['plain h5py']:.2f} | {value['ratio']:.2f}x | {value['shards MB']:,.0f} MB |"
            )
    return lines


@click.command()
@click.option("--rows", type=int, multiple=True, default=(10_000, 100_000, 1_000_000), show_default=True)
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Folder of the caches.  [default: /tmp]")
@click.option("--no-scan", is_flag=True, help="Skip the scan, whose files take a while to write.")
@click.option("--measure", "name", hidden=True)
def main(rows: tuple[int, ...], folder: Path | None, no_scan: bool, name: str | None) -> None:
    """Measure synthetic caches with these numbers of rows."""
    if name:
        assert folder
        print(json.dumps(MEASURES[name](folder, rows[0])))
        return
    home = Path(tempfile.mkdtemp(prefix="bottleneck-bench-", dir=folder))
    found: dict[int, dict[str, Any]] = {}
    try:
        for count in rows:
            found[count] = bench(home, count, not no_scan)
    finally:
        shutil.rmtree(home)
    print(f"{DIM} float16 features per row\n")
    print("\n".join(table(found)))
    print()
    print("\n".join(parts_table(rows[-1], found[rows[-1]])))


if __name__ == "__main__":
    main()
