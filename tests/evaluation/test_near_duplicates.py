from pathlib import Path

import numpy as np
import pytest

from bottleneck.evaluation.copy_threshold import HIGHEST, LEAST_IMAGES, LOWEST
from bottleneck.evaluation.flattening import Flattening
from bottleneck.evaluation.near_duplicates import (
    NearDuplicates,
    find_near_duplicates,
    near_duplicates,
    near_duplicates_within,
    threshold_of,
)
from bottleneck.evaluation.perceptual_hash import hashes_of
from tests.evaluation.test_leakage import dataset
from tests.evaluation.test_perceptual_hash import scene, thumbnails
from tests.variants import each

DIM = 64


def photographs(count, seed=0, dim=DIM):
    """Return features of different images of three classes, far from each other and from 0."""
    rng = np.random.default_rng(seed)
    classes = 8 * np.random.default_rng(9).normal(size=(3, dim))
    return (30 + classes[rng.integers(0, 3, count)] + rng.normal(size=(count, dim))).astype(np.float32)


def edited(features, size=0.1):
    return features + size * np.random.default_rng(7).normal(size=features.shape).astype(np.float32)


def test_only_copies_with_a_little_noise_are_found_the_most_similar_first():
    train, heldout = photographs(200), photographs(80, seed=1)
    heldout[9], heldout[5] = edited(train[31], 0.1), edited(train[30], 0.3)
    found = near_duplicates(train, heldout)
    assert found.rows.tolist() == [[31, 9], [30, 5]]
    assert found.threshold <= found.cosines[1] < found.cosines[0] <= 1 + 1e-6
    assert LOWEST <= found.threshold < HIGHEST
    assert 0 < found.usual < found.threshold


def test_the_cosines_are_those_of_brute_force():
    train, heldout = photographs(150), photographs(40, seed=1)
    heldout[:20] = edited(train[:20])
    found = near_duplicates(train, heldout)
    flat = Flattening.of(train, heldout)
    cosines = flat.unit_rows(heldout) @ flat.unit_rows(train).T
    within = flat.unit_rows(train) @ flat.unit_rows(train).T
    np.fill_diagonal(within, -1)
    z = np.arctanh(within.max(axis=1))
    deviations = 7 * (1 + 10 / 150) * np.median(np.abs(z - np.median(z)))
    assert found.usual == pytest.approx(np.tanh(np.median(z)), abs=1e-5)
    assert found.threshold == pytest.approx(np.tanh(np.median(z) + deviations), abs=1e-5)
    assert sorted(found.rows[:, 1]) == list(range(20))
    assert found.cosines == pytest.approx(cosines.max(axis=1)[found.rows[:, 1]], abs=1e-5)


@each("scale, shift", [(1.0, 0.0), (1e-12, 0.0), (5e36, 0.0), (-5e36, 0.0), (1.0, 300.0)])
def test_neither_the_scale_nor_the_origin_of_the_features_matters(scale, shift):
    train, heldout = photographs(100), photographs(30, seed=1)
    heldout[3] = edited(train[40])
    found = near_duplicates(
        (train * np.float32(scale) + np.float32(shift)), heldout * np.float32(scale) + np.float32(shift)
    )
    assert found.rows.tolist() == [[40, 3]]


def test_all_pairs_of_a_set_are_found_once_in_any_order_of_its_rows():
    features = photographs(120)
    features[100], features[101] = edited(features[7]), edited(features[7], 0.15)
    found = near_duplicates_within(features)
    pairs = {frozenset(pair) for pair in found.rows.tolist()}
    assert pairs == {frozenset(pair) for pair in ((7, 100), (7, 101), (100, 101))}
    assert (found.rows[:, 0] < found.rows[:, 1]).all()

    order = np.random.default_rng(3).permutation(120)
    again = near_duplicates_within(features[order])
    assert {frozenset(order[pair].tolist()) for pair in again.rows} == pairs
    assert again.threshold == pytest.approx(found.threshold, abs=1e-4)


# --- sets that tell little, or are full of copies ----------------------------------------------------------------


@each("count", [0, 1, 2, LEAST_IMAGES - 1])
def test_with_few_images_near_duplicates_are_not_searched(count):
    same = np.ones((count, DIM), np.float32)
    for found in (near_duplicates(same, same[:1]), near_duplicates_within(same)):
        assert (found.rows.shape, found.threshold, found.usual) == ((0, 2), None, None)


def test_without_held_out_images_nothing_is_found():
    found = near_duplicates(photographs(50), np.zeros((0, DIM), np.float32))
    assert found.rows.shape == (0, 2)
    assert found.threshold is not None


