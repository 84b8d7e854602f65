"""Base class of linear families: weights for all folds and values of C at once, and out-of-fold scores."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.calibration import prior_offset
from bottleneck.heads.family import DECADES, MASKED, Family, Fitted, Params, Validation, finer, of_C
from bottleneck.heads.folds import joined
from bottleneck.heads.linear import LinearHead
from bottleneck.heads.objective import relative
from bottleneck.heads.out_of_fold import OutOfFold
from bottleneck.heads.problem import Problem

Theta = NDArray[np.float32]  # (g, F, k, d + 1), the bias last, for features scaled by all rows

_CELLS = 4 << 20  # scores in memory at once
_EQUAL = 1e-6  # log priors that differ less are equal
_ROWS = 10_000  # used to fit the prior offset
_FEW_WEIGHTS = 1 << 17  # of all folds and classes: two classes, 25 folds and 2048 features


class LinearFamily(Family):
    """A family of linear heads with one hyperparameter, C: the inverse of the strength of the L2 penalty.

    The objective is ``|W|^2 / 2 + C * sum of losses`` on scaled features. Each module documents the precision of its
    solver and whether the bias is penalised.

    Attributes
    ----------
    values : tuple of float
        The values of C.
    joins : bool
        Whether the folds of several divisions are solved together if they have few weights. A step then takes about as
        long for all folds as for one.
    """

    values: ClassVar[tuple[float, ...]] = DECADES
    joins: ClassVar[bool] = False

    @abstractmethod
    def paths(self, problem: Problem, Cs: Sequence[float], *, exact: bool, start: Theta | None = None) -> Theta:
        """Return the weights for each C and fold, for features scaled by the fold.

        Parameters
        ----------
        problem : Problem
        Cs : sequence of float, length g
        exact : bool
            Whether the weights are for the final head rather than for a search.
        start : ndarray of float32, shape (1, F, k, d + 1), optional
            Warm start for the smallest C.
        """

    def grid(self, problem: Problem, *, full: bool) -> tuple[Params, ...]:
        """Return the values of C."""
        return of_C(finer(self.values) if full else self.values)

    def cross_validate(self, problem: Problem, points: Sequence[Params]) -> "LinearValidation":
        """Train on each fold at each C, and fit the prior offsets."""
        Cs = _values(points)
        return _validation(problem, Cs, self._masked_paths(problem, Cs, exact=False))

    def cross_validate_all(self, problems: Sequence[Problem], points: Sequence[Params]) -> Sequence[Validation]:
        """Cross-validate on several divisions of the same rows, together if `joins` says so."""
        counts, first, Cs = [len(problem.folds) for problem in problems], problems[0], _values(points)
        weights = sum(counts) * first.count * (first.table.shape[1] + 1)
        if not self.joins or len(problems) == 1 or weights > _FEW_WEIGHTS:
            return super().cross_validate_all(problems, points)
        every = first.with_folds(joined([problem.folds for problem in problems]))
        theta = self._masked_paths(every, Cs, exact=False)
        parts = np.split(theta, np.cumsum(counts)[:-1], axis=1)
        return [_validation(problem, Cs, part) for problem, part in zip(problems, parts, strict=True)]

    def fit(self, problem: Problem, point: Params, validation: Validation | None = None) -> Fitted:
        """Train on all rows, starting from the mean of the folds' weights at this C."""
        start = validation.warm_start(point.get("C", 1.0)) if isinstance(validation, LinearValidation) else None
        theta = self._masked_paths(problem.on_all_rows(), [point.get("C", 1.0)], exact=True, start=start)[0, 0]
        if not np.isfinite(theta).all():
            raise HeadError(f"expected finite weights of the {self.name} head, found NaN or infinity at {point}")
        parts = {"weight": theta[:, :-1].copy(), "bias": theta[:, -1].copy()}
        return Fitted(form=LinearHead, parts=parts)

    def _masked_paths(self, problem: Problem, Cs: Sequence[float], *, exact: bool, start: Theta | None = None) -> Theta:
        """Return `paths` for features scaled by all rows; classes that are absent from a fold are masked."""
        theta = self.paths(problem, Cs, exact=exact, start=start)
        if problem.scaled_by_rows and len(problem.folds):
            shift, gain = relative(problem.scaling, problem.fold_scalings)
            theta[..., :-1] *= gain[:, None]
            theta[..., -1] -= np.einsum("gfkd,fd->gfk", theta[..., :-1], shift)
        theta[:, ~problem.present] = 0
        theta[:, ~problem.present, -1] = MASKED
        return theta


