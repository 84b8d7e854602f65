"""Images as they come: the damaged, the odd and the hostile. One table states for each what happens."""

import contextlib
import csv
import functools
import hashlib
import io
import os
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bottleneck.errors import ImageError
from bottleneck.images.decode import MAX_PIXELS, Decoded, decode
from bottleneck.images.digest import LARGEST_FILE, read_file
from bottleneck.images.file_index import index_files
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.images.scan import read_unknown
from bottleneck.images.splits import Shares
from tests.conftest import photo, write
from tests.variants import each

Colour = tuple[int, int, int]
Build = bytes | Callable[[Path], object]
RED, BLUE, WHITE, BLACK = (255, 0, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class Seen:
    """The image is used, and its upper and lower thirds have these colours; the same one, where but one is given."""

    top: Colour
    bottom: Colour | None = None
    within: int = 0  # levels
    note: str | None = None
    spoilt: bytes | None = None  # a sound file, of which the lower third is not that of this one


@dataclass(frozen=True)
class Fails:
    """The image is listed as a failure."""

    code: str
    words: str = ""  # in the message


@dataclass(frozen=True)
class Ignored:
    """The file is passed over and counted; not even counted where there is no reason to."""

    reason: str | None


@dataclass(frozen=True)
class Case:
    """A file, and what happens to it."""

    what: str
    build: Build  # its bytes, or what makes it at a path
    happens: Seen | Fails | Ignored
    name: str = "image.jpg"
    walked: bool = False  # found in a folder; else listed in a CSV
    max_pixels: int = MAX_PIXELS
    throughout: Callable[[Path], AbstractContextManager[object]] = nullcontext
    meanwhile: Callable[[Path], AbstractContextManager[object]] = nullcontext  # once it was found
    later: Callable[[Path], AbstractContextManager[object]] = nullcontext  # once it was named


# What files are made of


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(colour: object, mode: str = "RGB", size: tuple[int, int] = (40, 40)) -> Image.Image:
    return Image.new(mode, size, colour)  # type: ignore[arg-type]


def red_over_blue() -> Image.Image:
    image = plain(RED, size=(80, 80))
    image.paste(BLUE, (0, 40, 80, 80))
    return image


def red_over_noise() -> Image.Image:
    image = plain(RED, size=(160, 160))
    image.paste(Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 160, 3), np.uint8)), (0, 80))
    return image


