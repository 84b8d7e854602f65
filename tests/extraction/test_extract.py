import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.scans import load_scan
from bottleneck.errors import BottleneckWarning, ImagesError, ModelError
from bottleneck.extraction.extract import extract
from bottleneck.extraction.result import Extraction
from bottleneck.images.decode import decode
from bottleneck.images.digest import DigestMemo, signature
from bottleneck.images.scan import scan
from bottleneck.images.splits import Shares
from tests import tiny
from tests.conftest import photo, write

# In the precision in which features can be compared bit for bit, and without the seconds that a conversion takes.
extract_with_torch = partial(extract, engine="torch", precision="fp32")

CHECKOUT = Path(__file__).parents[2]
CLASSES = {f"{name}/{number}.jpg": 100 * place + number for place, name in enumerate("ab") for number in range(5)}


def snapshot(root: Path) -> dict[str, tuple[int, str]]:
    """Return the modification time and the hash of every file below `root`."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(p): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files}


@pytest.fixture
def tiny_network(monkeypatch) -> None:
    """Let `extract` use a backbone without torch."""
    tiny.use(monkeypatch)


# --- with a real network ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Extraction:
    """Return an extraction of all images with torch in fp32."""
    root = tmp_path_factory.mktemp("extraction")
    for name, seed in CLASSES.items():
        write(root / "images" / name, photo(seed))
    return extract_with_torch(root / "images", cache=root / "cache", runs=root / "runs")


def test_features_of_every_image_are_cached_and_a_second_extraction_does_not_import_torch(done):
    assert (done.images, done.unique, done.computed, done.reused, done.failures) == (10, 10, 10, 0, ())
    assert "1280 features of 10 images by" in done._repr_html_()
    features = done.store.read(done.dataset.digests)
    assert features.shape == (10, 1280)
    assert features.dtype == np.float32
    assert len(np.unique(features, axis=0)) == 10
    code = (
        "import sys, bottleneck\n"
        "done = bottleneck.extract('images', engine='torch', precision='fp32')\n"
        "print(done.reused, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, cwd=done.dataset.source.parent, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["10", "False"]


def test_specs_never_mix_and_batches_and_threads_do_not_change_which_rows_are_computed(done, folder):
    images = folder(CLASSES)
    first = extract_with_torch(images, batch_size=3, threads=4)
    with pytest.warns(BottleneckWarning, match="random weights"):
        second = extract_with_torch(images, weights="none", seed=1)
    assert second.computed == 10
    assert first.store.folder != second.store.folder
    assert len(FeatureCache("cache").stores()) == 2
    assert first.store.read(first.dataset.digests) == pytest.approx(done.store.read(first.dataset.digests), abs=1e-4)


def test_memos_that_are_deleted_or_wrong_change_no_result(done, folder):
    images = folder(CLASSES)
    shutil.copytree(done.store.folder.parent, "cache/features")
    shutil.rmtree(Path("cache/features") / done.store.name / "index")
    second = extract_with_torch(images)
    assert (second.computed, second.reused, second.store.name) == (0, 10, done.store.name)

    (memo,) = Path("cache/specs").glob("*.json")
    right = json.loads(memo.read_bytes())
    memo.write_text(json.dumps({**right, "weights": "f" * 64}))
    shutil.rmtree("cache/features")
    third = extract_with_torch(images)
    assert third.computed == 10
    assert third.store.spec.weights == right["weights"]
    assert [store.name for store in FeatureCache("cache").stores()] == [done.store.name]
    assert json.loads(memo.read_bytes()) == right


def test_an_image_whose_features_are_not_finite_is_a_failure_and_the_rest_is_kept(folder, monkeypatch):
    from bottleneck.backbones.registry import load
    from bottleneck.backbones.request import Request
    from bottleneck.engines.torch_engine import TorchEngine

    preprocessing = load(Request()).spec.preprocessing
    wrong = {decode(photo(seed), preprocessing).pixels.tobytes() for seed in (3, 102)}
    whole = TorchEngine.__call__

    def broken(self, pixels):  # the network itself: the engine that others are compared with is broken, too
        features = whole(self, pixels).copy()
        features[[image.tobytes() in wrong for image in pixels], 5] = np.nan
        return features

    monkeypatch.setattr(TorchEngine, "__call__", broken)
    done = extract_with_torch(folder(CLASSES), batch_size=5)
    assert (done.computed, [failure.code for failure in done.failures]) == (8, ["not-finite"] * 2)
    assert [Path(failure.path).name for failure in done.failures] == ["3.jpg", "2.jpg"]


def test_a_device_that_is_not_there_is_an_error_that_names_one_that_is(folder):
    with pytest.raises(ModelError, match="such as cpu"):
        extract_with_torch(folder(CLASSES), device="nonsense")


def test_by_default_the_fastest_engine_is_taken_that_gives_the_features_of_torch(done, folder):
    fastest = extract(folder(CLASSES))
    found, expected = (one.store.read(done.dataset.digests) for one in (fastest, done))
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.999
    assert fastest.check.passed
    assert fastest.check.precision == fastest.store.spec.precision
    assert fastest.check.cosine == pytest.approx(cosine.min(), abs=1e-3)
    assert fastest.engine == fastest.check.engine
    assert done.store.spec.precision == "fp32"


@pytest.mark.slow
@pytest.mark.shared
def test_real_photographs_give_the_features_of_torchvisions_own_extractor(hymenoptera):
    import torch
    import torchvision
    from PIL import Image
    from torchvision.models.feature_extraction import create_feature_extractor

    some = scan(hymenoptera).subset(range(0, 397, 100))
    with pytest.warns(BottleneckWarning, match="random weights"):
        done = extract_with_torch(some, model="resnet18", weights="none", seed=0)
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None).eval()
    reference = create_feature_extractor(network, {"flatten": "features"})
    transforms = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    pixels = torch.stack([transforms(Image.open(path).convert("RGB")) for path in some.paths])
    with torch.inference_mode():
        expected = reference(pixels)["features"].numpy()
    found = done.store.read(some.digests)
    assert found.shape == (4, 512)
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.99999


# --- with a tiny network ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_network")
def test_a_second_extraction_computes_nothing_and_writes_nothing(folder, tmp_path):
    images = folder(CLASSES)
    extract(images)
    before = snapshot(tmp_path)
    done = extract(images)
    assert (done.computed, done.reused, done.engine) == (0, 10, None)
    assert snapshot(tmp_path) == before


@pytest.mark.usefixtures("tiny_network")
def test_rehash_finds_the_image_that_a_wrong_memo_hides(folder):
    images = folder(CLASSES)
    first = extract(images)
    path, other = first.dataset.paths[:2]
    memo, wrong = DigestMemo("cache/digests.sqlite"), first.dataset.digests[1].tobytes()
    memo.remember([(path, signature(os.stat(path)), wrong, time.time())])
    assert extract(images).dataset.digests[0].tobytes() == wrong

    done = extract(images, rehash=True)

    assert (done.computed, done.reused, done.copies) == (0, 10, 0)
    assert np.array_equal(done.dataset.digests, first.dataset.digests)
    assert np.array_equal(extract(images).dataset.digests, first.dataset.digests)
    assert other in done.dataset.paths


@pytest.mark.usefixtures("tiny_network")
def test_only_new_images_are_computed_even_if_files_are_renamed(folder):
    images = folder(CLASSES)
    first = extract(images)
    known = dict(zip(map(bytes, first.dataset.digests), first.store.read(first.dataset.digests), strict=True))
    for number, path in enumerate(sorted(images.rglob("*.jpg"))):
        path.rename(path.with_name(f"renamed-{9 - number}.jpeg"))
    second = extract(images)
    assert (second.computed, second.reused) == (0, 10)
    assert set(map(bytes, second.dataset.digests)) == known.keys()
    assert not set(second.dataset.paths) & set(first.dataset.paths)
    shutil.copy(images / "a/renamed-9.jpeg", images / "a/copy.jpg")
    third = extract(images)
    assert (third.images, third.unique, third.computed, third.reused) == (11, 10, 0, 10)
    write(images / "a/00-sorts-first.jpg", photo(999))
    last = extract(images)
    assert (last.computed, last.reused) == (1, 10)
    features = last.store.read(last.dataset.digests)
    same = [np.array_equal(known[bytes(d)], x) for d, x in zip(last.dataset.digests, features, strict=True)
            if bytes(d) in known]  # fmt: skip
    assert same == [True] * 11


@pytest.mark.usefixtures("tiny_network")
def test_images_that_cannot_be_used_are_listed_each_time_until_they_are_replaced(folder, tmp_path):
    whole = photo(1, size=(300, 200))
    page = b"<!DOCTYPE html><html><body>404</body></html>"
    images = folder({**CLASSES, "a/truncated.jpg": whole[: len(whole) // 2], "a/page.jpg": page, "b/zero.jpg": b""})
    (images / "b/gone.jpg").symlink_to("nowhere.jpg")
    first = extract(images)
    assert (first.images, first.computed) == (14, 10)
    assert {(Path(failure.path).name, failure.code) for failure in first.failures} == {
        ("truncated.jpg", "truncated"),
        ("page.jpg", "not-an-image"),
        ("zero.jpg", "empty"),
        ("gone.jpg", "unreadable"),
    }
    assert len(first.store.digests()) == 10
    before = snapshot(tmp_path)
    second = extract(images)
    assert (second.computed, second.reused, second.failures, second.engine) == (0, 10, first.failures, None)
    assert snapshot(tmp_path) == before
    write(images / "a/truncated.jpg", photo(77))
    third = extract(images)
    assert (third.computed, len(third.failures)) == (1, 3)


@pytest.mark.usefixtures("tiny_network")
def test_no_usable_image_at_all_is_an_error_that_gives_a_reason(folder):
    images = folder({"a/x.jpg": b"<html>", "b/y.jpg": b""})
    with pytest.raises(ImagesError, match="HTML"):
        extract(images)


@pytest.mark.usefixtures("tiny_network")
def test_an_image_that_changes_between_scan_and_reading_is_a_failure(folder):
    images = folder(CLASSES)
    dataset = scan(images)
    write(images / "a/0.jpg", photo(555))
    done = extract(dataset)
    assert [(Path(failure.path).name, failure.code) for failure in done.failures] == [("0.jpg", "changed")]
    assert done.computed == 9


@pytest.mark.usefixtures("tiny_network")
def test_an_image_one_of_whose_paths_is_gone_is_read_from_the_other(folder):
    images = folder(CLASSES)
    shutil.copy(images / "a/0.jpg", images / "a/z-copy.jpg")
    dataset = scan(images)
    (images / "a/0.jpg").unlink()
    done = extract(dataset)
    assert (done.computed, done.failures) == (10, ())


@pytest.mark.usefixtures("tiny_network")
def test_images_default_to_the_last_extracted_else_to_the_current_folder(folder, monkeypatch):
    images = folder(CLASSES)
    monkeypatch.chdir(images)
    assert extract(cache="../cache").dataset.source == images
    monkeypatch.chdir(images.parent)
    extract(images)
    assert extract().dataset.source == images


@pytest.mark.usefixtures("tiny_network")
def test_the_caches_own_folder_is_never_scanned(folder):
    images = folder(CLASSES)
    write(images / "cache/x.jpg", photo(5))
    write(images / "runs/y.jpg", photo(6))
    done = extract(images, cache=images / "cache", runs=images / "runs")
    assert done.dataset.classes == ("a", "b")


@pytest.mark.usefixtures("tiny_network")
def test_a_part_of_the_images_does_not_take_the_place_of_their_scan(folder):
    images = folder(CLASSES)
    whole = extract(images).dataset
    extract(whole.subset([0, 1, 2]))
    assert len(load_scan(Path("cache"), images, Shares())) == len(whole)


@pytest.mark.usefixtures("tiny_network")
def test_progress_counts_up_to_the_number_of_files_to_read(folder):
    seen = []
    extract(folder(CLASSES), batch_size=2, progress=lambda *event: seen.append(event))
    assert {(stage, total) for stage, _, total in seen} == {("extract", 10)}
    assert sorted({done for _, done, _ in seen}) == [0, 2, 4, 6, 8, 10]
    assert seen == sorted(seen)


CHILD = """
import time
from dataclasses import replace
from bottleneck.extraction.commits import CommitPace
from bottleneck.extraction.extract import extract
from bottleneck.extraction.plan import EngineStart
from tests import tiny

