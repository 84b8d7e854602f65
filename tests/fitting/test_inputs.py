"""Which images and which features a command takes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.last import Last, load_last, save_last, save_latest
from bottleneck.errors import CacheError, ImagesError, MissingFeatures, ModelError
from bottleneck.extraction.extract import extract
from bottleneck.fitting.inputs import default_images, select
from bottleneck.images.scan import scan
from tests.tiny import SPEC

FILES = {f"{name}/{number}.jpg": 10 * place + number for place, name in enumerate("ab") for number in range(3)}
OTHERS = {f"{name}/{number}.jpg": 100 + 10 * place + number for place, name in enumerate("cd") for number in range(3)}
CACHE = Path("cache")
BF16 = replace(SPEC, precision="bf16")
OTHER = replace(SPEC, backbone="other")


def cached(root, spec, rows=None):
    """Put made-up features of some images into the cache."""
    digests = scan(root).digests[:rows]
    store = FeatureCache("cache").store(spec)
    store.append(digests, np.ones((len(digests), 4), np.float32))
    store.remember_request({"model": spec.backbone, "weights": "none", "seed": 0})
    return store


def chosen(images=None, model=None):
    return select(images, model=model, cache="cache", runs="runs").store.name


def last(root, store, *, finished=True):
    save_last(CACHE.absolute(), Last(str(root), True, store.name, finished=finished))


def test_named_images_use_their_own_features_not_the_last_extracted(folder):
    flowers, ants = folder(FILES, "flowers"), folder(OTHERS, "ants")
    fp32, bf16 = cached(flowers, SPEC), cached(ants, BF16)
    last(ants, bf16)

    assert chosen(flowers) == chosen(flowers, "tiny") == fp32.name
    assert chosen(ants) == chosen() == bf16.name


def test_a_few_shared_images_do_not_select_another_precision(folder):
    flowers, ants = folder(FILES, "flowers"), folder({**OTHERS, "c/9.jpg": 0}, "ants")
    fp32, bf16 = cached(flowers, SPEC), cached(ants, BF16)

    assert chosen(flowers) == fp32.name
    assert chosen(ants, "tiny") == bf16.name


def test_of_several_complete_specs_it_is_the_one_that_was_extracted_last_of_these_images(folder):
    flowers, ants = folder(FILES, "flowers"), folder(OTHERS, "ants")
    cached(flowers, OTHER)
    save_latest(CACHE.absolute(), flowers, cached(flowers, SPEC).name)
    last(ants, cached(ants, OTHER))

    assert chosen(flowers) == FeatureCache("cache").store(SPEC).name


def test_an_ambiguous_spec_is_an_error(folder):
    flowers = folder(FILES)
    cached(flowers, SPEC)
    cached(flowers, OTHER)
    with pytest.raises(CacheError, match=r"found 2: name one with --model, other-\w+, tiny-\w+"):
        chosen(flowers)

    assert chosen(flowers, "other").startswith("other-")


def test_two_precisions_of_one_model_are_ambiguous(folder):
    flowers = folder(FILES)
    cached(flowers, SPEC)
    cached(flowers, BF16)
    with pytest.raises(CacheError, match="name one with --model"):
        chosen(flowers, "tiny")


def test_images_without_features_are_never_replaced_by_others(folder):
    flowers, ants = folder(FILES, "flowers"), folder(OTHERS, "ants")
    last(ants, cached(ants, SPEC))
    with pytest.raises(MissingFeatures, match=r"found none: run `bottleneck extract .*flowers` first"):
        chosen(flowers)


def test_features_of_some_images_are_an_error_that_names_the_spec(folder):
    flowers = folder(FILES)
    cached(flowers, SPEC, 2)
    with pytest.raises(MissingFeatures, match=r"of tiny for 6 images, 4 have none .* --model tiny --weights none"):
        chosen(flowers)


def test_an_incomplete_last_extraction_is_used(folder):
    flowers = folder(FILES)
    cached(flowers, OTHER)
    last(flowers, cached(flowers, SPEC, 2), finished=False)
    with pytest.raises(MissingFeatures, match="of tiny for 6 images, 4 have none"):
        chosen()

    assert chosen(flowers).startswith("other-")


def test_without_an_extraction_in_this_folder_images_must_be_named(folder, tmp_path, monkeypatch):
    flowers = folder(FILES)
    last(flowers, cached(flowers, SPEC))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match="expected IMAGES, or an earlier `bottleneck extract` in this folder"):
        select(None, model=None, cache="../cache", runs="runs")

    assert select(flowers, model=None, cache="../cache", runs="runs").dataset.source == flowers


@pytest.mark.parametrize(
    ("images", "options", "error"),
    [
        ("nothere.csv", {}, ImagesError),
        ("ants", {"model": "no_such_model"}, ModelError),
        ("ants", {"model": "resnet18", "weights": "no-such.pth"}, ModelError),
        ("ants", {"model": "resnet18", "pool": "nonsense"}, ModelError),
    ],
)
def test_after_a_failed_extraction_no_other_features_are_used(folder, images, options, error):
    flowers = folder(FILES, "flowers")
    folder(OTHERS, "ants")
    last(flowers, cached(flowers, SPEC))
    with pytest.raises(error):
        extract(images, **options)
    with pytest.raises(CacheError, match=f"the last `bottleneck extract {images}` in this folder failed"):
        chosen()

    assert chosen(flowers).startswith("tiny-")


def test_deleted_features_are_missing(folder):
    flowers = folder(FILES)
    last(flowers, cached(flowers, SPEC))
    save_last(CACHE.absolute(), Last(str(flowers), True, "gone-" + "0" * 64))
    with pytest.raises(MissingFeatures, match="run it again, or name IMAGES"):
        chosen()


@pytest.mark.filterwarnings("ignore:timm.test_resnet has random weights")
def test_undecodable_images_are_remembered_after_the_project_moves(folder, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    images = folder({**FILES, "a/bad.jpg": b"no image"}, "home/photos")
    extract(images, model="timm/test_resnet", weights="none", resize=32, crop=32, engine="torch", precision="fp32")
    home.rename(tmp_path / "renamed")
    monkeypatch.chdir(tmp_path / "renamed")
    found = select(None, model=None, cache="cache", runs="runs")

    assert len(found.usable) == 6
    assert [failure.code for failure in found.failures] == ["not-an-image"]
    assert default_images(Path("cache")).shown == "photos"


@pytest.mark.filterwarnings("ignore:timm.test_resnet has random weights")
def test_the_next_command_uses_an_interrupted_extraction(folder, monkeypatch):
    images = folder(FILES)
    monkeypatch.setattr("bottleneck.extraction.loop.run_pass", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(images, model="timm/test_resnet", weights="none", resize=32, crop=32, engine="torch", precision="fp32")

    assert load_last(CACHE).finished is False
    with pytest.raises(
        MissingFeatures, match=r"of timm.test_resnet for 6 images, 5 have none .* --resize 32 --crop 32"
    ):
        chosen()


def interrupted(job, store, *_):
    store.append(scan(job.images.source).digests[:1], np.ones((1, 512), np.float32))
    raise KeyboardInterrupt
