"""Decode the bytes of an image to the pixels that a network receives. The decoder version is part of the spec."""

import hashlib
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bottleneck.errors import ImageError
from bottleneck.images.augment import augmented
from bottleneck.images.colours import as_rgb, converting_bytes
from bottleneck.images.decode_lock import SharedLock, can_allocate
from bottleneck.images.exif import transpose_of, upright
from bottleneck.images.opening import BASE_BYTES, Opened, formats, image_error, open_image
from bottleneck.images.pixel_limit import raised_pixel_limit
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.images.resize import resize_and_crop, resizing_bytes
from bottleneck.images.strip_metadata import without_metadata

__all__ = ["DECODER_VERSION", "MAX_PIXELS", "Decoded", "Reserve", "decode", "formats"]

DECODER_VERSION = 2  # increase it if a change here changes the pixels of any image

MAX_PIXELS = 178_956_970  # Pillow's limit for decompression bombs

Reserve = Callable[[int], AbstractContextManager[object]]  # bytes, for as long as the context lasts

_FROM_BYTES = ("not-an-image", "truncated", "corrupt")  # codes of failures that depend only on the bytes
_SPARE_BYTES = 64 << 20  # if so much memory is free beyond an image's need, a failure is not due to lack of memory
_LOCK = SharedLock()


@dataclass(frozen=True)
class Decoded:
    """The pixels of an image for a network.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (crop height, crop width, 3)
        Red, green, blue; see `bottleneck.images.resize.resize_and_crop` and `bottleneck.images.augment.augmented`.
    note : str or None
        A message for the user, such as that only the first of several frames was used.
    size : (int, int)
        Width and height of the original, upright, in pixels.
    """

    pixels: NDArray[np.uint8]
    note: str | None = None
    size: tuple[int, int] = (0, 0)


def decode(
    data: bytes, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS, reserve: Reserve = lambda _: nullcontext()
) -> Decoded:
    """Decode, orient, resize and crop one image; randomly if the preprocessing has a view.

    Parameters
    ----------
    data : bytes
        The bytes of the image file.
    preprocessing : Preprocessing
        Size, filter and view. The engine applies mean and std.
    max_pixels : int
        Larger images are rejected before they are decoded.
    reserve : callable
        Takes the peak memory of the image in bytes, and returns a context manager that reserves it.

    Returns
    -------
    Decoded

    Raises
    ------
    ImageError
        With code ``empty``, ``not-an-image``, ``truncated``, ``corrupt``, ``too-large``, ``too-costly`` or
        ``no-memory``. An image that fails with ``not-an-image``, ``truncated`` or ``corrupt`` is decoded a second time,
        exclusively and with spare memory. The error of the second attempt is raised; it is `doubtful` if its code is a
        different one.
    """
    with raised_pixel_limit(max_pixels):
        try:
            with _LOCK.shared():
                return _decode_with_fallback(data, preprocessing, max_pixels, reserve)
        except ImageError as error:
            if error.code not in _FROM_BYTES:
                raise
            failure = error
        return _decode_alone(data, preprocessing, max_pixels, reserve, failure)


def _decode_alone(
    data: bytes, preprocessing: Preprocessing, max_pixels: int, reserve: Reserve, failure: ImageError
) -> Decoded:
    """Decode a failed image once more, exclusively, to confirm the failure."""
    sizes: list[int] = []

    def noted(size: int) -> AbstractContextManager[object]:
        sizes.append(size)
        return reserve(size)

    with _LOCK.exclusive():
        free = can_allocate(_SPARE_BYTES + 4 * len(data))
        try:
            return _decode_with_fallback(data, preprocessing, max_pixels, noted)
        except ImageError as error:
            if error.code not in _FROM_BYTES:
                raise
            if not free or not can_allocate(_SPARE_BYTES + 2 * max(sizes, default=0)):
                raise ImageError("no-memory", f"no memory to check whether it is damaged: {error}") from error
            error.doubtful = error.code != failure.code
            raise


