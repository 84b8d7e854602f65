import hashlib
import io
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bottleneck.errors import ImageError
from bottleneck.images import decode as module
from bottleneck.images.augment import augmented
from bottleneck.images.colours import as_rgb
from bottleneck.images.decode import decode
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.images.resize import resize_and_crop
from bottleneck.images.view import AUGMENTATIONS, View
from tests.conftest import photo
from tests.variants import each

Pixels = NDArray[np.uint8]
WHITE, RED = (255, 255, 255), (255, 0, 0)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (40, 40), colour)  # type: ignore[arg-type]


def as_resized(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    return resize_and_crop(image.convert("RGB"), preprocessing)


def pixels_of(data: bytes, preprocessing: Preprocessing) -> Pixels:
    return decode(data, preprocessing).pixels


def code(data: bytes, preprocessing: Preprocessing) -> str:
    return code_within(data, preprocessing, module.MAX_PIXELS)


def code_within(data: bytes, preprocessing: Preprocessing, max_pixels: int) -> str:
    with pytest.raises(ImageError) as error:
        decode(data, preprocessing, max_pixels)
    assert str(error.value)
    assert error.value.code in ImageError.CODES
    return error.value.code


def attempt(data: bytes, preprocessing: Preprocessing) -> Pixels | str:
    """Return the pixels, or the code of the error."""
    try:
        return pixels_of(data, preprocessing)
    except ImageError as error:
        return error.code


def middle(data: bytes, preprocessing: Preprocessing) -> tuple[int, ...]:
    """Return the colour of an image that has but one."""
    pixels = pixels_of(data, preprocessing)
    assert (pixels == pixels[0, 0]).all()
    return tuple(int(level) for level in pixels[0, 0])


def refuse(error: Exception) -> Callable[..., Any]:
    def method(*args: object) -> None:
        raise error

    return method


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes that claims to be as large as asked."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def tiff_of(levels: NDArray[np.generic], sample_format: int) -> bytes:
    """Return an uncompressed grey TIFF of samples that Pillow itself does not write."""
    height, width = levels.shape
    raw = levels.astype(levels.dtype.newbyteorder("<")).tobytes()
    bits = levels.dtype.itemsize * 8
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    tags += [(279, len(raw)), (339, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(raw)) + raw + struct.pack("<H", len(tags)) + entries + bytes(4)


# Formats


def test_every_format_is_decoded_to_a_square_of_bytes(preprocessing: Preprocessing) -> None:
    pixels = pixels_of(photo(1), preprocessing)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (28, 28, 3)
    assert pixels.flags.c_contiguous

    for kind in ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF"]:
        data = photo(1, kind=kind)
        with Image.open(io.BytesIO(data)) as image:
            assert np.array_equal(pixels_of(data, preprocessing), as_resized(image, preprocessing))


# Orientation

# How to store an upright image so that a viewer that obeys the tag shows it upright again.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def test_exif_orientation_is_obeyed(preprocessing: Preprocessing) -> None:
    for orientation in STORED:
        upright = noise(60, 41)
        how = STORED[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = encode(upright if how is None else upright.transpose(how), exif=exif)
        assert np.array_equal(pixels_of(stored, preprocessing), as_resized(upright, preprocessing))

    levels = np.zeros((48, 64, 3), np.uint8)
    levels[:, :32] = RED
    exif[0x0112] = 6  # turn it clockwise: what was left is above
    pixels = pixels_of(encode(Image.fromarray(levels), "JPEG", exif=exif), preprocessing)
    assert pixels[:10, :, 0].min() > 200
    assert pixels[-10:, :, 0].max() < 50

    for tag in [(0x010E, 5), (0x011A, 2), (0xA005, 1)]:
        upright = noise(60, 41)
        number, kind = tag
        entries = [struct.pack("<HHII", 0x0112, 3, 1, 6), struct.pack("<HHII", number, kind, 1, 8)]
        block = b"II*\0\x08\0\0\0\x02\0" + b"".join(sorted(entries)) + bytes(4)
        stored = encode(upright.transpose(STORED[6]), exif=b"Exif\0\0" + block)
        assert np.array_equal(pixels_of(stored, preprocessing), as_resized(upright, preprocessing))


@each("block", [b"broken", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"])
@pytest.mark.filterwarnings("ignore:.*EXIF")
def test_an_image_with_broken_exif_is_decoded(preprocessing: Preprocessing, block: bytes) -> None:
    broken = photo(1, exif=b"Exif\0\0" + block)
    assert np.array_equal(pixels_of(broken, preprocessing), pixels_of(photo(1), preprocessing))


# Large JPEGs at a half, a quarter or an eighth of their size


@pytest.fixture
def fast(preprocessing: Preprocessing) -> Preprocessing:
    return replace(preprocessing, fast_jpeg=True)


def decoded_size(data: bytes, preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Return width and height of the picture that the decoder made."""
    sizes: list[tuple[int, int]] = []
    with monkeypatch.context() as patch:
        patch.setattr(module, "as_rgb", lambda image: sizes.append(image.size) or as_rgb(image))
        decode(data, preprocessing)
    (size,) = sizes
    return size


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(
    fast: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size, scaled in [
        ((640, 480), (160, 120)),  # a quarter: an eighth would be less than twice of 32
        ((480, 640), (120, 160)),
        ((256, 256), (64, 64)),
        ((128, 200), (64, 100)),
        ((1000, 600), (125, 75)),
        ((3000, 2000), (375, 250)),  # there is no sixteenth
        ((127, 200), (127, 200)),
        ((64, 48), (64, 48)),
    ]:
        assert decoded_size(photo(1, size), fast, monkeypatch) == scaled

    for side in range(100, 700, 37):
        data = photo(1, (side, side))
        for change in ({}, {"mode": "squash"}, {"resize": (20, 32)}, {"resize": 20, "crop": 32}, {"mode": "border"}):
            wanted = replace(fast, **change)  # type: ignore[arg-type]
            kept, _ = decoded_size(data, wanted, monkeypatch)
            assert kept >= min(side, 2 * 32), (side, change)
            assert kept <= max(2 * 2 * 32, side / 8 + 1), (side, change)


@pytest.mark.filterwarnings("ignore:.*EXIF", "ignore:Truncated File Read")
def test_a_jpeg_decoded_fast_is_nearly_the_same(preprocessing: Preprocessing, fast: Preprocessing) -> None:
    for options in [{}, {"progressive": True}, {"subsampling": 0}]:
        for mode in ["RGB", "L", "CMYK"]:
            with Image.open(io.BytesIO(photo(1, (640, 480)))) as image:
                data = encode(image.convert(mode), "JPEG", quality=95, **options)

            slow, quick = (pixels_of(data, wanted).astype(int) for wanted in (preprocessing, fast))

            assert not np.array_equal(slow, quick)
            assert np.abs(slow - quick).mean() < 1
            assert np.abs(slow - quick).max() < 12

    for orientation in STORED:
        with Image.open(io.BytesIO(photo(1, (600, 410)))) as image:
            upright = image.convert("RGB")
        how = STORED[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = encode(upright if how is None else upright.transpose(how), "JPEG", exif=exif, quality=95)

        pixels = pixels_of(stored, fast)

        assert not np.array_equal(pixels, pixels_of(stored, preprocessing)), "it was not decoded fast"
        assert np.abs(pixels.astype(int) - as_resized(upright, preprocessing)).max() < 12

    data = encode(noise(300, 300), "JPEG")
    for part in (0.3, 0.7, 0.95):
        assert code(data[: int(len(data) * part)], fast) == "truncated", part


@pytest.mark.shared
def test_photographs_decoded_fast_are_nearly_the_same(
    preprocessing: Preprocessing, fast: Preprocessing, hymenoptera: Path
) -> None:
    differences = []
    for path in sorted(hymenoptera.rglob("*.jpg"))[::10]:
        slow, quick = (pixels_of(path.read_bytes(), wanted).astype(int) for wanted in (preprocessing, fast))
        differences.append(np.abs(slow - quick).mean())
    assert 0 < np.mean(differences) < 2
    assert max(differences) < 6


def test_other_formats_and_small_jpegs_are_decoded_as_always(preprocessing: Preprocessing, fast: Preprocessing) -> None:
    for kind in ["PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF"]:
        data = photo(1, (320, 240), kind)
        assert np.array_equal(pixels_of(data, fast), pixels_of(data, preprocessing))

    for size in ((64, 48), (127, 127), (500, 100)):
        assert np.array_equal(pixels_of(photo(1, size), fast), pixels_of(photo(1, size), preprocessing)), size


# Views


def seen(preprocessing: Preprocessing, augmentation: str = "standard", seed: int = 0, number: int = 0) -> Preprocessing:
    return replace(preprocessing, view=View(augmentation=augmentation, seed=seed, number=number))


def as_seen(upright: Image.Image, data: bytes, preprocessing: Preprocessing) -> Pixels:
    """Return the view of an image, turned and without alpha, that has these bytes as a file."""
    assert preprocessing.view is not None
    return augmented(upright, preprocessing, preprocessing.view.random(hashlib.sha256(data).digest()))


views = each("augmentation", AUGMENTATIONS[1:])


@views
def test_a_view_is_one_of_the_upright_image_on_white(preprocessing: Preprocessing, augmentation: str) -> None:
    for orientation in STORED:
        upright, how, wanted = noise(60, 41), STORED[orientation], seen(preprocessing, augmentation)
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = encode(upright if how is None else upright.transpose(how), exif=exif)

        assert np.array_equal(pixels_of(stored, wanted), as_seen(upright, stored, wanted))

    levels = np.random.default_rng(0).integers(0, 256, (41, 60, 4), np.uint8)
    image, wanted = Image.fromarray(levels), seen(preprocessing, augmentation)
    page = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    data = encode(image)

    assert np.array_equal(pixels_of(data, wanted), as_seen(page, data, wanted))

    data = photo(1)
    assert np.array_equal(*(pixels_of(data, seen(preprocessing, augmentation, 3, 7)) for _ in range(2)))


@views
@each("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "F"])
@each("size", [(1, 1), (2000, 3), (3, 2000), (2, 1), (64, 48)])
def test_every_kind_of_image_has_views(
    preprocessing: Preprocessing, augmentation: str, mode: str, size: tuple[int, int]
) -> None:
    data = encode(Image.new(mode, size), "TIFF" if mode == "F" else "PNG")
    for number in range(3):
        pixels = pixels_of(data, seen(replace(preprocessing, crop=(20, 28)), augmentation, number=number))
        assert pixels.dtype == np.uint8
        assert pixels.shape == (20, 28, 3)


def test_views_differ_by_their_number_seed_augmentation_and_file(preprocessing: Preprocessing) -> None:
    data = photo(1)
    wanted = [seen(preprocessing, seed=seed, number=number) for seed in range(4) for number in range(4)]
    wanted += [seen(preprocessing, "light"), seen(preprocessing, "strong"), preprocessing]
    assert len({pixels_of(data, one).tobytes() for one in wanted}) == len(wanted)

    wanted = seen(preprocessing)
    found = {pixels_of(encode(noise(60, 41), kind), wanted).tobytes() for kind in ("PNG", "BMP", "TIFF", "PPM")}
    assert len(found) == 4


def test_views_are_the_same_in_every_thread(preprocessing: Preprocessing) -> None:
    files, wanted = [photo(number) for number in range(16)], seen(preprocessing, "strong")
    expected = [pixels_of(data, wanted).tobytes() for data in files]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda data: pixels_of(data, wanted).tobytes(), reversed(files)))
    assert found == expected[::-1]


def test_a_view_needs_the_pixels_of_a_large_jpeg(preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch) -> None:
    data, wanted = photo(1, (1000, 600)), seen(preprocessing)
    fast = replace(wanted, fast_jpeg=True)
    assert np.array_equal(pixels_of(data, fast), pixels_of(data, wanted))
    assert decoded_size(data, fast, monkeypatch) == (1000, 600)


# Room in memory


class Watched(AbstractContextManager[None]):
    """A context that notes what happens in it."""

    def __init__(self, happened: list[object]) -> None:
        self._happened = happened

    def __call__(self, size: int) -> "Watched":
        self._happened.append(size)
        return self

    def __enter__(self) -> None:
        self._happened.append("in")

    def __exit__(self, *error: object) -> None:
        self._happened.append("out")


@each("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP"])
@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_memory_is_reserved_once_before_the_pixels_are_loaded(preprocessing: Preprocessing, kind: str) -> None:
    happened: list[object] = []
    data = photo(1, (64, 48), kind)
    decode(data, preprocessing, reserve=Watched(happened))

    assert happened[1:] == ["in", "out"]
    assert isinstance(happened[0], int)
    assert happened[0] > 3 * 64 * 48
    if kind not in ("PNG", "WEBP"):  # whose parsers see at once that the pixels are cut short
        with pytest.raises(LookupError, match="no room"):
            decode(data[: len(data) // 2 + 200], preprocessing, reserve=refuse(LookupError("no room")))


@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_memory_is_released_after_an_error_and_not_reserved_for_a_rejected_header(preprocessing: Preprocessing) -> None:
    happened: list[object] = []
    data = encode(noise(50, 40), "JPEG")

    with pytest.raises(ImageError):
        decode(data[: len(data) // 2], preprocessing, reserve=Watched(happened))

    assert happened[1:3] == ["in", "out"]
    assert happened.count("in") == happened.count("out") == 2  # once more, alone

    for data in [b"", b"hello", png_of(60_000, 60_000)]:
        happened: list[object] = []

        with pytest.raises(ImageError):
            decode(data, preprocessing, reserve=Watched(happened))

        assert not happened


# Transparency

TWO_COLOURS = plain("P", 0)
TWO_COLOURS.putpalette([200, 0, 0, 0, 0, 200])


def test_transparent_pixels_are_laid_on_white(preprocessing: Preprocessing) -> None:
    for data in [
        encode(plain("RGBA", (200, 0, 0, 0))),
        encode(plain("RGBA", (200, 0, 0, 0)), "WEBP", lossless=True, exact=True),
        encode(plain("RGBA", (200, 0, 0, 0)), "TIFF"),
        encode(plain("LA", (10, 0))),
        encode(TWO_COLOURS, transparency=0),
        encode(TWO_COLOURS, transparency=b"\0\xff"),
        encode(TWO_COLOURS, "GIF", transparency=0),
        encode(plain("L", 7), transparency=7),
        encode(plain("RGB", (1, 2, 3)), transparency=(1, 2, 3)),
        encode(plain("1", 0), transparency=0),
    ]:
        assert middle(data, preprocessing) == WHITE

    for data, colour in [
        (encode(plain("RGBA", (200, 0, 0, 255))), (200, 0, 0)),
        (encode(plain("LA", (10, 255))), (10, 10, 10)),
        (encode(TWO_COLOURS, transparency=1), (200, 0, 0)),
        (encode(TWO_COLOURS), (200, 0, 0)),
        (encode(plain("L", 7), transparency=8), (7, 7, 7)),
        (encode(plain("RGB", (1, 2, 3)), transparency=(3, 2, 1)), (1, 2, 3)),
    ]:
        assert middle(data, preprocessing) == colour

    assert middle(encode(plain("RGBA", (200, 0, 0, 51))), preprocessing) == (244, 204, 204)
    assert middle(encode(plain("LA", (0, 51))), preprocessing) == (204, 204, 204)

    levels = np.zeros((64, 64, 4), np.uint8)
    levels[:, :, 1] = 255  # green, and all of it transparent but for a white disc's pixels
    levels[::2, ::2] = 255
    assert middle(encode(Image.fromarray(levels)), preprocessing) == WHITE


# Grey


def test_grey_of_any_depth_is_scaled_to_eight_bits(preprocessing: Preprocessing) -> None:
    for kind in ["PNG", "TIFF", "PPM"]:
        for level in (0, 1, 100, 128, 254, 255):
            data = encode(Image.fromarray(np.full((40, 40), level * 257, np.uint16)), kind)
            assert middle(data, preprocessing) == (level,) * 3

    dark, light = np.full((40, 40), 2570, np.uint16), np.full((40, 40), 2570, np.uint16)
    light[:, 20:] = 65535
    a, b = (pixels_of(encode(Image.fromarray(levels)), preprocessing) for levels in (dark, light))
    assert np.array_equal(a[:, :8], b[:, :8])
    assert (b[:, -8:] == 255).all()

    assert middle(tiff_of(np.full((40, 40), 2**31 - 1, np.uint32), 1), preprocessing) == (127,) * 3
    assert middle(tiff_of(np.full((40, 40), 2**32 - 1, np.uint32), 1), preprocessing) == WHITE

    levels = np.zeros((40, 40), bool)
    levels[:, 20:] = True
    pixels = pixels_of(encode(Image.fromarray(levels)), preprocessing)
    assert (pixels[:, :12] == 0).all()
    assert (pixels[:, -12:] == 255).all()

    assert middle(encode(plain("L", 77)), preprocessing) == (77, 77, 77)


def test_floats_are_scaled_by_their_range_and_corrupt_if_they_are_no_number(preprocessing: Preprocessing) -> None:
    for level, top, grey in [
        (0.5, 1.0, 128),
        (0.0, 1.0, 0),
        (1.0, 1.0, 255),
        (0.2, 0.2, 51),
        (100, 255, 100),
        (2570, 65535, 10),
        (-3, 1, 0),
    ]:
        levels = np.full((40, 40), level, np.float32)
        levels[:, 30:] = top
        assert (pixels_of(encode(Image.fromarray(levels), "TIFF"), preprocessing)[:, :15] == grey).all()

    for level in [np.nan, np.inf, -np.inf]:
        levels = np.zeros((40, 40), np.float32)
        levels[3, 4] = level
        assert code(encode(Image.fromarray(levels), "TIFF"), preprocessing) == "corrupt"


@each("kind", ["JPEG", "TIFF"])
@each("ink, colour", [((0, 255, 255, 0), RED), ((255, 255, 0, 0), (0, 0, 255)), ((0, 0, 0, 255), (0, 0, 0))])
def test_printing_inks_become_colours(
    preprocessing: Preprocessing, kind: str, ink: tuple[int, ...], colour: tuple[int, ...]
) -> None:
    pixels = pixels_of(encode(plain("CMYK", ink), kind), preprocessing)
    assert np.abs(pixels.astype(int) - colour).max() <= 3


# Several frames


def test_only_several_frames_are_noted(preprocessing: Preprocessing) -> None:
    for kind in ["GIF", "PNG", "WEBP", "TIFF"]:
        others = [plain("RGB", (0, 0, 255)), plain("RGB", (0, 255, 0))]
        data = encode(plain("RGB", RED), kind, save_all=True, append_images=others, lossless=True)
        with Image.open(io.BytesIO(data)) as image:
            assert image.n_frames == 3  # type: ignore[attr-defined]
        assert middle(data, preprocessing) == RED
        assert decode(data, preprocessing).note == f"several frames ({kind}); the first is used"

    for kind in ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF"]:
        assert decode(photo(1, kind=kind), preprocessing).note is None

    data = encode(plain("RGB", RED), "MPO", save_all=True, append_images=[plain("RGB", (0, 0, 255))])
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.n_frames) == ("MPO", 2)  # type: ignore[attr-defined]
    assert decode(data, preprocessing).note is None
    assert np.abs(pixels_of(data, preprocessing).astype(int) - RED).max() <= 3


@each("kind", ["GIF", "TIFF"])
@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_a_broken_second_frame_does_not_fail_the_first(preprocessing: Preprocessing, kind: str) -> None:
    first = encode(noise(50, 40), kind)
    both = encode(noise(50, 40), kind, save_all=True, append_images=[noise(50, 40, 1)])
    for length in range(len(first) + 20, len(both), 97):
        done = decode(both[:length], preprocessing)
        assert np.array_equal(done.pixels, pixels_of(first, preprocessing)), length


# What cannot be used


@pytest.mark.filterwarnings("ignore:.*EXIF", "ignore:Truncated File Read")
def test_a_file_cut_short_or_overwritten_is_refused(preprocessing: Preprocessing) -> None:
    for kind in ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM"]:
        for part in [0.7, 0.95]:
            data = encode(noise(50, 40), kind)
            assert code(data[: int(len(data) * part)], preprocessing) == "truncated"

    data = bytearray(encode(noise(50, 40)))
    data[200:260] = bytes(60)
    assert code(bytes(data), preprocessing) in ("corrupt", "truncated")


@each("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
@pytest.mark.filterwarnings("ignore:.*EXIF", "ignore:Truncated File Read")
def test_a_file_cut_anywhere_is_refused_or_whole(preprocessing: Preprocessing, kind: str) -> None:
    data = encode(noise(50, 40), kind)
    whole = pixels_of(data, preprocessing)
    for length in (*range(60), *range(60, len(data), 61), *range(len(data) - 30, len(data))):
        outcome = attempt(data[:length], preprocessing)
        if isinstance(outcome, str):
            assert outcome in ("empty", "not-an-image", "truncated", "corrupt"), length
            continue
        assert length > len(data) - 30
        assert np.array_equal(outcome, whole), length


@each("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
@pytest.mark.filterwarnings("ignore")
def test_overwritten_bytes_raise_nothing_but_image_errors(preprocessing: Preprocessing, kind: str) -> None:
    data = encode(noise(50, 40), kind)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        damaged = np.frombuffer(data, np.uint8).copy()
        damaged[rng.integers(0, len(damaged) if seed % 2 else 200, 10)] = rng.integers(0, 256, 10)
        outcome = attempt(damaged.tobytes(), preprocessing)
        assert outcome in ImageError.CODES if isinstance(outcome, str) else outcome.shape == (28, 28, 3)


def test_a_file_without_an_image_is_refused_with_what_it_is(preprocessing: Preprocessing) -> None:
    for data, words in [
        (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
        (b"\n  <HTML lang=en>", "an HTML page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?><svg/>", "SVG or XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (b"hello, world", "begins with b'hello, world'"),
        (bytes(1000), "begins with"),
        (np.random.default_rng(0).bytes(5000), "begins with"),
        (b"\xff", "begins with"),
    ]:
        assert code(data, preprocessing) == "not-an-image"
        with pytest.raises(ImageError, match=words.replace("(", r"\(")):
            pixels_of(data, preprocessing)

    assert code(b"", preprocessing) == "empty"

    assert code(b"hello", seen(preprocessing)) == "not-an-image"
    data = encode(noise(50, 40))
    assert code(data[: len(data) // 2], seen(preprocessing)) == "truncated"


def test_the_limit_counts_pixels(preprocessing: Preprocessing) -> None:
    for size in [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (13_400, 13_400)]:
        with pytest.raises(ImageError, match="178,956,970 pixels") as error:
            pixels_of(png_of(*size), preprocessing)
        assert error.value.code == "too-large"

    at_most = 64 * 48
    assert decode(photo(1, (64, 48)), preprocessing, at_most).pixels.shape == (28, 28, 3)
    with pytest.raises(ImageError, match=r"at most 3,072 pixels, found 64 x 49; --max-pixels") as error:
        decode(photo(1, (64, 49)), preprocessing, at_most)
    assert error.value.code == "too-large"

    data = encode(plain("RGB", RED).resize((50, 50)))
    decode(data, preprocessing, 10**12)
    assert code_within(data, preprocessing, 2499) == "too-large"
    assert code(png_of(60_000, 60_000), preprocessing) == "too-large"


class Broken(View):
    """A view that raises an error, as resizing may, once the pixels are there."""

    def random(self, digest: bytes) -> np.random.Generator:
        raise BROKEN[self.number]


BROKEN = [
    MemoryError(""),
    ValueError("image dimensions are too large"),
    OSError("bad"),
    OverflowError("large"),
    SystemError("tile"),
]


@each("number", range(len(BROKEN)))
def test_an_error_while_resizing_does_not_mark_the_image_as_corrupt(preprocessing: Preprocessing, number: int) -> None:
    wanted = replace(preprocessing, view=Broken(augmentation="light", seed=0, number=number))
    with pytest.raises(ImageError, match="no memory for 64 x 48" if number == 0 else "cannot be resized") as error:
        decode(photo(1), wanted)
    assert error.value.code == ("no-memory" if number == 0 else "too-large")


# What the bytes prove


def failing(*errors: ImageError) -> Callable[[int], AbstractContextManager[object]]:
    """Return room for an image that fails the first times with these errors, whatever is wrong with its bytes."""
    left = list(errors)

    def room(size: int) -> AbstractContextManager[object]:
        if left:
            raise left.pop(0)
        return nullcontext()

    return room


@each("code", ["truncated", "corrupt"])
def test_an_image_that_fails_once_is_decoded_again_alone(preprocessing: Preprocessing, code: str) -> None:
    data = photo(1, kind="WEBP")
    room = failing(ImageError(code, "failed to decode next frame"))
    assert np.array_equal(decode(data, preprocessing, reserve=room).pixels, pixels_of(data, preprocessing))


def test_a_failure_is_confirmed_if_the_image_fails_twice_alike(preprocessing: Preprocessing) -> None:
    for data in [b"hello, world", encode(noise(50, 40))[:900], encode(noise(50, 40), "WEBP")[:500]]:
        with pytest.raises(ImageError) as error:
            decode(data, preprocessing)
        assert not error.value.doubtful

    errors = ImageError("truncated", "cut"), ImageError("corrupt", "broken")
    with pytest.raises(ImageError) as found:
        decode(photo(1, kind="WEBP"), preprocessing, reserve=failing(*errors))
    assert found.value.code == "corrupt"
    assert found.value.doubtful


@pytest.mark.skipif(sys.platform != "linux", reason="bounds a process as Linux does")
def test_without_spare_memory_no_failure_is_confirmed(preprocessing: Preprocessing) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)

    def short(size: int) -> AbstractContextManager[object]:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20), hard))
        raise ImageError("corrupt", "broken")

    try:
        with pytest.raises(ImageError) as found:
            decode(photo(1), preprocessing, reserve=short)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert found.value.code == "no-memory"


@pytest.mark.skipif(sys.platform != "linux", reason="bounds a process as Linux does")
def test_a_good_image_is_not_corrupt_when_memory_is_short() -> None:
    script = """
import io, resource
from PIL import Image
from bottleneck.errors import ImageError
from bottleneck.images.decode import decode
from bottleneck.images.preprocessing import Preprocessing

values = dict(resize=32, crop=28, interpolation="bilinear", antialias=True, mean=(0, 0, 0), std=(1, 1, 1))
for kind in ("WEBP", "JPEG2000", "TIFF", "JPEG"):
    buffer = io.BytesIO()
    Image.effect_noise((300, 240) if kind == "JPEG2000" else (1000, 700), 9).convert("RGB").save(buffer, kind)
    decode(buffer.getvalue(), Preprocessing(**values))
    for more in range(0, 40 << 20, 8 << 20):
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
        try:
            decode(buffer.getvalue(), Preprocessing(**values))
            found = "decoded"
        except ImageError as error:
            found = error.code
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(kind, found)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = [tuple(line.split()) for line in done.stdout.splitlines()]
    assert {result for _, result in found} == {"decoded", "no-memory"}, found
    assert {kind for kind, _ in found} == {"WEBP", "JPEG2000", "TIFF", "JPEG"}


def test_the_pixel_limit_of_pillow_has_no_effect_and_does_not_change() -> None:
    script = """
import io
from PIL import Image
from bottleneck.errors import ImageError
from bottleneck.images.decode import decode
from bottleneck.images.preprocessing import Preprocessing

Image.MAX_IMAGE_PIXELS = 1000  # Pillow warns above it, and refuses above twice as much
values = dict(resize=32, crop=28, interpolation="bilinear", antialias=True, mean=(0, 0, 0), std=(1, 1, 1))
for size in ((40, 30), (50, 50)):
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    print(decode(buffer.getvalue(), Preprocessing(**values)).pixels.shape)
try:
    decode(buffer.getvalue(), Preprocessing(**values), 2000)
except ImageError as error:
    print(error.code, Image.MAX_IMAGE_PIXELS)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "(28, 28, 3)\n(28, 28, 3)\ntoo-large 1000\n"
    assert done.stderr == ""
