"""Resize and crop an image for a network, with the arithmetic of torchvision's and timm's transforms."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bottleneck.images.preprocessing import Preprocessing

# Above this aspect ratio, only the crop is resized: a strip of 20000 x 1 would otherwise become 5 million pixels
# long. Pillow may then run its two passes in the other order, which changes a few pixels by some levels.
STRIP = 8

# Up to this aspect ratio Pillow runs the horizontal pass first, as `_resized_centre` does.
_PHOTOGRAPH = 2

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
# Support of filters, in pixels of the result. Discontinuous filters are excluded: they depend on the last bit of a
# coordinate.
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0, "hamming": 1.0}


def resize_and_crop(
    image: Image.Image, preprocessing: Preprocessing, original_size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Return the centre of the resized image.

    Parameters
    ----------
    image : Image
        In mode RGB or L.
    preprocessing : Preprocessing
    original_size : (int, int), optional
        Width and height of the original, if the image was decoded at a smaller size.

    Returns
    -------
    ndarray of uint8, shape (crop height, crop width, 3)
        Equal to the result of the transforms of torchvision or timm: within two levels up to an aspect ratio of 2, and
        exactly from there to `STRIP`.
    """
    width, height = image.size
    crop_height, crop_width = preprocessing.crop_size
    new_width, new_height = new_size(*(original_size or image.size), preprocessing)
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
    elif _resizes_only_centre(image, preprocessing, (new_width, new_height), (seen_width, seen_height)):
        image = _resized_centre(image, (seen_width, seen_height), filter_, box, _SUPPORT[preprocessing.interpolation])
    else:
        image = image.resize((new_width, new_height), filter_)
        image = image.crop((left, top, left + seen_width, top + seen_height))
    if image.mode != "RGB":  # grey: a single channel is resized
        image = image.convert("RGB")
    if (seen_width, seen_height) != (crop_width, crop_height):
        image = _padded(image, preprocessing)
    return np.asarray(image, np.uint8)


def resizing_bytes(size: tuple[int, int], preprocessing: Preprocessing) -> int:
    """Return an upper bound of the memory of `resize_and_crop`, or of a view, in addition to an image of this size.

    Pillow resizes rows first, into an image of the height of the resized part.
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
    """Return the width and height to which an image is resized."""
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


def _resizes_only_centre(
    image: Image.Image, preprocessing: Preprocessing, size: tuple[int, int], seen: tuple[int, int]
) -> bool:
    """Return whether resizing only the part for the crop is faster, and changes no pixel by more than two levels."""
    photograph = max(image.size) <= _PHOTOGRAPH * min(image.size)
    return seen != size and photograph and preprocessing.mode != "squash" and preprocessing.interpolation in _SUPPORT


def _resized_centre(
    image: Image.Image,
    size: tuple[int, int],
    filter_: Image.Resampling,
    box: tuple[float, float, float, float],
    support: float,
) -> Image.Image:
    """Resize `box` of the image to `size`, rows first, as Pillow does for the full image.

    A single call of ``resize`` with this box would choose the order of its two passes by the box.
    """
    left, top, right, bottom = box
    reach = support * max(1.0, (bottom - top) / size[1]) + 1
    first, last = max(0, math.floor(top - reach)), min(image.height, math.ceil(bottom + reach))
    rows = image.resize((size[0], last - first), filter_, box=(left, first, right, last))
    return rows.resize(size, filter_, box=(0, top - first, size[0], bottom - first))


def _padded(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Return the image padded to the size of the crop, in black, or with ``border`` in the mean colour."""
    height, width = preprocessing.crop_size
    mean = tuple(round(255 * value) for value in preprocessing.mean)
    page = Image.new("RGB", (width, height), mean if preprocessing.mode == "border" else (0, 0, 0))
    page.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return page
