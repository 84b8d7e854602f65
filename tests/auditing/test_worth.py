import json

import numpy as np
import pytest

from bottleneck.auditing.selection import Selected
from bottleneck.auditing.worth import Change, gain_interval, worth_of
from bottleneck.errors import HeadError
from bottleneck.heads.folds import divide
from bottleneck.utils.quantiles import NORMAL
from tests.auditing.blobs import blobs, flipped
from tests.variants import case, each

FIXED = Selected({"C": 0.3}, "shrunk")
NOTHING = np.zeros(0, np.intp)


def test_wrong_labels_are_worth_removing_or_correcting():
    features, truth = blobs([70, 70, 70], apart=3.0)
    labels, wrong = flipped(truth, 0.3)
    rows = np.flatnonzero(wrong)
    right = [truth[row] for row in rows]
    removed, corrected = worth_of(
        features, labels, [Change("remove", rows), Change("correct", rows, right)], selected=FIXED
    )

    for found in (removed, corrected):
        low, high = found.ci95
        assert 0 < low < found.gain < high
        assert 0.02 < found.gain < 0.3
        assert (found.images, found.tested, found.used, found.divisions) == (63, 147, 210, 3)
        assert 0.6 < found.accuracy < 0.95
    assert removed.accuracy == corrected.accuracy
    assert json.loads(json.dumps(removed.to_json()))["ci95"] == list(removed.ci95)
    assert repr(removed).startswith("<Worth: remove, +")


def test_each_change_is_measured_on_its_own():
    features, labels = blobs([40, 40], apart=1.5)
    some = Change("some", np.arange(8))
    together = worth_of(features, labels, [some, Change("nothing", NOTHING)], selected=FIXED)
    (alone,) = worth_of(features, labels, [some], selected=FIXED)

    assert together[0] == alone
    assert (together[1].gain, together[1].ci95, together[1].images) == (0, (0, 0), 0)


def test_a_gain_is_that_of_cross_validation_by_hand():
    # Centroids of features as they are, with a single division, and classes of equal size before and after.
    features, labels = blobs([2500, 2500], d=2, apart=2.0)
    codes = np.array([int(label[1]) for label in labels])
    rows = np.concatenate([np.flatnonzero(codes == code)[:800] for code in (0, 1)])
    swapped = codes.copy()
    swapped[rows] = 1 - codes[rows]
    change = Change("swap", rows, [f"c{code}" for code in swapped[rows]])
    (found,) = worth_of(features, labels, [change], head="centroid", selected=Selected({}, "none"))
    fold = divide(codes, None, 10, 0).tested
    right = {}
    for name, new in (("before", codes), ("after", swapped)):
        guessed = np.zeros(5000)
        for test in range(10):
            of_class = [features[(fold != test) & (new == code)].mean(axis=0) for code in (0, 1)]
            apart = [np.square(features - centre).sum(axis=1) for centre in of_class]
            guessed = np.where(fold == test, np.argmin(apart, axis=0), guessed)
        right[name] = np.delete(guessed == codes, rows).mean()

    assert found.divisions == 1
    assert found.accuracy == pytest.approx(right["before"], abs=1e-3)
    assert found.gain == pytest.approx(right["after"] - right["before"], abs=1e-3)
    assert found.gain != 0


def test_random_images_are_worth_nothing():
    features, labels = blobs([200, 200], apart=3.0)
    rows = np.random.default_rng(1).choice(400, 20, replace=False)
    (found,) = worth_of(features, labels, [Change("random", rows)], selected=FIXED)

    assert found.ci95[0] < 0 < found.ci95[1]
    assert abs(found.gain) < 0.02


def test_the_interval_is_that_of_agresti_and_min():
    # Table of two heads on 100 images: 9 only right after, 2 only before.
    differences = np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 89)
    low, high = gain_interval(differences[None], np.arange(100))
    b, c, n = 9.5, 2.5, 102
    half = NORMAL * np.sqrt(b + c - (b - c) ** 2 / n) / n

    assert (low + high) / 2 == pytest.approx((b - c) / n)
    assert (high - low) / 2 == pytest.approx(half, rel=0.01)  # here with n / (n - 1), for groups


