import hashlib
import json
from dataclasses import FrozenInstanceError, replace

import pytest

from bottleneck.errors import ModelError
from bottleneck.images.preprocessing import INTERPOLATIONS, MODES, Preprocessing
from bottleneck.images.view import AUGMENTATIONS, View
from bottleneck.utils.files import canonical_json
from tests.variants import each


def test_a_size_that_is_none_is_refused(preprocessing: Preprocessing) -> None:
    for resize, crop in [(32, 0), (32, -1), (0, 0), (-5, -5)]:
        with pytest.raises(ModelError, match=f"got resize {resize} and crop {crop}"):
            replace(preprocessing, resize=resize, crop=crop)

    for sizes in [{"resize": (0, 32)}, {"resize": (32, -1)}, {"crop": (32, 0)}, {"crop": [-2, 3]}]:
        with pytest.raises(ModelError, match="expected at least 1 pixel"):
            replace(preprocessing, **sizes)

    for size in [16_385, 10**8, 3 * 10**9, (32, 10**6), 10**300]:
        for name in ["resize", "crop"]:
            with pytest.raises(ModelError, match="expected at most 16,384 pixels"):
                replace(preprocessing, **{name: size})

    for wrong in [
        {"resize": 64.5},
        {"crop": (64, 6.5)},
        {"resize": (64,)},
        {"resize": True},
        {"crop": "64"},
        {"crop": None},
        {"mean": (1, 2)},
        {"mean": (0.5, 0.5, float("nan"))},
        {"std": (0.5, "1", 0.5)},
        {"std": 0.5},
    ]:
        with pytest.raises(ModelError, match="expected"):
            replace(preprocessing, **wrong)


def test_a_size_is_a_height_and_a_width(preprocessing: Preprocessing) -> None:
    for resize, crop in [(1, 1), (32, 32), (33, 32), (32, 33)]:
        assert replace(preprocessing, resize=resize, crop=crop).crop == crop

    for size, pair in [(7, (7, 7)), ((7, 5), (7, 5)), ([7, 5], (7, 5)), ((7, 7), (7, 7))]:
        changed = replace(preprocessing, resize=size, crop=3)
        assert (changed.resize_size, changed.crop_size) == (pair, (3, 3))
        changed = replace(preprocessing, resize=3, crop=size)
        assert (changed.resize_size, changed.crop_size) == ((3, 3), pair)

    for square in [(224, 224), [224, 224]]:
        plain = replace(preprocessing, resize=224, crop=224)
        assert replace(preprocessing, resize=square, crop=square) == plain
        assert json.dumps(replace(preprocessing, resize=square, crop=square).to_json()) == json.dumps(plain.to_json())
        assert Preprocessing.from_json({**plain.to_json(), "crop": [224, 224]}) == plain


def test_only_listed_modes_and_interpolations_are_taken(preprocessing: Preprocessing) -> None:
    for mode in MODES:
        assert replace(preprocessing, mode=mode).mode == mode

    for mode in ["centre", "", "Center", "pad"]:
        with pytest.raises(ModelError, match=f"expected one of center, squash, border, got mode '{mode}'"):
            replace(preprocessing, mode=mode)

    for interpolation in INTERPOLATIONS:
        assert replace(preprocessing, interpolation=interpolation).interpolation == interpolation

    for change in [{"interpolation": "cubic"}, {"interpolation": ""}, {"antialias": False}]:
        with pytest.raises(ModelError, match=r"expected one of nearest, bilinear, .*antialiased"):
            replace(preprocessing, **change)


def test_json_has_every_field_and_is_unchanged_without_modes_and_views(preprocessing: Preprocessing) -> None:
    value = json.loads(json.dumps(preprocessing.to_json()))
    assert Preprocessing.from_json(value) == preprocessing
    assert value == {
        "resize": 32,
        "crop": 28,
        "interpolation": "bilinear",
        "antialias": True,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }

    old = preprocessing.to_json()
    assert "mode" not in old
    assert replace(preprocessing, mode="center").to_json() == old
    assert Preprocessing.from_json(old).mode == "center"

    assert preprocessing.view is None
    assert "view" not in preprocessing.to_json()
    assert replace(preprocessing, view=None).to_json() == preprocessing.to_json()
    assert (
        hashlib.sha256(canonical_json(preprocessing.to_json())).hexdigest()
        == "aa0c5820d7f2d8397a7f1de2a390b39929ef57b5e85e93b35a854033b8ebabc3"
    )

    fast = replace(preprocessing, fast_jpeg=True)

    assert not preprocessing.fast_jpeg
    assert "fast_jpeg" not in preprocessing.to_json()
    assert fast.to_json() == {**preprocessing.to_json(), "fast_jpeg": True}
    assert Preprocessing.from_json(json.loads(json.dumps(fast.to_json()))) == fast != preprocessing


def test_json_keeps_modes_and_rectangles(preprocessing: Preprocessing) -> None:
    for mode in MODES:
        for resize, crop in [(32, 28), ((32, 40), (28, 36)), (32, (28, 36)), ((32, 40), 28), (20, 28)]:
            changed = replace(preprocessing, mode=mode, resize=resize, crop=crop)
            again = Preprocessing.from_json(json.loads(json.dumps(changed.to_json())))
            assert again == changed
            assert hash(again) == hash(changed)

    changed = replace(preprocessing, mode="border", resize=(32, 40), crop=(28, 36))
    assert changed.to_json() == {**preprocessing.to_json(), "resize": [32, 40], "crop": [28, 36], "mode": "border"}

    changed = [replace(preprocessing, mode=mode) for mode in MODES]
    changed += [replace(preprocessing, crop=crop) for crop in ((28, 36), (36, 28))]
    assert len({json.dumps(one.to_json()) for one in changed}) == len(set(changed)) == 5


@each("augmentation", AUGMENTATIONS[1:])
def test_json_keeps_a_view(preprocessing: Preprocessing, augmentation: str) -> None:
    seen = replace(preprocessing, view=View(augmentation=augmentation, seed=3, number=7))
    again = Preprocessing.from_json(json.loads(json.dumps(seen.to_json())))

    assert again == seen != preprocessing
    assert hash(again) == hash(seen)
    assert seen.to_json() == {
        **preprocessing.to_json(),
        "view": {"augmentation": augmentation, "seed": 3, "number": 7},
    }


def test_what_was_read_is_checked_too(preprocessing: Preprocessing) -> None:
    with pytest.raises(ModelError, match="got augmentation 'none'"):
        Preprocessing.from_json({**preprocessing.to_json(), "view": {"augmentation": "none", "seed": 0, "number": 0}})

    with pytest.raises(ModelError, match="crop -9"):
        Preprocessing.from_json({**preprocessing.to_json(), "crop": -9})


def test_equal_settings_are_one_key_and_cannot_change(preprocessing: Preprocessing) -> None:
    assert len({preprocessing, replace(preprocessing)}) == 1
    with pytest.raises(FrozenInstanceError):
        preprocessing.crop = 1  # type: ignore[misc]
