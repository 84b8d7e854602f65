import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from timm.data.transforms_factory import transforms_imagenet_eval
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from bottleneck.images.decode import decode
from bottleneck.images.preprocessing import INTERPOLATIONS, MODES, Preprocessing
from bottleneck.images.resize import STRIP, new_size, resize_and_crop
from tests.conftest import photo
from tests.variants import each, pairwise

Pixels = NDArray[np.uint8]
RED = (255, 0, 0)

STEPS = ("nearest", "box")  # for which the last bit of a coordinate decides
NEAR = 2  # levels, up to an aspect ratio of 2: Pillow rounds its first pass to bytes, here of other rows


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def hardest(width: int, height: int, seed: int) -> Image.Image:
    """Return noise, black and white noise, or a chess board: the steepest that there is."""
    if seed % 3 == 2:
        board = np.add.outer(np.arange(height), np.arange(width)) % 2 * 255
        return Image.fromarray(np.repeat(board[..., None], 3, axis=2).astype(np.uint8))
    image = noise(width, height, seed)
    return image.point(lambda level: 255 * (level > 127)) if seed % 3 else image


def torchvision(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    filter_ = InterpolationMode(preprocessing.interpolation)
    return np.asarray(Compose([Resize(preprocessing.resize, filter_), CenterCrop(preprocessing.crop)])(image))


def as_timm(preprocessing: Preprocessing, crop: tuple[int, int], part: float, mode: str) -> Preprocessing:
    """Return what timm does for a crop that is a `part` of the resized image."""
    height, width = crop
    return replace(preprocessing, resize=(math.floor(height / part), math.floor(width / part)), crop=crop, mode=mode)


def timm(image: Image.Image, preprocessing: Preprocessing, part: float) -> Pixels:
    transform = transforms_imagenet_eval(
        preprocessing.crop_size,
        crop_pct=part,
        crop_mode=preprocessing.mode,
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
        normalize=False,
    )
    return transform(image).permute(1, 2, 0).numpy()


def distance(found: Pixels, expected: Pixels) -> int:
    """Return the largest difference between two results, in levels."""
    assert found.shape == expected.shape
    return int(np.abs(found.astype(int) - expected.astype(int)).max())


def allowed(size: tuple[int, int], preprocessing: Preprocessing) -> int:
    """Return by how many levels an image of this size may differ from the transforms'."""
    exact = preprocessing.interpolation == "nearest" or preprocessing.mode == "squash"
    return 0 if exact or max(size) > 2 * min(size) else NEAR


def middle(image: Image.Image, preprocessing: Preprocessing) -> tuple[int, ...]:
    """Return the colour of an image that has but one."""
    pixels = resize_and_crop(image, preprocessing)
    assert (pixels == pixels[0, 0]).all()
    return tuple(int(level) for level in pixels[0, 0])


class Watched(Image.Image):
    """An image that notes the mode and the size of each image that it, or what comes of it, is resized to."""

    def __init__(self, image: Image.Image, resized: list[tuple[str, tuple[int, int]]] | None = None) -> None:
        super().__init__()
        self.__dict__.update(image.__dict__)
        self.resized: list[tuple[str, tuple[int, int]]] = [] if resized is None else resized

    def resize(self, size: tuple[int, int], *args: Any, **options: Any) -> Image.Image:
        self.resized.append((self.mode, size))
        return Watched(super().resize(size, *args, **options), self.resized)

    def sizes(self, preprocessing: Preprocessing) -> list[tuple[int, int]]:
        """Return to which sizes Pillow is asked to resize the image."""
        resize_and_crop(self, preprocessing)
        return [size for _, size in self.resized]


# The transforms of torchvision and timm: within two levels up to an aspect ratio of 2, exactly up to 8

SIZES = [
    (64, 48),
    (48, 64),
    (32, 32),
    (33, 47),
    (500, 333),
    (333, 500),
    (299, 300),
    (20, 17),
    (5, 9),
    (32, 50),
    (40, 20),  # 2 : 1, the longest of which only the middle is resized
    (41, 20),
    (100, 13),
    (17, 136),  # 8 : 1, the longest that is resized whole
]


@each(
    "size, interpolation, sizes",
    pairwise(SIZES, ["bilinear", "bicubic"], [(32, 28), (32, 32), (33, 28), (35, 32), (32, 1)]),
)
def test_pixels_are_those_of_torchvision(
    preprocessing: Preprocessing, size: tuple[int, int], interpolation: str, sizes: tuple[int, int]
) -> None:
    image = noise(*size)
    wanted = replace(preprocessing, resize=sizes[0], crop=sizes[1], interpolation=interpolation)
    assert distance(resize_and_crop(image, wanted), torchvision(image, wanted)) <= allowed(size, wanted)


TIMMS_SIZES = [
    (64, 48),
    (48, 64),
    (28, 28),
    (32, 32),
    (33, 47),
    (299, 300),
    (333, 250),
    (20, 17),
    (5, 9),
    (100, 13),
    (13, 100),
    (136, 17),
    (1, 1),
]


# Of a part of more than 1, the crop is larger than the image
@each("mode, crop, part", pairwise(MODES, [(28, 28), (28, 20), (20, 33)], [0.875, 0.95, 1.0, 1.3]))
def test_pixels_are_those_of_timm(preprocessing: Preprocessing, mode: str, crop: tuple[int, int], part: float) -> None:
    for size in TIMMS_SIZES:
        for interpolation in ("bilinear", "bicubic"):
            image = noise(*size)
            wanted = replace(as_timm(preprocessing, crop, part, mode), interpolation=interpolation)
            found, expected = resize_and_crop(image, wanted), timm(image, wanted, part)
            assert distance(found, expected) <= allowed(size, wanted), (size, interpolation)


def at_random(interpolation: str, ratios: tuple[float, float], count: int) -> int:
    """Return the largest difference over images, sizes and modes drawn at random."""
    rng, worst = np.random.default_rng(7), 0
    for seed in range(count):
        shorter = int(rng.integers(1, 160))
        longer = min(math.ceil(shorter * rng.uniform(*ratios)), int(ratios[1] * shorter))
        size = (shorter, longer) if rng.random() < 0.5 else (longer, shorter)
        crop = (int(rng.integers(4, 120)), int(rng.integers(4, 120)))
        part, mode = float(rng.uniform(0.3, 1.2)), str(rng.choice(["center", "border"]))
        preprocessing = Preprocessing(
            resize=1, crop=1, interpolation=interpolation, antialias=True, mean=(0.485, 0.456, 0.406), std=(1.0,) * 3
        )
        wanted, image = as_timm(preprocessing, crop, part, mode), hardest(*size, seed)
        worst = max(worst, distance(resize_and_crop(image, wanted), timm(image, wanted, part)))
    return worst


@each("interpolation", [name for name in INTERPOLATIONS if name not in STEPS])
def test_the_hardest_images_of_any_size_are_within_two_levels(interpolation: str) -> None:
    worst = at_random(interpolation, (1, 2), 80)

    assert 0 < worst <= NEAR, "with 0, these images do not show that only the middle was resized"


@each("interpolation", INTERPOLATIONS)
def test_the_hardest_images_are_exact_beyond_an_aspect_ratio_of_two(interpolation: str) -> None:
    assert at_random(interpolation, (2.1, STRIP), 30) == 0


@each("interpolation", STEPS)
def test_filters_with_steps_are_exact(interpolation: str) -> None:
    assert at_random(interpolation, (1, 2), 80) == 0


def test_every_interpolation_is_that_of_torchvision_and_timm(preprocessing: Preprocessing) -> None:
    for mode in MODES:
        for interpolation in INTERPOLATIONS:
            image = noise(97, 61)
            wanted = replace(as_timm(preprocessing, (28, 24), 0.9, mode), interpolation=interpolation)
            assert distance(resize_and_crop(image, wanted), timm(image, wanted, 0.9)) <= allowed(image.size, wanted)

    for interpolation in INTERPOLATIONS:
        image = noise(97, 61)
        wanted = replace(preprocessing, interpolation=interpolation)
        assert distance(resize_and_crop(image, wanted), torchvision(image, wanted)) <= allowed(image.size, wanted)


def test_modes_and_interpolations_differ_and_leave_the_image_unchanged(preprocessing: Preprocessing) -> None:
    image = noise(64, 48)
    found = {resize_and_crop(image, replace(preprocessing, mode=mode)).tobytes() for mode in MODES}
    assert len(found) == len(MODES)

    found = {resize_and_crop(image, replace(preprocessing, interpolation=name)).tobytes() for name in INTERPOLATIONS}
    assert len(found) == len(INTERPOLATIONS)

    resize_and_crop(image, preprocessing)
    assert np.array_equal(np.asarray(image), np.asarray(noise(64, 48)))


@pytest.mark.shared
@each("interpolation", INTERPOLATIONS)
@each("resize, crop", [(342, 299), (256, 224)])
def test_pixels_of_real_photographs_are_those_of_torchvision(
    preprocessing: Preprocessing, hymenoptera: Path, interpolation: str, resize: int, crop: int
) -> None:
    wanted = replace(preprocessing, resize=resize, crop=crop, interpolation=interpolation)
    for path in sorted(hymenoptera.rglob("*.jpg"))[::120]:
        with Image.open(path) as file:
            image = file.convert("RGB")
        found = decode(path.read_bytes(), wanted).pixels
        assert distance(found, torchvision(image, wanted)) <= allowed(image.size, wanted), path


# What is resized


def test_only_what_the_crop_needs_is_resized(preprocessing: Preprocessing) -> None:
    (first_width, rows), last = Watched(noise(600, 400)).sizes(replace(preprocessing, resize=40, crop=20))
    assert (first_width, last) == (20, (20, 20))
    assert rows < 400 * 20 / 40 + 2 * (2 * 10 + 2), "half of the rows, and what the filter reaches beyond them"

    for change in ({"mode": "squash"}, {"interpolation": "nearest"}, {"crop": 32}):
        wanted = replace(preprocessing, **change)  # type: ignore[arg-type]
        assert Watched(noise(48, 48)).sizes(wanted) == [(32, 32)], change
    image = noise(40, 32)
    assert Watched(image).sizes(preprocessing) == []
    assert np.array_equal(resize_and_crop(image, preprocessing), np.asarray(image)[2:30, 6:34])

    image = Watched(noise(64, 48).convert("L"))
    resize_and_crop(image, preprocessing)
    assert {mode for mode, _ in image.resized} == {"L"}


@each(
    "size, mode, interpolation",
    pairwise([(64, 48), (48, 64), (20, 17), (40, 32), (100, 13), (13, 100), (400, 16), (1, 1)], MODES, INTERPOLATIONS),
)
def test_a_grey_image_is_what_it_is_when_converted_first(
    preprocessing: Preprocessing, size: tuple[int, int], mode: str, interpolation: str
) -> None:
    image = noise(*size).convert("L")
    for crop in (28, 32, 40):
        wanted = replace(preprocessing, crop=crop, mode=mode, interpolation=interpolation)
        assert np.array_equal(resize_and_crop(image, wanted), resize_and_crop(image.convert("RGB"), wanted)), crop


# The shape of the result


def test_the_result_is_as_high_and_wide_as_the_crop(preprocessing: Preprocessing) -> None:
    for mode in MODES:
        for crop in [(20, 33), (33, 20), (40, 28), 50]:
            wanted = replace(preprocessing, crop=crop, mode=mode)
            for size in ((64, 48), (48, 64), (3, 2), (900, 30), (30, 900), (1, 1), (2000, 1), (1, 2000)):
                pixels = resize_and_crop(noise(*size), wanted)
                assert pixels.shape == (*wanted.crop_size, 3)
                assert pixels.dtype == np.uint8

    for size, change, expected in [
        ((64, 48), {}, (42, 32)),  # torchvision rounds down
        ((48, 64), {}, (32, 42)),
        ((64, 48), {"mode": "squash"}, (32, 32)),
        ((64, 48), {"mode": "border"}, (32, 24)),
        ((64, 48), {"resize": (32, 40)}, (43, 32)),  # timm rounds to the nearest
        ((2000, 1), {"mode": "border"}, (32, 1)),
    ]:
        assert new_size(*size, replace(preprocessing, **change)) == expected  # type: ignore[arg-type]

    data = photo(1)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode(data, preprocessing).pixels, resize_and_crop(image, preprocessing))


