"""The explorer's server with many images: start, columns, maps, tiles, neighbours, edits and memory.

The features are synthetic: mixtures on a curved surface of few dimensions, with noise, as those of a network. The
pictures are small PNGs, each with other bytes.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

DIM, CLASSES, LATENT = 1280, 50, 12
_BLOCK = 5000
_TIMES = 20  # requests of each kind

_MAKE = """
import io, sys
import numpy as np
from pathlib import Path
from PIL import Image
from bottleneck.backbones.spec import Spec
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.images.scan import scan

n, d, classes, latent, block, dtype = *map(int, sys.argv[1:6]), sys.argv[6]
random = np.random.default_rng(0)
centres = 1.6 * random.normal(size=(classes, latent))
first, second = random.normal(size=(latent, 256)) / np.sqrt(latent), random.normal(size=(256, d)) / 16
codes = random.integers(classes, size=n)
for code in range(classes):
    Path(f"images/class {code:02d}").mkdir(parents=True, exist_ok=True)
for row, code in enumerate(codes.tolist()):
    colour = np.array([code * 5, (code * 37) % 256, (code * 91) % 256])
    pixels = np.clip(colour + random.integers(-40, 40, (12, 12, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(f"images/class {code:02d}/{row:07d}.png", compress_level=1)
found = scan("images", cache="cache")
pixels = Preprocessing(resize=32, crop=32, interpolation="bilinear", antialias=True, mean=(0, 0, 0), std=(1, 1, 1))
spec = Spec(backbone="synthetic", weights="0" * 64, layer="fc:input", pooling="avg", preprocessing=pixels,
            transform_input=False, precision="fp32", decoder=1)
store = FeatureCache("cache").store(spec)
known = np.array([int(path[-11:-4]) for path in found.paths])
for start in range(0, n, block):
    own = codes[known[start : start + block]]
    rows = np.maximum(0, (centres[own] + random.normal(size=(len(own), latent))) @ first)
    rows = np.maximum(0, rows @ second + 0.3 * random.normal(size=(len(own), d)))
    store.append(found.digests[start : start + block], rows.astype(dtype))
"""


class Server:
    """A server process, and how long it takes to answer.

    Parameters
    ----------
    work : Path
    options : tuple of str
    """

    def __init__(self, work: Path, *options: str) -> None:
        command = [
            sys.executable,
            str(Path(__file__).parents[1] / "cli.py"),
            "explore",
            "images",
            "--model",
            "synthetic",
        ]
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [*command, "--no-open", "--json", "--port", "0", *options], cwd=work, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.url, _, self.token = json.loads(self.process.stdout.readline())["url"].partition("?token=")

    def get(self, path: str, data: Any = None) -> bytes:
        """Return the answer of an address; with data, send them as JSON."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        body = None if data is None else json.dumps(data).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, body, headers)) as answer:
            return bytes(answer.read())

    def state(self) -> dict[str, Any]:
        """Return the state."""
        return dict(json.loads(self.get("api/state")))

    def until(self, reached: Callable[[dict[str, Any]], bool], most: float) -> float | None:
        """Return the seconds since the start until a state is reached."""
        while time.perf_counter() - self.started < most:
            if reached(self.state()):
                return time.perf_counter() - self.started
            time.sleep(0.2)
        return None

    def memory(self) -> float:
        """Return the resident memory of the server alone, in MB."""
        return float(psutil.Process(self.process.pid).memory_info().rss / 1e6)

    def peak(self) -> str:
        """Return its highest resident memory since the start, in MB, where the system tells it."""
        status = Path(f"/proc/{self.process.pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        return next((f"{int(line.split()[1]) / 1e3:.0f}" for line in lines if line.startswith("VmHWM")), "-")

    def stop(self) -> None:
        """End the server."""
        self.process.terminate()
        self.process.wait()


def median_ms(call: Callable[[int], object], times: int = _TIMES) -> str:
    """Return the median and the maximum of several calls, in ms."""
    seconds = []
    for number in range(times):
        started = time.perf_counter()
        call(number)
        seconds.append(time.perf_counter() - started)
    return f"{1e3 * float(np.median(seconds)):.1f} ({1e3 * max(seconds):.1f})"


def measured(work: Path, n: int, patience: float) -> Iterator[tuple[str, str]]:
    """Yield what was measured, and the result."""
    server = Server(work, "--labels", "edited.csv")
    try:
        yield "first start: until it answers, s", f"{server.until(lambda _: True, 600):.1f}"

        def is_ready(name: str) -> Callable[[dict[str, Any]], bool]:
            return lambda state: next(one["state"] for one in state["layouts"] if one["name"] == name) == "ready"

        yield "first start: until the PCA map, s", f"{server.until(is_ready('pca'), 600):.1f}"
        predicted = server.until(lambda state: state["tasks"]["refit"]["state"] in ("ready", "failed"), patience)
        yield "first start: until predictions of all images, s", _seconds(predicted)
        model = server.state()["model"]
        yield "their cross-validated accuracy", "-" if model is None else f"{model['accuracy']:.3f}"
        yield "first start: until the t-SNE map, s", _seconds(server.until(is_ready("tsne"), patience))
        yield "memory of the server, MB (highest)", f"{server.memory():.0f} ({server.peak()})"
    finally:
        server.stop()
    server = Server(work, "--labels", "edited.csv")
    try:
        yield "later start: until it answers, s", f"{server.until(lambda _: True, 600):.1f}"
        yield (
            "later start: until both maps, s",
            f"{server.until(lambda s: is_ready('pca')(s) and is_ready('tsne')(s), 600):.1f}",
        )
        server.until(lambda state: state["tasks"]["refit"]["state"] in ("ready", "failed"), patience)
        yield "a column, ms", median_ms(lambda _: server.get("api/columns/label"))
        yield "a map, ms", median_ms(lambda _: server.get("api/layouts/tsne"))
        tiles = n // 64
        yield "a new tile of 64 pictures, ms", median_ms(lambda k: server.get(f"api/layouts/pca/tiles/{k % tiles}"))
        yield "a known tile, ms", median_ms(lambda k: server.get(f"api/layouts/pca/tiles/{k % tiles}"))
        yield "a card with 12 exact neighbours, ms", median_ms(lambda k: server.get(f"api/images/{k * 31 % n}"))
        edit = {"action": "tag", "value": "seen"}
        yield "an edit, written to disk, ms", median_ms(lambda k: server.get("api/edits", {**edit, "rows": [k]}))
        every = {"action": "tag", "value": "all", "rows": list(range(n))}
        yield "an edit of all images, ms", median_ms(lambda _: server.get("api/edits", every), 1)
        yield "memory of the server in the end, MB (highest)", f"{server.memory():.0f} ({server.peak()})"
    finally:
        server.stop()


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a folder for the images and their features")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument(
        "--dtype", default="float16", choices=("float16", "float32"), help="of the features in the cache"
    )
    parser.add_argument("--patience", type=float, default=900, help="seconds to wait for predictions and t-SNE")
    options = parser.parse_args()
    work = options.work.resolve()
    if not (work / "cache").exists():
        work.mkdir(parents=True, exist_ok=True)
        sizes = map(str, (options.images, DIM, CLASSES, LATENT, _BLOCK))
        subprocess.run([sys.executable, "-c", _MAKE, *sizes, options.dtype], cwd=work, check=True)
    for file in (*(work / "cache" / "layouts").glob("*"), *work.glob("edited.csv*"), work / "cache" / "cells.sqlite"):
        file.unlink(missing_ok=True)
    print(f"{options.images:,} images, {DIM} features in {options.dtype}, {os.cpu_count()} cores\n")
    print("| what | median (maximum) |\n|---|---|")
    for what, found in measured(work, options.images, options.patience):
        print(f"| {what} | {found} |", flush=True)


if __name__ == "__main__":
    main()
