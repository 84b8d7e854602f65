"""What the families of linear heads share: weights of all folds and all C at once, and the scores of tested rows."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.calibration import prior_offset
from bottleneck.heads.family import DECADES, NEVER, Family, Fitted, Params, Validation, finer, of_C
from bottleneck.heads.linear import LinearHead
from bottleneck.heads.out_of_fold import OutOfFold
from bottleneck.heads.problem import Problem
from bottleneck.heads.sums import relative

Theta = NDArray[np.float32]  # (g, F, k, d + 1), the bias last, for features scaled by all rows

_CELLS = 4 << 20  # scores that are looked at together
_EQUAL = 1e-6  # the logarithm of the ratio of two shares, but for rounding
_ROWS = 10_000  # that tell how much of the classes' shares is added to scores


class LinearFamily(Family):
    """A family of linear heads with one parameter, C: the inverse of the strength of the L2 penalty.

    The objective is ``|W|^2 / 2 + C * sum of losses`` on scaled features; each module says how near its solver comes,
    and whether the bias is penalised.
    """

    values: ClassVar[tuple[float, ...]] = DECADES

    @abstractmethod
    def paths(self, task: Problem, Cs: Sequence[float], *, exact: bool, start: Theta | None = None) -> Theta:
        """Return the weights of each C and fold, for features as the fold scales them.

        Parameters
        ----------
        task : Problem
        Cs : sequence of float, length g
        exact : bool
            Whether it is for a head that is kept, and not for a search.
        start : ndarray of float32, shape (1, F, k, d + 1), optional
            Weights that may be near those of the smallest C.
        """

    def grid(self, task: Problem, *, full: bool) -> tuple[Params, ...]:
        """Return the values of C."""
        return of_C(finer(self.values) if full else self.values)

    def cross_validate(self, task: Problem, points: Sequence[Params]) -> "LinearValidation":
        """Train on each fold at each C."""
        Cs = [point.get("C", 1.0) for point in points]
        found = LinearValidation(task, Cs, self._known(task, Cs, exact=False), np.zeros((len(Cs), task.count)))
        return replace(found, offsets=_offsets(found))

    def fit(self, task: Problem, point: Params, validation: Validation | None = None) -> Fitted:
        """Train on all rows, beginning at the mean of the folds' weights at this C."""
        start = validation.near(point.get("C", 1.0)) if isinstance(validation, LinearValidation) else None
        theta = self._known(task.whole(), [point.get("C", 1.0)], exact=True, start=start)[0, 0]
        if not np.isfinite(theta).all():
            raise HeadError(f"expected finite weights of the {self.name} head, found NaN or infinity at {point}")
        parts = {"weight": theta[:, :-1].copy(), "bias": theta[:, -1].copy()}
        return Fitted(form=LinearHead, parts=parts)

    def _known(self, task: Problem, Cs: Sequence[float], *, exact: bool, start: Theta | None = None) -> Theta:
        """Return `paths`, of features scaled by all rows; classes that a fold has not never win there."""
        theta = self.paths(task, Cs, exact=exact, start=start)
        if task.by_rows and len(task.folds):
            shift, gain = relative(task.scaling, task.fold_scalings)
            theta[..., :-1] *= gain[:, None]
            theta[..., -1] -= np.einsum("gfkd,fd->gfk", theta[..., :-1], shift)
        theta[:, ~task.present] = 0
        theta[:, ~task.present, -1] = NEVER
        return theta


@dataclass(frozen=True)
class LinearValidation:
    """The weights of all folds.

    Parameters
    ----------
    task : Problem
    Cs : list of float, length g
    theta : ndarray of float32, shape (g, F, k, d + 1)
    offsets : ndarray of float64, shape (g, k)
        What is added to scores, see `bottleneck.heads.calibration.prior_offset`.
    """

    task: Problem
    Cs: list[float]
    theta: Theta
    offsets: NDArray[np.float64]

    def blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Yield the scores of tested rows, see `Validation`."""
        g, folds, count, _ = self.theta.shape
        for rows, features in self.task.scaled.blocks(max(64, _CELLS // (g * count))):
            numbers = np.arange(*rows.indices(len(self.task.codes))) if isinstance(rows, slice) else rows
            tested = self.task.folds.tested[numbers]
            for fold in range(folds):
                own = np.flatnonzero(tested == fold)
                if len(own):
                    weight, bias = self.theta[:, fold, :, :-1], self.theta[:, fold, :, -1]
                    scores = (features[own] @ weight.reshape(g * count, -1).T).reshape(len(own), g, count)
                    yield numbers[own], np.swapaxes(scores + (bias + self.offsets.astype(np.float32)), 0, 1)

    def near(self, C: float) -> Theta | None:
        """Return the mean of the folds' weights at C, ``(1, 1, k, d + 1)``; None unless all folds know all classes."""
        if C not in self.Cs or not self.task.present.all():
            return None
        mean: Theta = self.theta[self.Cs.index(C)].mean(axis=0, keepdims=True)[None]
        return mean


def offset_of(validation: Validation, number: int) -> NDArray[np.float64]:
    """Return what a validation adds to the scores at the point of a number, ``(k,)``, or one 0 for all classes."""
    found: NDArray[np.float64] = validation.offsets[number] if isinstance(validation, LinearValidation) else np.zeros(1)
    return found


def _offsets(found: LinearValidation) -> NDArray[np.float64]:
    """Return what rows that the heads of the folds were not trained on ask to be added to scores, ``(g, k)``."""
    task = found.task
    if not task.by_shares or not (task.folds.tested >= 0).any():
        return found.offsets
    weights = task.whole().weights[:, 0].astype(np.float64)
    totals = np.bincount(task.codes, weights, task.count)
    log_shares = np.log(totals) - np.log(totals).mean()
    if np.ptp(log_shares) < _EQUAL:
        return found.offsets
    scored = OutOfFold.of(task, found, slice(None), min(_ROWS, _CELLS // found.offsets.size))
    rows = scored.rows[scored.known]
    ratios = [
        prior_offset(of_point[scored.known], task.codes[rows], log_shares, weights=weights[rows])
        for of_point in scored.scores
    ]
    offsets: NDArray[np.float64] = np.array(ratios)[:, None] * log_shares
    return offsets