def start_engine(plan, sample):
    return EngineStart(tiny.TinyEngine(2, before=lambda: time.sleep(0.02)), replace(plan, engine="tiny"))

tiny.use_for_ever(start_engine=start_engine, pace=CommitPace(first_seconds=0.0, share=0.0))
extract("images", cache="killed")
"""


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_network")
def test_an_extraction_that_was_killed_is_resumed_and_ends_with_the_same_features(folder):
    images = folder({f"{name}/{number}.jpg": place * 1000 + number for place, name in enumerate("ab")
                     for number in range(60)})  # fmt: skip
    child = subprocess.Popen([sys.executable, "-c", CHILD], env={**os.environ, "PYTHONPATH": str(CHECKOUT)})
    shards = Path("killed/features")
    deadline = time.monotonic() + 120
    while len(list(shards.glob("*/shards/*.h5"))) < 10 and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = len(FeatureCache("killed").stores()[0].digests())
    assert 20 <= kept < 120
    resumed = extract(images, cache="killed")
    assert (resumed.computed, resumed.reused) == (120 - kept, kept)
    undisturbed = extract(images, cache="whole")
    digests = undisturbed.dataset.digests
    assert np.array_equal(resumed.store.read(digests), undisturbed.store.read(digests))


@pytest.mark.usefixtures("tiny_network")
def test_ctrl_c_keeps_what_was_computed(folder):
    images = folder(CLASSES)

    def interrupt(stage, done, total):
        if stage == "extract" and done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(images, batch_size=2, progress=interrupt)
    done = extract(images, batch_size=2)
    assert done.reused >= 4
    assert done.computed + done.reused == 10
