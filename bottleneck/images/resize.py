"""An image becomes the crop that a network sees, by the arithmetic of torchvision's and timm's own transforms."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bottleneck.images.preprocessing import Preprocessing

# Of an image this many times as long as it is wide only the crop is resized: a strip of 20000 x 1 would else become
# 5 million pixels long. Pillow may then run its two passes in the other order, which moves a few pixels by some levels.
STRIP = 8

# Up to this aspect ratio Pillow runs the horizontal pass first, as `_middle` does; beyond, it may take the other order.
_PHOTOGRAPH = 2

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
# How far filters reach, in pixels of the result. Not those with steps, for which the last bit of a coordinate decides.
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0, "hamming": 1.0}


def resize_and_crop(
    image: Image.Image, preprocessing: Preprocessing, whole: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Return the centre of the resized image.

    Parameters
    ----------
    image : Image
        In mode RGB or L.
    preprocessing : Preprocessing
    whole : (int, int), optional
        Width and height of the original, of which the image is a reduction.

    Returns
    -------
    ndarray of uint8, shape (crop height, crop width, 3)
        What the transforms of torchvision, or of timm, make of the same image, to within two levels up to an aspect
        ratio of 2, and exactly from there to `STRIP`.
    """
    width, height = image.size
    crop_height, crop_width = preprocessing.crop_size
    new_width, new_height = new_size(*(whole or image.size), preprocessing)
    seen_width, seen_height = min(crop_width, new_width), min(crop_height, new_height)
    left, top = round((new_width - seen_width) / 2.0), round((new_height - seen_height) / 2.0)
    filter_ = FILTERS[preprocessing.interpolation]
    step_x, step_y = width / new_width, height / new_height
    right, bottom = min((left + seen_width) * step_x, width), min((top + seen_height) * step_y, height)
    box = (left * step_x, top * step_y, right, bottom)
    if max(new_width, new_height) > STRIP * max(preprocessing.resize_size):
        image = image.resize((seen_width, seen_height), filter_, box=box)
    elif (new_width, new_height) == (width, height):
        image = image.crop((left, top, left + seen_width, top + seen_height))
    elif _only_the_middle(image, preprocessing, (new_width, new_height), (seen_width, seen_height)):
        image = _middle(image, (seen_width, seen_height), filter_, box, _SUPPORT[preprocessing.interpolation])
    else:
        image = image.resize((new_width, new_height), filter_)
        image = image.crop((left, top, left + seen_width, top + seen_height))
    if image.mode != "RGB":  # grey: its channels are equal, so that one had to be resized
        image = image.convert("RGB")
    if (seen_width, seen_height) != (crop_width, crop_height):
        image = _on_page(image, preprocessing)
    return np.asarray(image, np.uint8)


def resizing_bytes(size: tuple[int, int], preprocessing: Preprocessing) -> int:
    """Return what `resize_and_crop`, or a view, needs beside an image of this width and height, or more.

    Pillow resizes rows first, into a picture as high as the part of the image that is resized.
    """
    width, height = size
    crop_height, crop_width = preprocessing.crop_size
    if preprocessing.view is not None:
        return 4 * (width * height + crop_width * height + 4 * crop_width * crop_height)
    new_width, new_height = new_size(width, height, preprocessing)
    if max(new_width, new_height) > STRIP * max(preprocessing.resize_size):
        new_width, new_height, rows = min(crop_width, new_width), min(crop_height, new_height), new_height
        height = min(height, math.ceil((new_height + 8) * height / rows) + 2)
    return 4 * (new_width * height + new_width * new_height + 4 * crop_width * crop_height)


def new_size(width: int, height: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the width and height that an image is resized to."""
    target_height, target_width = preprocessing.resize_size
    if preprocessing.mode == "squash":
        return target_width, target_height
    if preprocessing.mode == "center" and target_height == target_width:  # torchvision's Resize of the shorter side
        if width <= height:
            return target_width, int(target_width * height / width)
        return int(target_height * width / height), target_height
    choose = max if preprocessing.mode == "border" else min  # timm's ResizeKeepRatio
    ratio = choose(height / target_height, width / target_width)
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def _only_the_middle(
    image: Image.Image, preprocessing: Preprocessing, size: tuple[int, int], seen: tuple[int, int]
) -> bool:
    """Whether it pays, and changes no pixel by more than two levels, to resize only what the crop needs."""
    photograph = max(image.size) <= _PHOTOGRAPH * min(image.size)
    return seen != size and photograph and preprocessing.mode != "squash" and preprocessing.interpolation in _SUPPORT


def _middle(
    image: Image.Image,
    size: tuple[int, int],
    filter_: Image.Resampling,
    box: tuple[float, float, float, float],
    support: float,
) -> Image.Image:
    """Resize `box` of the image to `size`, rows first, as Pillow resizes the whole.

    One call of ``resize`` with this box would choose the order of its two passes by the box, not by the image.
    """
    left, top, right, bottom = box
    reach = support * max(1.0, (bottom - top) / size[1]) + 1
    first, last = max(0, math.floor(top - reach)), min(image.height, math.ceil(bottom + reach))
    rows = image.resize((size[0], last - first), filter_, box=(left, first, right, last))
    return rows.resize(size, filter_, box=(0, top - first, size[0], bottom - first))


def _on_page(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Return the image in the middle of a page of the crop's size: black, or with ``border`` of the mean colour."""
    height, width = preprocessing.crop_size
    mean = tuple(round(255 * value) for value in preprocessing.mean)
    page = Image.new("RGB", (width, height), mean if preprocessing.mode == "border" else (0, 0, 0))
    page.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return page
