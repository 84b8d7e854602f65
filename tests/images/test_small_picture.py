"""Small pictures: upright, whole, and of the right file."""

import base64
import hashlib
import io

import pytest
from PIL import Image

from bottleneck.errors import ImageError
from bottleneck.images.small_picture import small_picture
from tests.conftest import photo, write
from tests.variants import each


def pixels(address: str) -> Image.Image:
    head, _, data = address.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return photo(1, exif=exif)


@each(
    "data, size",
    [(photo(1), (32, 24)), (photo(1, (30, 60)), (16, 32)), (photo(1, (8, 4), "PNG"), (32, 16)), (turned(6), (24, 32))],
)
def test_the_whole_picture_is_shown_upright(tmp_path, data, size):
    assert pixels(small_picture(write(tmp_path / "a", data), 32)).size == size


def test_the_digest_of_the_file_is_checked(tmp_path):
    path = write(tmp_path / "a.jpg", photo(1))

    assert small_picture(path, 32, hashlib.sha256(photo(1)).digest()).startswith("data:")
    with pytest.raises(ImageError, match="changed") as caught:
        small_picture(path, 32, bytes(32))
    assert caught.value.code == "changed"


def test_a_file_that_is_no_image_is_an_error(tmp_path):
    with pytest.raises(ImageError):
        small_picture(write(tmp_path / "a.jpg", b"text"), 32)
