"""Several devices: a process for each, all writing into one cache."""

import csv
import json
from pathlib import Path

import pytest

from bottleneck.backbones.request import Request
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.engines.options import EngineOptions
from bottleneck.errors import ModelError
from bottleneck.extraction.extract import extract
from bottleneck.extraction.job import ExtractionJob, Limits
from bottleneck.extraction.plan import Plan
from bottleneck.extraction.workers import WorkerPool, devices_of, on_first_device
from bottleneck.images.file_index import index_files
from bottleneck.images.splits import Shares
from tests import tiny
from tests.variants import each

REQUEST = Request(model="timm/test_resnet", weights="none")
OPTIONS = {
    "model": "timm/test_resnet",
    "weights": "none",
    "crop": 64,
    "resize": 64,
    "labels": False,
    "engine": "torch",
    "precision": "fp32",
}


def many(count: int) -> dict[str, int]:
    return {f"{number:03}.jpg": number for number in range(count)}


def pool_of(source: Path, device: str | None, start_process: object) -> WorkerPool:
    images = index_files(source, labels=False, shares=Shares(), cache="cache", exclude=())
    job = ExtractionJob(images=images, limits=Limits(memory=900_000_000))
    plan = Plan(REQUEST, EngineOptions(device="cpu"), FeatureCache("cache"), tiny.SPEC)
    return WorkerPool(job, plan, devices_of(EngineOptions(device=device)), start_process)


@each("device, names", [("cpu", ("cpu",)), ("cuda:0,cuda:1", ("cuda:0", "cuda:1")), (" cpu , cpu ", ("cpu", "cpu"))])
def test_devices_are_named_with_commas_between(device, names):
    assert devices_of(EngineOptions(device=device)) == names


@each("device", ["cpu,", ",", "cuda:0,,cuda:1"])
def test_a_device_without_a_name_is_refused(device):
    with pytest.raises(ModelError, match="separated by commas"):
        devices_of(EngineOptions(device=device))


@each("visible, names", [((), (None,)), (("cuda:0",), (None,)), (("cuda:0", "cuda:1"), ("cuda:0", "cuda:1"))])
def test_by_default_all_cuda_devices_are_used(visible, names):
    assert devices_of(EngineOptions(), lambda: visible) == names
    assert devices_of(EngineOptions(engine="openvino"), lambda: visible) == (None,)


def test_each_process_has_a_device_and_a_share(folder):
    jobs = []

    class Process:
        returncode = 0

        def __init__(self, *_: object, **__: object) -> None:
            self.stdin = self

        def write(self, text: str) -> None:
            jobs.append(json.loads(text))

        def close(self) -> None: ...

        def flush(self) -> None:
            with open(jobs[-1]["images"], newline="", encoding="utf-8") as file:
                jobs[-1]["paths"] = [row["path"] for row in csv.DictReader(file)]

        def wait(self, timeout: float = 0.0) -> int:
            return 0

        def send_signal(self, number: int) -> None: ...

        def kill(self) -> None: ...

    images = folder(many(3))
    pool = pool_of(images, "cuda:0,cuda:1,cuda:2", Process)
    pool.start("bf16")
    pool.start("bf16")  # once is enough
    pool.finish()
    pool.stop()

    assert on_first_device(EngineOptions(device="cuda:0,cuda:1")).device == "cuda:0"
    assert pool.share(0).share == (0, 3)
    assert [(job["options"]["device"], job["share"]) for job in jobs] == [("cuda:1", [1, 3]), ("cuda:2", [2, 3])]
    assert 3 * pool.share(0).limits.memory == 3 * jobs[0]["limits"]["memory"] == 900_000_000
    assert [job["request"]["precision"] for job in jobs] == ["bf16", "bf16"]
    assert jobs[0]["paths"] == sorted(str(path) for path in images.iterdir())


def test_one_device_needs_no_other_process(folder):
    pool = pool_of(folder(many(1)), "cpu", None)
    pool.start("fp32")

    assert pool.finish() == ()
    pool.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:timm/test_resnet has random weights")
def test_processes_divide_the_images_and_those_of_one_that_fails_are_left_to_this_one(folder):
    images = folder({**many(20), "copy.jpg": 3, "page.jpg": b"<html>"})
    alone = extract(images, cache="alone", **OPTIONS)
    done = extract(images, cache="together", device="cpu,cpu,nonsense", **OPTIONS)

    counts = [(found.images, found.computed, found.reused, found.copies) for found in (alone, done)]
    assert counts == [(22, 20, 0, 1), (22, 20, 0, 1)]
    assert [failure.code for failure in done.failures] == ["not-an-image"]
    (remark,) = done.remarks
    assert "the process on nonsense ended early (expected a device that torch can use here" in remark
    digests = alone.usable.digests
    assert (done.store.read(digests) == alone.store.read(digests)).all()
