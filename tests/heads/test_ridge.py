"""Ridge beside scikit-learn's, and its accuracy by leaving one row out beside leaving one row out."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from bottleneck.errors import HeadError
from bottleneck.heads.arrays import Arrays
from bottleneck.heads.family import family
from bottleneck.heads.features import InMemoryFeatures, StreamedFeatures, scalings
from bottleneck.heads.folds import Folds, everything
from bottleneck.heads.problem import Problem
from bottleneck.heads.ridge import leave_one_out
from bottleneck.heads.search import search
from tests.heads.test_features import FakeStream
from tests.variants import each

CS = [1e-4, 1e-2, 1.0]


def rows(n: int, d: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    codes = np.arange(n) % classes
    return (random.normal(3, 2, (n, d)) + random.normal(size=(classes, d))[codes]).astype(np.float32), codes


def task(x: np.ndarray, codes: np.ndarray, trained: np.ndarray | None = None, **options: object) -> Problem:
    folds = everything(len(x)) if trained is None else Folds(tested=np.full(len(x), -1), trained=trained)
    count = int(codes.max()) + 1
    return Problem(table=InMemoryFeatures(x), codes=codes, count=count, folds=folds, arrays=Arrays(), **options)


@each("shape", [(60, 10), (20, 50)])
@each("balanced", [False, True])
@each("normalize", ["shrunk", "global", "standard", "l2"])
def test_each_fold_is_scikit_learns(shape, balanced, normalize):
    x, codes = rows(*shape)
    trained = np.random.default_rng(1).random((len(x), 2)) > 0.3
    found = family("ridge").paths(task(x, codes, trained, balanced=balanced, normalize=normalize), CS, exact=True)

    for fold, scaling in enumerate(scalings(InMemoryFeatures(x), trained, normalize)[1:]):
        own = trained[:, fold]
        for C, theta in zip(CS, found[:, fold], strict=True):
            weighting = "balanced" if balanced else None
            theirs = RidgeClassifier(alpha=1 / (2 * C), class_weight=weighting).fit(scaling(x[own]), codes[own])
            np.testing.assert_allclose(theta[:, :-1], theirs.coef_, atol=2e-3)
            np.testing.assert_allclose(theta[:, -1], theirs.intercept_, atol=2e-3)


@each("normalize", ["standard", "none"])
def test_leaving_one_out_is_leaving_one_out(normalize):
    x, codes = rows(40, 6)
    given = task(x, codes, normalize=normalize)
    scaled = given.scaling(x).astype(np.float64)
    expected = []
    for C in CS:
        right = 0
        for row in range(len(x)):
            others = np.arange(len(x)) != row
            model = RidgeClassifier(alpha=1 / (2 * C)).fit(scaled[others], codes[others])
            right += int(model.predict(scaled[[row]])[0] == codes[row])
        expected.append(right / len(x))

    assert leave_one_out(given, CS) == pytest.approx(expected)


def test_a_search_returns_the_accuracy_of_leave_one_out():
    x, codes = rows(60, 6)
    labels = [str(code) for code in codes]
    found = search(x, labels, family("ridge"))
    grouped = search(x, labels, family("ridge"), groups=[str(row // 2) for row in range(60)])

    assert len(found.facts["leave_one_out"]) == len(found.points)
    assert max(found.facts["leave_one_out"]) == pytest.approx(found.accuracy, abs=0.1)
    assert grouped.facts == {}  # its group would give a row away


def test_more_features_than_can_be_multiplied_are_a_head_error():
    x = np.eye(4, 16_385, dtype=np.float32)
    codes = np.arange(4) % 2
    streamed = Problem(
        table=StreamedFeatures(FakeStream(x)), codes=codes, count=2, folds=everything(4), arrays=Arrays()
    )
    with pytest.raises(HeadError, match="too many for 16,385 features of 4 images"):
        family("ridge").paths(streamed, CS, exact=True)


@each("shape", [(60, 10), (20, 50)])
@each("offset", [1e3, 1e5])
def test_features_far_from_zero_are_no_harder(shape, offset):
    x, codes = rows(*shape)
    here, there = (
        family("ridge").paths(task(one, codes, normalize="none"), CS, exact=True)[:, 0, :, :-1]
        for one in (x, np.round((x + np.float32(offset)) * 8) / 8)  # so that float32 holds what is left of them
    )

    np.testing.assert_allclose(there, here, atol=0.05)