def levels(*values: object, dtype: type) -> Image.Image:
    """Return a grey image of rows of these levels, each as high as the others."""
    return Image.fromarray(np.repeat(np.array(values, dtype), 40 // len(values))[:, None].repeat(40, axis=1))


def palette(**options: object) -> bytes:
    image = plain(0, "P")
    image.putpalette([*RED, *BLUE])
    return encode(image, "PNG", **options)


def oriented(orientation: int) -> bytes:
    """Return red over blue, stored as the tag says."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    how = back[orientation]
    image = red_over_blue()
    return encode(image if how is None else image.transpose(how), "JPEG", quality=95, exif=exif)


def frames(kind: str, **options: object) -> bytes:
    return encode(plain(RED), kind, save_all=True, append_images=[plain(BLUE), plain(WHITE)], **options)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour_type: int, row: bytes, most: int = 1000) -> bytes:
    """Return a PNG of equal rows, in kinds that Pillow does not write; of `most`, if the height is a mere claim."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    data = zlib.compress((b"\0" + row) * min(height, most), 1)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def deep_png(colour_type: int, *samples: int) -> bytes:
    return png(40, 40, 16, colour_type, struct.pack(f">{len(samples)}H", *samples) * 40)


def ycck() -> bytes:
    """Return a JPEG of red as printers save it: the inks but black turned into YCbCr, which Pillow does not write."""
    turned = plain((0, 255, 255), size=(1, 1)).convert("YCbCr").getpixel((0, 0))
    data = bytearray(encode(plain((*(255 - level for level in turned), 0), "CMYK"), "JPEG", quality=95))
    marker = data.index(b"\xff\xee\x00\x0eAdobe")
    assert data[marker + 15] == 0
    data[marker + 15] = 2
    return bytes(data)


JPEG = encode(red_over_blue(), "JPEG", quality=95)
PNG = encode(red_over_blue(), "PNG")
SCAN = JPEG.index(b"\xff\xda") + 14  # where the JPEG's header ends
MIDDLE = (SCAN + len(JPEG)) // 2
NOISY = encode(red_over_noise(), "JPEG", quality=95)
NOISE = NOISY.index(b"\xff\xda") + (len(NOISY) - NOISY.index(b"\xff\xda")) // 6  # a place in its scan
BROKEN_EXIF = encode(red_over_blue(), "JPEG", quality=95, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")


def cut(kind: str, part: float, **options: object) -> bytes:
    data = photo(0, kind=kind, **options)
    return data[: int(len(data) * part)]


def rotten(data: bytes, place: int, rot: bytes) -> bytes:
    return data[:place] + rot + data[place + len(rot) :]


def flipped(data: bytes, place: int) -> bytes:
    return rotten(data, place, bytes([data[place] ^ 4]))


# Files that are not merely bytes


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def large(depth: int, row: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(png(9500, 9500, depth, 0, row, most=9500))


def sparse(path: Path) -> None:
    """Make a file of a byte more than is read; it takes no room."""
    path.touch()
    os.truncate(path, LARGEST_FILE + 1)


def folder_of_one(path: Path) -> None:
    write(path / "inside.jpg", JPEG)


def not_for_others(path: Path) -> None:
    write(path, JPEG).chmod(0)


def folder_not_for_others(path: Path) -> None:
    folder_of_one(path)
    path.chmod(0)


# What happens meanwhile


@contextlib.contextmanager
def as_nobody(path: Path) -> Iterator[None]:
    """Be someone who may not read everything, as root may."""
    user = os.geteuid()
    Path().chmod(0o755)  # nobody may look into the current folder, and all paths are relative to it
    try:
        if user == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(user)
        path.chmod(0o700)


@contextlib.contextmanager
def without_waiting(path: Path) -> Iterator[None]:
    """Let go of a reader who waits for a writer, and fail."""
    waited = []

    def release() -> None:
        waited.append(True)
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))

    timer = threading.Timer(20, release)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    assert not waited


@contextlib.contextmanager
def vanishing(path: Path) -> Iterator[None]:
    path.unlink()
    yield


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[None]:
    path.write_bytes(encode(plain(BLUE), "PNG"))
    yield


@contextlib.contextmanager
def growing(path: Path) -> Iterator[None]:
    """Append to the file whenever its size is asked for: between that and its end others write too."""
    fstat = os.fstat

    def and_grow(descriptor: int) -> os.stat_result:
        status = fstat(descriptor)
        if os.path.samestat(status, path.stat()):
            with path.open("ab") as file:
                file.write(b"more")
        return status

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fstat", and_grow)
        yield


# The table

SPLIT = Seen(RED, BLUE, within=3)
HTML = b"<!DOCTYPE html><html><body>404: no such image</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'
MANY_FRAMES = "several frames ({}); the first is used"
NOT_UTF_8 = os.fsdecode(b"caf\xe9.jpg")

CASES = [
    Case("a sound JPEG", JPEG, SPLIT),
    Case("a sound PNG", PNG, Seen(RED, BLUE)),
    # Cut short
    Case("a JPEG cut in its header", JPEG[:100], Fails("truncated")),
    Case("a JPEG cut after its header", JPEG[:SCAN], Fails("truncated")),
    Case("a JPEG cut in the middle", JPEG[:MIDDLE], Fails("truncated")),
    Case("a JPEG without its last byte", JPEG[:-1], Fails("truncated")),
    Case("a progressive JPEG cut in the middle", cut("JPEG", 0.5, progressive=True), Fails("truncated")),
    Case("a PNG cut in its header", PNG[:20], Fails("truncated")),
    Case("a PNG cut in the middle", cut("PNG", 0.5), Fails("truncated")),
    Case("a PNG that lacks only its end mark", PNG[:-12], Seen(RED, BLUE)),
    Case("a GIF cut in the middle", cut("GIF", 0.5), Fails("truncated")),
    Case("a WebP cut in the middle", cut("WEBP", 0.5), Fails("truncated")),
    Case("a TIFF cut in the middle", cut("TIFF", 0.5), Fails("truncated")),
    Case("a BMP cut in the middle", cut("BMP", 0.5), Fails("truncated")),
    # Rotten. The pixels of a JPEG have no checksum: what no decoder can notice is used as it is.
    Case("a JPEG with a flipped bit in its tables", flipped(JPEG, JPEG.index(b"\xff\xc4") + 8), Fails("corrupt")),
    Case("a JPEG with a flipped bit in its scan", flipped(NOISY, NOISE), Seen(RED, within=3, spoilt=NOISY)),
    Case("a JPEG with a start mark in its scan", rotten(NOISY, NOISE, b"\xff\xd8"), Fails("corrupt")),
    Case("a JPEG with zeros in its scan", rotten(NOISY, NOISE, bytes(20)), Seen(RED, within=3, spoilt=NOISY)),
    Case("a JPEG of zeros from its middle", NOISY[:NOISE] + bytes(9999), Fails("truncated")),
    Case(
        "an EPS, for which Pillow would start Ghostscript",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        Fails("not-an-image"),
    ),
    Case("a JPEG with an end mark in its scan", rotten(NOISY, NOISE, b"\xff\xd9"), Fails("truncated")),
    Case("a PNG with a flipped bit in its pixels", flipped(PNG, PNG.index(b"IDAT") + 30), Fails("corrupt")),
    # Kinds of pixels
    Case("CMYK", encode(plain((0, 255, 255, 0), "CMYK"), "JPEG", quality=95), Seen(RED, within=3)),
    Case("YCCK", ycck(), Seen(RED, within=3)),
    Case("a grey JPEG", encode(plain(77, "L"), "JPEG"), Seen((77, 77, 77), within=1)),
    Case("16-bit grey", encode(levels(257 * 10, 257 * 200, dtype=np.uint16), "PNG"), Seen((10,) * 3, (200,) * 3)),
    Case("16-bit colour", deep_png(2, 257 * 10, 257 * 200, 257 * 30), Seen((10, 200, 30))),
    Case("16-bit colour, half transparent", deep_png(6, 65535, 0, 0, 32896), Seen((255, 127, 127), within=1)),
    Case("a 16-bit TIFF", encode(levels(257 * 10, 257 * 200, dtype=np.uint16), "TIFF"), Seen((10,) * 3, (200,) * 3)),
    Case("a float TIFF", encode(levels(0.2, 1, dtype=np.float32), "TIFF"), Seen((51,) * 3, WHITE)),
    Case(
        "a float TIFF that is not a number",
        encode(levels(np.nan, 1, dtype=np.float32), "TIFF"),
        Fails("corrupt", "NaN"),
    ),
    Case("a palette", palette(), Seen(RED)),
    Case("a palette with alpha", palette(transparency=b"\x33\xff"), Seen((255, 204, 204))),
    Case("a palette with a transparent colour", palette(transparency=0), Seen(WHITE)),
    Case("RGBA", encode(plain((200, 0, 0, 51), "RGBA"), "PNG"), Seen((244, 204, 204))),
    Case("grey with alpha", encode(plain((0, 51), "LA"), "PNG"), Seen((204, 204, 204))),
    Case("one bit", encode(levels(False, True, dtype=np.bool_), "PNG"), Seen(BLACK, WHITE)),
    # Turned
    Case("EXIF: upright", oriented(1), SPLIT),
    Case("EXIF: upside down", oriented(3), SPLIT),
    Case("EXIF: turned left", oriented(6), SPLIT),
    Case("EXIF: turned right", oriented(8), SPLIT),
    Case("EXIF that is broken", BROKEN_EXIF, SPLIT),
    # Several pictures in one file
    Case("an animated GIF", frames("GIF"), Seen(RED, note=MANY_FRAMES.format("GIF")), name="image.gif"),
    Case("an animated WebP", frames("WEBP", lossless=True), Seen(RED, note=MANY_FRAMES.format("WEBP"))),
    Case("an animated PNG", frames("PNG"), Seen(RED, note=MANY_FRAMES.format("PNG"))),
    Case("a TIFF of several pages", frames("TIFF"), Seen(RED, note=MANY_FRAMES.format("TIFF"))),
    Case("an animated GIF cut in a later frame", frames("GIF")[:-9], Seen(RED, note=MANY_FRAMES.format("GIF"))),
    Case("a camera's picture with its preview", frames("MPO", quality=95), Seen(RED, within=3)),
    # Sizes
    Case("1 x 1", encode(plain(RED, size=(1, 1)), "PNG"), Seen(RED)),
    Case("20000 x 1", encode(plain(RED, size=(20_000, 1)), "PNG"), Seen(RED)),
    Case("1 x 20000", encode(plain(RED, size=(1, 20_000)), "PNG"), Seen(RED)),
    Case(
        "90 megapixels of grey, of which Pillow warns",
        large(8, bytes([99]) * 9500),
        Seen((99,) * 3),
    ),
    Case(
        "90 megapixels of one bit",
        large(1, b"\xff" * 1188),
        Seen(WHITE),
    ),
    Case("a bomb", png(60_000, 60_000, 8, 2, b"\0"), Fails("too-large", "at most 178,956,970 pixels")),
    Case("a bomb just over the limit", png(13_400, 13_400, 8, 2, b"\0"), Fails("too-large", "found 13400 x 13400")),
    Case("as many pixels as are allowed", PNG, Seen(RED, BLUE), max_pixels=6400),
    Case("more pixels than are allowed", PNG, Fails("too-large", "found 80 x 80"), max_pixels=6399),
    Case("a file of 2 GiB and a byte", sparse, Fails("too-large", "at most 2 GiB")),
    # What the name does not say
    Case("a PNG called .jpg", PNG, Seen(RED, BLUE)),
    Case("a JPEG called .txt that is listed", JPEG, SPLIT, name="image.txt"),
    Case("a JPEG called .txt in a folder", JPEG, Ignored(".txt"), name="image.txt", walked=True),
    Case("a GIF in a folder", frames("GIF"), Ignored(".gif"), name="image.gif", walked=True),
    Case("a hidden JPEG in a folder", JPEG, Ignored("hidden"), name="._image.jpg", walked=True),
    Case("a name in capitals", JPEG, SPLIT, name="IMAGE.JPG", walked=True),
    Case("a name of odd signs", JPEG, SPLIT, name="a,b \"c\"\n'd' \u00e9.jpg"),
    Case("a listed name that is not UTF-8", JPEG, SPLIT, name=NOT_UTF_8),
    Case("a name in a folder that is not UTF-8", JPEG, SPLIT, name=NOT_UTF_8, walked=True),
    Case("garbage behind a JPEG", JPEG + b"garbage" * 100, SPLIT),
    Case("garbage behind a PNG", PNG + b"garbage" * 100, Seen(RED, BLUE)),
    Case("a JPEG behind a JPEG", JPEG + encode(plain(WHITE), "JPEG"), SPLIT),
    # No image at all
    Case("a web page", HTML, Fails("not-an-image", "an HTML page")),
    Case("a pointer of Git LFS", POINTER, Fails("not-an-image", "git lfs pull")),
    Case("SVG", SVG, Fails("not-an-image", "SVG")),
    Case("no bytes", b"", Fails("empty")),
    Case("nothing but zeros", bytes(5000), Fails("not-an-image")),
    Case("noise", np.random.default_rng(0).bytes(5000), Fails("not-an-image")),
    # No file at all
    Case("a listed file that is not there", lambda path: None, Fails("unreadable", "No such file")),
    Case("a listed link to nothing", link_to("nowhere"), Fails("unreadable", "No such file")),
    Case("a link to nothing in a folder", link_to("nowhere"), Fails("unreadable", "broken link"), walked=True),
    Case("a listed link to itself", link_to("image.jpg"), Fails("unreadable")),
    Case("a link to itself in a folder", link_to("image.jpg"), Fails("unreadable"), walked=True),
    Case("a link to a device", link_to(os.devnull), Fails("unreadable", "not a regular file")),
    Case("a listed FIFO", os.mkfifo, Fails("unreadable", "not a regular file"), meanwhile=without_waiting),
    Case("a FIFO in a folder", os.mkfifo, Fails("unreadable"), walked=True, throughout=without_waiting),
    Case("a listed folder called .jpg", folder_of_one, Fails("unreadable", "not a regular file")),
    Case("a folder called .jpg in a folder", folder_of_one, SPLIT, walked=True),
    Case("an empty folder called .jpg in a folder", Path.mkdir, Ignored(None), walked=True),
    Case("a link to the folders above", link_to(".."), Ignored(None), name="above", walked=True),
    Case("a file that others may not read", not_for_others, Fails("unreadable", "denied"), throughout=as_nobody),
    Case(
        "a folder closed to others",
        folder_not_for_others,
        Fails("unreadable", "denied"),
        name="closed",
        walked=True,
        throughout=as_nobody,
    ),
    # Other hands at work
    Case("a file that vanishes once it was found", JPEG, Fails("unreadable", "No such file"), meanwhile=vanishing),
    Case("a file that vanishes once it was named", JPEG, Fails("unreadable", "No such file"), later=vanishing),
    Case("a file replaced once it was found", JPEG, Seen(BLUE), meanwhile=replaced),
    Case("a file that grows while it is read", JPEG, Fails("changed", "run the command again"), meanwhile=growing),
]


# What happens

Outcome = Decoded | Fails
NEIGHBOURS = {Path("images/odd/sound.jpg"): photo(1), Path("images/sound/sound.jpg"): photo(2)}


def build(case: Case) -> Path:
    """Make the neighbours and the case's file, and return its path."""
    for neighbour, data in NEIGHBOURS.items():
        write(neighbour, data)
    path = Path("images/odd") / case.name
    if isinstance(case.build, bytes):
        return write(path, case.build)
    case.build(path)
    return path


def source_of(case: Case, path: Path) -> Path:
    """Return the folder that holds the case, or a CSV that lists it."""
    if case.walked:
        return Path("images")
    table = Path("images.csv")
    with table.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = [(listed, listed.parent.name) for listed in (path, *NEIGHBOURS)]
        csv.writer(file).writerows([("path", "label"), *rows])
    return table


def outcomes(case: Case, path: Path, preprocessing: Preprocessing) -> tuple[dict[Path, Outcome], dict[str, int]]:
    """Find, name, read and decode as the library does; return what came of each path, and what was passed over."""
    source = source_of(case, path)
    happened: dict[Path, Outcome] = {}
    with case.throughout(path):
        found = index_files(source, labels=True, shares=Shares(), cache="cache", exclude=())
        with case.meanwhile(path):
            read_unknown(found)
        dataset = found.dataset()
        for failure in dataset.failures:
            happened[Path(failure.path)] = Fails(failure.code, failure.message)
        with case.later(path):
            for name, digest in zip(map(Path, dataset.paths), dataset.digests, strict=True):
                assert name not in happened
                try:
                    data, _ = read_file(name)
                    assert hashlib.sha256(data).digest() == digest.tobytes()
                    happened[name] = decode(data, preprocessing, case.max_pixels)
                except ImageError as error:
                    happened[name] = Fails(error.code, str(error))
    return happened, dataset.ignored


def check(outcome: Outcome, happens: Seen | Fails, preprocessing: Preprocessing) -> None:
    if isinstance(happens, Fails):
        assert isinstance(outcome, Fails)
        assert outcome.code == happens.code, outcome
        assert outcome.words
        assert happens.words in outcome.words
        return
    assert isinstance(outcome, Decoded), outcome
    assert outcome.note == happens.note
    assert outcome.pixels.shape == (28, 28, 3)
    check_colour(outcome.pixels[:9], happens.top, happens.within)
    if happens.spoilt is None:
        check_colour(outcome.pixels[-9:], happens.top if happens.bottom is None else happens.bottom, happens.within)
    else:
        sound = decode(happens.spoilt, preprocessing).pixels
        assert np.abs(outcome.pixels[-9:].astype(int) - sound[-9:]).max() > 20


def check_colour(pixels: NDArray[np.uint8], colour: Colour, within: int) -> None:
    assert np.abs(pixels.astype(int) - colour).max() <= within, pixels[4].tolist()


@functools.cache
def as_decoded(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    return decode(data, preprocessing).pixels


# Pillow warns of what is broken beside the pixels.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@each("case", CASES, ids=lambda case: case.what)
def test_images_as_they_come(case: Case, preprocessing: Preprocessing) -> None:
    if case.name == NOT_UTF_8 and sys.platform == "darwin":
        pytest.skip("no such name on this system")
    path = build(case)
    happened, ignored = outcomes(case, path, preprocessing)
    for neighbour, data in NEIGHBOURS.items():
        outcome = happened.pop(neighbour)
        assert isinstance(outcome, Decoded)
        assert np.array_equal(outcome.pixels, as_decoded(data, preprocessing))
    if isinstance(case.happens, Ignored):
        assert happened == {}
        assert ignored == ({case.happens.reason: 1} if case.happens.reason else {})
        return
    assert ignored == {}
    [(where, outcome)] = happened.items()
    assert path in (where, where.parent)
    check(outcome, case.happens, preprocessing)


def test_the_table_names_each_case_once() -> None:
    assert len(CASES) >= 33
    assert len({case.what for case in CASES}) == len(CASES)
