"""Small versions of pictures as JPEG: whole and upright, of the right file."""

import base64
import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bottleneck.errors import ImageError
from bottleneck.images.decode import Decoded, decode
from bottleneck.images.digest import read_file
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.images.resize import new_size

_QUALITY = 80


def fitted(side: int, mode: str = "border") -> Preprocessing:
    """Return the preprocessing of a small picture.

    Parameters
    ----------
    side : int
        The longer side, in pixels.
    mode : str
        ``border`` shows the whole picture inside of a square, see `without_border`; ``center`` its middle.
    """
    return Preprocessing(
        resize=side,
        crop=side,
        interpolation="bicubic",
        antialias=True,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        mode=mode,
        fast_jpeg=True,
    )


def without_border(found: Decoded, side: int) -> NDArray[np.uint8]:
    """Return the pixels ``uint8 (h, w, 3)`` of a picture that was decoded by ``fitted(side)``, without the border."""
    width, height = new_size(*found.size, fitted(side))
    left, top = (side - width) // 2, (side - height) // 2
    return found.pixels[top : top + height, left : left + width]


def as_jpeg(pixels: NDArray[np.uint8], quality: int = _QUALITY, *, optimize: bool = False) -> bytes:
    """Return pixels ``uint8 (h, w, 3)`` as a JPEG, a few percent smaller with `optimize`."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, optimize=optimize)
    return buffer.getvalue()


def small_picture(path: str | Path, side: int, digest: bytes | None = None) -> str:
    """Return a small version of an image as a ``data:`` address.

    Parameters
    ----------
    path : str or Path
    side : int
        The longer side, in pixels.
    digest : bytes, optional
        SHA-256 that the file must have.

    Raises
    ------
    ImageError
        If it cannot be read or decoded; with code ``changed`` if it has another digest.
    """
    data, _ = read_file(path)
    if digest is not None and hashlib.sha256(data).digest() != digest:
        raise ImageError("changed", "the file changed since it was scanned")
    jpeg = as_jpeg(without_border(decode(data, fitted(side)), side))
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
