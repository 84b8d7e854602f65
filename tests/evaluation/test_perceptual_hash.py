import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from bottleneck.evaluation.copy_threshold import LEAST_IMAGES, LOWEST
from bottleneck.evaluation.perceptual_hash import MOST_BITS, Hashes, close_pairs, hashes_of, pairs_within
from bottleneck.images.thumbnails import SIDE
from tests.variants import each


def scene(seed):
    """Return a picture of smooth random shapes."""
    coarse = np.random.default_rng(seed).integers(30, 200, (6, 9, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((180, 120), Image.Resampling.BICUBIC)


def thumbnails(pictures):
    return np.stack([np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for picture in pictures])


EDITS = {
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.25),
    "smaller": lambda picture: picture.resize((144, 96)),
    "mirrored": ImageOps.mirror,
}


@each("edit", EDITS)
def test_edited_copies_have_close_hashes_and_other_pictures_have_not(edit):
    pictures = [scene(seed) for seed in range(40)]
    copies = [EDITS[edit](picture) for picture in pictures[:10]]
    found = close_pairs(hashes_of(thumbnails([*pictures, *copies])))
    assert found.rows.tolist() == [[row, 40 + row] for row in range(10)]
    assert found.bits.max() <= MOST_BITS
    assert 0.3 <= found.threshold < found.cosines.min()
    assert found.cosines.max() <= 1 + 1e-6


def test_the_mirrored_hash_is_that_of_the_mirrored_picture():
    pixels = thumbnails([scene(1), scene(2)])
    one, other = hashes_of(pixels), hashes_of(pixels[:, :, ::-1])
    assert (one.words == other.mirrored).all()
    assert (one.mirrored == other.words).all()
    assert (one.words != other.words).all()


def test_a_uniform_or_unknown_picture_has_no_hash():
    pixels = thumbnails([scene(seed) for seed in range(30)])
    pixels[3:6] = 128
    pixels[3, :2] += 1
    known = np.arange(30) != 7
    hashes = hashes_of(pixels, known)
    assert np.flatnonzero(~hashes.usable).tolist() == [3, 4, 5, 7]
    assert len(close_pairs(hashes).rows) == 0


def random_hashes(count, seed=0):
    words, mirrored = np.random.default_rng(seed).integers(0, 2**63, (2, count), dtype=np.uint64)
    return Hashes(words, mirrored, np.ones(count, bool), np.zeros((count, SIDE, SIDE), np.uint8))


def by_brute_force(hashes, bits):
    """Return row a < row b -> bits."""
    found = {}
    for b in np.flatnonzero(hashes.usable).tolist():
        for a in np.flatnonzero(hashes.usable[:b]).tolist():
            word, others = int(hashes.words[a]), (int(hashes.words[b]), int(hashes.mirrored[b]))
            least = min(bin(word ^ other).count("1") for other in others)
            if least <= bits:
                found[a, b] = least
    return found


@each("bits", [0, 1, 3, 4, 7, 10, 11])
def test_all_pairs_within_some_bits_are_found_as_by_brute_force(bits):
    rng = np.random.default_rng(bits)
    hashes = random_hashes(160)
    for row in range(60, 160):  # copies of others, directly or mirrored, with up to 12 other bits
        flipped = sum(1 << int(bit) for bit in rng.permutation(64)[: rng.integers(0, 13)])
        part = hashes.words if row % 2 else hashes.mirrored
        part[row] = hashes.words[row - 60] ^ np.uint64(flipped)
    hashes.usable[[2, 70]] = False
    rows, found = pairs_within(hashes, bits)
    expected = by_brute_force(hashes, bits)
    assert {(a, b): n for (a, b), n in zip(rows.tolist(), found.tolist(), strict=True)} == expected
    assert len(expected) > 5 + bits
    assert rows.tolist() == sorted(rows.tolist())


def test_of_too_many_pairs_each_picture_keeps_the_closest():
    hashes = random_hashes(50)
    hashes.words[10:] = hashes.words[10]
    hashes.words[49] ^= np.uint64(1)
    hashes.words[48] = hashes.words[49]
    rows, bits = pairs_within(hashes, 2, most=100)
    assert rows[:, 1].tolist() == list(range(11, 50))
    assert rows[-1].tolist() == [48, 49]
    assert bits.sum() == 1  # of 48; 49 is equal to it


def similar(seed):
    """Return one of two pictures, varied a little."""
    variation = np.random.default_rng(seed).integers(0, 60, (8, 8, 3)).astype(np.uint8)
    varied = Image.fromarray(variation).resize((180, 120), Image.Resampling.BICUBIC)
    return Image.fromarray(np.asarray(scene(seed % 2)) // 2 + np.asarray(varied) // 2)


def test_of_similar_pictures_with_close_hashes_only_copies_are_named():
    pictures = [similar(seed) for seed in range(60)]
    pictures += [EDITS["brighter"](pictures[4]), EDITS["mirrored"](pictures[9])]
    hashes = hashes_of(thumbnails(pictures))
    assert len(pairs_within(hashes, MOST_BITS)[0]) > 30
    assert close_pairs(hashes).rows.tolist() == [[4, 60], [9, 61]]


def test_few_or_uniform_pictures_are_not_compared():
    pixels = thumbnails([scene(1)] * LEAST_IMAGES)
    for few in (pixels[:0], pixels[:1], pixels[:-1], np.full_like(pixels, 7)):
        found = close_pairs(hashes_of(few))
        assert (len(found.rows), len(found.bits), len(found.cosines), found.threshold) == (0, 0, 0, None)
    same = close_pairs(hashes_of(pixels))  # all equal: nothing tells what different pictures are
    assert (len(same.rows), same.threshold) == (0, LOWEST)


def test_hashes_are_joined_and_taken():
    one, other = random_hashes(5), random_hashes(3, seed=1)
    both = one.joined(other)
    assert len(both) == 8
    assert both.take(np.array([6])).words == pytest.approx(other.words[1:2])
