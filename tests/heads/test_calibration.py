import numpy as np
import pytest
from scipy.optimize import minimize

from bottleneck.heads.calibration import calibrate, calibrated_loss, prior_offset
from bottleneck.heads.head import softmax
from tests.variants import each


@each("factor", [0.01, 0.3, 1.0, 4.0, 300.0])
@each("classes", [2, 5])
def test_a_known_sharpness_is_recovered(factor, classes):
    random = np.random.default_rng(0)
    scores = random.normal(size=(10_000, classes)) / factor * 2
    codes = (softmax(factor * scores).cumsum(axis=1) > random.random((10_000, 1))).argmax(axis=1)

    assert calibrate(scores, codes) == pytest.approx(factor, rel=0.05)


def test_scores_of_another_scale_have_another_calibrate():
    random = np.random.default_rng(0)
    scores = random.normal(size=(500, 3))
    codes = (softmax(scores).cumsum(axis=1) > random.random((500, 1))).argmax(axis=1)

    assert calibrate(scores * 1000, codes) == pytest.approx(calibrate(scores, codes) / 1000, rel=1e-4)


def test_the_factor_is_the_most_likely_one_of_the_images_and_one_more():
    random = np.random.default_rng(0)
    scores = random.normal(size=(300, 3))
    codes = (softmax(2 * scores).cumsum(axis=1) > random.random((300, 1))).argmax(axis=1)

    def loss(factor):
        logs = np.log(softmax(factor * scores))
        of_all = factor * scores.mean(axis=1) - np.log(np.exp(factor * scores).sum(axis=1))  # of any class
        return -(300 * logs[np.arange(300), codes].mean() + of_all.mean()) / 301

    factors = np.linspace(1, 3, 2001)
    assert calibrate(scores, codes) == pytest.approx(factors[np.argmin([loss(one) for one in factors])], abs=1e-3)


def test_images_that_two_divisions_have_tested_count_once():
    random = np.random.default_rng(0)
    scores = random.normal(size=(12, 3))
    codes = (softmax(2 * scores).cumsum(axis=1) > random.random((12, 1))).argmax(axis=1)

    twice = calibrate(np.tile(scores, (2, 1)), np.tile(codes, 2), divisions=2)
    assert twice == pytest.approx(calibrate(scores, codes), rel=1e-6)


def test_the_loss_is_that_of_the_calibrated_scores_for_any_scale():
    random = np.random.default_rng(0)
    scores = random.normal(size=(500, 3))
    codes = (softmax(scores).cumsum(axis=1) > random.random((500, 1))).argmax(axis=1)
    own = softmax(calibrate(scores, codes) * scores)[np.arange(500), codes]

    assert calibrated_loss(scores, codes) == pytest.approx(-np.log(own).mean())
    assert calibrated_loss(1000 * scores, codes) == pytest.approx(-np.log(own).mean())


@each("classes", [2, 5])
@each("n", [4, 80, 1000])
@each("margin", [1e-3, 1.0, 1e3])
def test_images_that_are_all_right_do_not_make_it_certain(classes, n, margin):
    codes = np.arange(n) % classes
    scores = margin * np.eye(classes)[codes]
    probabilities = softmax(calibrate(scores, codes) * scores)[np.arange(n), codes]

    # n right ones, and one more that could be any class
    np.testing.assert_allclose(probabilities, (n + 1 / classes) / (n + 1), rtol=1e-6)


def test_classes_that_a_fold_did_not_know_do_not_count():
    random = np.random.default_rng(0)
    scores = random.normal(size=(20_000, 3)) * 2
    codes = (softmax(scores).cumsum(axis=1) > random.random((20_000, 1))).argmax(axis=1)
    wide = np.column_stack([scores, np.full(20_000, -1e30)])

    assert calibrate(wide, codes) == pytest.approx(calibrate(scores, codes), rel=1e-3)


def test_an_image_of_a_class_that_its_fold_did_not_know_does_not_blunt_all():
    random = np.random.default_rng(0)
    scores = random.normal(size=(1000, 3)) * 2
    codes = (softmax(scores).cumsum(axis=1) > random.random((1000, 1))).argmax(axis=1)
    expected = calibrate(scores, codes)
    scores[0, codes[0]] = -1e30

    assert calibrate(scores, codes) == pytest.approx(expected, rel=0.2)


def test_scores_that_are_worse_than_chance_are_blunted():
    random = np.random.default_rng(0)
    scores = random.normal(size=(500, 3))

    assert 0 < calibrate(scores, scores.argmin(axis=1)) < 1e-3


@each("scores", [np.zeros((10, 2)), np.full((10, 2), 5.0), np.tile([1e-30, 0.0], (10, 1))])
def test_scores_that_say_nothing_have_a_finite_calibrate(scores):
    found = calibrate(scores, np.array([0, 1] * 5))

    assert np.isfinite(found)
    assert found > 0


def test_of_few_images_the_factor_stays_near_the_most_likely():
    # Scores of which most are nearly equal: to be as certain as they are right, all would have to be quite certain.
    codes = np.arange(30) % 2
    scores = np.where(np.eye(2)[codes] == 1, 1e-9, 0.0)
    scores[:6] = np.where(np.eye(2)[codes[:6]] == 1, 0.01, 0.0)
    scores[0] = [0.0, 0.008]  # one is wrong
    probabilities = softmax(calibrate(scores, codes) * scores)

    assert probabilities.max() < 0.999


