import io
import struct

import numpy as np
import pytest
from PIL import Image, features

from bottleneck.images import opening
from bottleneck.images.preprocessing import Preprocessing
from tests.conftest import photo
from tests.images.codes import code
from tests.variants import each


@each(
    "error, code",
    [
        (MemoryError(), "no-memory"),
        (OSError("out of memory when reading image file"), "no-memory"),
        (SyntaxError("broken PNG file"), "corrupt"),
        (ValueError("bad"), "corrupt"),
        (OSError("decoder error -2"), "corrupt"),
        (RuntimeError("Failed to decode frame 0: Decoding of color planes failed"), "corrupt"),
        (OSError("image file is truncated (3 bytes not processed)"), "truncated"),
        (EOFError(""), "truncated"),
        (struct.error("unpack requires 4 bytes"), "truncated"),
    ],
)
def test_every_error_of_pillow_has_a_code(error: Exception, code: str) -> None:
    assert opening.image_error(error, photo(1)).code == code


# WebP and AVIF


@each("options", [{}, {"lossless": True}, {"save_all": True}])
@each("mode", ["RGB", "RGBA"])
def test_a_webp_that_ends_early_is_refused_though_its_sizes_say_so(
    preprocessing: Preprocessing, mode: str, options: dict[str, object]
) -> None:
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(photo(1, (160, 120), "PNG"))).convert(mode)
    image.putalpha(image.convert("L"))
    more = {"append_images": [image.rotate(90).convert(mode)]} if options.get("save_all") else {}
    image.convert(mode).save(buffer, "WEBP", **options, **more)
    data = buffer.getvalue()
    for length in range(40, len(data) - 40, len(data) // 19):
        chunks, place = b"", 12
        while place + 8 < length:
            size = min(int.from_bytes(data[place + 4 : place + 8], "little"), length - place - 8) & ~1
            chunks += data[place : place + 4] + struct.pack("<I", size) + data[place + 8 : place + 8 + size]
            place += 8 + size
        cut = b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks
        found = code(cut, preprocessing)
        assert found in ("truncated", "corrupt") or (options.get("save_all") and length > len(data) // 2), length


@pytest.mark.skipif(not features.check("avif"), reason="needs Pillow with AVIF")
def test_an_avif_that_ends_in_zeros_is_truncated(preprocessing: Preprocessing) -> None:
    data = photo(1, (320, 240), kind="AVIF")
    assert code(data, preprocessing) is None
    for part in (0.5, 0.7, 0.8):
        length = int(len(data) * part)
        assert code(data[:length] + bytes(max(300, len(data) - length)), preprocessing) in (
            "truncated",
            "corrupt",
            "not-an-image",
        )


# PPM


@each("largest", [1, 100, 254, 256, 1000, 4095, 65534])
@each("kind", [5, 6])
def test_levels_up_to_any_number_are_scaled_as_pillow_does(
    preprocessing: Preprocessing, kind: int, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (31, 17) if kind == 5 else (31, 17, 3)
    levels = np.random.default_rng(0).integers(0, 256 if largest < 256 else 65536, shape)
    data = b"P%d 17 31 %d\n" % (kind, largest) + levels.astype("u1" if largest < 256 else ">u2").tobytes()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        wanted = np.asarray(image)
    for rows in (1, 100, 1 << 20):
        with monkeypatch.context() as patch:
            patch.setattr(opening, "_ROWS", rows)
            opened = opening.open_image(data, 1000)
            opened.load()
        assert opened.image.mode == image.mode
        assert np.array_equal(np.asarray(opened.image), wanted)
        assert code(data, preprocessing) is None
        for lacking in (1, 100, levels.size):
            assert code(data[:-lacking], preprocessing) == "truncated"


@each("head", [b"P1", b"P2", b"P3"])
def test_text_that_ends_early_is_refused(preprocessing: Preprocessing, head: bytes) -> None:
    largest = b"" if head == b"P1" else b"255 "
    data = head + b" 20 10 " + largest + b"1 " * (200 if head != b"P3" else 600)
    assert code(data, preprocessing) is None
    assert code(data[: len(data) // 2], preprocessing) in ("truncated", "corrupt")


@each(
    "data",
    [
        b"P6 #" + b"x" * 100_000 + b"\n1 1 255 \0\0\0",
        b"P6" + b" " * 100_000 + b"1 1 255 \0\0\0",
        b"P5\n" + b"#\n" * 50_000 + b"1 1 255 \0",
        b"P3 10 10 255\n" + b"#\n" * 5000 + b"1 " * 300,
        b"P2 3000 3000 255\n" + b"1 " * 9_000_000,
    ],
)
def test_text_that_takes_long_is_too_costly(preprocessing: Preprocessing, data: bytes) -> None:
    assert code(data, preprocessing) == "too-costly"


@each("head", [b"P6\n# a comment\n2 1\n# another\n255\n", b"P6 2 1 255 ", b"P6\t2\r1\n255\n"])
def test_a_usual_header_is_read(preprocessing: Preprocessing, head: bytes) -> None:
    assert code(head + bytes(6), preprocessing) is None
    assert code(head + bytes(200_000), preprocessing) is None


# BMP of runs


def runs(body: bytes, size: tuple[int, int] = (8, 4)) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, *size, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078) + header + bytes(range(256)) * 4 + body


@each(
    "body, whole",
    [
        (b"\x08\x05\0\0" * 4 + b"\0\1", True),
        (b"\x08\x05\0\0" * 3 + b"\0\1", False),
        (b"\x08\x05\0\0" * 3, False),
        (b"\x08\x05\0\0" * 3 + b"\x07\x05\0\1", False),
        (b"\0\1", False),
        (b"\0\x08" + bytes(range(8)) + b"\0\0" + b"\0\x08" + bytes(3), False),
    ],
)
def test_runs_that_end_early_are_refused(preprocessing: Preprocessing, body: bytes, whole: bool) -> None:
    assert (code(runs(body), preprocessing) is None) is whole


def test_runs_without_end_are_too_costly(preprocessing: Preprocessing) -> None:
    assert code(runs(b"\1\5" * 9_000_000, (5000, 4000)), preprocessing) == "too-costly"
