import numpy as np
import pytest
from sklearn.calibration import _SigmoidCalibration

from bottleneck.heads.calibration import calibrate
from bottleneck.heads.head import softmax


def sharpness(scores: np.ndarray, codes: np.ndarray) -> float:
    found = calibrate(scores, codes)
    assert not found.offset.any()
    return found.sharpness


@pytest.mark.parametrize("factor", [0.01, 0.3, 1.0, 4.0, 300.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_a_known_sharpness_is_recovered(factor, classes):
    random = np.random.default_rng(0)
    scores = random.normal(size=(20_000, classes)) / factor * 2
    codes = (softmax(factor * scores).cumsum(axis=1) > random.random((20_000, 1))).argmax(axis=1)

    assert sharpness(scores, codes) == pytest.approx(factor, rel=0.05)


def test_scores_of_another_scale_have_another_sharpness():
    random = np.random.default_rng(0)
    scores = random.normal(size=(500, 3))
    codes = (softmax(scores).cumsum(axis=1) > random.random((500, 1))).argmax(axis=1)

    assert sharpness(scores * 1000, codes) == pytest.approx(sharpness(scores, codes) / 1000, rel=1e-4)


def test_the_mean_confidence_is_the_accuracy():
    random = np.random.default_rng(0)
    scores = random.normal(size=(300, 3))
    codes = (softmax(2 * scores).cumsum(axis=1) > random.random((300, 1))).argmax(axis=1)
    right = int((scores.argmax(axis=1) == codes).sum())

    confidence = calibrate(scores, codes)(scores).max(axis=1).mean()
    assert confidence == pytest.approx((right + 1 / 3) / 301, rel=1e-6)  # one more could be any class


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("n", [4, 80, 1000])
@pytest.mark.parametrize("margin", [1e-3, 1.0, 1e3])
def test_images_that_are_all_right_do_not_make_it_certain(classes, n, margin):
    codes = np.arange(n) % classes
    scores = margin * np.eye(classes)[codes]
    probabilities = softmax(sharpness(scores, codes) * scores)[np.arange(n), codes]

    # n right ones, and one more that could be any class
    np.testing.assert_allclose(probabilities, (n + 1 / classes) / (n + 1), rtol=1e-6)


def test_classes_that_a_fold_did_not_know_do_not_count():
    random = np.random.default_rng(0)
    scores = random.normal(size=(20_000, 3)) * 2
    codes = (softmax(scores).cumsum(axis=1) > random.random((20_000, 1))).argmax(axis=1)
    wide = np.column_stack([scores, np.full(20_000, -1e30)])

    assert sharpness(wide, codes) == pytest.approx(sharpness(scores, codes), rel=1e-3)


def test_an_image_of_a_class_that_its_fold_did_not_know_does_not_blunt_all():
    random = np.random.default_rng(0)
    scores = random.normal(size=(1000, 3)) * 2
    codes = (softmax(scores).cumsum(axis=1) > random.random((1000, 1))).argmax(axis=1)
    expected = sharpness(scores, codes)
    scores[0, codes[0]] = -1e30

    assert sharpness(scores, codes) == pytest.approx(expected, rel=0.2)


def test_scores_that_are_worse_than_chance_are_blunted():
    random = np.random.default_rng(0)
    scores = random.normal(size=(500, 3))

    assert 0 < sharpness(scores, scores.argmin(axis=1)) < 1e-3


@pytest.mark.parametrize("scores", [np.zeros((10, 2)), np.full((10, 2), 5.0), np.tile([1e-30, 0.0], (10, 1))])
def test_scores_that_say_nothing_have_a_finite_sharpness(scores):
    found = sharpness(scores, np.array([0, 1] * 5))

    assert np.isfinite(found)
    assert found > 0


# --- Platt's sigmoid --------------------------------------------------------------------------------------------


def margins(n: int, slope: float, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (n, 2) whose difference m means class 1 with probability 1 / (1 + exp(-slope m - offset))."""
    random = np.random.default_rng(0)
    difference = random.normal(size=n)
    codes = (1 / (1 + np.exp(-slope * difference - offset)) > random.random(n)).astype(int)
    return np.stack([-difference / 2, difference / 2], axis=1), codes


@pytest.mark.parametrize(("slope", "offset"), [(3.0, 0.0), (0.5, 1.0), (5.0, -2.0)])
def test_a_known_sigmoid_is_recovered(slope, offset):
    scores, codes = margins(40_000, slope, offset)
    found = calibrate(scores, codes, platt=True)

    assert found.sharpness == pytest.approx(slope, rel=0.05)
    assert found.offset[1] - found.offset[0] == pytest.approx(offset, abs=0.05)


def test_the_sigmoid_is_scikit_learns():
    scores, codes = margins(200, 3.0, 0.7)
    theirs = _SigmoidCalibration().fit(scores[:, 1] - scores[:, 0], codes)
    ours = calibrate(scores, codes, platt=True)(scores)[:, 1]

    np.testing.assert_allclose(ours, theirs.predict(scores[:, 1] - scores[:, 0]), atol=1e-4)


@pytest.mark.parametrize("slope", [1e-4, 1.0, 1e4])
def test_classes_that_are_apart_do_not_make_the_sigmoid_certain(slope):
    codes = np.arange(20) % 2
    scores = slope * np.eye(2)[codes]
    probabilities = calibrate(scores, codes, platt=True)(scores)[np.arange(20), codes]

    np.testing.assert_allclose(probabilities, 11 / 12, rtol=1e-4)  # Platt's targets


def test_a_sigmoid_never_turns_the_classes_round():
    scores, codes = margins(500, 3.0, 0.0)

    assert calibrate(scores, 1 - codes, platt=True).sharpness > 0


def test_more_than_two_classes_have_no_offset():
    random = np.random.default_rng(0)

    assert not calibrate(random.normal(size=(50, 3)), np.arange(50) % 3, platt=True).offset.any()


# --- weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("platt", [False, True])
def test_an_image_of_weight_two_counts_as_two(platt):
    scores, codes = margins(100, 2.0, 0.3)
    weights = np.where(codes == 1, 2.0, 1.0)
    twice = np.concatenate([np.arange(100), np.flatnonzero(codes == 1)])
    one = calibrate(scores, codes, platt=platt, weights=weights)
    other = calibrate(scores[twice], codes[twice], platt=platt)

    assert one.sharpness == pytest.approx(other.sharpness, rel=0.1)
    np.testing.assert_allclose(one.offset, other.offset, atol=0.1)


def test_no_images_leave_the_scores_as_they_are():
    found = calibrate(np.zeros((0, 3)), np.zeros(0, int))

    assert (found.sharpness, found.offset.tolist()) == (1.0, [0, 0, 0])
