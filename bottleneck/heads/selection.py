"""Selection of a point and a scaling from cross-validated performance."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DEFAULT = "log-loss"
RULES = {
    DEFAULT: "the least log-loss of the points whose balanced accuracy is within one standard error of the best",
    "simplest": "the simplest of the points whose balanced accuracy is within one standard error of the best",
    "accuracy": "the best balanced accuracy",
}
_STANDARD_ERRORS = 2.0  # standard errors, and images, by which another scaling must be better


@dataclass(frozen=True, kw_only=True)
class Performance:
    """Cross-validated performance at each point, simplest first.

    Parameters
    ----------
    accuracy, balanced : ndarray of float64, shape (g, folds)
        Accuracy, and balanced accuracy (the mean recall of the classes), in each fold of all divisions.
    losses : ndarray of float64, shape (g,)
        Calibrated log-loss.
    divisions : int
        Number of divisions into folds. All test the same images, so standard errors are those of one division.
    """

    accuracy: NDArray[np.float64]
    balanced: NDArray[np.float64]
    losses: NDArray[np.float64]
    divisions: int

    @property
    def best(self) -> int:
        """The simplest point with the best balanced accuracy."""
        return int(self.balanced.mean(axis=1).argmax())

    @property
    def best_balanced(self) -> float:
        """The best balanced accuracy, averaged over the folds."""
        return float(self.balanced[self.best].mean())

    def within_one_standard_error(self) -> NDArray[np.intp]:
        """Return the points whose balanced accuracy is within one standard error of the best.

        Accuracies at neighbouring C often differ only by noise (Breiman et al. 1984, "Classification and Regression
        Trees", section 3.4.3). Plain accuracy would accept a head that always predicts the largest class.
        """
        mean, best = self.balanced.mean(axis=1), self.best
        return np.flatnonzero(mean >= mean[best] - self._error(self.balanced[best]) - 1e-12)

    def beats(self, other: "Performance", rows: int) -> bool:
        """Return whether the best point is significantly better than that of another scaling, on the same folds.

        The difference, paired by folds, must exceed two standard errors and two images: with few images, the best of
        many points is mostly due to chance.
        """
        gain = self.balanced[self.best] - other.balanced[other.best]
        return bool(gain.mean() > _STANDARD_ERRORS * max(self._error(gain), 1 / rows))

    def _error(self, values: NDArray[np.float64]) -> float:
        """Return the standard error of the mean over the folds."""
        folds = len(values)
        return float(values.std(ddof=1) / np.sqrt(folds / self.divisions)) if folds > 1 else 0.0


def select(found: Performance, rule: str) -> int:
    """Return the point selected by a rule of `RULES`; the simplest in case of ties."""
    if rule == "accuracy":
        return found.best
    candidates = found.within_one_standard_error()
    losses = np.nan_to_num(found.losses[candidates], nan=np.inf)
    return int(candidates[0] if rule == "simplest" else candidates[losses.argmin()])
