import numpy as np
import pytest

from bottleneck.heads.forecast import PowerLaw
from tests.variants import each

SIZES = (20, 40, 80, 140, 200)


def rates(slope, level=-1.0, sizes=SIZES):
    """Return error rates whose log odds fall by `slope` with each doubling, from `level` at the last size."""
    return 1 / (1 + np.exp(-(level - slope * np.log2(np.array(sizes) / sizes[-1]))))


def drawn(errors, images, seed=0, together=True):
    """Return which images heads have wrong; `together`, a better head has right what a worse one has right."""
    hardness = np.random.default_rng(seed).random((1 if together else len(errors), images))
    return (hardness < np.array(errors)[:, None]).astype(float)


def fitted(wrong, sizes=SIZES):
    return PowerLaw.fit(sizes, wrong, np.arange(wrong.shape[1]))


def width(interval):
    return interval[1] - interval[0]


@each("slope", [0.1, 0.3, 0.6])
def test_the_power_of_many_images_is_found(slope):
    law = fitted(drawn(rates(slope), 50_000), sizes=tuple(100 * n for n in SIZES))

    assert law.forecast(40_000).accuracy == pytest.approx(1 - rates(slope, -1.0 - slope)[-1], abs=0.01)
    assert law.mean[1] == pytest.approx(-slope, abs=0.05)


@each("images", [40, 400, 4000])
def test_intervals_hold_what_the_law_says(images):
    held = []
    for seed, slope in enumerate(np.linspace(0.05, 0.6, 200)):
        low, high = fitted(drawn(rates(slope), images, seed)).forecast(800).ci95
        held.append(low <= 1 - rates(slope, -1.0 - 2 * slope)[-1] <= high)

    assert np.mean(held) >= 0.93


def test_more_images_make_it_surer_and_a_longer_way_less_sure():
    few, many = (fitted(drawn(rates(0.3), images)) for images in (50, 5000))

    assert width(many.forecast(400).ci95) < width(few.forecast(400).ci95)
    assert width(many.doubling()[1]) < width(few.doubling()[1])
    assert width(many.forecast(400).ci95) < width(many.forecast(3200).ci95)


def test_the_same_tested_images_tell_more_of_the_slope():
    same, others = (fitted(drawn(rates(0.3), 100, together=together)) for together in (True, False))

    assert same.covariance[1][1] < others.covariance[1][1]


def test_images_of_a_group_tell_less_than_others():
    wrong = np.repeat(drawn(rates(0.3), 100), 4, axis=1)
    apart, alone = PowerLaw.fit(SIZES, wrong, np.arange(400)), fitted(wrong[:, ::4])
    grouped = PowerLaw.fit(SIZES, wrong, np.repeat(np.arange(100), 4))

    assert width(apart.forecast(400).ci95) < 0.8 * width(grouped.forecast(400).ci95)
    assert width(grouped.forecast(400).ci95) == pytest.approx(width(alone.forecast(400).ci95), rel=0.05)


def test_the_order_of_the_images_does_not_matter():
    wrong = drawn(rates(0.3), 300, together=False)
    found, other = fitted(wrong).forecast(400), fitted(wrong[:, ::-1]).forecast(400)

    assert other.accuracy == pytest.approx(found.accuracy, abs=1e-12)
    assert other.ci95 == pytest.approx(found.ci95, abs=1e-12)


@each("points", [1, 2, 5])
@each("images", [1, 2, 30, 3000])
@each("rate", [0.0, 0.5, 0.9, 1.0])
def test_any_points_give_a_forecast(points, images, rate):
    wrong = drawn([rate] * points, images)
    law = fitted(wrong, sizes=(2, 3, 6, 9, 12)[:points])
    gain, (least, most) = law.doubling()

    for n in (law.n, 2 * law.n, 1000 * law.n):
        found = law.forecast(n)
        assert 0 <= found.ci95[0] < found.accuracy < found.ci95[1] <= 1
    assert -1 < least < 0 <= gain < most < 1


def test_errors_that_rise_are_not_forecast_to():
    law = fitted(drawn(rates(-0.3), 5000))
    gain, (least, most) = law.doubling()

    assert law.mean[1] > 0
    assert gain == 0
    assert law.forecast(400).accuracy == law.forecast(200).accuracy
    assert least < 0 < most
