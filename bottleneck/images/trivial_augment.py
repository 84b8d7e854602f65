"""TrivialAugment: one random operation of random strength.

The method is that of Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation",
ICCV 2021, https://arxiv.org/abs/2103.10158, with its "wide" strengths; the arithmetic is that of torchvision's
``TrivialAugmentWide``. If a change here changes pixels, increase `bottleneck.images.decode.DECODER_VERSION`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

BINS = 31


@dataclass(frozen=True)
class Operation:
    """A random operation on an image.

    Parameters
    ----------
    apply : callable
        Takes the image, in mode RGB or L, and one of the magnitudes.
    magnitudes : tuple of float
        From weakest to strongest; a placeholder for operations without a magnitude.
    signed : bool
        Whether a magnitude may also be negative.
    """

    apply: Callable[[Image.Image, float], Image.Image]
    magnitudes: tuple[float, ...] = (0.0,)
    signed: bool = False


def trivial_augment(
    image: Image.Image, random: np.random.Generator, operations: Mapping[str, Operation] | None = None
) -> Image.Image:
    """Return the image after one operation; pixels from outside the image are black.

    Parameters
    ----------
    image : Image
        In mode RGB or L.
    random : Generator
    operations : mapping, optional
        Name -> operation; by default `OPERATIONS`.

    Returns
    -------
    Image
        Of the same size and mode.
    """
    choices = tuple((operations or OPERATIONS).values())
    operation = choices[draw(random, len(choices))]
    magnitude = operation.magnitudes[draw(random, len(operation.magnitudes))]
    if operation.signed and draw(random, 2):
        magnitude = -magnitude
    return operation.apply(image, magnitude)


def draw(random: np.random.Generator, n: int) -> int:
    """Return a uniform random integer from 0 to ``n - 1``.

    It depends only on `Generator.random`, whose stream is stable. That of ``Generator.integers`` may change between
    NumPy versions (NEP 19).
    """
    return int(n * random.random())


def _linear(first: float, last: float) -> tuple[float, ...]:
    """Return the float32 values of ``torch.linspace``, with its fused multiply-add in the second half.

    For example, half of 32 pixels is 15.999999, which torchvision truncates to 15.
    """
    last, place = float(np.float32(last)), np.arange(BINS)
    step = float(np.float32(last - first) / np.float32(BINS - 1))
    levels = np.where(place < BINS // 2, first + step * place, last - step * (BINS - 1 - place))
    return tuple(levels.astype(np.float32).tolist())


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=0)


def _rotated(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.NEAREST, fillcolor=0)


_FACTORS = _linear(0.0, 0.99)
_PIXELS = _linear(0.0, 32.0)

OPERATIONS = {
    "Identity": Operation(lambda image, _: image),
    "ShearX": Operation(lambda image, by: _affine(image, 1, by, 0, 0, 1, 0), _FACTORS, signed=True),
    "ShearY": Operation(lambda image, by: _affine(image, 1, 0, 0, by, 1, 0), _FACTORS, signed=True),
    "TranslateX": Operation(lambda image, by: _affine(image, 1, 0, -int(by), 0, 1, 0), _PIXELS, signed=True),
    "TranslateY": Operation(lambda image, by: _affine(image, 1, 0, 0, 0, 1, -int(by)), _PIXELS, signed=True),
    "Rotate": Operation(_rotated, _linear(0.0, 135.0), signed=True),
    "Brightness": Operation(lambda image, by: ImageEnhance.Brightness(image).enhance(1 + by), _FACTORS, signed=True),
    "Color": Operation(lambda image, by: ImageEnhance.Color(image).enhance(1 + by), _FACTORS, signed=True),
    "Contrast": Operation(lambda image, by: ImageEnhance.Contrast(image).enhance(1 + by), _FACTORS, signed=True),
    "Sharpness": Operation(lambda image, by: ImageEnhance.Sharpness(image).enhance(1 + by), _FACTORS, signed=True),
    "Posterize": Operation(
        lambda image, bits: ImageOps.posterize(image, int(bits)),
        tuple(float(8 - round(place / 5)) for place in range(BINS)),
    ),
    "Solarize": Operation(lambda image, level: ImageOps.solarize(image, math.ceil(level)), _linear(255.0, 0.0)),
    "AutoContrast": Operation(lambda image, _: ImageOps.autocontrast(image)),
    "Equalize": Operation(lambda image, _: ImageOps.equalize(image)),
}
