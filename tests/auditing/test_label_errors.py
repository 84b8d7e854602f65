import numpy as np
import pytest

from bottleneck.auditing.label_errors import (
    copies_joined,
    find_label_errors,
    find_label_errors_again,
    label_neighbours,
    margin,
    off_diagonal,
)
from bottleneck.auditing.out_of_fold import OutOfFoldProbabilities, out_of_fold_probabilities
from bottleneck.auditing.selection import Selected
from bottleneck.evaluation.neighbours import NOBODY
from tests.auditing.blobs import blobs, flipped
from tests.variants import each

FIXED = Selected({"C": 0.1}, "shrunk")


def found_in(features, labels, groups=None, k=30):
    probabilities = out_of_fold_probabilities(features, labels, groups=groups, selected=FIXED)
    return find_label_errors(probabilities, label_neighbours(features, groups, k).rows)


def given(probabilities, codes):
    """Return probabilities as if they were out-of-fold."""
    p, n = np.array(probabilities, float), len(codes)
    classes = tuple("abcdefgh"[: p.shape[1]])
    return OutOfFoldProbabilities(
        classes, np.array(codes), p, np.ones(n, bool), np.zeros(n, int), 1, FIXED, np.array(codes)
    )


def test_flipped_labels_are_named_first_with_the_right_suggestion():
    features, truth = blobs([60, 60, 60], apart=6.0)
    labels, wrong = flipped(truth, 0.1)
    found = found_in(features, labels)

    assert wrong[found.rows].all()
    assert len(found.rows) >= 15
    assert set(found.ranking[: wrong.sum()]) == set(np.flatnonzero(wrong))
    assert len(found.ranking) == 180
    for error in found.errors:
        assert (error.label, error.suggested) == (labels[error.row], truth[error.row])
        assert error.score == found.scores[error.row]
        assert error.self_confidence < 0.3 < 0.6 < error.probability
        assert error.label_share < 0.3 < 0.7 < error.suggested_share
    assert [error.score for error in found.errors] == sorted((error.score for error in found.errors), reverse=True)
    assert repr(found) == f"<LabelErrors: {len(found.errors)} probable errors among 180 images>"


def test_clean_labels_have_no_probable_errors():
    features, labels = blobs([60, 60, 60], apart=8.0)
    found = found_in(features, labels)

    assert found.errors == ()
    assert (found.scores < 0).all()


