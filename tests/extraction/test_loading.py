"""One image's file, read and decoded within what there is room for."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bottleneck.errors import ImageError
from bottleneck.extraction import loading
from bottleneck.extraction.loading import Loader
from bottleneck.extraction.memory import MemoryBudget, Reservation
from bottleneck.images.decode import Decoded, decode
from bottleneck.images.digest import ImageFile
from tests import tiny
from tests.conftest import photo, write
from tests.extraction.conftest import ends, in_a_thread, soon

PLENTY = 1 << 30


@pytest.fixture
def file(tmp_path) -> Path:
    return write(tmp_path / "a.jpg", photo(1))


@pytest.fixture
def whole(monkeypatch) -> list[int]:
    """Return a list that grows by the size of each file that is read whole."""
    sizes: list[int] = []
    read = ImageFile.read
    monkeypatch.setattr(ImageFile, "read", lambda self: sizes.append(self.size) or read(self))
    return sizes


def asks(monkeypatch: pytest.MonkeyPatch, *sizes: int) -> None:
    """Let the decoder ask for so much room, a number for each time that it opens the image."""

    def spy(data: bytes, preprocessing: object, max_pixels: int, room: Callable[[int], object]) -> Decoded:
        for size in sizes:
            with room(size):
                pass
        return decode(data, preprocessing, max_pixels)

    monkeypatch.setattr(loading, "decode", spy)


def loader_of(memory: MemoryBudget, max_pixels: int = 10_000) -> Loader:
    return Loader(memory, tiny.PREPROCESSING, max_pixels)


def test_digest_signature_and_pixels_are_those_of_the_file(file, limited):
    found = loader_of(limited()).load(str(file))
    status = file.stat()

    assert found.digest == tiny.digest(photo(1)).tobytes()
    assert found.signature == (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    assert (found.found.pixels == decode(photo(1), tiny.PREPROCESSING).pixels).all()


@pytest.mark.parametrize("small", [0, PLENTY])
def test_what_is_not_wanted_is_not_decoded(file, limited, monkeypatch, small):
    def never(*args: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(loading, "decode", never)
    asked: list[bytes] = []
    found = loader_of(limited(small=small)).load(str(file), lambda digest: asked.append(digest))

    assert found.found is None
    assert asked == [found.digest]


def test_with_room_for_all_of_it_a_file_is_read_once(file, limited, monkeypatch, whole):
    size = file.stat().st_size
    asks(monkeypatch, 5000)
    memory = limited(decoding=2 * size + 5000)
    loader_of(memory).load(str(file))

    assert whole == [size]
    assert memory.decoding._taken == 0


def test_where_others_have_the_room_it_waits_with_nothing_and_reads_the_file_again(file, limited, monkeypatch, whole):
    size = file.stat().st_size
    asks(monkeypatch, 5000)
    memory = limited(decoding=2 * size + 5000)
    other, wanted = Reservation(memory.decoding), []
    other.grow(1000)
    results: list[object] = []
    thread = in_a_thread(
        lambda: results.append(loader_of(memory).load(str(file), lambda digest: wanted.append(digest) or True))
    )

    assert soon(lambda: memory.decoding._waiting)
    assert memory.decoding._taken == 1000
    other.release()
    assert ends(thread)
    assert isinstance(results[0].found, Decoded)
    assert whole == [size, size]
    assert len(wanted) == 1  # an image is claimed once


def test_a_file_that_changes_before_it_is_read_again_is_told(file, limited, monkeypatch):
    size, contents = file.stat().st_size, iter([photo(1), photo(2)])
    monkeypatch.setattr(ImageFile, "read", lambda self: next(contents))
    asks(monkeypatch, 5000)
    memory = limited(decoding=2 * size + 5000)
    other = Reservation(memory.decoding)
    other.grow(1000)
    raised: list[ImageError] = []

    def load() -> None:
        try:
            loader_of(memory).load(str(file))
        except ImageError as error:
            raised.append(error)

    thread = in_a_thread(load)
    assert soon(lambda: memory.decoding._waiting)
    other.release()

    assert ends(thread)
    assert [error.code for error in raised] == ["changed"]
    assert memory.decoding._taken == 0


def test_an_image_that_the_decoder_opens_twice_has_room_for_the_larger(file, limited, monkeypatch, whole):
    size = file.stat().st_size
    asks(monkeypatch, 100, 5000, 200)
    memory = limited(decoding=2 * size + 5000)

    assert isinstance(loader_of(memory).load(str(file)).found, Decoded)
    assert whole == [size]


@pytest.mark.parametrize("small", [0, PLENTY])
@pytest.mark.parametrize("what", ["file", "pixels"])
def test_what_never_has_room_is_a_failure_with_its_digest(file, limited, monkeypatch, what, small, whole):
    asks(monkeypatch, 5000)
    limit = file.stat().st_size if what == "file" else 4999
    memory = limited(decoding=limit, small=small)
    found = loader_of(memory).load(str(file))

    assert found.digest == tiny.digest(photo(1)).tobytes()
    assert found.found.code == "no-memory"
    assert "--memory" in str(found.found)
    assert found.found.__traceback__ is None  # which would keep the file's bytes
    assert len(whole) == (what == "pixels")
    assert memory.decoding._taken == 0


def test_a_small_file_that_never_has_room_to_be_decoded_is_a_failure(limited, monkeypatch):
    asks(monkeypatch, 5000)
    memory = limited(decoding=4999 + len(photo(1)))
    found = loader_of(memory).decode(photo(1))

    assert found.code == "no-memory"
    assert memory.decoding._taken == 0


@pytest.mark.parametrize(
    ("start", "max_pixels", "code"),
    [(b"<html>", 10_000, "not-an-image"), (b"II*\x001", 10_000, "truncated"), (photo(1), 3071, "too-large")],
)
def test_a_large_file_that_is_refused_by_its_header_is_never_held(tmp_path, limited, whole, start, max_pixels, code):
    path = tmp_path / "a.tif"
    path.write_bytes(start)
    os.truncate(path, 40 << 20)
    found = loader_of(limited(small=1 << 20), max_pixels).load(str(path))

    assert found.found.code == code
    assert found.digest == hashlib.sha256(path.read_bytes()).digest()
    assert not whole


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_large_file_has_the_pixels_of_a_small_one(tmp_path, limited, kind):
    data = photo(3, kind=kind)
    path = write(tmp_path / "a", data)
    one, other = (loader_of(limited(small=small)).load(str(path)).found.pixels for small in (0, PLENTY))

    assert (one == other).all()
    assert (one == decode(data, tiny.PREPROCESSING).pixels).all()


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("small", [0, PLENTY])
def test_room_is_given_back_whatever_the_decoder_raises(file, limited, monkeypatch, error, small):
    def broken(data: bytes, preprocessing: object, max_pixels: int, room: Callable[[int], object]) -> None:
        with room(100):
            raise error

    monkeypatch.setattr(loading, "decode", broken)
    memory = limited(small=small)
    with pytest.raises(error):
        loader_of(memory).load(str(file))
    with pytest.raises(error):
        loader_of(memory).decode(photo(1))
    assert memory.decoding._taken == 0
