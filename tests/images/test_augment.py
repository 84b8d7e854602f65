import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as F
from torchvision.transforms import transforms as torchvisions

from bottleneck.errors import ModelError
from bottleneck.images.augment import augmented, random_box
from bottleneck.images.preprocessing import INTERPOLATIONS, Preprocessing, Size
from bottleneck.images.trivial_augment import trivial_augment
from bottleneck.images.view import AUGMENTATIONS, View
from tests.variants import each

Box = tuple[int, int, int, int]
Look = Callable[..., NDArray[np.uint8]]

SCALES = {"light": (0.7, 1.0), "standard": (0.08, 1.0), "strong": (0.08, 1.0)}
RATIO = (3 / 4, 4 / 3)
SIZES = [(64, 48), (48, 64), (500, 375), (1, 1), (2, 1), (3, 2), (7, 7), (2000, 3), (3, 2000), (20_000, 1), (160, 100)]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture
def look(preprocessing: Preprocessing) -> Look:
    """Return a function that gives one view of an image."""

    def give(image: Image.Image, augmentation: str, seed: int = 0, **changes: object) -> NDArray[np.uint8]:
        view = View(augmentation=augmentation, seed=seed, number=0)
        wanted = replace(preprocessing, view=view, **changes)  # type: ignore[arg-type]
        return augmented(image, wanted, np.random.default_rng(seed))

    return give


# The box


