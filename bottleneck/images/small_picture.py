"""Small versions of pictures, as addresses that contain the picture itself."""

import base64
import hashlib
import io
from pathlib import Path

from PIL import Image

from bottleneck.errors import ImageError
from bottleneck.images.decode import decode
from bottleneck.images.digest import read_file
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.images.resize import new_size

_QUALITY = 80


def small_picture(path: str | Path, side: int, digest: bytes | None = None) -> str:
    """Return a small version of an image as a ``data:`` address.

    It is decoded as for a network, so that it is upright, and the whole picture is in it.

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
    settings = Preprocessing(
        resize=side,
        crop=side,
        interpolation="bicubic",
        antialias=True,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        mode="border",
        fast_jpeg=True,
    )
    found = decode(data, settings)
    width, height = new_size(*found.size, settings)
    left, top = (side - width) // 2, (side - height) // 2
    buffer = io.BytesIO()
    Image.fromarray(found.pixels[top : top + height, left : left + width]).save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
