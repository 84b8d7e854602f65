import json
from dataclasses import FrozenInstanceError, replace

import pytest

from bottleneck.errors import ModelError
from bottleneck.images.preprocessing import INTERPOLATIONS, Preprocessing


@pytest.mark.parametrize(("resize", "crop"), [(32, 0), (32, -1), (0, 0), (-5, -5)])
def test_a_size_without_pixels_is_refused(preprocessing: Preprocessing, resize: int, crop: int) -> None:
    with pytest.raises(ModelError, match=f"got resize {resize} and crop {crop}"):
        replace(preprocessing, resize=resize, crop=crop)


@pytest.mark.parametrize(("resize", "crop"), [(1, 1), (32, 32), (33, 32), (32, 33)])
def test_a_size_is_taken(preprocessing: Preprocessing, resize: int, crop: int) -> None:
    assert replace(preprocessing, resize=resize, crop=crop).crop == crop


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_every_listed_interpolation_is_taken(preprocessing: Preprocessing, interpolation: str) -> None:
    assert replace(preprocessing, interpolation=interpolation).interpolation == interpolation


@pytest.mark.parametrize("change", [{"interpolation": "cubic"}, {"interpolation": ""}, {"antialias": False}])
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


def test_what_was_read_is_checked_too(preprocessing: Preprocessing) -> None:
    with pytest.raises(ModelError, match="crop -9"):
        Preprocessing.from_json({**preprocessing.to_json(), "crop": -9})


def test_equal_settings_are_one_key_and_cannot_change(preprocessing: Preprocessing) -> None:
    assert len({preprocessing, replace(preprocessing)}) == 1
    with pytest.raises(FrozenInstanceError):
        preprocessing.crop = 1  # type: ignore[misc]