def test_the_score_is_that_of_the_formula():
    # Image 0 of class a: its neighbours 1, 2 and 3 (three of its class's six vote) have labels a, b, b.
    codes = [0, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    p = np.tile([0.36, 0.64], (10, 1))
    rows = np.tile([1, 2, 3, 6, 7], (10, 1))
    found = find_label_errors(given(p, codes), rows)
    v_a, v_b = (1 + 0.6) / 4, (2 + 0.4) / 4

    assert found.scores[0] == pytest.approx(0.8 - 0.6 + (np.sqrt(v_b) - np.sqrt(v_a)) / 2)
    assert found.suggested.tolist() == [1 - code for code in codes]


def test_the_label_of_its_neighbours_protects_an_unusual_image():
    p = [[0.1, 0.9], *[[0.9, 0.1]] * 7, *[[0.1, 0.9]] * 8]
    codes = [0] * 8 + [1] * 8
    own, other = ([[*range(first, first + 4)]] * 16 for first in (1, 9))

    def named(rows):
        return find_label_errors(given(p, codes), np.array(rows)).rows

    assert named(own).tolist() == []
    assert named(other).tolist() == [0]


def random_case(seed):
    random = np.random.default_rng(seed)
    k = int(random.integers(2, 6))
    codes = np.concatenate([np.arange(k), random.integers(0, k, 200)])
    scores = random.normal(size=(len(codes), k)) * random.uniform(0.5, 3)
    truth = np.where(random.random(len(codes)) < 0.2, random.integers(0, k, len(codes)), codes)
    scores[np.arange(len(codes)), truth] += 3
    powers = np.exp(scores)
    return powers / powers.sum(axis=1, keepdims=True), codes


@each("seed", range(8))
def test_confident_learning_and_the_margin_are_those_of_cleanlab(seed):
    pytest.importorskip("cleanlab")
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    p, codes = random_case(seed)
    issues = find_label_issues(codes, p, filter_by="confident_learning", n_jobs=1)
    quality = {
        name: get_label_quality_scores(codes, p, method=name) for name in ("self_confidence", "normalized_margin")
    }

    assert 0 < issues.sum() < len(codes)
    assert off_diagonal(p, codes).tolist() == np.flatnonzero(issues).tolist()
    assert given(p, codes).self_confidence == pytest.approx(quality["self_confidence"], abs=1e-12)
    assert margin(p, codes) == pytest.approx(1 - 2 * quality["normalized_margin"], abs=1e-12)


def test_copies_and_images_of_a_group_are_no_neighbours():
    features, _ = blobs([6, 6])
    features[3] = features[0]
    features[5] = features[4]
    groups = ["x" if row in (0, 7) else "y" if row in (7, 8, 4) else None for row in range(12)]
    joined = copies_joined(features, groups)
    neighbours = label_neighbours(features, groups, k=11).rows

    assert [set(np.flatnonzero(joined == joined[row])) for row in (0, 4, 1)] == [{0, 3, 7}, {4, 5, 8}, {1}]
    for row in range(12):
        rows = set(neighbours[row]) - {NOBODY}
        assert rows == set(np.flatnonzero(joined != joined[row]))


def test_a_copy_with_the_wrong_label_does_not_vote_for_itself():
    features, labels = blobs([40, 40], apart=6.0)
    first, second = [row for row, label in enumerate(labels) if label == "c0"][:2]
    features[second] = features[first]
    labels[first] = labels[second] = "c1"
    groups = [f"{row}" for row in copies_joined(features)]

    assert set(found_in(features, labels, groups).rows) == {first, second}


def test_more_neighbours_than_images_and_one_image_classes():
    features, labels = blobs([9, 8, 1], apart=6.0)
    found = found_in(features, labels, k=50)
    alone = labels.index("c2")

    assert np.isnan(found.scores).tolist() == [label == "c2" for label in labels]
    assert found.suggested[alone] == -1
    assert len(found.ranking) == 17
    assert alone not in found.ranking
    assert found.errors == ()


def test_images_that_are_all_equal_are_not_named():
    found = found_in(np.ones((20, 4), np.float32), ["a"] * 12 + ["b"] * 8)

    assert found.errors == ()
    assert np.isfinite(found.scores).all()


def test_two_images_of_a_class_and_one_of_another():
    found = found_in(np.eye(3, dtype=np.float32), ["a", "a", "b"])

    assert found.errors == ()
    assert np.isnan(found.scores).tolist() == [False, False, True]


def test_a_second_list_is_better_than_the_first():
    features, truth = blobs([80, 80, 80], apart=3.0)
    labels, wrong = flipped(truth, 0.25)
    neighbours = label_neighbours(features).rows
    probabilities = out_of_fold_probabilities(features, labels, selected=FIXED)
    first = find_label_errors(probabilities, neighbours)
    second = find_label_errors_again(features, probabilities, neighbours)

    def mistakes(found):
        corrected = np.array(labels, object)
        corrected[found.rows] = [error.suggested for error in found.errors]
        return (corrected != np.array(truth, object)).sum()

    assert 0 < mistakes(second) < mistakes(first) < wrong.sum()
    assert [error.label for error in second.errors] == [labels[row] for row in second.rows]


def test_without_errors_the_second_list_is_the_first():
    features, labels = blobs([40, 40], apart=8.0)
    neighbours = label_neighbours(features).rows
    probabilities = out_of_fold_probabilities(features, labels, selected=FIXED)

    assert find_label_errors_again(features, probabilities, neighbours).errors == ()


def test_a_class_is_not_corrected_away():
    # All images of class c2 look like c1, so that most of them are named.
    features, labels = blobs([40, 60], apart=6.0)
    for row in [row for row, label in enumerate(labels) if label == "c1"][:4]:
        labels[row] = "c2"
    neighbours = label_neighbours(features).rows
    probabilities = out_of_fold_probabilities(features, labels, selected=FIXED)
    first = find_label_errors(probabilities, neighbours)
    second = find_label_errors_again(features, probabilities, neighbours)

    assert np.isfinite(second.scores).all()
    assert sum(error.label == "c2" for error in first.errors) >= 2
    assert second.rows.tolist() == first.rows.tolist()
