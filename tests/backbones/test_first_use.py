import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save

from bottleneck import extract
from bottleneck.backbones.downloads import Published
from bottleneck.backbones.first_use import FILE, check_first_use
from bottleneck.errors import ModelError
from tests.conftest import write
from tests.variants import each

A, B = "a" * 64, "b" * 64


def test_the_hash_of_the_first_use_is_recorded_and_another_is_refused(tmp_path: Path) -> None:
    for _ in range(2):
        check_first_use(Published("x-12345678.pth", A), tmp_path)
    check_first_use(Published("timm/x/model.safetensors", B), tmp_path)
    with pytest.raises(
        ModelError, match=rf"x-12345678.pth that this cache recorded at first use.*{A}; found {B}.*delete .*{FILE}"
    ):
        check_first_use(Published("x-12345678.pth", B), tmp_path)
    assert json.loads((tmp_path / FILE).read_text()) == {"x-12345678.pth": A, "timm/x/model.safetensors": B}


def test_each_cache_records_its_hashes(tmp_path: Path) -> None:
    check_first_use(Published("x", A), tmp_path / "one")
    check_first_use(Published("x", B), tmp_path / "two")


def test_unpublished_weights_are_not_recorded(tmp_path: Path) -> None:
    check_first_use(None, tmp_path)
    assert not list(tmp_path.iterdir())


@each("found", ["", "[]", "5", '{"x": 5}', '{"x": "A"}', '{"x": null}', "[" * 100_000, '{"x": {}}'])
def test_a_damaged_memo_is_ignored(tmp_path: Path, found: str) -> None:
    (tmp_path / FILE).write_text(found)
    check_first_use(Published("x", A), tmp_path)
    with pytest.raises(ModelError):
        check_first_use(Published("x", B), tmp_path)


def test_weights_that_changed_under_their_name_give_no_features(folder, hub_cache: Path) -> None:
    kept = hub_cache / "models--timm--test_vit.r160_in1k" / "snapshots" / ("c" * 40) / "model.safetensors"
    write(hub_cache / "models--timm--test_vit.r160_in1k" / "refs" / "main", b"c" * 40)
    options = {"model": "timm/test_vit", "engine": "torch", "precision": "fp32"}
    images = folder({"a.jpg": 1, "b.jpg": 2})

    def keep(seed: int) -> None:
        torch.manual_seed(seed)
        write(kept, save(timm.create_model("test_vit").state_dict()))

    keep(1)
    assert extract(images, **options).computed == 2
    keep(2)
    assert extract(images, **options).computed == 0  # the features are in the cache
    folder({"c.jpg": 3})
    with pytest.raises(ModelError, match=r"model\.safetensors that this cache recorded at first use"):
        extract(images, **options)
    keep(1)
    assert extract(images, **options).computed == 1


def test_hashes_are_not_written_through_a_link(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("{}")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / FILE).symlink_to(mine)
    check_first_use(Published("resnet18", "0" * 64), cache)

    assert mine.read_text() == "{}"
    assert (cache / FILE).is_symlink()
