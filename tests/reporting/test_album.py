"""Pictures in a page: once each, upright, of the right bytes, and bounded."""

import base64
import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from bottleneck.reporting import album as albums
from bottleneck.reporting.album import SIDE, Album, SmallPicture, in_turn
from tests.conftest import photo, write


def of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def developed(tmp_path, data: bytes) -> SmallPicture | str:
    path, album = write(tmp_path / "a.jpg", data), Album(5)
    album.reserve([of(data)])
    album.develop(lambda digest: [str(path)])
    return album.picture(of(data))


def pixels(picture: SmallPicture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.data))))


@pytest.mark.parametrize(
    ("size", "small"), [((640, 480), (160, 120)), ((300, 900), (53, 160)), ((16, 8), (160, 80)), ((2000, 2), (160, 1))]
)
def test_a_picture_keeps_its_shape(size, small, tmp_path):
    found = developed(tmp_path, photo(1, size))
    assert (found.width, found.height) == small
    assert pixels(found).shape == (small[1], small[0], 3)


def test_a_picture_is_upright(tmp_path):
    image = Image.new("RGB", (80, 40), "red")
    image.paste("blue", (0, 0, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    found = developed(tmp_path, buffer.getvalue())
    assert (found.width, found.height) == (80, 160)
    assert pixels(found)[10, 40].argmax() == 2
    assert pixels(found)[150, 40].argmax() == 0


def test_each_picture_is_in_the_page_once():
    album = Album(2)
    album.reserve(["a", "b", "a"])
    album.reserve(["b", "c"])
    assert album.wanted == ("a", "b")
    assert (album.has("a"), album.has("c")) == (True, False)


def test_a_file_whose_bytes_have_changed_is_not_shown(tmp_path):
    data, changed = photo(1), write(tmp_path / "changed.jpg", photo(2))
    copy, album = write(tmp_path / "copy.jpg", data), Album(5)
    album.reserve([of(data), of(photo(3))])
    album.develop(lambda digest: [str(changed), str(copy)] if digest == of(data) else [str(changed)])
    assert np.abs(pixels(album.picture(of(data))).astype(int).mean() - np.asarray(Image.open(copy)).mean()) < 3
    assert album.picture(of(photo(3))) == "missing: the file has changed"


@pytest.mark.parametrize(
    ("data", "reason"), [(None, "the file was deleted or has changed"), (b"", "empty"), (b"no picture", "not-an-image")]
)
def test_a_picture_that_cannot_be_made_says_why(data, reason, tmp_path):
    path = write(tmp_path / "a.jpg", data) if data is not None else None
    album, digest = Album(5), of(data or b"x")
    album.reserve([digest])
    album.develop(lambda _: [str(path)] if path else [])
    assert album.picture(digest) == f"missing: {reason}"
    assert album.stylesheet() == ""


def test_pictures_take_a_bounded_number_of_bytes(tmp_path, monkeypatch):
    some = [photo(seed, (SIDE, SIDE)) for seed in range(4)]
    paths = {of(data): str(write(tmp_path / f"{number}.jpg", data)) for number, data in enumerate(some)}
    monkeypatch.setattr(albums, "MOST_BYTES", 2.5 * len(developed(tmp_path, some[0]).data))
    album = Album(9)
    album.reserve(paths)
    album.develop(lambda digest: [paths[digest]])
    assert 1 <= len(album.pictures) < 4
    assert album.picture(of(some[3])) == "left out, to keep this page small"


def test_pictures_of_several_groups_are_taken_in_turn():
    assert list(in_turn([["a", "b", "c"], [], ["d", "e"]], 2)) == ["a", "d", "b", "e"]