def test_equal_features_of_all_images_tell_nothing():
    same = np.full((40, DIM), 0.1, np.float32)
    with np.errstate(all="raise", under="ignore"):
        found = near_duplicates(same, same)
    assert (len(found.rows), found.threshold, found.usual) == (0, None, None)

    one_number = np.random.default_rng(0).normal(size=(40, 1)).astype(np.float32)
    for features in (one_number, one_number * np.float32(1e38), np.vstack([same, photographs(20)])):
        with np.errstate(all="raise", under="ignore"):
            found = near_duplicates_within(features)
        assert (len(found.rows), found.threshold) == (0, None)
        assert found.usual == pytest.approx(1, abs=1e-5)


@each("wrong", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_no_copies_and_change_nothing_else(wrong):
    train, heldout = photographs(100, seed=2), photographs(30, seed=3)
    heldout[3], heldout[4], train[9] = edited(train[40]), wrong, wrong
    assert near_duplicates(train, heldout).rows.tolist() == [[40, 3]]
    assert near_duplicates(np.full_like(train, wrong), heldout).threshold is None


@each("dim", [16, DIM, 600])
def test_random_features_have_almost_no_copies(dim):
    named = sum(len(near_duplicates_within(photographs(60, seed, dim)).rows) > 0 for seed in range(20))
    assert named <= (4 if dim == 16 else 1)  # few numbers are similar by chance


def test_a_third_of_copies_is_found_and_does_not_hide_itself():
    train = photographs(150)
    found = near_duplicates_within(np.concatenate([train, edited(train[:50])]))
    assert {tuple(pair) for pair in found.rows.tolist()} == {(row, 150 + row) for row in range(50)}


def test_where_most_images_are_copies_this_is_reported_and_only_the_closest_are_named():
    train = photographs(100)
    found = near_duplicates_within(np.concatenate([train, edited(train[:80], 0.15)]))
    assert found.threshold == HIGHEST
    assert {b - a for a, b in found.rows.tolist()} == {100}  # no different images
    near = NearDuplicates((), found.threshold, found.usual)
    assert near.alike
    assert near.message(Path("photos")).startswith("Most training images are as similar to another one as edited")
    assert NearDuplicates((), 0.7, 0.5).message(Path("photos")) == ""


def test_images_of_one_group_do_not_raise_the_threshold():
    scenes = photographs(40)
    frames = np.concatenate([edited(scenes, 0.1), edited(scenes[:, ::-1], 0.1)[:, ::-1], scenes])
    groups = [f"scene {row % 40}" for row in range(120)]
    heldout = photographs(10, seed=5)
    heldout[2] = edited(scenes[6], 0.3)
    assert near_duplicates(frames, heldout).usual > 0.9
    found = near_duplicates(frames, heldout, groups=groups)
    assert found.rows[:, 1].tolist() == [2]
    assert found.usual < 0.8
    assert near_duplicates(frames, heldout, groups=["all"] * 120).threshold is None


def test_a_row_is_not_compared_with_its_group_nor_with_itself():
    unit = np.eye(40, dtype=np.float32)
    unit[1] = unit[0]
    threshold, usual = threshold_of(unit, np.arange(40))
    assert (threshold, usual) == (pytest.approx(LOWEST), 0.0)


# --- datasets -----------------------------------------------------------------------------------------------------


def pictures(prefix, count, split, first):
    return [(f"{prefix}{row}", chr(first + row), "x", split, None) for row in range(count)]


def test_exact_copies_are_no_near_duplicates_and_hashes_add_to_features():
    features = photographs(30)
    train = dataset(*pictures("t", 30, "train", 40))
    heldout = dataset(("h0", chr(40), "x", "test", None), *pictures("h", 4, "test", 90)[1:])
    others = photographs(4, seed=1)
    others[0], others[2] = features[0], edited(features[5])
    found = find_near_duplicates(train, features, heldout, others)
    assert [pair[:2] for pair in found.pairs] == [("t5", "h2")]
    assert found.pairs[0][2] == pytest.approx(1, abs=0.02)
    message = found.message(Path("images"))
    assert "1 held-out image has a near duplicate" in message
    assert "h2 is like t5 (" in message

    pixels = thumbnails([scene(seed) for seed in range(34)])
    pixels[[30, 32, 33]] = pixels[[0, 5, 8]]  # the copies, and one that its features do not show
    hashes = hashes_of(pixels)
    some = hashes.take(np.arange(30)), hashes.take(np.arange(30, 34))
    more = find_near_duplicates(train, features, heldout, others, some)
    assert [pair[:2] for pair in more.pairs] == [("t5", "h2"), ("t8", "h3")]
    assert more.pairs[1][2] < found.threshold == more.threshold


def test_a_message_names_two_pairs_by_relative_paths_and_counts_the_others():
    pairs = tuple((f"photos/a/t{n}", f"photos/a/h{n}", 0.95) for n in range(5))
    message = NearDuplicates(pairs, 0.7).message(Path("photos").absolute())
    assert "5 held-out images have" in message
    assert ": a/h0 is like a/t0 (0.95), a/h1 is like a/t1 (0.95) and 3 more. Give" in message
