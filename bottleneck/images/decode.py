"""The bytes of an image become the pixels a network sees. What is done here is part of the spec."""

import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bottleneck.errors import ImageError
from bottleneck.images.preprocessing import Preprocessing

DECODER_VERSION = 1  # raise it when a change here changes the pixels of any image

MAX_PIXELS = 178_956_970  # Pillow's own limit for a decompression bomb

# Of an image this many times as long as it is wide only the crop is resized: a strip of 20000 x 1 would else become
# 5 million pixels long. Pillow may then run its two passes in the other order, which moves a few pixels by some levels.
STRIP = 8

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}

_SAMPLE_FORMAT, _UNSIGNED, _SIGNED = 339, 1, 2  # TIFF's tag and two of its values
_ORIENTATION = 0x0112  # EXIF's tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# How the formats begin that Pillow calls unknown when their headers are cut short.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")

# Between Pillow's warning and its error lie images that are large and fine.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decode(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode, orient, resize and crop one image.

    Parameters
    ----------
    data : bytes
        The bytes of the image file.
    preprocessing : Preprocessing
        Size and filter. Mean and std are the engine's.

    Returns
    -------
    ndarray of uint8, shape (crop, crop, 3)
        Red, green, blue. Equal to torchvision's ``Resize`` and ``CenterCrop`` on the same Pillow image, up to an
        aspect ratio of `STRIP`.

    Raises
    ------
    ImageError
        With code ``not-an-image``, ``truncated``, ``corrupt`` or ``too-large``.
    """
    image = _open(data)
    try:
        image.load()
        return _resize_and_crop(_oriented(_to_rgb(image), image), preprocessing)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("too-large", f"no memory for {image.width} x {image.height} pixels") from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError and more
        raise ImageError(*_reason(error)) from error


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ImageError("empty", "the file has no bytes")
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        if data.startswith(_BEGINNINGS):
            raise ImageError("truncated", "the header is cut short or damaged") from error
        raise ImageError("not-an-image", f"no image format is recognised; {_looks_like(data)}") from error
    except Image.DecompressionBombError as error:
        raise ImageError("too-large", f"expected at most {MAX_PIXELS:,} pixels: {error}") from error
    except Exception as error:
        raise ImageError(*_reason(error)) from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError("too-large", f"expected at most {MAX_PIXELS:,} pixels, found {image.width}x{image.height}")
    return image


def _reason(error: Exception) -> tuple[str, str]:
    text = str(error) or type(error).__name__
    cut_short = isinstance(error, (EOFError, struct.error)) or "truncated" in text.lower()
    return ("truncated" if cut_short else "corrupt"), text


def _looks_like(data: bytes) -> str:
    head = data[:256].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "the file is an HTML page"
    if head.startswith((b"<svg", b"<?xml")):
        return "the file is SVG or XML"
    if head.startswith(b"version https://git-lfs"):
        return "the file is a Git LFS pointer: run `git lfs pull`"
    return f"the file begins with {data[:12]!r}"


def _oriented(image: Image.Image, original: Image.Image) -> Image.Image:
    """Turn `image` as the EXIF orientation of `original` says; a broken EXIF block says nothing about the pixels."""
    try:
        turn = _TURNS.get(original.getexif().get(_ORIENTATION, 1))
    except Exception:
        turn = None
    return image.transpose(turn) if turn is not None else image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return the image in mode RGB: alpha on white, deep grey scaled to 8 bits."""
    one_colour_clear = image.mode in ("1", "L", "P", "RGB") and "transparency" in image.info
    if one_colour_clear or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        return _on_white(image.convert("RGBA"))
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey(image).convert("RGB")
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    page = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(page, image).convert("RGB")


def _deep_grey(image: Image.Image) -> Image.Image:
    """Scale grey levels to 0..255 by the range of their type, so that equal levels stay equal across images.

    Integers: 16 bits (0..65535), or 32 when a level exceeds that. Floats: 0..1, or the 8- or 16-bit range that the
    levels reach into.
    """
    levels = np.asarray(image).astype(np.float64)
    if not np.isfinite(levels).all():
        raise ImageError("corrupt", "expected finite grey levels, found NaN or infinity")
    if image.mode == "I" and getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, (_SIGNED,))[0] == _UNSIGNED:
        levels %= 2.0**32  # Pillow reads 32 bits as signed
    top = levels.max(initial=0)
    if image.mode == "F":
        scale = 1.0 if top <= 1 else 255.0 if top <= 255 else 65535.0
    else:
        scale = 65535.0 if top <= 65535 else 2.0**32 - 1
    return Image.fromarray(np.rint(levels.clip(0, scale) * (255 / scale)).astype(np.uint8))


def _resize_and_crop(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return the centre of the resized image, by the arithmetic of torchvision's ``Resize`` and ``CenterCrop``."""
    width, height = image.size
    resize, crop = preprocessing.resize, preprocessing.crop
    if width <= height:
        new_width, new_height = resize, int(resize * height / width)
    else:
        new_width, new_height = int(resize * width / height), resize
    left, top = round((new_width - crop) / 2.0), round((new_height - crop) / 2.0)
    filter_ = _FILTERS[preprocessing.interpolation]
    if max(new_width, new_height) > STRIP * resize:
        step_x, step_y = width / new_width, height / new_height
        box = (left * step_x, top * step_y, min((left + crop) * step_x, width), min((top + crop) * step_y, height))
        return np.asarray(image.resize((crop, crop), filter_, box=box), np.uint8)
    if (new_width, new_height) != (width, height):
        image = image.resize((new_width, new_height), filter_)
    return np.asarray(image.crop((left, top, left + crop, top + crop)), np.uint8)
