"""The bytes of an image become the pixels a network sees. What is done here is part of the spec."""

import functools
import hashlib
import io
import math
import struct
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bottleneck.errors import ImageError
from bottleneck.images.augment import augmented
from bottleneck.images.bare import without_metadata
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.images.resize import resize_and_crop

DECODER_VERSION = 2  # raise it when a change here changes the pixels of any image

MAX_PIXELS = 178_956_970  # Pillow's own limit for a decompression bomb

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

# What photographs come in. Pillow reads more, EPS among it, for which it would start another program.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")

# How the formats begin that Pillow calls unknown when their headers are cut short.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*")
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"  # of a JPEG

# Between Pillow's warning and its error lie images that are large and fine.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


Reserve = Callable[[int], AbstractContextManager[object]]  # bytes, for as long as the context lasts

_COPY = 4  # bytes that Pillow has of each pixel of an RGB image


@dataclass(frozen=True)
class Decoded:
    """What a network sees of an image.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (crop height, crop width, 3)
        Red, green, blue; see `bottleneck.images.resize.resize_and_crop` and `bottleneck.images.augment.augmented`.
    note : str or None
        What the user should know: that the file has more frames than the one that was used.
    """

    pixels: NDArray[np.uint8]
    note: str | None = None


def decode(
    data: bytes, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS, room: Reserve = lambda _: nullcontext()
) -> Decoded:
    """Decode, orient, resize and crop one image; where the preprocessing has a view, at random.

    Parameters
    ----------
    data : bytes
        The bytes of the image file.
    preprocessing : Preprocessing
        Size, filter and view. Mean and std are the engine's.
    max_pixels : int
        An image of more is refused before it is decoded.
    room : callable
        Takes how many bytes the pixels will need, and gives a context in which they may be there.

    Returns
    -------
    Decoded

    Raises
    ------
    ImageError
        With code ``empty``, ``not-an-image``, ``truncated``, ``corrupt``, ``too-large`` or ``no-memory``.
    """
    try:
        return _decode(data, preprocessing, max_pixels, room, data)
    except ImageError as error:
        # Only what failed comes here, so that no pixels of an image that Pillow takes as it is can change.
        bare = without_metadata(data) if error.code in ("corrupt", "truncated") else None
        if bare is None:
            raise
    return _decode(bare, preprocessing, max_pixels, room, data)


def _decode(data: bytes, preprocessing: Preprocessing, max_pixels: int, room: Reserve, original: bytes) -> Decoded:
    """Decode `data`, which is the `original` file or one with the same pixels."""
    image = _open(data, max_pixels)
    whole = image.size
    try:
        if preprocessing.fast_jpeg and preprocessing.view is None:
            _scale_in_jpeg(image, preprocessing)
        with room(_bytes_a_pixel(preprocessing) * image.width * image.height):
            image.load()
            turned = _oriented(_to_rgb(image), image)
            if preprocessing.view is None:
                pixels = resize_and_crop(turned, preprocessing, whole if turned.size == image.size else whole[::-1])
            else:
                pixels = augmented(turned, preprocessing, preprocessing.view.random(hashlib.sha256(original).digest()))
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("no-memory", f"no memory for {image.width} x {image.height} pixels") from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError and more
        raise ImageError(*_reason(error, data)) from error
    return Decoded(pixels, _note(image, data))


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise ImageError("empty", "the file has no bytes")
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels  # Pillow has one limit for a process; it is raised, never lowered
    try:
        image = Image.open(io.BytesIO(data), formats=formats())
    except UnidentifiedImageError as error:
        if data.startswith(_BEGINNINGS) or data[8:12] == b"WEBP":
            raise ImageError("truncated", "the header is cut short or damaged") from error
        raise ImageError("not-an-image", f"no image format is recognised; {_looks_like(data)}") from error
    except Image.DecompressionBombError as error:
        raise _too_large(max_pixels, str(error)) from error
    except MemoryError as error:
        raise ImageError("no-memory", "no memory to open it") from error
    except Exception as error:
        raise ImageError(*_reason(error, data)) from error
    if image.width * image.height > max_pixels:
        raise _too_large(max_pixels, f"found {image.width} x {image.height}")
    return image


def _bytes_a_pixel(preprocessing: Preprocessing) -> int:
    """Return the size of the image, of a turned or converted copy, and of a view's crop, which may be all of it."""
    return _COPY * (2 if preprocessing.view is None else 3)


def _scale_in_jpeg(image: Image.Image, preprocessing: Preprocessing) -> None:
    """Let a JPEG's decoder give a half, a quarter or an eighth of the size, still twice of what is needed or more."""
    factor = min(image.size) / (2 * max(*preprocessing.resize_size, *preprocessing.crop_size))
    if factor >= 2:
        image.draft(image.mode, (math.ceil(image.width / factor), math.ceil(image.height / factor)))


def _too_large(max_pixels: int, found: str) -> ImageError:
    return ImageError("too-large", f"expected at most {max_pixels:,} pixels, {found}; --max-pixels sets the limit")


@functools.cache
def formats() -> list[str]:
    """Return the formats that this Pillow, with its plugins, can open."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _note(image: Image.Image, data: bytes) -> str | None:
    """Say what is odd about an image that was decoded."""
    if image.format in ("JPEG", "MPO"):  # the second picture of a camera's MPO is a preview, not another frame
        whole = data.endswith(_END_OF_IMAGE) or data.rfind(_END_OF_IMAGE) > data.rfind(_START_OF_SCAN)
        return None if whole else "no end of the image (JPEG); a part may be missing"
    try:
        several = getattr(image, "is_animated", False)
    except MemoryError:
        several = False
    except Exception:  # the frames behind the first are broken, and nobody asked for them
        several = True
    return f"several frames ({image.format}); the first is used" if several else None


def _reason(error: Exception, data: bytes) -> tuple[str, str]:
    text = str(error) or type(error).__name__
    if "out of memory" in text.lower():  # how a codec says it
        return "no-memory", text
    cut_short = isinstance(error, (EOFError, struct.error)) or "truncated" in text.lower()
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        cut_short |= int.from_bytes(data[4:8], "little") + 8 > len(data)
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
    """Return the image in mode RGB, or L where it is grey: alpha on white, deep grey scaled to 8 bits."""
    one_colour_clear = image.mode in ("1", "L", "P", "RGB") and "transparency" in image.info
    if one_colour_clear or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        return _on_white(image.convert("RGBA"))
    if image.mode in ("RGB", "L"):
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey(image)
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
