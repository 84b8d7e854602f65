"""What a large file's beginning tells without the rest: that it is no image, or one of more pixels than are taken."""

import io
import struct
from dataclasses import dataclass
from typing import IO, cast

from PIL import Image, UnidentifiedImageError

from bottleneck.errors import ImageError
from bottleneck.images.decode import decode, formats
from bottleneck.images.digest import ImageFile
from bottleneck.images.pixel_limit import raised_pixel_limit
from bottleneck.images.preprocessing import Preprocessing

_START = 64 << 10  # bytes
_MOST, _PARTS = 4 << 20, 1000  # bytes of a header, and reads; one that needs more is left to who reads the whole file
# JPEG and PNG are decoded even where their headers cannot be read; of WebP a codec reads the whole file.
_LEFT = (b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF")
_ANY = Preprocessing(resize=1, crop=1, interpolation="nearest", antialias=True, mean=(0.0,) * 3, std=(1.0,) * 3)


@dataclass(frozen=True)
class Refusal:
    """Why a file cannot be decoded.

    Parameters
    ----------
    error : ImageError
    read : list of (int, bytes)
        Where in the file, and what, was read to find that out.
    """

    error: ImageError
    read: list[tuple[int, bytes]]


def refusal(file: ImageFile, max_pixels: int) -> Refusal | None:
    """Return why `bottleneck.images.decode.decode` would refuse a file, as far as its header decides that.

    At most 4 MiB of the file are held.

    Parameters
    ----------
    file : ImageFile
    max_pixels : int

    Returns
    -------
    Refusal or None
        None where the rest of the file decides.

    Raises
    ------
    ImageError
        With code ``unreadable``.
    """
    reader = _Reader(file)
    error = _error(reader, max_pixels)
    if reader.failure:
        raise ImageError("unreadable", reader.failure.strerror or str(reader.failure)) from reader.failure
    return None if error is None or reader.had_enough else Refusal(error, reader.parts)


def _error(reader: "_Reader", max_pixels: int) -> ImageError | None:
    """Return what is wrong with a file's header, as the decoder would say it; None where it may say something else."""
    start = b""
    try:
        start = reader.read(_START)
        reader.seek(0)
        with raised_pixel_limit(max_pixels):
            image = Image.open(cast(IO[bytes], reader), formats=formats())
    except UnidentifiedImageError:
        return None if start.startswith(_LEFT) else _unidentified(start)
    except Image.DecompressionBombError as error:
        return _too_large(max_pixels, str(error))
    except MemoryError:
        return None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError and more
        text = str(error) or type(error).__name__
        if start.startswith(_LEFT) or "memory" in text.lower():
            return None
        cut_short = isinstance(error, (EOFError, struct.error)) or "truncated" in text.lower()
        failure = ImageError("truncated" if cut_short else "corrupt", text)
        failure.doubtful = True  # it was tried once, beside other images
        return failure
    if image.width * image.height <= max_pixels:
        return None
    return _too_large(max_pixels, f"found {image.width} x {image.height}")


def _too_large(max_pixels: int, found: str) -> ImageError:
    return ImageError("too-large", f"expected at most {max_pixels:,} pixels, {found}; --max-pixels sets the limit")


def _unidentified(start: bytes) -> ImageError | None:
    """Return what the decoder says of the first bytes of a file in which no format was recognised."""
    try:
        decode(start, _ANY)
    except ImageError as error:
        return ImageError(error.code, str(error)) if error.code in ("not-an-image", "truncated") else None
    return None


class _Reader(io.RawIOBase):
    """Reads a file here and there, remembers what it has read, and pretends that the file ends when that is too much.

    Parameters
    ----------
    file : ImageFile
    """

    def __init__(self, file: ImageFile) -> None:
        self._file = file
        self._place = self._held = 0
        self.parts: list[tuple[int, bytes]] = []
        self.had_enough = False
        self.failure: OSError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._file.size}[whence]
        self._place = max(0, start + place)
        return self._place

    def read(self, count: int | None = -1, /) -> bytes:
        left = max(0, self._file.size - self._place)
        wanted = left if count is None or count < 0 else min(count, left)
        if self._held + wanted > _MOST or len(self.parts) == _PARTS:
            self.had_enough = True
            return b""
        try:
            part = self._file.read_at(self._place, wanted)
        except OSError as error:  # which a decoder would take for a damaged image
            self.failure = error
            raise
        if part:
            self.parts.append((self._place, part))
        self._place += len(part)
        self._held += len(part)
        return part
