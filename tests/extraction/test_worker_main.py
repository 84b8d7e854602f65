"""A process that computes a share of the images: it ends with its work, or with the one that wants it."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bottleneck.backbones.request import Request
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.extraction.worker_main import work
from bottleneck.extraction.workers import _MAIN
from tests.conftest import photo
from tests.extraction.conftest import soon

pytestmark = pytest.mark.slow


def job_of(images: Path) -> dict[str, Any]:
    """Return the job of a worker that computes all images of a folder."""
    table = images.parent / "workers" / "images.csv"
    table.parent.mkdir()
    table.write_text("path\n" + "\n".join(str(path) for path in sorted(images.iterdir())))
    return {
        "images": str(table),
        "request": Request(model="mobilenet_v3_small", weights="none", precision="fp32").to_json(),
        "options": {"engine": "torch", "device": "cpu", "batch_size": None, "compile": False},
        "cache": "cache",
        "limits": {"threads": None, "max_pixels": 10**8},
        "share": [0, 1],
    }


def begun(images: Path, ignoring: bool = False) -> "subprocess.Popen[str]":
    """Start a process for all images of a folder; perhaps one that inherits that Ctrl-C is ignored."""
    process = subprocess.Popen(
        [sys.executable, "-c", _MAIN],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignoring else None,
    )
    process.stdin.write(json.dumps(job_of(images)) + "\n")
    process.stdin.flush()
    return process


def many(count: int) -> dict[str, bytes]:
    """Return files of one picture, each with other bytes behind it."""
    picture = photo(1)
    return {f"{number:04}.jpg": picture + number.to_bytes(4, "big") for number in range(count)}


@pytest.mark.filterwarnings("ignore:mobilenet_v3_small has random weights")
def test_it_computes_its_share(folder):
    job = job_of(folder(many(6)))
    work({**job, "share": [1, 2]})

    (store,) = FeatureCache("cache").stores()
    assert len(store.digests()) == 3


def test_it_ends_in_the_middle_and_keeps_its_features_if_the_main_process_ends(folder, tmp_path):
    process = begun(folder(many(1500)), ignoring=True)
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
    assert 0 < len(store.digests()) < 1500


def test_it_ends_while_it_still_begins(folder):
    process = begun(folder(many(100)))
    process.stdin.close()
    process.stdin = None
    process.communicate(timeout=30)

    assert process.returncode != 0
    assert not FeatureCache("cache").stores()