@dataclass(frozen=True)
class LinearValidation:
    """Weights of all folds.

    Parameters
    ----------
    problem : Problem
    Cs : list of float, length g
    theta : ndarray of float32, shape (g, F, k, d + 1)
    offsets : ndarray of float64, shape (g, k)
        Added to the scores, see `bottleneck.heads.calibration.prior_offset`.
    """

    problem: Problem
    Cs: list[float]
    theta: Theta
    offsets: NDArray[np.float64]

    def blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Yield the scores of tested rows, see `Validation`."""
        g, folds, count, _ = self.theta.shape
        for rows, features in self.problem.scaled.blocks(max(64, _CELLS // (g * count))):
            numbers = np.arange(*rows.indices(len(self.problem.codes))) if isinstance(rows, slice) else rows
            tested = self.problem.folds.tested[numbers]
            for fold in range(folds):
                own = np.flatnonzero(tested == fold)
                if len(own):
                    weight, bias = self.theta[:, fold, :, :-1], self.theta[:, fold, :, -1]
                    scores = (features[own] @ weight.reshape(g * count, -1).T).reshape(len(own), g, count)
                    yield numbers[own], np.swapaxes(scores + (bias + self.offsets.astype(np.float32)), 0, 1)

    def warm_start(self, C: float) -> Theta | None:
        """Return the mean of the folds' weights at C, ``(1, 1, k, d + 1)``; None if a class is absent from a fold."""
        if C not in self.Cs or not self.problem.present.all():
            return None
        mean: Theta = self.theta[self.Cs.index(C)].mean(axis=0, keepdims=True)[None]
        return mean


def _values(points: Sequence[Params]) -> list[float]:
    return [point.get("C", 1.0) for point in points]


def _validation(problem: Problem, Cs: list[float], theta: Theta) -> LinearValidation:
    """Return the validation of some weights with fitted prior offsets."""
    found = LinearValidation(problem, Cs, theta, np.zeros((len(Cs), problem.count)))
    return replace(found, offsets=_offsets(found))


def offset_of(validation: Validation, number: int) -> NDArray[np.float64]:
    """Return the offset of the scores at a point, ``(k,)``, or ``(1,)`` with a zero if there is none."""
    found: NDArray[np.float64] = validation.offsets[number] if isinstance(validation, LinearValidation) else np.zeros(1)
    return found


def _offsets(found: LinearValidation) -> NDArray[np.float64]:
    """Return the prior offset at each point, fitted on out-of-fold scores, ``(g, k)``."""
    problem = found.problem
    if not problem.adjust_prior or not (problem.folds.tested >= 0).any():
        return found.offsets
    weights = problem.on_all_rows().weights[:, 0].astype(np.float64)
    totals = np.bincount(problem.codes, weights, problem.count)
    log_shares = np.log(totals) - np.log(totals).mean()
    if np.ptp(log_shares) < _EQUAL:
        return found.offsets
    scored = OutOfFold.of(problem, found, slice(None), min(_ROWS, _CELLS // found.offsets.size))
    rows = scored.rows[scored.known]
    ratios = [
        prior_offset(of_point[scored.known], problem.codes[rows], log_shares, weights=weights[rows])
        for of_point in scored.scores
    ]
    offsets: NDArray[np.float64] = np.array(ratios)[:, None] * log_shares
    return offsets
