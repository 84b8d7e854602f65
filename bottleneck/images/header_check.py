"""Detect from the header of a large file that it cannot be decoded: not an image, damaged, or too many pixels."""

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

_START_BYTES = 64 << 10  # bytes
_MAX_BYTES, _MAX_READS = 4 << 20, 1000  # of a header; one that needs more is not checked
# JPEG and PNG may be decoded even if Pillow rejects the header; for WebP, the codec reads the whole file.
_SKIPPED = (b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF")
_ANY = Preprocessing(resize=1, crop=1, interpolation="nearest", antialias=True, mean=(0.0,) * 3, std=(1.0,) * 3)


@dataclass(frozen=True)
class HeaderFailure:
    """Why a file cannot be decoded.

    Parameters
    ----------
    error : ImageError
    read : list of (int, bytes)
        Offsets and contents of the parts of the file that were read.
    """

    error: ImageError
    read: list[tuple[int, bytes]]


def header_failure(file: ImageFile, max_pixels: int) -> HeaderFailure | None:
    """Return the error of `bottleneck.images.decode.decode` for a file, if the header determines it.

    At most 4 MiB of the file are in memory.

    Parameters
    ----------
    file : ImageFile
    max_pixels : int

    Returns
    -------
    HeaderFailure or None
        None if the result depends on the rest of the file.

    Raises
    ------
    ImageError
        With code ``unreadable``.
    """
    reader = _Reader(file)
    error = _error(reader, max_pixels)
    if reader.failure:
        raise ImageError("unreadable", reader.failure.strerror or str(reader.failure)) from reader.failure
    return None if error is None or reader.exhausted else HeaderFailure(error, reader.parts)


def _error(reader: "_Reader", max_pixels: int) -> ImageError | None:
    """Return the decoder's error for a header; None if the decoder may succeed or fail differently."""
    start = b""
    try:
        start = reader.read(_START_BYTES)
        reader.seek(0)
        with raised_pixel_limit(max_pixels):
            image = Image.open(cast(IO[bytes], reader), formats=formats())
    except UnidentifiedImageError:
        return None if start.startswith(_SKIPPED) else _unidentified(start)
    except Image.DecompressionBombError as error:
        return _too_large(max_pixels, str(error))
    except MemoryError:
        return None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError and more
        text = str(error) or type(error).__name__
        if start.startswith(_SKIPPED) or "memory" in text.lower():
            return None
        cut_short = isinstance(error, (EOFError, struct.error)) or "truncated" in text.lower()
        failure = ImageError("truncated" if cut_short else "corrupt", text)
        failure.doubtful = True  # it was tried only once, in parallel with other images
        return failure
    if image.width * image.height <= max_pixels:
        return None
    return _too_large(max_pixels, f"found {image.width} x {image.height}")


def _too_large(max_pixels: int, found: str) -> ImageError:
    return ImageError("too-large", f"expected at most {max_pixels:,} pixels, {found}; --max-pixels sets the limit")


def _unidentified(start: bytes) -> ImageError | None:
    """Return the decoder's error for the first bytes of a file of unknown format."""
    try:
        decode(start, _ANY)
    except ImageError as error:
        return ImageError(error.code, str(error)) if error.code in ("not-an-image", "truncated") else None
    return None


class _Reader(io.RawIOBase):
    """A random-access reader that records what it reads, and signals the end of the file when its limits are reached.

    Parameters
    ----------
    file : ImageFile
    """

    def __init__(self, file: ImageFile) -> None:
        self._file = file
        self._place = self._total = 0
        self.parts: list[tuple[int, bytes]] = []
        self.exhausted = False
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
        if self._total + wanted > _MAX_BYTES or len(self.parts) == _MAX_READS:
            self.exhausted = True
            return b""
        try:
            part = self._file.read_at(self._place, wanted)
        except OSError as error:  # Pillow would report a damaged image
            self.failure = error
            raise
        if part:
            self.parts.append((self._place, part))
        self._place += len(part)
        self._total += len(part)
        return part