# --- weights ----------------------------------------------------------------------------------------------------


def test_an_image_of_weight_two_counts_as_two():
    random = np.random.default_rng(0)
    scores = random.normal(size=(300, 2))
    codes = (softmax(2 * scores)[:, 1] > random.random(300)).astype(int)
    weights = np.where(codes == 1, 2.0, 1.0)
    twice = np.concatenate([np.arange(300), np.flatnonzero(codes == 1)])

    assert calibrate(scores, codes, weights=weights) == pytest.approx(calibrate(scores[twice], codes[twice]), rel=0.05)


def test_no_images_leave_the_scores_as_they_are():
    assert calibrate(np.zeros((0, 3)), np.zeros(0, int)) == 1.0


# --- classes of unequal sizes -----------------------------------------------------------------------------------


SHARES = np.array([0.75, 0.2, 0.05])
LOG_SHARES = np.log(SHARES) - np.log(SHARES).mean()


def of_shares(n, apart=1.5, seed=0):
    """Return logarithms of the likelihood of each class, which know nothing of shares, and classes of unequal sizes."""
    random = np.random.default_rng(seed)
    codes = random.choice(3, n, p=SHARES)
    x = random.normal(size=(n, 3)) + apart * np.eye(3)[codes]
    return apart * x, codes


@each("scale", [0.01, 1.0, 500.0])
@each("had", [0.0, 1.0, 3.0])
def test_scores_get_as_much_of_the_shares_as_they_lack(scale, had):
    scores, codes = of_shares(10_000)
    ratio = prior_offset(scale * (scores + had * LOG_SHARES), codes, LOG_SHARES)

    assert ratio == pytest.approx(scale * (1 - had), abs=0.1 * scale)


def test_the_number_is_the_most_likely_one_of_the_images_and_one_more():
    scores, codes = of_shares(60)

    def loss(a, b):
        logs = np.log(softmax(a * scores + b * LOG_SHARES))
        return -logs[np.arange(60), codes].sum() - logs.mean(axis=1).mean() + b**2 / 2

    a, b = minimize(lambda point: loss(*point), [1.0, 0.0]).x
    assert prior_offset(scores, codes, LOG_SHARES) == pytest.approx(b / a, abs=1e-3)


def test_wrong_scores_get_the_least_weight_and_the_most_likely_shares():
    scores, codes = of_shares(60)
    scores = -scores
    least = 0.1 / (scores - scores.mean(axis=1, keepdims=True)).std()

    def loss(b):
        logs = np.log(softmax(least * scores + b * LOG_SHARES))
        return -logs[np.arange(60), codes].sum() - logs.mean(axis=1).mean() + b**2 / 2

    best = min(np.linspace(-1, 3, 4001), key=loss)
    assert prior_offset(scores, codes, LOG_SHARES) == pytest.approx(best / least, rel=0.01)


def test_few_images_hardly_change_scores():
    ratios = [prior_offset(*of_shares(6, seed=seed), LOG_SHARES) for seed in range(50)]

    assert 0 < np.median(ratios) < 0.7  # of the 1 that many images ask for


@each("scores", [np.zeros((40, 3)), np.full((40, 3), 1e-30), -100 * np.eye(3)[[0] * 30 + [1] * 10]])
def test_scores_that_tell_nothing_or_are_always_wrong_give_a_finite_number(scores):
    assert np.isfinite(prior_offset(scores, np.array([0] * 30 + [1] * 10), LOG_SHARES))


def test_classes_that_a_fold_does_not_know_have_no_part_in_it():
    scores, codes = of_shares(400)
    unknown = scores.copy()
    unknown[codes != 2, 2] = -1e30
    two = codes != 2
    pair = prior_offset(scores[two][:, :2], codes[two], LOG_SHARES[:2])

    assert prior_offset(unknown[two], codes[two], LOG_SHARES) == pytest.approx(pair, rel=0.02)
    assert prior_offset(np.where(np.eye(3)[codes] == 1, -1e30, scores), codes, LOG_SHARES) == 0


def test_scores_that_seem_to_tell_nothing_are_not_drowned_by_shares_that_are_nearly_equal():
    random = np.random.default_rng(0)
    codes = np.array([0] * 9 + [1] * 8 + [2] * 7)
    log_shares = np.log([9, 8, 7]) - np.log([9, 8, 7]).mean()
    scores = random.normal(size=(24, 3)) - 2 * np.eye(3)[codes]
    moved = scores + prior_offset(scores, codes, log_shares) * log_shares

    assert (moved.argmax(axis=1) == scores.argmax(axis=1)).mean() > 0.7


def test_scores_that_tell_nothing_give_way_to_shares_that_differ():
    scores, codes = np.random.default_rng(0).normal(size=(200, 3)), of_shares(200)[1]
    moved = scores + prior_offset(scores, codes, LOG_SHARES) * LOG_SHARES

    assert (moved.argmax(axis=1) == 0).mean() > 0.97
