"""Thumbnails: each picture as 16 x 16 pixels, for what coarse pixels tell: copies, borders, dark pictures."""

import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.images.dataset import Failure
from bottleneck.images.decode import Decoded, Reserve, decode
from bottleneck.images.preprocessing import Preprocessing

SIDE = 16  # pixels; a row of the memo then fits on one page of its database
PREPROCESSING = Preprocessing(
    resize=SIDE,
    crop=SIDE,
    interpolation="bilinear",  # a box is not symmetric in small pictures
    antialias=True,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    mode="squash",
)
_LARGE = 1 << 20  # bytes of a JPEG that is decoded at 1/8 of its size, which distorts small pictures
_SIZE = struct.Struct(">II")  # width, height
_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclass(frozen=True)
class Thumbnail:
    """A small version of a picture.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (SIDE, SIDE, 3)
        The whole picture, upright, averaged over overlapping areas; its aspect ratio is ignored.
    width, height : int
        Of the picture, upright, in pixels.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int

    def to_bytes(self) -> bytes:
        """Return the thumbnail as bytes, for `from_bytes`."""
        return _SIZE.pack(self.width, self.height) + self.pixels.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Thumbnail":
        """Return the thumbnail that `to_bytes` wrote.

        Raises
        ------
        ValueError
            If the bytes are not those of a thumbnail.
        """
        if len(data) != _SIZE.size + 3 * SIDE**2:
            raise ValueError(f"expected {_SIZE.size + 3 * SIDE**2} bytes, found {len(data)}")
        width, height = _SIZE.unpack_from(data)
        if not width or not height:
            raise ValueError(f"expected a width and a height above 0, found {width} x {height}")
        return cls(np.frombuffer(data, np.uint8, offset=_SIZE.size).reshape(SIDE, SIDE, 3), width, height)


@dataclass(frozen=True)
class Thumbnails:
    """The thumbnails of a dataset.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n, SIDE, SIDE, 3)
        Row i is that of image i; 0 where there is none.
    sizes : ndarray of int, shape (n, 2)
        Width and height of the pictures; 0 where there is no thumbnail.
    failures : tuple of Failure
        The images that cannot be read or decoded.
    """

    pixels: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    failures: tuple[Failure, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether each image has a thumbnail, ``(n,)``."""
        known: NDArray[np.bool_] = self.sizes[:, 0] > 0
        return known

    def take(self, rows: Any) -> "Thumbnails":
        """Return the thumbnails of some images, without the failures."""
        return Thumbnails(self.pixels[rows], self.sizes[rows])

    @classmethod
    def unknown(cls, count: int) -> "Thumbnails":
        """Return arrays for `count` thumbnails, none of which is known yet."""
        return cls(np.zeros((count, SIDE, SIDE, 3), np.uint8), np.zeros((count, 2), np.int64))

    def put(self, row: int, one: Thumbnail) -> None:
        """Set the thumbnail of an image."""
        self.pixels[row], self.sizes[row] = one.pixels, (one.width, one.height)


def decode_thumbnail(data: bytes, preprocessing: Preprocessing, max_pixels: int, reserve: Reserve) -> Decoded:
    """Decode a picture for its thumbnail, large JPEGs fast; see `bottleneck.images.decode.decode`."""
    return decode(data, replace(preprocessing, fast_jpeg=len(data) >= _LARGE), max_pixels, reserve)


def grey_levels(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the brightness of pixels ``(..., 3)``, from 0 to 255."""
    levels: NDArray[np.float64] = pixels @ _GREY
    return levels
