"""A random view of an image: a crop of any place and size, perhaps mirrored, perhaps changed in colour or shape.

A change here that changes pixels raises `bottleneck.images.decode.DECODER_VERSION`.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bottleneck.errors import ModelError
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.images.resize import FILTERS
from bottleneck.images.trivial_augment import draw, trivial_augment

# What part of the image's area is cut out.
_SCALES = {"light": (0.7, 1.0), "standard": (0.08, 1.0), "strong": (0.08, 1.0)}
_RATIO = (3 / 4, 4 / 3)  # of width to height
_TRIES = 10


def augmented(image: Image.Image, preprocessing: Preprocessing, random: np.random.Generator) -> NDArray[np.uint8]:
    """Return the view that `random` makes of an image.

    ``light``: a crop of 70 to 100 % of the area, resized to the preprocessing's crop, and mirrored half of the time.
    ``standard``: the same of 8 to 100 %, as in PyTorch's transfer learning tutorial (torchvision's
    ``RandomResizedCrop`` and ``RandomHorizontalFlip``; the crop is that of Szegedy et al., "Going Deeper with
    Convolutions", CVPR 2015, https://arxiv.org/abs/1409.4842).
    ``strong``: ``standard``, and then one operation of `bottleneck.images.trivial_augment`.

    Parameters
    ----------
    image : Image
        In mode RGB or L.
    preprocessing : Preprocessing
        With a view. Of the rest its crop and its interpolation count.
    random : Generator
        See `bottleneck.images.view.View.random`.

    Returns
    -------
    ndarray of uint8, shape (crop height, crop width, 3)
        What torchvision's transforms make of the same image with the same draws.

    Raises
    ------
    ModelError
        If the preprocessing has no view.
    """
    if preprocessing.view is None:
        raise ModelError("expected a preprocessing with a view, got one without: use resize_and_crop")
    augmentation = preprocessing.view.augmentation
    height, width = preprocessing.crop_size
    # In two steps: resize(box=...) would mix in pixels from around the box.
    image = image.crop(random_box(image.size, _SCALES[augmentation], random))
    image = image.resize((width, height), FILTERS[preprocessing.interpolation])
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if augmentation == "strong":
        image = trivial_augment(image, random)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"), np.uint8)


def random_box(
    size: tuple[int, int], scale: tuple[float, float], random: np.random.Generator
) -> tuple[int, int, int, int]:
    """Return a box of random area, proportions and place, as torchvision's ``RandomResizedCrop.get_params`` does.

    Parameters
    ----------
    size : (int, int)
        Width and height of the image.
    scale : (float, float)
        Least and largest area, as parts of the image's.
    random : Generator

    Returns
    -------
    (int, int, int, int)
        Left, top, right and bottom. After ten boxes that do not fit into the image, the largest in its middle.
    """
    width, height = size
    for _ in range(_TRIES):
        area = width * height * _between(*scale, random)
        ratio = math.exp(_between(math.log(_RATIO[0]), math.log(_RATIO[1]), random))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            top, left = draw(random, height - down + 1), draw(random, width - across + 1)
            return left, top, left + across, top + down
    return _middle(width, height)


def _middle(width: int, height: int) -> tuple[int, int, int, int]:
    across, down = width, height
    if width < _RATIO[0] * height:
        down = round(width / _RATIO[0])
    elif width > _RATIO[1] * height:
        across = round(height * _RATIO[1])
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def _between(low: float, high: float, random: np.random.Generator) -> float:
    return low + (high - low) * random.random()
