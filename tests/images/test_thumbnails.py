import io
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image

from bottleneck.images.decode import decode
from bottleneck.images.thumbnails import PREPROCESSING, SIDE, Thumbnail, Thumbnails, decode_thumbnail, grey_levels
from tests.variants import each


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


@each("width, height", [(64, 32), (16, 16), (160, 320), (8, 8), (24, 30)])
def test_the_whole_picture_is_averaged_and_its_mirror_image_alike(width, height):
    ramp = np.add.outer(np.arange(height) * 64 / height, np.arange(width) * 128 / width)
    picture = np.stack([ramp, ramp / 2, 255 - ramp], axis=2).round().astype(np.uint8)
    found = decode(encoded(Image.fromarray(picture)), PREPROCESSING)
    assert found.size == (width, height)
    centres = (np.arange(SIDE) + 0.5) / SIDE
    expected = np.add.outer(64 * centres - 32 / height, 128 * centres - 64 / width)
    assert found.pixels[1:-1, 1:-1, 0] == pytest.approx(expected[1:-1, 1:-1], abs=2.5)
    mirrored = decode(encoded(Image.fromarray(picture[:, ::-1])), PREPROCESSING)
    assert found.pixels[:, ::-1].astype(int) == pytest.approx(mirrored.pixels.astype(int), abs=1)


def test_the_picture_is_upright_and_so_is_its_size():
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:20] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    found = decode(encoded(Image.fromarray(picture), exif=exif), PREPROCESSING)
    assert found.size == (40, 80)
    assert found.pixels[:, : SIDE // 2 - 1].max() == 0
    assert found.pixels[:, SIDE // 2 + 1 :].min() == 200


def test_large_jpegs_are_decoded_fast_with_a_similar_result():
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 9, 3)).astype(np.uint8)).resize((1803, 1201))
    noisy = np.clip(np.asarray(coarse).astype(int) + rng.integers(-60, 60, (1201, 1803, 3)), 0, 255).astype(np.uint8)
    large, small = io.BytesIO(), io.BytesIO()
    Image.fromarray(noisy).save(large, "JPEG", quality=90)
    coarse.save(small, "JPEG", quality=90)
    assert len(small.getvalue()) < 1 << 20 < len(large.getvalue())
    fast, full = (
        make(large.getvalue(), PREPROCESSING, 10**8, lambda _: nullcontext()) for make in (decode_thumbnail, decode)
    )
    assert fast.size == full.size == (1803, 1201)
    assert not np.array_equal(fast.pixels, full.pixels)
    assert fast.pixels.astype(int) == pytest.approx(full.pixels.astype(int), abs=10)
    exact, same = (
        make(small.getvalue(), PREPROCESSING, 10**8, lambda _: nullcontext()) for make in (decode_thumbnail, decode)
    )
    assert np.array_equal(exact.pixels, same.pixels)


def thumbnail(seed=0):
    return Thumbnail(np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8), 70_000, 3)


def test_a_thumbnail_is_read_back_from_its_bytes():
    one = thumbnail()
    again = Thumbnail.from_bytes(one.to_bytes())
    assert np.array_equal(again.pixels, one.pixels)
    assert (again.width, again.height) == (70_000, 3)


@each("data", [b"", b"\0" * 776, thumbnail().to_bytes()[:-1], thumbnail().to_bytes() + b"\0"])
def test_other_bytes_are_no_thumbnail(data):
    with pytest.raises(ValueError, match="expected"):
        Thumbnail.from_bytes(data)


def test_missing_thumbnails_are_unknown():
    found = Thumbnails.unknown(3)
    found.put(0, thumbnail())
    found.put(2, thumbnail(1))
    assert len(found) == 3
    assert found.known.tolist() == [True, False, True]
    assert found.sizes.tolist() == [[70_000, 3], [0, 0], [70_000, 3]]
    some = found.take([2, 1])
    assert np.array_equal(some.pixels[0], thumbnail(1).pixels)
    assert (some.known.tolist(), some.failures) == ([True, False], ())


def test_grey_levels_weigh_the_colours():
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    assert grey_levels(colours) == pytest.approx([76.245, 149.685, 29.07, 9])
