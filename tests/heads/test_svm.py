"""Linear support vector machines beside LIBLINEAR, in folds and at large Cs, where few rows lie inside the margin."""

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from bottleneck.heads.arrays import Arrays
from bottleneck.heads.family import family
from bottleneck.heads.features import InMemoryFeatures, scalings
from bottleneck.heads.folds import Folds
from bottleneck.heads.problem import Problem
from tests.variants import each

N, D, K = 200, 40, 3
CS = [1e-3, 1e-2, 1e-1, 1.0, 10.0]


def rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    codes = random.integers(0, K, N)
    x = random.normal(size=(N, D)) + 0.7 * random.normal(size=(K, D))[codes]
    return x.astype(np.float32), codes


def task(trained: np.ndarray, **options: object) -> Problem:
    x, codes = rows()
    folds = Folds(tested=np.full(N, -1), trained=trained)
    return Problem(table=InMemoryFeatures(x), codes=codes, count=K, folds=folds, arrays=Arrays(), **options)


def objective(x: np.ndarray, sign: np.ndarray, strength: np.ndarray, theta: np.ndarray) -> float:
    theta = theta.astype(np.float64)
    short = np.maximum(0, 1 - sign * (x @ theta[:-1] + theta[-1]))
    return float(strength @ short**2 + theta @ theta / 2)


@each("balanced", [False, True])
@each("normalize", ["shrunk", "standard"])
def test_each_fold_reaches_liblinears_objective_at_every_C(balanced, normalize):
    x, codes = rows()
    trained = np.random.default_rng(1).random((N, 2)) > 0.3
    given = task(trained, balanced=balanced, normalize=normalize)
    found = family("svm").paths(given, CS, exact=True)

    for fold, scaling in enumerate(scalings(InMemoryFeatures(x), trained, normalize)[1:]):
        own = trained[:, fold]
        scaled, weights = scaling(x[own]).astype(np.float64), given.weights[own, fold].astype(np.float64)
        for number, C in enumerate(CS):
            for output in range(K):
                sign = np.where(codes[own] == output, 1, -1)
                model = LinearSVC(C=C, dual=False, tol=1e-8, max_iter=100_000).fit(scaled, sign, weights)
                best = objective(scaled, sign, C * weights, np.append(model.coef_[0], model.intercept_))
                ours = objective(scaled, sign, C * weights, found[number, fold, output])
                assert ours <= best * (1 + 1e-3), (C, output)


@pytest.mark.filterwarnings("ignore:svm did not converge")
@each("C, near", [(1.0, 1e-3), (10.0, 1e-3), (100.0, 1e-3), (1000.0, 5e-3), (10_000.0, 5e-3)])
@each("width", [40, 400])
def test_one_large_C_alone_is_solved_as_nearly_as_float32_lets_it_be(C, near, width):
    random = np.random.default_rng(3)
    codes = np.arange(N) % 2
    x = (random.normal(size=(N, width)) + 0.3 * random.normal(size=(2, width))[codes]).astype(np.float32)
    folds = Folds(tested=np.full(N, -1), trained=np.ones((N, 1), bool))
    given = Problem(table=InMemoryFeatures(x), codes=codes, count=2, folds=folds, normalize="none", arrays=Arrays())
    theta = family("svm").paths(given, [C], exact=True)[0, 0, 1]
    sign = np.where(codes == 1, 1, -1)
    model = LinearSVC(C=C, dual=width > N, tol=1e-6, max_iter=1_000_000).fit(x.astype(np.float64), sign)
    best = objective(x, sign, np.full(N, C), np.append(model.coef_[0], model.intercept_))

    assert objective(x, sign, np.full(N, C), theta) <= best * (1 + near)
