"""Convert any Pillow mode to RGB, or to L for grey images. Large images are converted in bands of rows."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bottleneck.errors import ImageError

_BAND = 1 << 20  # pixels that are converted at once
_BAND_BYTES = 28  # working memory per pixel of a band
_SAMPLE_FORMAT, _UNSIGNED, _SIGNED = 339, 1, 2  # TIFF's tag and two of its values


def bytes_per_pixel(mode: str) -> int:
    """Return Pillow's memory per pixel in a mode."""
    if mode in ("1", "L", "P"):
        return 1
    return 2 if mode.startswith("I;16") else 4


def as_rgb(image: Image.Image, band_pixels: int | None = None) -> Image.Image:
    """Return a loaded image in mode RGB, or L if it is grey. Alpha is blended onto white, 16-bit grey scaled to 8.

    Large images are converted in bands of `band_pixels`.
    """
    band_pixels = band_pixels or _BAND
    if _has_alpha(image):
        return _in_bands(image, "RGB", _on_white, band_pixels)
    if image.mode in ("RGB", "L"):
        return image
    if _is_deep(image.mode):
        return _deep_grey(image, band_pixels)
    return _in_bands(image, "RGB", lambda band: band.convert("RGB"), band_pixels)


def converting_bytes(image: Image.Image) -> tuple[int, int]:
    """Return the bytes that `as_rgb` needs in addition to the image, and those of its result."""
    pixels = image.width * image.height
    result = 1 if image.mode == "L" or _is_deep(image.mode) else 4
    if image.mode in ("RGB", "L") and not _has_alpha(image):
        return 0, pixels * result
    result = 4 if _has_alpha(image) else result
    return pixels * result + min(pixels, _BAND + image.width) * _BAND_BYTES, pixels * result


def _has_alpha(image: Image.Image) -> bool:
    one_colour_clear = image.mode in ("1", "L", "P", "RGB") and "transparency" in image.info
    return one_colour_clear or image.mode in ("RGBA", "LA", "PA", "RGBa", "La")


def _is_deep(mode: str) -> bool:
    return mode.startswith("I") or mode == "F"


def _bands(image: Image.Image, pixels: int) -> Iterator[tuple[int, Image.Image]]:
    """Yield bands of an image from top to bottom, with their first row."""
    rows = max(1, pixels // image.width)
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _in_bands(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image], pixels: int) -> Image.Image:
    canvas: Image.Image | None = None
    for top, band in _bands(image, pixels):
        if band is image:
            return convert(image)
        canvas = canvas or Image.new(mode, image.size)
        canvas.paste(convert(band), (0, top))
    assert canvas is not None
    return canvas


def _on_white(image: Image.Image) -> Image.Image:
    canvas = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")


def _deep_grey(image: Image.Image, pixels: int) -> Image.Image:
    """Scale grey levels to 0..255 by the range of their type, so that equal levels stay equal across images.

    Integers: 16 bits (0..65535), or 32 bits if a level exceeds that. Floats: 0..1, or the 8- or 16-bit range if a level
    exceeds 1.
    """
    unsigned = image.mode == "I" and getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, (_SIGNED,))[0] == _UNSIGNED
    top = 0.0
    for _, band in _bands(image, pixels):
        levels = _levels(band, unsigned)
        if not np.isfinite(levels).all():
            raise ImageError("corrupt", "expected finite grey levels, found NaN or infinity")
        top = max(top, float(levels.max(initial=0)))
    if image.mode == "F":
        scale = 1.0 if top <= 1 else 255.0 if top <= 255 else 65535.0
    else:
        scale = 65535.0 if top <= 65535 else 2.0**32 - 1

    def scaled(band: Image.Image) -> Image.Image:
        levels = _levels(band, unsigned)
        np.clip(levels, 0, scale, out=levels)
        levels *= 255 / scale
        return Image.fromarray(np.rint(levels, out=levels).astype(np.uint8))

    return _in_bands(image, "L", scaled, pixels)


def _levels(image: Image.Image, unsigned: bool) -> NDArray[np.float64]:
    levels = np.asarray(image).astype(np.float64)
    if unsigned:
        levels %= 2.0**32  # Pillow reads 32 bits as signed
    return levels
