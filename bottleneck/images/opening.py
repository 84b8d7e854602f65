"""Open an image file and load its pixels; incomplete files are rejected."""

import functools
import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from bottleneck.errors import ImageError
from bottleneck.images import exif, gif, jpeg, jpeg2000, png, tiff
from bottleneck.images.colours import bytes_per_pixel
from bottleneck.images.strip_metadata import without_metadata

# Formats of photographs. Pillow reads more, such as EPS, for which it would start another program.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")

# Magic numbers of formats that Pillow does not identify if the header is truncated.
_MAGIC = (b"\xff\xd8\xff", png.SIGNATURE, b"GIF8", *tiff.MAGIC)
_SEGMENTS = 300  # of a JPEG before its pixels; a colour profile has at most 255
_PPM_HEADER = 1 << 16
_COMMENTS = 1000
_ROWS = 1 << 20  # pixels of a PPM that are scaled at once
_SLOW_SAMPLES = {"ppm_plain": 6_000_000, "bmp_rle": 30_000_000}  # several seconds of a decoder in Python
_RUNS = 16 << 20  # bytes of a run-length encoded BMP
_ZEROS = bytes(256)  # at the end of a file that was allocated but not completely written

# Memory of a decoder in addition to the pixels, in bytes per pixel. Measured; see the test of peak memory.
_BYTES_OF_FORMAT = {"WEBP": 13, "AVIF": 20, "HEIF": 20}
_BYTES_OF_DECODER = {"bmp_rle": 4, "ppm_plain": 12}
_WORDS = 64 << 20  # bytes for the words of a plain-text PPM
BASE_BYTES = 4 << 20  # needed for any image

# Messages of codecs that run out of memory; the list may be incomplete.
_NO_MEMORY = ("out of memory", "cannot allocate", "memoryerror", "not enough memory", "insufficient memory")


@dataclass
class Opened:
    """An image file whose header was read.

    Parameters
    ----------
    image : Image
    data : bytes
        The file, or a copy without some metadata.
    layout : JpegLayout, CodestreamLayout, Page or FirstFrame, optional
        Result of the parser of the format.
    """

    image: Image.Image
    data: bytes
    layout: jpeg.JpegLayout | jpeg2000.CodestreamLayout | tiff.Page | gif.FirstFrame | None = None

    @property
    def loaded_bytes(self) -> int:
        """Memory of the pixels, in bytes."""
        return self.image.width * self.image.height * bytes_per_pixel(self.image.mode)

    @property
    def loading_bytes(self) -> int:
        """Peak memory of `load`, in bytes: the pixels and the memory of the decoder."""
        image, layout, decoder = self.image, self.layout, _decoder(self.image)
        pixels = image.width * image.height
        total = self.loaded_bytes + pixels * (
            _BYTES_OF_FORMAT.get(image.format or "", 0) + _BYTES_OF_DECODER.get(decoder, 0)
        )
        if decoder == "ppm_plain":
            total += _WORDS
        elif decoder == "ppm":
            total += 16 * min(pixels, _ROWS + image.width)
        if image.format in (*_BYTES_OF_FORMAT, "JPEG2000"):
            total += 2 * len(self.data)
        if isinstance(layout, jpeg.JpegLayout):
            total += layout.coefficient_bytes
        elif isinstance(layout, (jpeg2000.CodestreamLayout, tiff.Page)):
            total += layout.held_bytes
        return total

    @property
    def note(self) -> str | None:
        """A message about an image that can be decoded, such as several frames."""
        image, layout = self.image, self.layout
        if isinstance(layout, jpeg.JpegLayout):  # the second image of a camera's MPO is a preview, not another frame
            return None if layout.ended else "no end-of-image marker (JPEG); a part may be missing"
        if isinstance(layout, (tiff.Page, gif.FirstFrame)):
            several = layout.several
        else:
            several = image.format not in ("JPEG", "MPO") and bool(getattr(image, "is_animated", False))
        return f"several frames ({image.format}); the first is used" if several else None

    def load(self) -> None:
        """Load the pixels.

        Raises
        ------
        ImageError
            With code ``truncated`` or ``corrupt``, if pixels are missing.
        Exception
            Any exception of Pillow.
        """
        image, layout, tiles = self.image, self.layout, getattr(self.image, "tile", [])
        if isinstance(layout, jpeg.JpegLayout):
            jpeg.load(image, self.data, layout)
        elif image.format == "PNG":
            self._load_png()
        elif _decoder(image) == "ppm":
            self.image = _scaled_ppm(image, self.data)
        elif isinstance(layout, gif.FirstFrame) and tiles:
            tile, filled = tiles[0], image.info.get("transparency", 0)
            image.load()
            gif.check_pixels(image, tile, self.data, filled if isinstance(filled, int) else 0)
        else:
            image.load()
            if isinstance(layout, tiff.Page):
                tiff.check_pixels(image, layout)
        self.image.__dict__.pop("_decoder", None)  # the decoder of WebP and AVIF needs more memory than the pixels

    def close(self) -> None:
        """Free the pixels, which Pillow's reference cycles would keep alive."""
        self.image.close()

    def _load_png(self) -> None:
        """Load a PNG into an image of a rare colour, which remains in missing rows."""
        image = self.image
        box = png.last_written(image.size, bool(image.info.get("interlace")))
        wanted, size = 0, (box[2] - box[0], box[3] - box[1])
        image.im = Image.new(image.mode, image.size, png.mark(image.mode, 0)).im
        image.load()
        while image.crop(box).tobytes() == Image.new(image.mode, size, png.mark(image.mode, wanted)).tobytes():
            if wanted == 1:
                raise ImageError("truncated", "the image data ends before the last row (PNG)")
            wanted = 1
            image.close()
            image = self.image = Image.open(io.BytesIO(self.data), formats=["PNG"])
            image.im = Image.new(image.mode, image.size, png.mark(image.mode, 1)).im
            image.load()


