import numpy as np
import pytest

from bottleneck.auditing.out_of_fold import _probabilities, out_of_fold_probabilities
from bottleneck.auditing.selection import Selected, select
from bottleneck.errors import HeadError
from bottleneck.heads.arrays import Arrays
from bottleneck.heads.family import family
from bottleneck.heads.features import InMemoryFeatures
from bottleneck.heads.folds import Folds
from bottleneck.heads.options import HeadOptions
from bottleneck.heads.problem import Problem
from tests.auditing.blobs import blobs, flipped
from tests.variants import case, each

FIXED = Selected({"C": 0.1}, "shrunk")


def test_probabilities_are_calibrated_and_know_nothing_of_their_own_label():
    features, truth = blobs([150, 150, 100], apart=3.0)
    labels, wrong = flipped(truth, 0.1)
    found = out_of_fold_probabilities(features, labels, selected=FIXED)
    own = found.self_confidence

    assert found.classes == ("c0", "c1", "c2")
    assert np.array(found.classes)[found.codes].tolist() == labels
    assert found.probabilities.sum(axis=1) == pytest.approx(np.ones(400))
    assert found.accuracy == pytest.approx((found.probabilities.argmax(axis=1) == found.codes).mean())
    assert found.probabilities.max(axis=1).mean() == pytest.approx(found.accuracy, abs=0.05)
    assert own[wrong].mean() < 0.2 < 0.75 < own[~wrong].mean()
    assert found.tested.all()
    assert (found.divisions, sorted(set(found.folds))) == (3, [0, 1, 2, 3, 4])


def test_the_search_chooses_for_all_rows():
    features, labels = blobs([90, 90])
    by_hand = HeadOptions().search_head("logistic", features, labels, None, "")

    assert select(features, labels) == Selected(by_hand.params, by_hand.normalize)
    assert out_of_fold_probabilities(features, labels).selected == select(features, labels)


def test_a_search_on_some_rows_weighs_them_as_all():
    features, labels = blobs([4000, 4000], d=4)
    found = select(features, labels, options=HeadOptions(C=(0.02,), normalize="none"))

    assert found.params["C"] == pytest.approx(0.02)


@each("head", ["logistic", "svm", "ridge", "centroid", "knn"])
def test_every_head_gives_probabilities(head):
    features, labels = blobs([30, 40, 30], apart=6.0)
    found = out_of_fold_probabilities(features, labels, head=head)

    assert np.isfinite(found.probabilities).all()
    assert found.accuracy > 0.95


def test_results_repeat_and_depend_on_the_seed():
    features, labels = blobs([30, 40], apart=1.5)
    first, again = (out_of_fold_probabilities(features, labels, selected=FIXED) for _ in range(2))
    other = out_of_fold_probabilities(features, labels, selected=FIXED, options=HeadOptions(seed=1))

    assert (first.probabilities == again.probabilities).all()
    assert (first.probabilities != other.probabilities).any()


def test_the_only_image_or_group_of_a_class_is_not_tested():
    features, labels = blobs([40, 40, 1, 6], apart=6.0)
    groups = ["scene" if label == "c3" else None for label in labels]
    found = out_of_fold_probabilities(features, labels, groups=groups, selected=FIXED)
    untested = np.array([label in ("c2", "c3") for label in labels])

    assert (found.tested == ~untested).all()
    assert (found.folds[untested] == -1).all()
    assert np.isnan(found.probabilities[untested]).all()
    assert np.isfinite(found.probabilities[~untested]).all()
    assert found.accuracy > 0.95


def test_an_image_whose_class_is_absent_from_its_fold_is_not_tested():
    # Division into folds avoids this where it can, so these folds are made here.
    features, labels = blobs([20, 20, 2], apart=6.0)
    codes = np.array([int(label[1]) for label in labels])
    tested = np.where(codes == 2, 0, np.arange(42) % 2)
    folds = Folds(tested=tested, trained=np.arange(2) != tested[:, None])
    problem = Problem(table=InMemoryFeatures(features), codes=codes, count=3, folds=folds, arrays=Arrays("cpu"))
    found = dict(zip(("first", "second"), _probabilities(problem, family("logistic"), {"C": 0.1}, codes), strict=True))

    assert found["first"][0].tolist() == np.flatnonzero((tested == 0) & (codes != 2)).tolist()
    assert found["second"][0].tolist() == np.flatnonzero(tested == 1).tolist()
    assert (found["first"][1][:, 2] == 0).all()
    assert (found["second"][1][:, 2] > 0).all()


def test_images_of_a_group_are_tested_by_one_fold():
    features, labels = blobs([40, 40])
    groups = [f"g{row // 4}" for row in range(80)]
    found = out_of_fold_probabilities(features, labels, groups=groups, selected=FIXED)

    assert all(len(set(found.folds[start : start + 4])) == 1 for start in range(0, 80, 4))


def test_equal_features_have_the_class_frequencies():
    labels = ["a"] * 30 + ["b"] * 10
    found = out_of_fold_probabilities(np.ones((40, 5), np.float32), labels, selected=FIXED)

    assert found.probabilities == pytest.approx(np.tile([0.75, 0.25], (40, 1)), abs=0.01)
    assert found.accuracy == 0.75


def test_three_images_of_two_classes():
    found = out_of_fold_probabilities(np.eye(3, dtype=np.float32), ["a", "a", "b"], selected=FIXED)

    assert found.tested.tolist() == [True, True, False]
    assert np.isfinite(found.probabilities[:2]).all()


def test_what_cannot_be_cross_validated_is_an_error():
    features = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    nan = features.copy()
    nan[2, 1] = np.nan
    for rows, labels, message in [
        (features, ["a"] * 4, "at least two classes, found ['a']"),
        (features[:0], [], "at least two classes, found []"),
        (features[:2], ["a", "b"], "a class with at least two training images"),
        (features, ["a", "b"], "a row of features for each of 2 labels, got (4, 3)"),
        (nan, ["a", "a", "b", "b"], "finite features, found NaN or infinity in row 2"),
    ]:
        with case(labels, message), pytest.raises(HeadError) as raised:
            out_of_fold_probabilities(rows, labels, selected=FIXED)
        assert message in str(raised.value)