def _decode_with_fallback(data: bytes, preprocessing: Preprocessing, max_pixels: int, reserve: Reserve) -> Decoded:
    """Decode the file, if necessary without metadata that Pillow rejects."""
    try:
        return _decode(data, preprocessing, max_pixels, reserve, data)
    except ImageError as error:
        # Only for images that failed: the pixels of an image that Pillow accepts must not change.
        bare = without_metadata(data) if error.code in ("corrupt", "truncated") else None
        if bare is None:
            raise
    return _decode(bare, preprocessing, max_pixels, reserve, data)


def _decode(data: bytes, preprocessing: Preprocessing, max_pixels: int, reserve: Reserve, original: bytes) -> Decoded:
    """Decode `data`, the `original` file or its copy without metadata."""
    with closing(open_image(data, max_pixels)) as opened:
        original_size = opened.image.size
        if preprocessing.fast_jpeg and preprocessing.view is None:
            _scale_in_jpeg(opened.image, preprocessing)
        peak = _peak_bytes(opened, preprocessing)
        with reserve(peak):
            if not can_allocate(peak):  # some codecs crash without memory
                raise ImageError("no-memory", f"no memory for {original_size[0]} x {original_size[1]} pixels")
            scaled = opened.image.size
            image, note = _upright(opened)
            upright_size = original_size if image.size == scaled else original_size[::-1]
            return Decoded(_preprocessed(image, preprocessing, upright_size, original), note, upright_size)


def _preprocessed(
    image: Image.Image, preprocessing: Preprocessing, original_size: tuple[int, int], original: bytes
) -> NDArray[np.uint8]:
    """Resize and crop an upright image whose original width and height are given."""
    try:
        if preprocessing.view is None:
            return resize_and_crop(image, preprocessing, original_size)
        return augmented(image, preprocessing, preprocessing.view.random(hashlib.sha256(original).digest()))
    except MemoryError as error:
        raise ImageError("no-memory", f"no memory for {original_size[0]} x {original_size[1]} pixels") from error
    except Exception as error:  # the pixels are valid: the requested size is the cause
        found = f"{original_size[0]} x {original_size[1]} pixels cannot be resized to {preprocessing.resize}: {error}"
        raise ImageError("too-large", found) from error


def _upright(opened: Opened) -> tuple[Image.Image, str | None]:
    """Load an image, and return it upright in RGB or grey, with its note; only one copy is in memory at a time."""
    size = opened.image.size
    try:
        opened.load()
        image, note = opened.image, opened.note
        transpose, converted = transpose_of(image), as_rgb(image)
        if converted is not image:
            opened.close()
        upright_image = upright(converted, transpose)
        if upright_image is not image:
            opened.close()
        return upright_image, note
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("no-memory", f"no memory for {size[0]} x {size[1]} pixels") from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError and more
        raise image_error(error, opened.data) from error


def _peak_bytes(opened: Opened, preprocessing: Preprocessing) -> int:
    """Return the peak memory of loading, converting, transposing and resizing an image, in bytes."""
    image = opened.image
    converting, converted = converting_bytes(image)
    may_transpose = image.format == "PNG" or transpose_of(image) is not None  # a PNG may have EXIF at its end
    resizing = resizing_bytes(image.size, preprocessing)
    if may_transpose:
        resizing = max(resizing, resizing_bytes(image.size[::-1], preprocessing))
    after = opened.loaded_bytes + converting, converted * (1 + may_transpose), converted + resizing
    return BASE_BYTES + max(opened.loading_bytes, *after)


def _scale_in_jpeg(image: Image.Image, preprocessing: Preprocessing) -> None:
    """Let the decoder scale a JPEG to 1/2, 1/4 or 1/8, but at least to twice the required size."""
    factor = min(image.size) / (2 * max(*preprocessing.resize_size, *preprocessing.crop_size))
    if factor >= 2:
        image.draft(image.mode, (math.ceil(image.width / factor), math.ceil(image.height / factor)))
