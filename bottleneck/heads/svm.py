"""Linear support vector machines with squared hinge loss, one against the rest, by scikit-learn (LIBLINEAR)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import LinearSVC

from bottleneck.heads.family import Codes, Family, Weights, spread

_ITERATIONS = 1000
_TOLERANCE = 1e-2  # a tenth of what LIBLINEAR itself takes for the dual problem
_MANY_ROWS = 10  # times the features: beyond that the primal problem is the smaller one


def fit_path(
    features: NDArray[np.float32], codes: Codes, count: int, grid: Sequence[float], seed: int
) -> list[Weights]:
    """Fit at each C of `grid`; the order in which the dual solver visits the rows is drawn with `seed`."""
    dual = len(features) < _MANY_ROWS * features.shape[1]
    exact = features.astype(np.float64)  # what LIBLINEAR works on; converted once, not once a C
    path = []
    for C in grid:
        model = LinearSVC(C=C, dual=dual, tol=_TOLERANCE, max_iter=_ITERATIONS, random_state=seed)
        model.fit(exact, codes)
        path.append(spread(model.coef_, model.intercept_, model.classes_, count))
    return path


# LIBLINEAR draws from one random generator a process: threads would take numbers from each other.
FAMILY = Family("svm", (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1), fit_path, threads=False)
