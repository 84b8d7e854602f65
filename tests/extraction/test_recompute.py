"""A cache from elsewhere whose rows are whole, and are not the features of its images."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from bottleneck.backbones.request import Request
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.merge import Inspection, Merge, NewRows, merge
from bottleneck.cache.store import Store
from bottleneck.extraction.extract import extract
from bottleneck.extraction.loading import Loaded, Loader
from bottleneck.extraction.memory import LEAST_MEMORY, MemoryBudget, usual_memory
from bottleneck.extraction.recompute import Recomputation
from bottleneck.images.preprocessing import Preprocessing
from tests.conftest import photo, write

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights:bottleneck.errors.BottleneckWarning")

FILES = {f"{name}/{number}.jpg": 10 * place + number for place, name in enumerate("ab") for number in range(4)}
Change = Callable[[np.ndarray], np.ndarray]


@pytest.fixture
def images(folder) -> Path:
    return folder(FILES, "elsewhere/images")


@pytest.fixture
def theirs(images: Path) -> Store:
    options = {"model": "timm/test_resnet", "weights": "none", "crop": 32, "resize": 32}
    return extract(images, **options, engine="torch", precision="fp32", cache="elsewhere/cache").store


@pytest.fixture(autouse=True)
def no_parents(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(exist_ok=True)


def lie(store: Store, change: Change) -> None:
    """Let a cache hold changed features, as whole as the right ones."""
    digests = store.digests()
    features = change(store.read(digests).copy())
    for path in store.shards():
        store.drop(path.stem)
    store.append(digests, features)


def merged(count: int = 3, source: str = "elsewhere/cache", **options: object) -> Merge:
    cache = FeatureCache("ours")
    return merge(cache, source, inspect=Recomputation(cache, source, count, **options))


class Watched(Loader):
    """A loader that notes the paths that it is to load."""

    opened: ClassVar[list[str]] = []

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__(MemoryBudget(usual_memory()), preprocessing)

    def load(self, path: str, wanted: Callable[[bytes], bool] = lambda _: True) -> Loaded:
        self.opened.append(path)
        return super().load(path, wanted)


@pytest.fixture
def opened() -> list[str]:
    """Return the paths that a `Watched` loader loads."""
    Watched.opened.clear()
    return Watched.opened


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cache_with_the_right_features_is_merged(images, precision):
    options = {"model": "timm/test_resnet", "weights": "none", "crop": 32, "resize": 32}
    extract(images, **options, engine="torch", precision=precision, cache="elsewhere/cache")
    done = merged()
    assert (done.added, done.recomputed, done.problems, done.notes) == (8, 3, [], [])


def permuted(features: np.ndarray) -> np.ndarray:
    return np.roll(features, 1, axis=0)


def noise(features: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).normal(size=features.shape).astype(features.dtype)


def longer(features: np.ndarray) -> np.ndarray:
    return features * 1.2


def zeros(features: np.ndarray) -> np.ndarray:
    return np.zeros_like(features)


def narrow(features: np.ndarray) -> np.ndarray:
    return features[:, :7]


def a_little_off(features: np.ndarray) -> np.ndarray:
    return features + 0.2 * features.std() * noise(features)


@pytest.mark.parametrize("change", [noise, longer, zeros, narrow, a_little_off])
def test_a_cache_that_lies_of_each_image_is_refused_and_nothing_of_the_spec_is_taken(theirs, change):
    lie(theirs, change)
    done = merged(1)
    assert done.added == 0
    (problem,) = done.problems
    assert "1 of 1 image that were recomputed" in problem
    assert "no features of this spec are merged" in problem
    assert FeatureCache("ours").stores() == []
    assert not FeatureCache("ours").store(theirs.spec).folder.exists()


def test_features_of_other_images_are_refused(theirs):
    lie(theirs, permuted)
    done = merged(8)
    assert done.added == 0
    assert done.recomputed == 8
    assert done.problems


def test_all_images_are_drawn_where_so_many_are_wanted_and_one_lie_is_found(theirs):
    def one(features: np.ndarray) -> np.ndarray:
        features[5] = -features[5]
        return features

    lie(theirs, one)
    done = merged(8)
    assert "1 of 8 images" in done.problems[0]


def test_which_are_drawn_is_different_each_time(theirs, opened):
    for number in range(6):
        merged(1, loader=Watched)
        shutil.rmtree("ours")
        assert len(opened) == number + 1
    assert len(set(opened)) > 1


def test_our_own_images_are_at_hand_wherever_theirs_are(theirs, tmp_path):
    shutil.copytree(tmp_path / "elsewhere" / "images", tmp_path / "here")
    shutil.rmtree(tmp_path / "elsewhere" / "images")
    extract("here", model="timm/test_resnet", weights="none", seed=1, crop=32, resize=32, engine="torch", cache="ours")
    lie(theirs, noise)
    done = merged()
    assert done.recomputed == 3
    assert done.added == 0
    assert len(FeatureCache("ours").stores()) == 1


def test_where_no_image_is_at_hand_a_line_says_so(theirs, tmp_path):
    shutil.rmtree(tmp_path / "elsewhere" / "images")
    done = merged()
    assert (done.added, done.recomputed, done.problems) == (8, 0, [])
    assert "none of its images is on this machine" in done.notes[0]


def test_files_that_have_changed_are_not_taken_for_the_images(theirs, tmp_path):
    for number, path in enumerate(sorted((tmp_path / "elsewhere" / "images").rglob("*.jpg"))):
        write(path, photo(1000 + number))
    assert "none of its images is on this machine" in merged().notes[0]


def test_a_file_that_a_stranger_names_elsewhere_is_not_opened(theirs, tmp_path, opened):
    (tmp_path / "elsewhere" / "images").rename(tmp_path / "private")
    (tmp_path / "elsewhere" / "images").symlink_to(tmp_path / "private")
    assert "none of its images is on this machine" in merged(loader=Watched).notes[0]
    assert opened == []


def test_an_image_that_takes_more_memory_than_there_is_is_passed_over(folder):
    images = folder({"a.jpg": 1}, "elsewhere/images")
    os.truncate(images / "a.jpg", 40 << 20)
    options = {"model": "timm/test_resnet", "weights": "none", "crop": 32, "resize": 32, "labels": False}
    extract(images, **options, engine="torch", precision="fp32", cache="elsewhere/cache")

    done = merged(loader=lambda preprocessing: Loader(MemoryBudget(LEAST_MEMORY), preprocessing))
    assert (done.recomputed, len(done.notes)) == (0, 1)
    shutil.rmtree("ours")
    assert merged().recomputed == 1


def test_where_the_weights_are_not_here_a_line_says_so_and_nothing_is_downloaded(theirs, monkeypatch):
    theirs.remember_request(Request(model="resnet18", weights="IMAGENET1K_V1").to_json())
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    done = merged()
    assert done.added == 8
    assert "weights of its backbone are not on this machine" in done.notes[0]


def test_where_the_recorded_request_leads_to_another_network_a_line_says_so(theirs, monkeypatch):
    theirs.remember_request(replace(theirs.asked(), seed=5).to_json())
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    assert "now selects another" in merged().notes[0]


def test_what_is_known_here_need_not_be_computed_again(theirs):
    merged()
    done = merged()
    assert (done.added, done.known, done.recomputed, done.notes) == (0, 8, 0, [])


def test_one_spec_that_lies_leaves_another_alone(theirs, images):
    lie(theirs, noise)
    extract(
        images, model="timm/test_resnet", weights="none", crop=48, resize=48, engine="torch", cache="elsewhere/cache"
    )
    done = merged(2)
    assert (done.added, done.recomputed, len(done.problems)) == (8, 4, 1)
    (store,) = FeatureCache("ours").stores()
    assert store.folder.name != theirs.folder.name


def test_rows_that_are_added_to_the_other_cache_during_a_merge_are_inspected_too(theirs):
    features, seen = theirs.read(theirs.digests()), []

    def inspect(store: Store, held: Sequence[NewRows]) -> Inspection:
        seen.append([len(one.digests) for one in held])
        if len(seen) == 1:
            theirs.append(np.full((1, 32), 7, np.uint8), features[:1])
        return Inspection(images=1, problem="a lie" if len(seen) == 2 else None)

    done = merge(FeatureCache("ours"), "elsewhere/cache", inspect=inspect)
    assert seen == [[8], [1]]
    assert (done.added, done.recomputed, done.problems) == (8, 2, ["a lie"])


def test_a_fifo_in_the_place_of_an_image_is_passed_over(theirs, tmp_path):
    if os.name == "nt":
        pytest.skip("FIFOs of POSIX")
    for path in (tmp_path / "elsewhere" / "images").rglob("*.jpg"):
        path.unlink()
        os.mkfifo(path)
    assert "none of its images is on this machine" in merged().notes[0]
