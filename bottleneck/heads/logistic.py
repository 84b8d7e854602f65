"""Multinomial logistic regression with an L2 penalty, by scikit-learn."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from bottleneck.heads.family import Codes, Family, Weights, spread

_ITERATIONS = 500


def fit_path(
    features: NDArray[np.float32], codes: Codes, count: int, grid: Sequence[float], seed: int
) -> list[Weights]:
    """Fit at each C of the rising `grid`, each from where the one before ended (deterministic: `seed` has no part)."""
    model = LogisticRegression(max_iter=_ITERATIONS, warm_start=True)
    path = []
    for C in grid:
        model.set_params(C=C).fit(features, codes)
        # scikit-learn gives the log-odds of two classes as one row w; softmax of (-w/2, w/2) is the same.
        half = 0.5 if len(model.classes_) == 2 else 1.0
        path.append(spread(half * model.coef_, half * model.intercept_, model.classes_, count))
    return path


FAMILY = Family("logistic", (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), fit_path)