def test_an_image_smaller_than_the_crop_is_padded(preprocessing: Preprocessing) -> None:
    pixels = resize_and_crop(Image.new("RGB", (40, 40), RED), replace(preprocessing, resize=20, crop=(28, 24)))
    assert (pixels[4:24, 2:22] == RED).all()
    assert (pixels == 0).all(2).sum() == 28 * 24 - 20 * 20

    pixels = resize_and_crop(Image.new("RGB", (40, 20), RED), replace(preprocessing, resize=28, mode="border"))
    assert (pixels[7:21] == RED).all()
    assert (pixels[:7] == (124, 116, 104)).all()  # 255 times 0.485, 0.456, 0.406
    assert (pixels[21:] == (124, 116, 104)).all()

    levels = np.zeros((20, 100, 3), np.uint8)
    levels[:, :10] = levels[:, -10:] = 255
    wanted = replace(preprocessing, resize=(30, 40), crop=(30, 40), mode="squash")
    pixels = resize_and_crop(Image.fromarray(levels), wanted)
    assert (pixels[:, :3] == 255).all()
    assert (pixels[:, -3:] == 255).all()
    assert (pixels[:, 6:-6] == 0).all()


# Strips


@each("mode", ["squash", "border"])
@each("crop", [(28, 28), (28, 20)])
@each("size", [(300, 20), (20, 300), (1000, 40), (40, 1000)])
def test_a_strip_that_is_not_enlarged_is_that_of_timm(
    preprocessing: Preprocessing, mode: str, crop: tuple[int, int], size: tuple[int, int]
) -> None:
    image, wanted = noise(*size), as_timm(preprocessing, crop, 0.875, mode)
    assert np.array_equal(resize_and_crop(image, wanted), timm(image, wanted, 0.875))