def test_equal_heads_have_an_interval_that_narrows_with_the_images():
    few, many = (gain_interval(np.zeros((3, n)), np.arange(n)) for n in (10, 1000))

    assert few[0] == -few[1]
    assert 0.1 < few[1] < 0.3
    assert 0.001 < many[1] < 0.003


def test_more_divisions_of_the_same_images_do_not_narrow_it():
    differences = np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 89)
    alone = gain_interval(differences[None], np.arange(100))

    assert gain_interval(np.stack([differences] * 5), np.arange(100)) == pytest.approx(alone)


def test_groups_count_once():
    differences = np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 89)
    alone = gain_interval(differences[None], np.arange(100))
    repeated = gain_interval(np.repeat(differences, 4)[None], np.repeat(np.arange(100), 4))

    assert repeated == pytest.approx(alone)
    assert gain_interval(np.ones((1, 5)), np.zeros(5, int)) == (-1, 1)


def test_images_of_a_group_widen_the_interval():
    features, truth = blobs([15, 15], apart=2.0)
    features, labels = np.repeat(features, 6, axis=0), list(np.repeat(truth, 6))
    random = np.random.default_rng(0)
    features += random.normal(size=features.shape).astype(np.float32) / 10
    labels, wrong = flipped(labels, 0.25)
    groups = [f"g{row // 6}" for row in range(180)]
    change = Change("remove", np.flatnonzero(wrong))
    (found,) = worth_of(features, labels, [change], groups=groups, selected=FIXED)
    (alone,) = worth_of(features, labels, [change], selected=FIXED)

    assert np.diff(found.ci95) > 1.2 * np.diff(alone.ci95)


def test_results_repeat():
    features, labels = blobs([30, 30], apart=2.0)
    first, again = (worth_of(features, labels, [Change("x", np.arange(5))]) for _ in range(2))

    assert first == again


def test_many_images_are_sampled():
    features, labels = blobs([11_000, 9_500, 3], d=3)
    (found,) = worth_of(features, labels, [Change("first", np.arange(500))], head="centroid", selected=FIXED)

    assert found.images == 500
    assert (found.used, found.divisions) == (19_999, 1)
    assert 19_400 < found.tested < 19_600


def test_a_class_that_a_change_removes_is_not_predicted():
    features, labels = blobs([30, 30, 2], apart=6.0)
    rare = np.array([row for row, label in enumerate(labels) if label == "c2"])
    (found,) = worth_of(features, labels, [Change("rare", rare)], selected=FIXED)

    assert found.tested == 60
    assert abs(found.gain) < 0.05


def test_equal_features_are_worth_nothing():
    (found,) = worth_of(
        np.ones((30, 3), np.float32), ["a"] * 20 + ["b"] * 10, [Change("x", np.arange(3))], selected=FIXED
    )

    assert found.gain == 0
    assert found.accuracy == pytest.approx(17 / 27)


@each(
    "rows, labels, message",
    [
        ([12], None, "rows from 0 to 11 in the change 'x', got [12]"),
        ([-1], None, "rows from 0 to 11"),
        ([0], ["z"], "of which unknown: z"),
        ([0, 1], ["a"], "for each of 2 rows of the change 'x', got 1"),
        (range(6), None, "two classes or more to be left by the change 'x'"),
        (range(12), ["b"] * 6 + ["a"] * 6, "images that no change names"),
    ],
)
def test_a_change_that_cannot_be_made_is_an_error(rows, labels, message):
    features = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    with pytest.raises(HeadError) as raised:
        worth_of(features, ["a"] * 6 + ["b"] * 6, [Change("x", np.array(rows), labels)], selected=FIXED)

    assert message in str(raised.value)


def test_features_that_are_not_finite_and_a_single_class_are_errors():
    features = np.zeros((4, 2), np.float32)
    for x, labels, message in [
        (features, ["a"] * 4, "at least two classes"),
        (np.full_like(features, np.nan), ["a", "a", "b", "b"], "finite features"),
        (features[:2], ["a", "b"], "a class with at least two training images"),
    ]:
        with case(message), pytest.raises(HeadError, match=message):
            worth_of(x, labels, [Change("x", NOTHING)], selected=FIXED)
