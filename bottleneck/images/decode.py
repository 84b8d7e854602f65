"""The bytes of an image become the pixels a network sees. What is done here is part of the spec."""

import hashlib
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bottleneck.errors import ImageError
from bottleneck.images.alone import SharedExclusiveLock, has_room
from bottleneck.images.augment import augmented
from bottleneck.images.bare import without_metadata
from bottleneck.images.colours import as_rgb, converting_bytes
from bottleneck.images.exif import turn_of, upright
from bottleneck.images.opening import ALWAYS, Opened, formats, image_error, open_image
from bottleneck.images.pixel_limit import raised_pixel_limit
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.images.resize import resize_and_crop, resizing_bytes

__all__ = ["DECODER_VERSION", "MAX_PIXELS", "Decoded", "Reserve", "decode", "formats"]

DECODER_VERSION = 2  # raise it when a change here changes the pixels of any image

MAX_PIXELS = 178_956_970  # Pillow's own limit for a decompression bomb

Reserve = Callable[[int], AbstractContextManager[object]]  # bytes, for as long as the context lasts

_FROM_BYTES = ("not-an-image", "truncated", "corrupt")  # codes of what bytes may prove
_SPARE = 64 << 20  # bytes that must be free, beside what an image takes, for its failure to be its own
_GATE = SharedExclusiveLock()


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
        Takes how many bytes the image takes at its peak, and gives a context in which they may be there.

    Returns
    -------
    Decoded

    Raises
    ------
    ImageError
        With code ``empty``, ``not-an-image``, ``truncated``, ``corrupt``, ``too-large``, ``too-costly`` or
        ``no-memory``. What is ``not-an-image``, ``truncated`` or ``corrupt`` was decoded once more, alone and with
        memory to spare, and failed again; in another way, if it is `doubtful`.
    """
    with raised_pixel_limit(max_pixels):
        try:
            with _GATE.together():
                return _decode_either(data, preprocessing, max_pixels, room)
        except ImageError as error:
            if error.code not in _FROM_BYTES:
                raise
            failure = error
        return _decode_alone(data, preprocessing, max_pixels, room, failure)


def _decode_alone(
    data: bytes, preprocessing: Preprocessing, max_pixels: int, room: Reserve, failure: ImageError
) -> Decoded:
    """Decode what has failed once more, with no other image beside it, and prove the failure."""
    sizes: list[int] = []

    def noted(size: int) -> AbstractContextManager[object]:
        sizes.append(size)
        return room(size)

    with _GATE.alone():
        free = has_room(_SPARE + 4 * len(data))
        try:
            return _decode_either(data, preprocessing, max_pixels, noted)
        except ImageError as error:
            if error.code not in _FROM_BYTES:
                raise
            if not free or not has_room(_SPARE + 2 * max(sizes, default=0)):
                raise ImageError("no-memory", f"no memory to tell whether it is damaged: {error}") from error
            error.doubtful = error.code != failure.code
            raise


def _decode_either(data: bytes, preprocessing: Preprocessing, max_pixels: int, room: Reserve) -> Decoded:
    """Decode the file, or what it is without metadata that Pillow refuses."""
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
    with closing(open_image(data, max_pixels)) as opened:
        whole = opened.image.size
        if preprocessing.fast_jpeg and preprocessing.view is None:
            _scale_in_jpeg(opened.image, preprocessing)
        peak = _peak_bytes(opened, preprocessing)
        with room(peak):
            if not has_room(peak):  # some codecs crash where they meet that
                raise ImageError("no-memory", f"no memory for {whole[0]} x {whole[1]} pixels")
            scaled = opened.image.size
            image, note = _upright(opened)
            return Decoded(_seen(image, preprocessing, whole if image.size == scaled else whole[::-1], original), note)


def _seen(
    image: Image.Image, preprocessing: Preprocessing, whole: tuple[int, int], original: bytes
) -> NDArray[np.uint8]:
    """Resize and crop an upright image that has, or had, this width and height."""
    try:
        if preprocessing.view is None:
            return resize_and_crop(image, preprocessing, whole)
        return augmented(image, preprocessing, preprocessing.view.random(hashlib.sha256(original).digest()))
    except MemoryError as error:
        raise ImageError("no-memory", f"no memory for {whole[0]} x {whole[1]} pixels") from error
    except Exception as error:  # the pixels are sound: it is what was asked of them
        found = f"{whole[0]} x {whole[1]} pixels cannot be resized to {preprocessing.resize}: {error}"
        raise ImageError("too-large", found) from error


def _upright(opened: Opened) -> tuple[Image.Image, str | None]:
    """Load an image, and return it in RGB or grey and upright, with its note; one copy is held at a time."""
    size = opened.image.size
    try:
        opened.load()
        image, note = opened.image, opened.note
        turn, converted = turn_of(image), as_rgb(image)
        if converted is not image:
            opened.close()
        turned = upright(converted, turn)
        if turned is not image:
            opened.close()
        return turned, note
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("no-memory", f"no memory for {size[0]} x {size[1]} pixels") from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError and more
        raise image_error(error, opened.data) from error


def _peak_bytes(opened: Opened, preprocessing: Preprocessing) -> int:
    """Return what an image takes at most at any time while it is loaded, converted, turned and resized."""
    image = opened.image
    converting, converted = converting_bytes(image)
    turns = image.format == "PNG" or turn_of(image) is not None  # a PNG may say at its end how it is turned
    resizing = resizing_bytes(image.size, preprocessing)
    if turns:
        resizing = max(resizing, resizing_bytes(image.size[::-1], preprocessing))
    after = opened.loaded_bytes + converting, converted * (1 + turns), converted + resizing
    return ALWAYS + max(opened.loading_bytes, *after)


def _scale_in_jpeg(image: Image.Image, preprocessing: Preprocessing) -> None:
    """Let a JPEG's decoder give a half, a quarter or an eighth of the size, still twice of what is needed or more."""
    factor = min(image.size) / (2 * max(*preprocessing.resize_size, *preprocessing.crop_size))
    if factor >= 2:
        image.draft(image.mode, (math.ceil(image.width / factor), math.ceil(image.height / factor)))
