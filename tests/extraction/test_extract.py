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
from bottleneck.extraction import extract as extraction
from bottleneck.images.decode import decode
from bottleneck.images.digest import DigestMemo, signature
from bottleneck.images.scan import scan
from bottleneck.images.splits import Shares
from tests.conftest import photo, write

# In the precision in which features can be compared bit for bit, and without the seconds that a conversion takes.
extract = partial(extraction.extract, engine="torch", precision="fp32")

CLASSES = {f"{name}/{number}.jpg": 100 * place + number for place, name in enumerate("ab") for number in range(5)}


def snapshot(root: Path) -> dict[str, tuple[int, str]]:
    """Return the modification time and the hash of every file below `root`."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(p): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files}


def test_features_of_every_image_are_cached(folder):
    done = extract(folder(CLASSES))
    assert (done.images, done.unique, done.computed, done.reused, done.failures) == (10, 10, 10, 0, ())
    features = done.store.read(done.dataset.digests)
    assert features.shape == (10, 1280)
    assert features.dtype == np.float32
    assert len(np.unique(features, axis=0)) == 10


def test_a_second_extraction_computes_nothing_and_writes_nothing(folder, tmp_path):
    images = folder(CLASSES)
    extract(images)
    before = snapshot(tmp_path)
    done = extract(images)
    assert (done.computed, done.reused, done.engine) == (0, 10, None)
    assert snapshot(tmp_path) == before


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


def test_a_second_extraction_does_not_import_torch(folder):
    images = folder(CLASSES)
    extraction.extract(images)
    code = f"import sys, bottleneck; print(bottleneck.extract({str(images)!r}).reused, 'torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["10", "False"]


def test_renaming_every_file_computes_nothing_and_changes_only_paths(folder):
    images = folder(CLASSES)
    first = extract(images)
    for number, path in enumerate(sorted(images.rglob("*.jpg"))):
        path.rename(path.with_name(f"renamed-{9 - number}.jpeg"))
    second = extract(images)
    assert (second.computed, second.reused) == (0, 10)
    assert set(map(bytes, second.dataset.digests)) == set(map(bytes, first.dataset.digests))
    assert not set(second.dataset.paths) & set(first.dataset.paths)


def test_a_copy_under_a_second_name_computes_nothing(folder):
    images = folder(CLASSES)
    extract(images)
    shutil.copy(images / "a/0.jpg", images / "a/copy.jpg")
    done = extract(images)
    assert (done.images, done.unique, done.computed, done.reused) == (11, 10, 0, 10)


def test_only_what_is_new_is_computed_and_rows_belong_to_their_digests(folder):
    images = folder(CLASSES)
    first = extract(images)
    known = dict(zip(map(bytes, first.dataset.digests), first.store.read(first.dataset.digests), strict=True))
    write(images / "a/00-sorts-first.jpg", photo(999))
    second = extract(images)
    assert (second.computed, second.reused) == (1, 10)
    features = second.store.read(second.dataset.digests)
    same = [np.array_equal(known[bytes(d)], x) for d, x in zip(second.dataset.digests, features, strict=True)
            if bytes(d) in known]  # fmt: skip
    assert same == [True] * 10


@pytest.fixture
def broken(folder):
    whole = photo(1, size=(300, 200))
    return folder(
        {
            **CLASSES,
            "a/truncated.jpg": whole[: len(whole) // 2],
            "a/page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
            "b/zero.jpg": b"",
        }
    )


def test_images_that_cannot_be_used_are_listed_and_the_rest_is_done(broken):
    (broken / "b/gone.jpg").symlink_to("nowhere.jpg")
    done = extract(broken)
    assert (done.images, done.computed) == (14, 10)
    assert {(Path(failure.path).name, failure.code) for failure in done.failures} == {
        ("truncated.jpg", "truncated"),
        ("page.jpg", "not-an-image"),
        ("zero.jpg", "empty"),
        ("gone.jpg", "unreadable"),
    }
    assert len(done.store.digests()) == 10


def test_a_rerun_with_broken_images_names_them_again_without_torch_and_writes_nothing(broken, tmp_path):
    first = extract(broken)
    before = snapshot(tmp_path)
    done = extract(broken)
    assert (done.computed, done.reused, done.failures, done.engine) == (0, 10, first.failures, None)
    assert len(done.failures) == 3
    assert snapshot(tmp_path) == before


def test_a_mended_image_is_computed(broken):
    extract(broken)
    write(broken / "a/truncated.jpg", photo(77))
    done = extract(broken)
    assert (done.computed, len(done.failures)) == (1, 2)


def test_no_usable_image_at_all_is_an_error_that_gives_a_reason(folder):
    images = folder({"a/x.jpg": b"<html>", "b/y.jpg": b""})
    with pytest.raises(ImagesError, match="HTML"):
        extract(images)


def test_an_image_that_changes_between_scan_and_reading_is_a_failure(folder):
    images = folder(CLASSES)
    dataset = scan(images)
    write(images / "a/0.jpg", photo(555))
    done = extract(dataset)
    assert [(Path(failure.path).name, failure.code) for failure in done.failures] == [("0.jpg", "changed")]
    assert done.computed == 9


def test_an_image_one_of_whose_paths_is_gone_is_read_from_the_other(folder):
    images = folder(CLASSES)
    shutil.copy(images / "a/0.jpg", images / "a/z-copy.jpg")
    dataset = scan(images)
    (images / "a/0.jpg").unlink()
    done = extract(dataset)
    assert (done.computed, done.failures) == (10, ())


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
    done = extract(folder(CLASSES), batch_size=5)
    assert (done.computed, [failure.code for failure in done.failures]) == (8, ["not-finite"] * 2)
    assert [Path(failure.path).name for failure in done.failures] == ["3.jpg", "2.jpg"]


def test_a_device_that_is_not_there_is_an_error_that_names_one_that_is(folder):
    with pytest.raises(ModelError, match="such as cpu"):
        extract(folder(CLASSES), device="nonsense")


def test_images_default_to_the_last_extracted_else_to_the_current_folder(folder, monkeypatch):
    images = folder(CLASSES)
    monkeypatch.chdir(images)
    assert extract(cache="../cache").dataset.source == images
    monkeypatch.chdir(images.parent)
    extract(images)
    assert extract().dataset.source == images


def test_the_caches_own_folder_is_never_scanned(folder):
    images = folder(CLASSES)
    write(images / "cache/x.jpg", photo(5))
    write(images / "runs/y.jpg", photo(6))
    done = extract(images, cache=images / "cache", runs=images / "runs")
    assert done.dataset.classes == ("a", "b")


def test_a_part_of_the_images_does_not_take_the_place_of_their_scan(folder):
    images = folder(CLASSES)
    whole = extract(images).dataset
    extract(whole.subset([0, 1, 2]))
    assert len(load_scan(Path("cache"), images, Shares())) == len(whole)


def test_specs_never_mix(folder):
    images = folder(CLASSES)
    first = extract(images)
    with pytest.warns(BottleneckWarning, match="random weights"):
        second = extract(images, weights="none", seed=1)
    assert second.computed == 10
    assert first.store.folder != second.store.folder
    assert len(FeatureCache("cache").stores()) == 2


def test_a_memo_that_names_another_spec_is_found_out_before_anything_is_stored(folder):
    images = folder(CLASSES)
    extract(images)
    (memo,) = Path("cache/specs").glob("*.json")
    right = json.loads(memo.read_bytes())
    memo.write_text(json.dumps({**right, "weights": "f" * 64}))
    shutil.rmtree("cache/features")
    done = extract(images)
    assert done.computed == 10
    assert done.store.spec.weights == right["weights"]
    assert [store.name for store in FeatureCache("cache").stores()] == [done.store.name]
    assert json.loads(memo.read_bytes()) == right


def test_deleting_every_memo_changes_no_result(folder):
    images = folder(CLASSES)
    first = extract(images)
    for memo in (Path("cache/specs"), Path("cache/datasets"), first.store.folder / "index"):
        shutil.rmtree(memo)
    Path("cache/digests.sqlite").unlink(missing_ok=True)
    second = extract(images)
    assert (second.computed, second.reused, second.store.folder) == (0, 10, first.store.folder)


def test_batches_and_threads_do_not_change_which_rows_are_computed(folder):
    images = folder(CLASSES)
    one = extract(images, cache="one", batch_size=1, threads=1)
    three = extract(images, cache="three", batch_size=3, threads=4)
    assert one.store.read(one.dataset.digests) == pytest.approx(three.store.read(one.dataset.digests), abs=1e-4)


def test_progress_counts_up_to_the_number_of_files_to_read(folder):
    seen = []
    extract(folder(CLASSES), batch_size=2, progress=lambda *event: seen.append(event))
    assert {(stage, total) for stage, _, total in seen} == {("extract", 10)}
    assert sorted({done for _, done, _ in seen}) == [0, 2, 4, 6, 8, 10]
    assert seen == sorted(seen)


def test_by_default_the_fastest_engine_is_taken_that_gives_the_features_of_torch(folder):
    images = folder(CLASSES)
    done = extraction.extract(images)
    reference = extract(images)
    found, expected = (one.store.read(one.dataset.digests) for one in (done, reference))
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.999
    assert done.check.passed
    assert done.check.precision == done.store.spec.precision
    assert done.check.cosine == pytest.approx(cosine.min(), abs=1e-3)
    assert done.engine == done.check.engine
    assert reference.store.spec.precision == "fp32"


CHILD = """
from functools import partial
from bottleneck.extraction import commits
from bottleneck.extraction.extract import extract
commits.CommitPace = partial(commits.CommitPace, first_seconds=0.0, share=0.0)
extract("images", cache="killed", batch_size=2, engine="torch", precision="fp32")
"""


@pytest.mark.slow
def test_killed_half_way_it_goes_on_from_there_and_ends_with_the_same_features(folder):
    images = folder({f"{name}/{number}.jpg": place * 1000 + number for place, name in enumerate("ab")
                     for number in range(60)})  # fmt: skip
    child = subprocess.Popen([sys.executable, "-c", CHILD])
    shards = Path("killed/features")
    deadline = time.monotonic() + 120
    while len(list(shards.glob("*/shards/*.h5"))) < 10 and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = len(FeatureCache("killed").stores()[0].digests())
    assert 20 <= kept < 120
    resumed = extract(images, cache="killed", batch_size=2)
    assert (resumed.computed, resumed.reused) == (120 - kept, kept)
    undisturbed = extract(images, cache="whole", batch_size=2)
    digests = undisturbed.dataset.digests
    assert np.array_equal(resumed.store.read(digests), undisturbed.store.read(digests))


def test_ctrl_c_keeps_what_was_computed(folder, monkeypatch):
    images = folder(CLASSES)

    def interrupt(stage, done, total):
        if stage == "extract" and done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(images, batch_size=2, progress=interrupt)
    done = extract(images, batch_size=2)
    assert (done.computed, done.reused) == (6, 4)


@pytest.mark.slow
@pytest.mark.shared
def test_real_photographs_give_the_features_of_torchvisions_own_extractor(hymenoptera):
    import torch
    import torchvision
    from PIL import Image
    from torchvision.models.feature_extraction import create_feature_extractor

    some = scan(hymenoptera).subset(range(0, 397, 50))
    with pytest.warns(BottleneckWarning, match="random weights"):
        done = extract(some, model="resnet50", weights="none", seed=0)
    torch.manual_seed(0)
    network = torchvision.models.resnet50(weights=None).eval()
    reference = create_feature_extractor(network, {"flatten": "features"})
    transforms = torchvision.models.ResNet50_Weights.DEFAULT.transforms()
    pixels = torch.stack([transforms(Image.open(path).convert("RGB")) for path in some.paths])
    with torch.inference_mode():
        expected = reference(pixels)["features"].numpy()
    found = done.store.read(some.digests)
    assert found.shape == (8, 2048)
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.99999
