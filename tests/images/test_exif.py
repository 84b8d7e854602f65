import io
import struct

import numpy as np
from PIL import Image

from bottleneck.images.decode import decode
from bottleneck.images.exif import has_bomb, is_bomb, transpose_of
from bottleneck.images.preprocessing import Preprocessing
from tests.conftest import photo


def block(count: int, size: int, length: int, order: str = "<") -> bytes:
    """Return an EXIF block of `count` values of `size` bytes each, which all lie in the same place, and a turn."""
    entries = [struct.pack(order + "HHIHH", 0x0112, 3, 1, 6, 0)]
    entries += [struct.pack(order + "HHII", (0x9000 + k) % 65536, 7, size, 8) for k in range(count)]
    head = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(order + "IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    return (head + directory).ljust(length, b"\0")


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def test_values_that_are_many_times_their_block_are_a_bomb() -> None:
    for order in ["<", ">"]:
        for before in [b"", b"Exif\0\0"]:
            assert is_bomb(before + block(5000, 60_000, 65_000, order))
            assert not is_bomb(before + block(4, 60_000, 65_000, order))
            assert not is_bomb(before + block(5000, 2**31, 65_000, order))  # cut short: nobody copies them
            assert not is_bomb(before + block(5000, 4, 65_000, order))

    for length in range(0, 40):
        assert not is_bomb(block(5000, 60_000, 65_000)[:length])

    assert has_bomb(b"ftyp" + bytes(99) + block(3000, 60_000, 65_000))
    assert not has_bomb(b"ftyp" + bytes(99) + block(2, 60, 65_000) + b"II*\0" * 500)


class Unreadable(Image.Image):
    """An image whose EXIF block Pillow cannot read."""

    def getexif(self) -> Image.Exif:
        raise struct.error("unpack requires 4 bytes")


def test_a_bomb_or_an_unreadable_block_gives_no_orientation() -> None:
    assert transpose_of(Unreadable()) is None
    image = Image.new("RGB", (4, 4))
    image.info["exif"] = block(5000, 60_000, 65_000)
    assert transpose_of(image) is None
    image.info["exif"] = b"Exif\0\0" + block(3, 60, 65_000)
    assert transpose_of(image) is Image.Transpose.ROTATE_270


def test_an_image_with_a_bomb_is_decoded(preprocessing: Preprocessing) -> None:
    for bomb in [
        segment(0xE1, b"Exif\0\0" + block(5000, 60_000, 65_000)),
        segment(0xE2, b"MPF\0" + block(5000, 60_000, 65_000)),
    ]:
        data = photo(1)
        found = decode(data[:2] + bomb + data[2:], preprocessing).pixels
        assert np.array_equal(found, decode(data, preprocessing).pixels)

    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo(1))).save(buffer, "PNG", exif=block(20_000, 600_000, 800_000))
    assert np.array_equal(decode(buffer.getvalue(), preprocessing).pixels, decode(photo(1), preprocessing).pixels)