def test_a_strip_is_nearly_that_of_timm_and_torchvision(preprocessing: Preprocessing) -> None:
    for crop in [(28, 28), (28, 20), (20, 33)]:
        for part in [0.875, 1.3]:
            for size in [(1000, 40), (40, 1000), (400, 16)]:
                image, wanted = noise(*size), as_timm(preprocessing, crop, part, "center")
                difference = np.abs(resize_and_crop(image, wanted).astype(int) - timm(image, wanted, part).astype(int))
                assert difference.mean() < 1
                assert difference.max() < 64

    for size in [(300, 20), (20, 300), (137, 17), (1000, 64)]:
        for interpolation in ["bilinear", "bicubic"]:
            image = noise(*size)
            wanted = replace(preprocessing, interpolation=interpolation)
            difference = np.abs(resize_and_crop(image, wanted).astype(int) - torchvision(image, wanted).astype(int))
            assert difference.mean() < 1
            assert difference.max() < 64


def test_a_strip_keeps_its_colour_and_its_middle(preprocessing: Preprocessing) -> None:
    for size in [(1, 1), (3000, 1), (1, 3000), (2, 1), (9, 1), (1, 60_000)]:
        for interpolation in INTERPOLATIONS:
            wanted = replace(preprocessing, interpolation=interpolation)
            assert middle(Image.new("RGB", size, (10, 200, 30)), wanted) == (10, 200, 30)

    for size in [(2000, 1), (1, 2000)]:
        pixels = resize_and_crop(Image.new("RGB", size, RED), replace(preprocessing, mode="border", resize=28))
        assert (pixels == RED).all(2).sum() == 28

    for turned in [False, True]:
        levels = np.zeros((100, 3000, 3), np.uint8)
        levels[:, 1500:] = 255
        image = Image.fromarray(levels)
        pixels = resize_and_crop(image.transpose(Image.Transpose.TRANSPOSE) if turned else image, preprocessing)
        columns = pixels.mean(axis=(1, 2) if turned else (0, 2))
        assert columns[:12].max() == 0
        assert columns[-12:].min() == 255
        assert 120 < columns.mean() < 135

    sizes = Watched(Image.new("RGB", (20_000, 1))).sizes(preprocessing)
    assert max(max(size) for size in sizes) <= STRIP * preprocessing.resize_size[0]
