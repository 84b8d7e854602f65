"""How a search chooses: one point of those that it has cross-validated, and one scaling."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DEFAULT = "log-loss"
RULES = {
    DEFAULT: "the least log-loss of the points whose balanced accuracy is within one standard error of the best",
    "simplest": "the simplest of the points whose balanced accuracy is within one standard error of the best",
    "accuracy": "the best balanced accuracy",
}
_ERRORS = 2.0  # by how many standard errors, and images, another scaling must be better


@dataclass(frozen=True, kw_only=True)
class Performance:
    """How well the heads of the folds do at each point, simplest first, on the rows that they were not trained on.

    Parameters
    ----------
    accuracy, balanced : ndarray of float64, shape (g, folds)
        Accuracy, and balanced accuracy (the mean recall of the classes), in each fold of all divisions.
    losses : ndarray of float64, shape (g,)
        Calibrated log-loss.
    divisions : int
        How many divisions the folds are of. They see the same images again, so errors are those of one division.
    """

    accuracy: NDArray[np.float64]
    balanced: NDArray[np.float64]
    losses: NDArray[np.float64]
    divisions: int

    @property
    def best(self) -> int:
        """The point of the best balanced accuracy; of equal ones the simplest."""
        return int(self.balanced.mean(axis=1).argmax())

    @property
    def best_balanced(self) -> float:
        """The best balanced accuracy of a point, the mean over the folds."""
        return float(self.balanced[self.best].mean())

    def within_one_standard_error(self) -> NDArray[np.intp]:
        """Return the points whose balanced accuracy is within one standard error of the best.

        Accuracies of neighbouring C are often equal up to noise, which this tells from a difference (Breiman et al.
        1984, "Classification and Regression Trees", section 3.4.3). It is balanced accuracy, since by plain accuracy a
        head that always says the largest class would do.
        """
        mean, best = self.balanced.mean(axis=1), self.best
        return np.flatnonzero(mean >= mean[best] - self._error(self.balanced[best]) - 1e-12)

    def beats(self, other: "Performance", rows: int) -> bool:
        """Whether its best point is better than that of another scaling, on the same folds of so many rows.

        By two standard errors of the difference, paired by folds, and by two images: the best of many points on a few
        images is mostly luck.
        """
        gain = self.balanced[self.best] - other.balanced[other.best]
        return bool(gain.mean() > _ERRORS * max(self._error(gain), 1 / rows))

    def _error(self, values: NDArray[np.float64]) -> float:
        """Return the standard error of the mean over the folds."""
        folds = len(values)
        return float(values.std(ddof=1) / np.sqrt(folds / self.divisions)) if folds > 1 else 0.0


def select(found: Performance, rule: str) -> int:
    """Return the point that a rule of `RULES` chooses; of equal ones the simplest."""
    if rule == "accuracy":
        return found.best
    near = found.within_one_standard_error()
    losses = np.nan_to_num(found.losses[near], nan=np.inf)
    return int(near[0] if rule == "simplest" else near[losses.argmin()])