def open_image(data: bytes, max_pixels: int) -> Opened:
    """Read the header of an image file.

    Parameters
    ----------
    data : bytes
    max_pixels : int
        Larger images are rejected.

    Raises
    ------
    ImageError
        With code ``empty``, ``not-an-image``, ``truncated``, ``corrupt``, ``too-large``, ``too-costly`` or
        ``no-memory``.
    """
    if not data:
        raise ImageError("empty", "the file has no bytes")
    try:
        data, layout = _parsed(data)
    except ImageError:
        raise
    except Exception as error:
        raise image_error(error, data) from error
    try:
        image = Image.open(io.BytesIO(data), formats=formats())
    except UnidentifiedImageError as error:
        if data.startswith(_MAGIC) or data[8:12] == b"WEBP":
            raise ImageError("truncated", "the header is truncated or damaged") from error
        raise ImageError("not-an-image", f"no image format is recognised; {_looks_like(data)}") from error
    except Image.DecompressionBombError as error:
        raise _too_large(max_pixels, str(error)) from error
    except Exception as error:
        raise image_error(error, data) from error
    if image.width * image.height > max_pixels:
        raise _too_large(max_pixels, f"found {image.width} x {image.height}")
    samples, most = image.width * image.height * len(image.getbands()), _SLOW_SAMPLES.get(_decoder(image))
    if most and samples > most:
        raise ImageError("too-costly", f"expected at most {most:,} samples as runs or text, found {samples:,}")
    if _decoder(image) == "bmp_rle" and len(data) > _RUNS:
        raise ImageError("too-costly", f"expected at most {_RUNS:,} bytes of runs (BMP), found {len(data):,}")
    if image.format in ("AVIF", "HEIF") and data.endswith(_ZEROS):
        raise ImageError("truncated", "the file ends in zeros: it was not completely written")
    return Opened(image, data, layout if _fits(layout, image.format) else None)


def _parsed(data: bytes) -> tuple[bytes, Any]:
    """Return the file, without metadata that is too costly, and the layout from the parser of the format."""
    if data.startswith(jpeg.SOI):
        return _parsed_jpeg(data)
    if data.startswith(png.SIGNATURE):
        if png.has_many_chunks(png.check_chunks(data)):
            data = without_metadata(data) or data
            if png.has_many_chunks(png.check_chunks(data)):
                raise ImageError("too-costly", "expected an image, found thousands of chunks without pixels (PNG)")
        return data, None
    if data.startswith(gif.MAGIC):
        frame = gif.first_frame(data)
        first_only = gif.only_first_frame(data, frame) if frame else None
        return first_only or data, frame
    if data.startswith(tiff.MAGIC):
        return data, tiff.first_page(data)
    if data.startswith((jpeg2000.CODESTREAM, jpeg2000.FILE)):
        return data, jpeg2000.layout_of(data)
    if data[4:8] == b"ftyp" and exif.has_bomb(data):
        raise ImageError("too-costly", "the values of its EXIF block are many times its size (AVIF)")
    if data[:1] == b"P" and data[1:2].isalnum():
        _check_ppm(data)
    return data, None