class Draws:
    """Stands for torch in torchvision's module: draws come from NumPy, and logarithms are as exact as Python's."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random

    def tensor(self, values: tuple[float, ...]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    def log(self, values: torch.Tensor) -> list[float]:
        return [math.log(value) for value in values.tolist()]

    def exp(self, value: torch.Tensor) -> torch.Tensor:
        return torch.tensor(math.exp(value.item()), dtype=torch.float64)

    def empty(self, _: int) -> SimpleNamespace:
        return SimpleNamespace(uniform_=lambda low, high: self.tensor((low + (high - low) * self._random.random(),)))

    def randint(self, low: int, high: int, size: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor([low + int((high - low) * self._random.random())])


def theirs(size: tuple[int, int], scale: tuple[float, float]) -> Box:
    top, left, height, width = RandomResizedCrop.get_params(Image.new("L", size), list(scale), list(RATIO))
    return left, top, left + width, top + height


@each("scale", [(0.7, 1.0), (0.08, 1.0)])
@each("size", SIZES)
def test_a_box_is_torchvisions_of_the_same_draws(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], scale: tuple[float, float]
) -> None:
    random = np.random.default_rng(1)
    found = [random_box(size, scale, random) for _ in range(100)]
    monkeypatch.setattr(torchvisions, "torch", Draws(np.random.default_rng(1)))
    assert found == [theirs(size, scale) for _ in range(100)]


@each("augmentation", ["light", "standard"])
def test_boxes_are_distributed_as_torchvisions(augmentation: str) -> None:
    size, scale, n = (500, 375), SCALES[augmentation], 2000
    random = np.random.default_rng(2)
    torch.manual_seed(2)
    found = np.array([random_box(size, scale, random) for _ in range(n)])
    expected = np.array([theirs(size, scale) for _ in range(n)])
    for place in range(4):
        assert ks_2samp(found[:, place], expected[:, place]).pvalue > 1e-3
    sizes, theirs_ = (boxes[:, 2:] - boxes[:, :2] for boxes in (found, expected))
    assert ks_2samp(sizes.prod(1), theirs_.prod(1)).pvalue > 1e-3
    assert ks_2samp(sizes[:, 0] / sizes[:, 1], theirs_[:, 0] / theirs_[:, 1]).pvalue > 1e-3


def test_a_box_lies_in_the_image() -> None:
    for scale in [(0.7, 1.0), (0.08, 1.0)]:
        for size in SIZES:
            random = np.random.default_rng(3)
            for _ in range(100):
                left, top, right, bottom = random_box(size, scale, random)
                assert 0 <= left < right <= size[0]
                assert 0 <= top < bottom <= size[1]

    random = np.random.default_rng(0)
    assert {random_box((2000, 3), (0.7, 1.0), random) for _ in range(20)} == {(998, 0, 1002, 3)}
    assert {random_box((3, 2000), (0.7, 1.0), random) for _ in range(20)} == {(0, 998, 3, 1002)}

    random = View(augmentation="standard", seed=3, number=7).random(bytes(range(32)))
    assert [random_box((500, 375), (0.08, 1.0), random) for _ in range(3)] == [
        (184, 94, 486, 357),
        (79, 67, 381, 293),
        (108, 119, 338, 302),
    ]


# The view


@each("augmentation", ["light", "standard"])
@each("crop", [28, (20, 33), (70, 50), 1])
@each("interpolation", INTERPOLATIONS)
def test_a_view_is_what_torchvision_makes_of_its_box(
    look: Look, augmentation: str, interpolation: str, crop: Size
) -> None:
    image, mirrored = noise(60, 41), []
    size = list(crop) if isinstance(crop, tuple) else [crop, crop]
    for seed in range(12):
        box = random_box(image.size, SCALES[augmentation], np.random.default_rng(seed))
        left, top, right, bottom = box
        cut = F.resized_crop(image, top, left, bottom - top, right - left, size, InterpolationMode(interpolation))
        found = look(image, augmentation, seed, crop=crop, interpolation=interpolation)
        assert found.shape == (*size, 3)
        mirrored.append(found.tobytes() != np.asarray(cut).tobytes())
        assert found.tobytes() == np.asarray(F.hflip(cut) if mirrored[-1] else cut).tobytes()
    assert crop == 1 or 0 < sum(mirrored) < 12


@each("augmentation", ["light", "standard"])
def test_half_of_the_views_are_mirrored(look: Look, augmentation: str) -> None:
    slope = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (200, 1)))
    views = [look(slope, augmentation, seed) for seed in range(400)]
    mirrored = sum(int(pixels[0, 0, 0]) > int(pixels[0, -1, 0]) for pixels in views)
    assert abs(mirrored - 200) < 5 * 100**0.5


def test_strong_is_standard_and_one_operation(look: Look) -> None:
    image, changed = noise(60, 41), 0
    for seed in range(50):
        random = np.random.default_rng(seed)
        random_box(image.size, SCALES["standard"], random)
        random.random()  # mirrored or not
        standard = look(image, "standard", seed)
        strong = look(image, "strong", seed)
        assert np.array_equal(strong, np.asarray(trivial_augment(Image.fromarray(standard), random)))
        changed += not np.array_equal(strong, standard)
    assert changed > 30


@each("augmentation", AUGMENTATIONS[1:])
@each("mode", ["RGB", "L"])
@each("size", SIZES)
def test_every_size_has_views(look: Look, augmentation: str, mode: str, size: tuple[int, int]) -> None:
    image = noise(*size).convert(mode)
    for seed in range(5):
        pixels = look(image, augmentation, seed, crop=(20, 28))
        assert pixels.shape == (20, 28, 3)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous


def test_an_image_is_unchanged_and_grey_equals_three_equal_channels(look: Look) -> None:
    for augmentation in AUGMENTATIONS[1:]:
        grey = noise(60, 41).convert("L")
        for seed in range(60):
            assert np.array_equal(look(grey, augmentation, seed), look(grey.convert("RGB"), augmentation, seed))

    for augmentation in AUGMENTATIONS[1:]:
        image = noise(28, 28)
        before = image.tobytes()
        for seed in range(30):
            look(image, augmentation, seed)
        assert image.tobytes() == before


def test_of_the_preprocessing_crop_and_interpolation_count(look: Look, preprocessing: Preprocessing) -> None:
    for change in [{"resize": 50}, {"mode": "border"}, {"fast_jpeg": True}]:
        image = noise(60, 41)
        assert np.array_equal(look(image, "standard"), look(image, "standard", **change))

    with pytest.raises(ModelError, match="expected a preprocessing with a view"):
        augmented(noise(60, 41), preprocessing, np.random.default_rng(0))
