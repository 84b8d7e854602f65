"""One image's file, read and decoded within what there is room for."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bottleneck.errors import ImageError
from bottleneck.extraction.loading import Loader
from bottleneck.extraction.memory import MemoryBudget, Reservation
from bottleneck.images.decode import Decoded, decode
from bottleneck.images.digest import ImageFile
from tests import tiny
from tests.conftest import photo, write
from tests.extraction.conftest import ends, in_a_thread, soon
from tests.variants import each

PLENTY = 1 << 30


@pytest.fixture
def file(tmp_path) -> Path:
    return write(tmp_path / "a.jpg", photo(1))


def wanting(*sizes: int) -> Callable[..., Decoded]:
    """Return a decoder that requests so much memory, a number for each time that it opens the image."""

    def wants(data: bytes, preprocessing: object, max_pixels: int, room: Callable[[int], object]) -> Decoded:
        for size in sizes:
            with room(size):
                pass
        return decode(data, preprocessing, max_pixels)

    return wants


class Watched(Loader):
    """A loader that counts the sizes of files that are read whole."""

    def __init__(self, memory: MemoryBudget, max_pixels: int = 10_000, decode: Callable[..., Decoded] = decode) -> None:
        self.whole: list[int] = []
        watched = self.whole

        class File(ImageFile):
            def read(self) -> bytes:
                watched.append(self.size)
                return super().read()

        super().__init__(memory, tiny.PREPROCESSING, max_pixels, decode=decode, open_file=File)


def all_free(memory: MemoryBudget) -> bool:
    """Take all memory for decoding, if no thread has any."""
    return memory.decoding.try_to_take(memory.decoding.limit)


def test_digest_signature_and_pixels_are_those_of_the_file(file, limited):
    found = Watched(limited()).load(str(file))
    status = file.stat()

    assert found.digest == tiny.digest(photo(1)).tobytes()
    assert found.signature == (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    assert (found.found.pixels == decode(photo(1), tiny.PREPROCESSING).pixels).all()


@each("small", [0, PLENTY])
def test_what_is_not_wanted_is_not_decoded(file, limited, small):
    def never(*args: object) -> None:
        raise AssertionError("decoded")

    asked: list[bytes] = []
    found = Watched(limited(small=small), decode=never).load(str(file), lambda digest: asked.append(digest))

    assert found.found is None
    assert asked == [found.digest]


def test_with_room_for_all_of_it_a_file_is_read_once(file, limited):
    size = file.stat().st_size
    memory = limited(decoding=2 * size + 5000)
    loader = Watched(memory, decode=wanting(5000))
    loader.load(str(file))

    assert loader.whole == [size]
    assert all_free(memory)


def test_where_others_have_the_room_it_waits_with_nothing_and_reads_the_file_again(file, limited):
    size = file.stat().st_size
    memory = limited(decoding=2 * size + 5000)
    other, wanted = Reservation(memory.decoding), []
    other.grow(1000)
    loader, results = Watched(memory, decode=wanting(5000)), []
    thread = in_a_thread(lambda: results.append(loader.load(str(file), lambda digest: wanted.append(digest) or True)))

    assert soon(lambda: memory.decoding._waiting)
    assert memory.decoding._taken == 1000
    other.release()
    assert ends(thread)
    assert isinstance(results[0].found, Decoded)
    assert loader.whole == [size, size]
    assert len(wanted) == 1  # an image is claimed once


def test_a_file_that_changes_before_it_is_read_again_is_an_error(file, limited):
    size, contents = file.stat().st_size, iter([photo(1), photo(2)])

    class Changing(ImageFile):
        def read(self) -> bytes:
            return next(contents)

    memory = limited(decoding=2 * size + 5000)
    loader = Loader(memory, tiny.PREPROCESSING, decode=wanting(5000), open_file=Changing)
    other = Reservation(memory.decoding)
    other.grow(1000)
    raised: list[ImageError] = []

    def load() -> None:
        try:
            loader.load(str(file))
        except ImageError as error:
            raised.append(error)

    thread = in_a_thread(load)
    assert soon(lambda: memory.decoding._waiting)
    other.release()

    assert ends(thread)
    assert [error.code for error in raised] == ["changed"]
    assert all_free(memory)


def test_an_image_that_the_decoder_opens_twice_has_room_for_the_larger(file, limited):
    size = file.stat().st_size
    loader = Watched(limited(decoding=2 * size + 5000), decode=wanting(100, 5000, 200))

    assert isinstance(loader.load(str(file)).found, Decoded)
    assert loader.whole == [size]


@each("small", [0, PLENTY])
@each("what", ["file", "pixels"])
def test_what_never_has_room_is_a_failure_with_its_digest(file, limited, what, small):
    memory = limited(decoding=file.stat().st_size if what == "file" else 4999, small=small)
    loader = Watched(memory, decode=wanting(5000))
    found = loader.load(str(file))

    assert found.digest == tiny.digest(photo(1)).tobytes()
    assert found.found.code == "no-memory"
    assert "--memory" in str(found.found)
    assert found.found.__traceback__ is None  # which would keep the file's bytes
    assert len(loader.whole) == (what == "pixels")
    assert all_free(memory)


def test_a_small_file_that_never_has_room_to_be_decoded_is_a_failure(limited):
    memory = limited(decoding=4999 + len(photo(1)))
    found = Watched(memory, decode=wanting(5000)).decode(photo(1))

    assert found.code == "no-memory"
    assert all_free(memory)


@each(
    "start, max_pixels, code",
    [(b"<html>", 10_000, "not-an-image"), (b"II*\x001", 10_000, "truncated"), (photo(1), 3071, "too-large")],
)
def test_a_large_file_that_is_refused_by_its_header_is_never_held(tmp_path, limited, start, max_pixels, code):
    path = tmp_path / "a.tif"
    path.write_bytes(start)
    os.truncate(path, 40 << 20)
    loader = Watched(limited(small=1 << 20), max_pixels)
    found = loader.load(str(path))

    assert found.found.code == code
    assert found.digest == hashlib.sha256(path.read_bytes()).digest()
    assert not loader.whole


@each("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_large_file_has_the_pixels_of_a_small_one(tmp_path, limited, kind):
    data = photo(3, kind=kind)
    path = write(tmp_path / "a", data)
    one, other = (Watched(limited(small=small)).load(str(path)).found.pixels for small in (0, PLENTY))

    assert (one == other).all()
    assert (one == decode(data, tiny.PREPROCESSING).pixels).all()


@each("error", [ZeroDivisionError, KeyboardInterrupt, MemoryError])
@each("small", [0, PLENTY])
def test_memory_is_released_after_any_error_of_the_decoder(file, limited, error, small):
    def broken(data: bytes, preprocessing: object, max_pixels: int, room: Callable[[int], object]) -> None:
        with room(100):
            raise error

    memory = limited(small=small)
    loader = Watched(memory, decode=broken)
    with pytest.raises(error):
        loader.load(str(file))
    with pytest.raises(error):
        loader.decode(photo(1))
    assert all_free(memory)
