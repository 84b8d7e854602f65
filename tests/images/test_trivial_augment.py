from collections import Counter

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode, TrivialAugmentWide
from torchvision.transforms.autoaugment import _apply_op

from bottleneck.images.trivial_augment import BINS, OPERATIONS, Operation, draw, trivial_augment
from tests.variants import each, pairwise

SPACE = TrivialAugmentWide()._augmentation_space(BINS)


def picture(mode: str = "RGB", size: tuple[int, int] = (45, 32), seed: int = 0) -> Image.Image:
    """Return noise on a slope of grey, from 20 to 220, so that no operation leaves it as it was."""
    width, height = size
    slope = np.linspace(20, 180, width)[None, :, None]
    levels = slope + np.random.default_rng(seed).integers(0, 41, (height, width, 3))
    return Image.fromarray(levels.astype(np.uint8)).convert(mode)


def torchvision(image: Image.Image, name: str, magnitude: float) -> Image.Image:
    return _apply_op(image, name, magnitude, interpolation=InterpolationMode.NEAREST, fill=None)


def signed(name: str) -> list[float]:
    operation = OPERATIONS[name]
    return [*operation.magnitudes, *(-magnitude for magnitude in operation.magnitudes if operation.signed)]


def same(found: Image.Image, expected: Image.Image) -> bool:
    return found.mode == expected.mode and np.array_equal(np.asarray(found), np.asarray(expected))


def test_the_operations_and_their_magnitudes_are_torchvisions() -> None:
    assert list(OPERATIONS) == list(SPACE)
    assert len(OPERATIONS) == 14
    assert {name: operation.signed for name, operation in OPERATIONS.items()} == {n: s for n, (_, s) in SPACE.items()}

    for name in OPERATIONS:
        found, expected = OPERATIONS[name].magnitudes, np.atleast_1d(SPACE[name][0].numpy())
        assert len(found) == len(expected) in (1, BINS)
        assert np.allclose(found, expected, rtol=3e-7, atol=0)

    for name in ["TranslateX", "TranslateY"]:
        found = [int(magnitude) for magnitude in OPERATIONS[name].magnitudes]
        expected = [int(magnitude) for magnitude in SPACE[name][0].tolist()]
        middle = BINS // 2
        assert found[middle] == 15
        assert expected[middle] in (15, 16)  # 16 where nothing is fused
        assert found[:middle] + found[middle + 1 :] == expected[:middle] + expected[middle + 1 :]


@each("name, mode, size", pairwise(list(OPERATIONS), ["RGB", "L"], [(45, 32), (28, 28), (33, 47), (1, 1), (5, 2)]))
def test_every_operation_does_what_torchvisions_does(name: str, mode: str, size: tuple[int, int]) -> None:
    image = picture(mode, size)
    for magnitude in signed(name):
        assert same(OPERATIONS[name].apply(image, magnitude), torchvision(image, name, magnitude)), magnitude


def test_every_operation_changes_the_image_and_leaves_grey_grey() -> None:
    for name in sorted(OPERATIONS.keys() - {"Identity"}):
        image = picture()
        assert not same(OPERATIONS[name].apply(image, OPERATIONS[name].magnitudes[-1]), image)

    for name in OPERATIONS:
        grey = picture("L")
        for magnitude in signed(name):
            as_colours = OPERATIONS[name].apply(grey.convert("RGB"), magnitude)
            assert same(OPERATIONS[name].apply(grey, magnitude).convert("RGB"), as_colours), magnitude

    for name in ["ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"]:
        for mode in ["RGB", "L"]:
            levels = np.asarray(OPERATIONS[name].apply(picture(mode), OPERATIONS[name].magnitudes[20]))
            assert (levels == 0).mean() > 0.1


def test_operations_magnitudes_and_signs_are_drawn_alike_often() -> None:
    drawn: Counter[tuple[str, float]] = Counter()

    def spy(name: str) -> Operation:
        def apply(image: Image.Image, magnitude: float) -> Image.Image:
            drawn[name, magnitude] += 1
            return image

        return Operation(apply, OPERATIONS[name].magnitudes, OPERATIONS[name].signed)

    spies = {name: spy(name) for name in OPERATIONS}
    random, image, n = np.random.default_rng(0), picture(size=(1, 1)), 56_000
    for _ in range(n):
        trivial_augment(image, random, spies)

    for name, operation in OPERATIONS.items():
        counts = {magnitude: count for (found, magnitude), count in drawn.items() if found == name}
        assert abs(sum(counts.values()) - n / 14) < 5 * (n / 14) ** 0.5
        assert set(counts) == set(signed(name))
        for magnitude, count in counts.items():
            expected = n / 14 * signed(name).count(magnitude) / len(signed(name))
            expected = n / 14 / BINS if operation.signed and magnitude == 0 else expected  # 0 and -0 are one
            assert abs(count - expected) < 5 * expected**0.5


def test_all_are_drawn_and_none_beyond() -> None:
    for n in [1, 2, 3, 14, 31]:
        random = np.random.default_rng(0)
        counts = Counter(draw(random, n) for _ in range(1000 * n))
        assert sorted(counts) == list(range(n))
        assert all(abs(count - 1000) < 5 * 1000**0.5 for count in counts.values())

    class Largest(np.random.Generator):
        def random(self, *args: object, **options: object) -> float:  # type: ignore[override]
            return 1 - 2**-53

    random = Largest(np.random.PCG64(0))
    assert all(draw(random, n) == n - 1 for n in [*range(1, 5000), 10**6 + 1, 2**31 - 1, 2**31])
