"""Small images of every format and kind that Pillow or a few lines can write."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image, features

_SIZE = (20, 14)
# Of an interlaced PNG: the first column and row of each, and the steps to the next.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def image_seeds() -> dict[str, bytes]:
    """Return the files by name; those that this Pillow cannot write, or read again, are left out."""
    found = dict(_by_hand())
    for name, mode, kind, options in _by_pillow():
        with suppress(OSError, KeyError, ValueError):
            # Copies: Pillow leaves the options of one format on them.
            pages = (
                {"append_images": [page.copy() for page in options["append_images"]]} if "save_all" in options else {}
            )
            data = _saved(picture(mode), kind, **{**options, **pages})
            with Image.open(io.BytesIO(data)) as again:
                again.load()  # Pillow 11.3 takes its own YCbCr TIFF for one of four channels
            found[name] = data
    return found


def picture(mode: str = "RGB", seed: int = 0, size: tuple[int, int] = _SIZE) -> Image.Image:
    """Return smooth noise in a mode."""
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, (3, 4, 4), np.uint8)
    whole = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    if mode in ("RGBA", "RGB", "L", "LA", "CMYK", "YCbCr", "1"):
        return whole.convert(mode)
    if mode == "P":
        return whole.convert("RGB").quantize(16)
    levels = np.asarray(whole.convert("L"))
    if mode == "I;16":
        return Image.fromarray(levels.astype(np.uint16) * 257)
    return Image.fromarray((levels / 255).astype(np.float32) if mode == "F" else levels.astype(np.int32) * 1000)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return _without_times(buffer.getvalue()) if kind == "AVIF" else buffer.getvalue()


def _without_times(data: bytes) -> bytes:
    """Return an AVIF whose movie was made at no time: the same each time that it is made."""
    changed = bytearray(data)
    for box in (b"mvhd", b"tkhd", b"mdhd"):
        place = -1
        while (place := changed.find(box, place + 1)) >= 0:
            start, size = place + 8, 16 if changed[place + 4] else 8
            changed[start : start + size] = bytes(size)
    return bytes(changed)


def _by_pillow() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    more = [picture(seed=seed) for seed in (1, 2)]
    yield "jpeg", "RGB", "JPEG", {}
    yield "jpeg-progressive", "RGB", "JPEG", {"progressive": True, "exif": exif}
    yield "jpeg-restart", "RGB", "JPEG", {"restart_marker_blocks": 1, "subsampling": 0}
    yield "jpeg-grey", "L", "JPEG", {"quality": 30, "optimize": True, "comment": b"hello"}
    yield "jpeg-cmyk", "CMYK", "JPEG", {}
    yield "jpeg-420", "RGB", "JPEG", {"subsampling": 2, "icc_profile": b"\0" * 200, "dpi": (72, 72)}
    yield "mpo", "RGB", "MPO", {"save_all": True, "append_images": more}
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield f"png-{mode}", mode, "PNG", {}
    yield "png-exif", "RGB", "PNG", {"exif": exif, "dpi": (72, 72)}
    yield "png-transparent", "P", "PNG", {"transparency": 3}
    yield "png-animated", "RGB", "PNG", {"save_all": True, "append_images": more, "duration": 20}
    yield "webp", "RGB", "WEBP", {}
    yield "webp-lossless", "RGBA", "WEBP", {"lossless": True, "exif": exif}
    yield "webp-alpha", "RGBA", "WEBP", {"quality": 30}
    yield "webp-animated", "RGB", "WEBP", {"save_all": True, "append_images": more}
    for packing in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield f"tiff-{packing}", "RGB", "TIFF", {"compression": packing}
    for mode in ("L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"):
        yield f"tiff-{mode}", mode, "TIFF", {"exif": exif} if mode == "L" else {}
    yield "tiff-fax", "1", "TIFF", {"compression": "group4"}
    yield "tiff-lzw-16", "I;16", "TIFF", {"compression": "tiff_lzw"}
    yield "tiff-big", "RGB", "TIFF", {"big_tiff": True}
    yield "tiff-pages", "RGB", "TIFF", {"save_all": True, "append_images": more}
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"bmp-{mode}", mode, "BMP", {}
    yield "dib", "RGB", "DIB", {}
    yield "gif", "P", "GIF", {}
    yield "gif-transparent", "P", "GIF", {"transparency": 1, "interlace": 0}
    yield "gif-animated", "P", "GIF", {"save_all": True, "append_images": [one.quantize(8) for one in more]}
    for mode in ("1", "L", "RGB", "I;16", "F"):
        yield f"ppm-{mode}", mode, "PPM", {}
    yield "jp2", "RGB", "JPEG2000", {}
    yield "jp2-rgba", "RGBA", "JPEG2000", {"irreversible": True, "quality_layers": [10]}
    yield "jp2-tiles", "L", "JPEG2000", {"tile_size": (8, 8), "no_jp2": True}
    if features.check("avif"):
        yield "avif", "RGB", "AVIF", {"speed": 10}
        yield "avif-rgba", "RGBA", "AVIF", {"speed": 10, "exif": exif}
        yield "avif-animated", "RGB", "AVIF", {"save_all": True, "append_images": more, "speed": 10}


def _by_hand() -> Iterator[tuple[str, bytes]]:
    for depth, kind, name in ((8, 2, "rgb"), (16, 2, "rgb-16"), (16, 6, "rgba-16"), (16, 4, "la-16"), (2, 0, "l-2")):
        yield f"png-interlaced-{name}", _interlaced(depth, kind)
    yield "bmp-rle8", _bmp(8, 1, b"\4\1\0\4\1\2\3\4\0\0" + b"\x08\7\0\0" * 3 + b"\0\1")
    yield "bmp-rle4", _bmp(4, 2, b"\4\x12\0\4\x12\x34\0\0" + b"\x08\x56\0\0" * 3 + b"\0\1")
    yield "bmp-565", _bmp(16, 3, b"\x1f\0" * 64, struct.pack("<III", 0xF800, 0x7E0, 0x1F))
    yield "ppm-plain", b"P3\n# a comment\n4 2\n255\n" + b" ".join(b"%d" % value for value in range(0, 240, 10)) + b"\n"
    yield "pgm-plain", b"P2 3 2 1000\n0 10 500 999 1000 3\n"
    yield "pbm-plain", b"P1\n4 2\n0 1 0 1\n1 0 1 0\n"
    yield "ppm-16", b"P6 4 3 65535\n" + bytes(range(72))
    yield "tiff-tiles", _tiled_tiff("<")
    yield "tiff-tiles-deflate-big-endian", _tiled_tiff(">", packed=True)


def _interlaced(depth: int, kind: int) -> bytes:
    """Return a PNG of 8 x 8 pixels in seven passes."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    lines = b""
    for left, top, across, down in _PASSES:
        columns, rows = len(range(left, 8, across)), len(range(top, 8, down))
        width = -(-columns * channels * depth // 8)
        lines += b"".join(b"\0" + bytes((37 * place + row) % 256 for place in range(width)) for row in range(rows))
    header = struct.pack(">IIBBBBB", 8, 8, depth, kind, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def _bmp(depth: int, packing: int, body: bytes, masks: bytes = b"") -> bytes:
    """Return a BMP of 8 x 4 pixels."""
    colours = 2**depth if depth <= 8 else 0
    palette = b"".join(bytes((value, 255 - value, value // 2, 0)) for value in range(0, colours))
    start = 14 + 40 + len(masks) + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, 8, 4, 1, depth, packing, len(body), 2835, 2835, colours, 0)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + info + masks + palette + body


def _tiled_tiff(order: str, *, packed: bool = False) -> bytes:
    """Return a TIFF of 20 x 20 pixels in four tiles of 16 x 16."""
    tiles = [bytes((number * 50 + place) % 256 for place in range(768)) for number in range(4)]
    tiles = [zlib.compress(tile) for tile in tiles] if packed else tiles
    numbers = {256: 20, 257: 20, 258: 8, 259: 8 if packed else 1, 262: 2, 277: 3, 322: 16, 323: 16}
    lists_at = 8 + 2 + 12 * (len(numbers) + 2) + 4
    first = lists_at + 32
    places = [first + sum(map(len, tiles[:number])) for number in range(4)]
    entries = [struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in numbers.items()]
    entries += [struct.pack(f"{order}HHII", tag, 4, 4, at) for tag, at in ((324, lists_at), (325, lists_at + 16))]
    entries.sort(key=lambda entry: struct.unpack_from(f"{order}H", entry))
    lists = struct.pack(f"{order}8I", *places, *map(len, tiles))
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return start + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + b"\0" * 4 + lists + b"".join(tiles)
