"""A process that computes a share of the images: it ends with its work, or with the one that wants it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bottleneck.backbones.request import Request
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.extraction.workers import _MAIN
from tests.extraction.conftest import soon

pytestmark = pytest.mark.slow


def begun(images: Path, ignoring: bool = False) -> "subprocess.Popen[str]":
    """Start a process for all images of a folder; perhaps one that inherits that Ctrl-C is ignored."""
    table = images.parent / "workers" / "images.csv"
    table.parent.mkdir()
    table.write_text("path\n" + "\n".join(str(path) for path in sorted(images.iterdir())))
    job = {
        "images": str(table),
        "request": Request(model="mobilenet_v3_small", weights="none", precision="fp32").to_json(),
        "options": {"engine": "torch", "device": "cpu", "batch_size": None, "compile": False},
        "cache": "cache",
        "limits": {"threads": None, "max_pixels": 10**8},
        "share": [0, 1],
    }
    process = subprocess.Popen(
        [sys.executable, "-c", _MAIN],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignoring else None,
    )
    process.stdin.write(json.dumps(job) + "\n")
    process.stdin.flush()
    return process


def many(count: int) -> dict[str, int]:
    return {f"{number:04}.jpg": number for number in range(count)}


def test_it_computes_its_share_and_ends(folder):
    process = begun(folder(many(5)))

    assert process.wait(60) == 0
    process.communicate()
    (store,) = FeatureCache("cache").stores()
    assert len(store.digests()) == 5


@pytest.mark.parametrize("ignoring", [False, True], ids=["", "in the background"])
def test_it_ends_in_the_middle_where_nobody_wants_its_work(folder, tmp_path, ignoring):
    process = begun(folder(many(3000)), ignoring)
    shards = Path("cache/features")
    for _ in range(6):  # importing torch may take longer than one wait
        if soon(lambda: any(shards.glob("*/shards/*.h5"))) or process.poll() is not None:
            break
    assert process.poll() is None
    process.stdin.close()
    process.stdin = None
    _, words = process.communicate(timeout=30)

    assert process.returncode != 0
    assert words.strip().splitlines()[-1] == "interrupted"
    assert not (tmp_path / "workers").exists()
    (store,) = FeatureCache("cache").stores()
    assert 0 < len(store.digests()) < 3000


def test_it_ends_while_it_still_begins(folder):
    process = begun(folder(many(100)))
    process.stdin.close()
    process.stdin = None
    process.communicate(timeout=30)

    assert process.returncode != 0
    assert not FeatureCache("cache").stores()