def _parsed_jpeg(data: bytes) -> tuple[bytes, jpeg.JpegLayout | None]:
    layout = jpeg.layout_of(data)
    if layout is not None and (layout.before > _SEGMENTS or layout.bombs):
        data = without_metadata(data) or data
        layout = jpeg.layout_of(data)
        if layout is not None and layout.before > _SEGMENTS:
            raise ImageError(
                "too-costly", f"expected at most {_SEGMENTS} segments before the pixels (JPEG), found more"
            )
    return data, layout


def _check_ppm(data: bytes) -> None:
    """Reject a long header, which Pillow reads byte by byte, and thousands of comments in a plain-text file."""
    for most in (1 << 10, _PPM_HEADER):
        lines = (line.partition(b"#")[0] for line in data[:most].splitlines())
        if len(data) <= most or len(b" ".join(lines).split()) >= 4:
            break
    else:
        raise ImageError("too-costly", f"expected a header of at most {_PPM_HEADER:,} bytes (PPM)")
    if data[1:2] in b"123" and data.count(b"#") > _COMMENTS:
        raise ImageError("too-costly", f"expected at most {_COMMENTS:,} comments (PPM), found more")


def _fits(layout: object, name: str | None) -> bool:
    """Return whether Pillow identified the format whose parser returned the layout."""
    kinds: dict[type, tuple[str, ...]] = {
        jpeg.JpegLayout: ("JPEG", "MPO"),
        tiff.Page: ("TIFF",),
        gif.FirstFrame: ("GIF",),
        jpeg2000.CodestreamLayout: ("JPEG2000",),
    }
    return name in kinds.get(type(layout), ())


def _decoder(image: Any) -> str:
    return str(image.tile[0][0]) if getattr(image, "tile", None) else ""


def _scaled_ppm(image: Any, data: bytes) -> Image.Image:
    """Load a PPM with any maximum level, with the same result as Pillow, which takes a microsecond per sample."""
    _, _, place, (_, largest) = image.tile[0]
    kind = np.dtype("u1" if largest < 256 else ">u2")
    top = 65535 if image.mode == "I" else 255
    levels = np.rint(np.arange(256**kind.itemsize) / largest * top).clip(0, top)
    table = levels.astype("<i4" if image.mode == "I" else np.uint8)
    bands = len(image.getbands())
    page = Image.new(image.mode, image.size)
    rows = max(1, _ROWS // image.width)
    for first in range(0, image.height, rows):
        shape = min(rows, image.height - first), image.width, bands
        count = shape[0] * shape[1] * bands
        if place + count * kind.itemsize > len(data):
            raise ImageError("truncated", "the image data is truncated (PPM)")
        part = table[np.frombuffer(data, kind, count, place)].reshape(shape if bands > 1 else shape[:2])
        page.paste(Image.fromarray(part), (0, first))
        place += count * kind.itemsize
    page.format = image.format
    return page


def image_error(error: Exception, data: bytes) -> ImageError:
    """Convert an exception of Pillow or of a codec to ImageError."""
    text = str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        return ImageError("no-memory", "no memory to decode it")
    if any(words in text.lower() for words in _NO_MEMORY):
        return ImageError("no-memory", text)
    cut_short = isinstance(error, (EOFError, struct.error)) or "truncated" in text.lower()
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        cut_short |= int.from_bytes(data[4:8], "little") + 8 > len(data)
    return ImageError("truncated" if cut_short else "corrupt", text)


@functools.cache
def formats() -> list[str]:
    """Return the formats that this Pillow, with its plugins, can open."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _too_large(max_pixels: int, found: str) -> ImageError:
    return ImageError("too-large", f"expected at most {max_pixels:,} pixels, {found}; --max-pixels sets the limit")


def _looks_like(data: bytes) -> str:
    head = data[:256].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "the file is an HTML page"
    if head.startswith((b"<svg", b"<?xml")):
        return "the file is SVG or XML"
    if head.startswith(b"version https://git-lfs"):
        return "the file is a Git LFS pointer: run `git lfs pull`"
    return f"the file begins with {data[:12]!r}"
