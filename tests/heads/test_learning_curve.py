import json
import re

import numpy as np
import pytest

from bottleneck.heads.forecast import PowerLaw
from bottleneck.heads.learning_curve import Curve, Point
from tests.variants import each

FOLDS = 5


def curve(*errors, last, images):
    """Return a curve of heads with these error rates, the last trained on `last` images, half as many before it ..."""
    sizes = [round(last / 2**place) for place in range(len(errors))][::-1]
    wrong = (np.arange(images) < images * np.array(errors)[:, None]).astype(float)
    parts = [np.array_split(row[np.random.default_rng(0).permutation(images)], FOLDS) for row in wrong]
    points = [Point(n, tuple(1 - own.mean() for own in part)) for n, part in zip(sizes, parts, strict=True)]
    return Curve(tuple(points), FOLDS, PowerLaw.fit(sizes, wrong, np.arange(images)))


def test_a_curve_that_rises_says_what_more_images_would_bring():
    found = curve(0.3, 0.25, 0.2, 0.16, last=800, images=1000)
    low, high = found.doubling_ci95

    assert 0.02 < found.doubling < 0.05
    assert low < found.doubling < high
    assert re.fullmatch(
        r"from 400 to 800 training images accuracy changed by \+4\.0 points \(standard error \d\.\d\); twice as many "
        r"images would add about 2\.\d points \(95 % interval -?\d\.\d to \d\.\d\)",
        found.advice(),
    )


@each("images, hardly", [(50, False), (500, False), (20_000, True)])
def test_more_images_would_hardly_help_only_where_that_is_sure(images, hardly):
    found = curve(0.02, 0.02, 0.02, 0.02, last=images, images=images)

    assert (found.doubling_ci95[1] < 0.005) == hardly
    assert found.advice().endswith(": more images of this kind would hardly help") == hardly
    assert "would add about 0." in found.advice()


def test_images_that_are_all_right_are_no_proof_where_they_are_few():
    few, many = (curve(0.0, 0.0, 0.0, last=images, images=images) for images in (40, 4000))

    assert "hardly" not in few.advice()
    assert "about 0.0 points (95 % interval -0.2 to 0.3): more images of this kind would hardly" in many.advice()


def test_a_single_point_says_that_it_is_one():
    found = curve(0.2, last=10, images=20)

    assert found.advice() == "too few training images for a learning curve"
    assert found.doubling is None
    assert found.doubling_ci95 is None
    assert found.to_json()["forecast"] == []


def test_forecasts_are_json():
    found = curve(0.3, 0.25, 0.2, 0.16, last=800, images=1000)
    written = json.loads(json.dumps(found.to_json()))

    assert [one["n"] for one in written["forecast"]] == [1600, 3200]
    assert all(one["ci95"][0] < one["accuracy"] < one["ci95"][1] for one in written["forecast"])
    assert written["doubling"] == pytest.approx(written["forecast"][0]["accuracy"] - 0.84, abs=0.01)
    assert tuple(written["doubling_ci95"]) == found.doubling_ci95
