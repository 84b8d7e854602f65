"""What a large file's beginning tells: as much as decoding the whole, and nothing that the whole would deny."""

import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottleneck.errors import ImageError
from bottleneck.images.decode import MAX_PIXELS, decode
from bottleneck.images.digest import ImageFile
from bottleneck.images.header_check import _MAX_BYTES, header_failure
from bottleneck.images.preprocessing import Preprocessing
from tests.conftest import photo
from tests.variants import each

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF|Truncated File|Tag data|.*Input:UserWarning")  # of Pillow

KINDS = ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000"]
SPARSE = 16 << 20


def asked(path: Path, max_pixels: int = MAX_PIXELS) -> ImageError | None:
    with ImageFile(path) as file:
        found = header_failure(file, max_pixels)
        if found is None:
            return None
        assert len(file.digest(found.read)) == 32  # what it has read is what is there
        return found.error


def of_whole(data: bytes, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS) -> ImageError | None:
    try:
        decode(data, preprocessing, max_pixels)
    except ImageError as error:
        return error
    return None


def told(error: ImageError | None) -> tuple[str, str] | None:
    return error and (error.code, str(error))


def sparse(path: Path, start: bytes, size: int = SPARSE) -> Path:
    path.write_bytes(start)
    os.truncate(path, size)
    return path


def test_a_valid_image_is_accepted_with_any_metadata(tmp_path, preprocessing) -> None:
    for kind in KINDS:
        for more in [b"", b"\0" * 100_000]:
            (tmp_path / "a").write_bytes(photo(1, kind=kind) + more)
            assert asked(tmp_path / "a") is None

    data = photo(5, kind="PNG")
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(66 << 20), 1))
    data = data[:33] + bomb + data[33:]
    path = write(tmp_path / "a.png", data)

    assert of_whole(data, preprocessing) is None
    assert asked(path) is None

    text = chunk(b"tEXt", b"Comment\0" + b"x" * (_MAX_BYTES + 1))
    data = photo(6, kind="PNG")
    assert asked(write(tmp_path / "a.png", data[:33] + text + data[33:])) is None


def test_what_is_refused_is_refused_by_the_whole_file_for_the_same_reason(tmp_path, preprocessing) -> None:
    for kind in KINDS:
        for place in [0, 4, 12, 30, 200, 900]:
            data = bytearray(photo(2, kind=kind))
            data[place : place + 6] = b"\xff" * 6
            (tmp_path / "a").write_bytes(data)
            found = asked(tmp_path / "a")

            assert found is None or told(found) == told(of_whole(bytes(data), preprocessing))

    for cut in [1, 3, 8, 20, 60]:
        for kind in KINDS:
            data = photo(3, kind=kind)[:cut]
            (tmp_path / "a").write_bytes(data)
            found = asked(tmp_path / "a")

            assert found is None or told(found) == told(of_whole(data, preprocessing))


@each(
    "start, code",
    [
        (b"\0", "not-an-image"),
        (b"<html>", "not-an-image"),
        (b"MZ\x90\0", "not-an-image"),
        (b"\x1f\x8b\x08", "not-an-image"),
        (b"II*\x001", "truncated"),
        (b"MM\0*\xff\xff\xff\xff", "truncated"),
        (b"BM" + b"\x28\0\0\0" * 60, "corrupt"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + b"\xff" * 60, "corrupt"),
    ],
)
def test_a_huge_file_that_is_no_image_costs_no_memory(tmp_path, start, code):
    path = sparse(tmp_path / "a.tif", start)
    asked(path)  # what is imported for the first time is none of it
    tracemalloc.start()
    try:
        found = asked(path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert found is not None
    assert found.code == code
    assert most < 4 << 20


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_too_many_pixels_are_refused_with_the_words_of_the_decoder(tmp_path, preprocessing) -> None:
    for kind in ["JPEG", "PNG", "TIFF", "BMP", "GIF", "PPM", "JPEG2000"]:
        data = photo(4, (64, 48), kind)
        path = write(tmp_path / "a", data + b"\0" * 100_000)

        assert told(asked(path, 64 * 48 - 1)) == told(of_whole(data, preprocessing, 64 * 48 - 1))
        assert asked(path, 64 * 48) is None

    for largest in [MAX_PIXELS, 1 << 60]:
        header = b"P6 40000 40000 255\n"
        path = sparse(tmp_path / "a.ppm", header)
        found = asked(path, largest)

        assert found is None if largest > MAX_PIXELS else found.code == "too-large"

    """As many programs write them: the pixels first."""
    pixels = np.zeros((2000, 3000, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF")
    assert asked(write(tmp_path / "a", file.getvalue())) is None
    assert asked(tmp_path / "a", 5_999_999).code == "too-large"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_a_tag_that_claims_more_than_there_is_does_not_make_it_be_read(tmp_path):
    entry = struct.pack("<HHII", 256, 1, 3 << 30, 8)
    path = sparse(tmp_path / "a.tif", b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + b"\0" * 4)
    tracemalloc.start()
    try:
        asked(path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 24 << 20


def test_a_disk_that_fails_makes_the_file_unreadable_and_not_corrupt(tmp_path):
    path = sparse(tmp_path / "a.tif", photo(7, kind="TIFF"), 1 << 20)

    class Failing(ImageFile):
        def read_at(self, place: int, count: int) -> bytes:
            if place > 64:
                raise OSError(5, "Input/output error")
            return super().read_at(place, count)

    with Failing(path) as file, pytest.raises(ImageError, match="Input/output error") as error:
        header_failure(file, MAX_PIXELS)
    assert error.value.code == "unreadable"
