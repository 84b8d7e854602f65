import hashlib
import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from bottleneck.errors import ModelError
from bottleneck.images.preprocessing import INTERPOLATIONS, MODES, Preprocessing, Size
from bottleneck.images.view import AUGMENTATIONS, View
from bottleneck.utils.files import canonical_json
from tests.variants import each


@each("resize, crop", [(32, 0), (32, -1), (0, 0), (-5, -5)])
def test_a_size_without_pixels_is_refused(preprocessing: Preprocessing, resize: int, crop: int) -> None:
    with pytest.raises(ModelError, match=f"got resize {resize} and crop {crop}"):
        replace(preprocessing, resize=resize, crop=crop)


@each("resize, crop", [(1, 1), (32, 32), (33, 32), (32, 33)])
def test_a_size_is_taken(preprocessing: Preprocessing, resize: int, crop: int) -> None:
    assert replace(preprocessing, resize=resize, crop=crop).crop == crop


@each("sizes", [{"resize": (0, 32)}, {"resize": (32, -1)}, {"crop": (32, 0)}, {"crop": [-2, 3]}])
def test_a_rectangle_without_pixels_is_refused(preprocessing: Preprocessing, sizes: dict[str, Size]) -> None:
    with pytest.raises(ModelError, match="expected at least 1 pixel"):
        replace(preprocessing, **sizes)


@each("size", [16_385, 10**8, 3 * 10**9, (32, 10**6), 10**300])
@each("name", ["resize", "crop"])
def test_an_absurd_size_is_refused_before_any_image(preprocessing: Preprocessing, name: str, size: Size) -> None:
    with pytest.raises(ModelError, match="expected at most 16,384 pixels"):
        replace(preprocessing, **{name: size})


@each(
    "wrong",
    [
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
    ],
)
def test_what_is_no_size_and_no_colour_is_refused(preprocessing: Preprocessing, wrong: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="expected"):
        replace(preprocessing, **wrong)


@each("size, pair", [(7, (7, 7)), ((7, 5), (7, 5)), ([7, 5], (7, 5)), ((7, 7), (7, 7))])
def test_a_size_is_a_height_and_a_width(preprocessing: Preprocessing, size: Size, pair: tuple[int, int]) -> None:
    changed = replace(preprocessing, resize=size, crop=3)
    assert (changed.resize_size, changed.crop_size) == (pair, (3, 3))
    changed = replace(preprocessing, resize=3, crop=size)
    assert (changed.resize_size, changed.crop_size) == ((3, 3), pair)


@each("square", [(224, 224), [224, 224]])
def test_a_square_is_written_in_one_way(preprocessing: Preprocessing, square: Size) -> None:
    plain = replace(preprocessing, resize=224, crop=224)
    assert replace(preprocessing, resize=square, crop=square) == plain
    assert json.dumps(replace(preprocessing, resize=square, crop=square).to_json()) == json.dumps(plain.to_json())
    assert Preprocessing.from_json({**plain.to_json(), "crop": [224, 224]}) == plain


@each("mode", MODES)
def test_every_listed_mode_is_taken(preprocessing: Preprocessing, mode: str) -> None:
    assert replace(preprocessing, mode=mode).mode == mode


@each("mode", ["centre", "", "Center", "pad"])
def test_another_mode_is_refused(preprocessing: Preprocessing, mode: str) -> None:
    with pytest.raises(ModelError, match=f"expected one of center, squash, border, got mode '{mode}'"):
        replace(preprocessing, mode=mode)


@each("interpolation", INTERPOLATIONS)
def test_every_listed_interpolation_is_taken(preprocessing: Preprocessing, interpolation: str) -> None:
    assert replace(preprocessing, interpolation=interpolation).interpolation == interpolation


@each("change", [{"interpolation": "cubic"}, {"interpolation": ""}, {"antialias": False}])
def test_what_pillow_does_not_do_is_refused(preprocessing: Preprocessing, change: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=r"expected one of nearest, bilinear, .*antialiased"):
        replace(preprocessing, **change)


def test_json_keeps_every_field(preprocessing: Preprocessing) -> None:
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


def test_json_of_the_default_mode_is_as_it_was_before_there_were_modes(preprocessing: Preprocessing) -> None:
    old = preprocessing.to_json()
    assert "mode" not in old
    assert replace(preprocessing, mode="center").to_json() == old
    assert Preprocessing.from_json(old).mode == "center"


@each("mode", MODES)
@each("resize, crop", [(32, 28), ((32, 40), (28, 36)), (32, (28, 36)), ((32, 40), 28), (20, 28)])
def test_json_keeps_modes_and_rectangles(preprocessing: Preprocessing, mode: str, resize: Size, crop: Size) -> None:
    changed = replace(preprocessing, mode=mode, resize=resize, crop=crop)
    again = Preprocessing.from_json(json.loads(json.dumps(changed.to_json())))
    assert again == changed
    assert hash(again) == hash(changed)


def test_json_of_a_rectangle_and_of_another_mode(preprocessing: Preprocessing) -> None:
    changed = replace(preprocessing, mode="border", resize=(32, 40), crop=(28, 36))
    assert changed.to_json() == {**preprocessing.to_json(), "resize": [32, 40], "crop": [28, 36], "mode": "border"}


def test_modes_and_proportions_tell_settings_apart(preprocessing: Preprocessing) -> None:
    changed = [replace(preprocessing, mode=mode) for mode in MODES]
    changed += [replace(preprocessing, crop=crop) for crop in ((28, 36), (36, 28))]
    assert len({json.dumps(one.to_json()) for one in changed}) == len(set(changed)) == 5


def test_fast_jpeg_stands_in_json_only_where_it_is_asked_for(preprocessing: Preprocessing) -> None:
    fast = replace(preprocessing, fast_jpeg=True)

    assert not preprocessing.fast_jpeg
    assert "fast_jpeg" not in preprocessing.to_json()
    assert fast.to_json() == {**preprocessing.to_json(), "fast_jpeg": True}
    assert Preprocessing.from_json(json.loads(json.dumps(fast.to_json()))) == fast != preprocessing


def test_json_without_a_view_is_as_it_was_before_there_were_views(preprocessing: Preprocessing) -> None:
    assert preprocessing.view is None
    assert "view" not in preprocessing.to_json()
    assert replace(preprocessing, view=None).to_json() == preprocessing.to_json()
    assert (
        hashlib.sha256(canonical_json(preprocessing.to_json())).hexdigest()
        == "aa0c5820d7f2d8397a7f1de2a390b39929ef57b5e85e93b35a854033b8ebabc3"
    )


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


def test_a_view_that_was_read_is_checked_too(preprocessing: Preprocessing) -> None:
    with pytest.raises(ModelError, match="got augmentation 'none'"):
        Preprocessing.from_json({**preprocessing.to_json(), "view": {"augmentation": "none", "seed": 0, "number": 0}})


def test_what_was_read_is_checked_too(preprocessing: Preprocessing) -> None:
    with pytest.raises(ModelError, match="crop -9"):
        Preprocessing.from_json({**preprocessing.to_json(), "crop": -9})


def test_equal_settings_are_one_key_and_cannot_change(preprocessing: Preprocessing) -> None:
    assert len({preprocessing, replace(preprocessing)}) == 1
    with pytest.raises(FrozenInstanceError):
        preprocessing.crop = 1  # type: ignore[misc]
