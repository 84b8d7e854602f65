import io
import struct
import zlib

import pytest
from PIL import Image, ImageFile, PngImagePlugin

from bottleneck.errors import ImageError
from bottleneck.images.decode import decode
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.images.strip_metadata import without_metadata
from tests.conftest import photo
from tests.variants import each

MIB = 1 << 20
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def chunk(kind: bytes, body: bytes, wrong: int = 0) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ wrong)


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def with_chunks(png: bytes, *chunks: bytes, before: bytes = b"IDAT") -> bytes:
    place = png.index(before) - 4
    return png[:place] + b"".join(chunks) + png[place:]


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


PNG, JPEG = photo(1, kind="PNG"), photo(1)
DEEP = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * (3 * MIB)))
EXIF = Image.Exif()
EXIF[0x0112] = 6
PACKED_XMP = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP + b" " * (3 * MIB))


def animation() -> bytes:
    frames = [Image.open(io.BytesIO(photo(seed, kind="PNG"))) for seed in (1, 2, 3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


PNGS = {
    "zTXt": with_chunks(PNG, DEEP),
    "zTXt behind the pixels": with_chunks(PNG, DEEP, before=b"IEND"),
    "iTXt": with_chunks(PNG, chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(b"x" * (3 * MIB)))),
    "profile": with_chunks(PNG, chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(2 * MIB)))),
    "many": with_chunks(PNG, *(chunk(b"zTXt", b"%d\0\0" % n + zlib.compress(b"y" * 1_000_000)) for n in range(70))),
    "a profile of another method": with_chunks(PNG, chunk(b"iCCP", b"icc\0\5zzz")),
    "an empty profile": with_chunks(PNG, chunk(b"iCCP", b"")),
    "a short gamma": with_chunks(PNG, chunk(b"gAMA", b"\1")),
    "a short resolution": with_chunks(PNG, chunk(b"pHYs", b"\1")),
    "a wrong checksum": with_chunks(PNG, chunk(b"tEXt", b"k\0v", wrong=1)),
    "cut short in text": with_chunks(PNG, chunk(b"tEXt", b"k\0" + b"v" * 999), before=b"IEND")[:-500],
    "of several frames": with_chunks(animation(), DEEP),
    "with frames out of order": animation().replace(b"fcTL\0\0\0\0", b"fcTL\0\0\0\7", 1),
}
JPEGS = {
    "a profile without a number": with_segments(JPEG, segment(0xE2, b"ICC_PROFILE\0")),
    "a short Adobe": with_segments(JPEG, segment(0xEE, b"Adobe")),
    "a short JFIF": with_segments(JPEG, segment(0xE0, b"JFIF")),
    "fill bytes": with_segments(JPEG, b"\xff\xff", segment(0xE2, b"ICC_PROFILE\0")),
}


@each("data, sound", [*((data, PNG) for data in PNGS.values())])
def test_a_png_is_decoded_with_any_metadata(data: bytes, sound: bytes, preprocessing: Preprocessing) -> None:
    assert (decode(data, preprocessing).pixels == decode(sound, preprocessing).pixels).all()


@each("name", JPEGS)
def test_a_jpeg_is_decoded_with_any_metadata(name: str, preprocessing: Preprocessing) -> None:
    assert (decode(JPEGS[name], preprocessing).pixels == decode(JPEG, preprocessing).pixels).all()


@each("kind", ["JPEG", "MPO", "WEBP", "TIFF"])
def test_other_formats_have_no_such_limits(kind: str, preprocessing: Preprocessing) -> None:
    described = Image.Exif()
    described[0x010E] = "d" * 60_000
    options = {"icc_profile": b"\1" * (4 * MIB), "xmp": b"x" * 60_000, "exif": described.tobytes()}
    found = decode(photo(1, kind=kind, lossless=True, **options), preprocessing)
    assert (found.pixels == decode(photo(1, kind=kind, lossless=True), preprocessing).pixels).all()


def test_orientation_transparency_and_palette_are_kept(preprocessing: Preprocessing) -> None:
    for turn in [
        chunk(b"eXIf", EXIF.tobytes()[6:]),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        chunk(b"iTXt", PACKED_XMP),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0x\0" + zlib.compress(XMP)),
    ]:
        turned = Image.open(io.BytesIO(PNG)).transpose(Image.Transpose.ROTATE_270)
        expected = io.BytesIO()
        turned.save(expected, "PNG")
        found = decode(with_chunks(PNG, DEEP, turn), preprocessing).pixels
        assert (found == decode(expected.getvalue(), preprocessing).pixels).all()

    image = Image.new("P", (40, 40), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=1)
    assert (decode(with_chunks(buffer.getvalue(), DEEP), preprocessing).pixels == 255).all()


def test_damage_and_size_are_seen_behind_what_is_left_out(preprocessing: Preprocessing) -> None:
    for image in [with_chunks(PNG, DEEP), with_segments(JPEG, segment(0xEE, b"Adobe"))]:
        with pytest.raises(ImageError) as error:
            decode(image[: len(image) // 2], preprocessing)
        assert error.value.code == "truncated"

    with pytest.raises(ImageError) as error:
        decode(with_chunks(PNG, DEEP), preprocessing, max_pixels=64)
    assert error.value.code == "too-large"

    place = PNG.index(b"IHDR")
    damaged = PNG[: place + 17] + bytes(4) + PNG[place + 21 :]
    with pytest.raises(ImageError):
        decode(with_chunks(damaged, DEEP), preprocessing)

    for turn in [
        chunk(b"eXIf", EXIF.tobytes()[6:], wrong=1),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x tiff:Orientation="6"/>', wrong=1),
        chunk(b"tEXt", b"Raw profile type exif\0exif 4", wrong=1 << 31),
        chunk(b"tRNR", b"\0\0", wrong=7),
    ]:
        with pytest.raises(ImageError) as error:
            decode(with_chunks(PNG, DEEP, turn), preprocessing)
        assert error.value.code in ("corrupt", "truncated")


def test_settings_of_pillow_stay(preprocessing: Preprocessing) -> None:
    def settings() -> tuple[object, ...]:
        return PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, ImageFile.LOAD_TRUNCATED_IMAGES

    before = settings()
    decode(PNGS["many"], preprocessing)
    assert settings() == before


def test_any_beginning_of_a_file_can_be_read() -> None:
    for data in [PNG, JPEG[:2] + JPEG[2:], b"", b"GIF89a", PNG[:8], b"\xff\xd8"]:
        bare = without_metadata(data)
        assert bare is None or len(bare) < len(data)
        if data == PNG:
            assert bare is None

    for cut in range(8, 120, 7):
        for whole, data in ((PNG, with_chunks(PNG, DEEP)), (JPEG, with_segments(JPEG, segment(0xFE, b"c" * 30)))):
            bare = without_metadata(data[:cut])
            assert bare is None or whole.startswith(bare)


def test_text_that_says_the_orientation_is_bounded() -> None:
    bomb = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * (17 * MIB)))
    small = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * (9 * MIB)))
    assert without_metadata(with_chunks(PNG, bomb)) == PNG
    kept = without_metadata(with_chunks(PNG, small, small))
    assert kept is not None
    assert 9 * MIB < len(kept) < 10 * MIB  # the second has no room
