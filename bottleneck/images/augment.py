"""Random views of an image: a random crop, optionally mirrored and changed in colour or shape.

If a change here changes pixels, increase `bottleneck.images.decode.DECODER_VERSION`.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bottleneck.errors import ModelError
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.images.resize import FILTERS
from bottleneck.images.trivial_augment import draw, trivial_augment

# Range of the area of the crop, relative to the image.
_SCALES = {"light": (0.7, 1.0), "standard": (0.08, 1.0), "strong": (0.08, 1.0)}
_RATIO = (3 / 4, 4 / 3)  # of width to height
_TRIES = 10


def augmented(image: Image.Image, preprocessing: Preprocessing, random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a random view of an image.

    ``light``: a crop of 70 to 100 % of the area, resized to the crop of the preprocessing, and mirrored with
    probability 0.5. ``standard``: the same with 8 to 100 % of the area, as in PyTorch's transfer learning tutorial
    (torchvision's ``RandomResizedCrop`` and ``RandomHorizontalFlip``; the crop is that of Szegedy et al., "Going Deeper
    with Convolutions", CVPR 2015, https://arxiv.org/abs/1409.4842). ``strong``: ``standard``, followed by one operation
    of `bottleneck.images.trivial_augment`.

    Parameters
    ----------
    image : Image
        In mode RGB or L.
    preprocessing : Preprocessing
        It must have a view. Of its other fields, only `crop` and `interpolation` are used.
    random : Generator
        See `bottleneck.images.view.View.random`.

    Returns
    -------
    ndarray of uint8, shape (crop height, crop width, 3)
        Equal to the result of torchvision's transforms with the same random numbers.

    Raises
    ------
    ModelError
        If the preprocessing has no view.
    """
    if preprocessing.view is None:
        raise ModelError("expected a preprocessing with a view, got one without a view: use resize_and_crop")
    augmentation = preprocessing.view.augmentation
    height, width = preprocessing.crop_size
    # In two steps: resize(box=...) would include pixels from outside the box.
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
    """Return a box of random area, aspect ratio and position, as torchvision's ``RandomResizedCrop.get_params``.

    Parameters
    ----------
    size : (int, int)
        Width and height of the image.
    scale : (float, float)
        Minimum and maximum area, relative to the image.
    random : Generator

    Returns
    -------
    (int, int, int, int)
        Left, top, right and bottom. After ten boxes that do not fit into the image, the largest centred one.
    """
    width, height = size
    for _ in range(_TRIES):
        area = width * height * _between(*scale, random)
        ratio = math.exp(_between(math.log(_RATIO[0]), math.log(_RATIO[1]), random))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            top, left = draw(random, height - box_height + 1), draw(random, width - box_width + 1)
            return left, top, left + box_width, top + box_height
    return _centre_box(width, height)


def _centre_box(width: int, height: int) -> tuple[int, int, int, int]:
    box_width, box_height = width, height
    if width < _RATIO[0] * height:
        box_height = round(width / _RATIO[0])
    elif width > _RATIO[1] * height:
        box_width = round(height * _RATIO[1])
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height


def _between(low: float, high: float, random: np.random.Generator) -> float:
    return low + (high - low) * random.random()
