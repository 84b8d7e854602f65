"""A power law of the error rate by the number of training images, for extrapolation.

The odds of an error, e / (1 - e), are modelled as a power of the number of images: a straight line on logarithmic axes,
with a slight levelling off. For small error rates the odds are nearly the rate; for large ones the rate stays below 1.
The slope has a prior, so that a few uncertain points also give a forecast, with a sufficiently wide interval. The
constants are approximately those of maximum likelihood for heads on five sets of images, rounded conservatively;
`benchmarks/bench_forecast.py` measures the coverage of the intervals on other draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.utils.quantiles import NORMAL

_EXPECTED = np.array([0.0, -0.3])  # prior mean of the log odds of an error, and of their slope
_DEVIATION = np.array([10.0, 0.25])  # prior standard deviation of both
_LEVELLING = 0.01  # coefficient of the squared number of doublings
_DRIFT = 0.02  # standard deviation of the log odds from the line, for each doubling ahead
_POINT, _HEAD = 0.35, 0.6  # effect of the draw of training images, relative to the binomial standard deviation

Interval = tuple[float, float]


@dataclass(frozen=True)
class Forecast:
    """Predicted accuracy of a head.

    Parameters
    ----------
    n : int
        Training images.
    accuracy : float
    ci95 : tuple of float
        95 % prediction interval of the accuracy.
    """

    n: int
    accuracy: float
    ci95: Interval

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"n": self.n, "accuracy": self.accuracy, "ci95": list(self.ci95)}


@dataclass(frozen=True)
class PowerLaw:
    """Log odds of an error at n training images, and their slope per doubling of the images.

    Parameters
    ----------
    n : int
    mean : tuple of float, length 2
        Level and slope.
    covariance : tuple of tuple of float, 2 x 2
        Covariance of both.
    """

    n: int
    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(cls, sizes: Sequence[int], wrong: NDArray[np.float64], units: NDArray[np.intp]) -> "PowerLaw":
        """Fit the law to all points of a learning curve, weighted by their precision.

        Parameters
        ----------
        sizes : sequence of int, length p
            Training images of each point, increasing.
        wrong : ndarray of float64, shape (p, n)
            Fraction of the heads of each point that misclassify each tested image. All points test the same images, so
            their differences are more precise than the points themselves.
        units : ndarray of int, shape (n,)
            The group of each image, from 0; images of the same group carry less information.

        Notes
        -----
        Generalised least squares with a normal prior: A. Gelman et al. 2013, "Bayesian Data Analysis", section 14.8.
        """
        rates, covariance = _rates(wrong, units)
        steep = 1 / (rates * (1 - rates))  # the derivative of the log odds
        noise = covariance * np.outer(steep, steep)
        noise += np.diag([_sampling_variance(rate, n, _POINT) for rate, n in zip(rates.tolist(), sizes, strict=True)])
        doublings = np.log2(np.array(sizes) / sizes[-1])
        line = np.stack([np.ones_like(doublings), doublings], axis=1)
        weighted = np.linalg.solve(noise, line).T
        prior = np.diag(_DEVIATION**-2)
        posterior = np.linalg.inv(prior + weighted @ line)
        log_odds = np.log(rates / (1 - rates)) - _LEVELLING * doublings**2
        mean = posterior @ (prior @ _EXPECTED + weighted @ log_odds)
        return cls(sizes[-1], tuple(mean.tolist()), tuple(tuple(row) for row in posterior.tolist()))

    def forecast(self, n: int) -> Forecast:
        """Return the predicted accuracy of a head trained on n images, at least those of the last point."""
        middle, deviation = self._log_odds(n)
        low, high = _rate(middle - NORMAL * deviation), _rate(middle + NORMAL * deviation)
        return Forecast(n, 1 - _rate(middle), (1 - high, 1 - low))

    def doubling(self) -> tuple[float, Interval]:
        """Return the gain in accuracy from twice as many images, and its 95 % interval.

        Notes
        -----
        The interval of the difference follows from both intervals and their correlation: G. Y. Zou and A. Donner 2008,
        "Construction of confidence limits about effect measures", Statistics in Medicine 27, 1693-1702.
        """
        few, many = self.forecast(self.n), self.forecast(2 * self.n)
        correlation = sum(self.covariance[0]) / (self._log_odds(self.n)[1] * self._log_odds(2 * self.n)[1])
        gain = many.accuracy - few.accuracy
        less = _distance(few.ci95[1] - few.accuracy, many.accuracy - many.ci95[0], correlation)
        more = _distance(few.accuracy - few.ci95[0], many.ci95[1] - many.accuracy, correlation)
        return gain, (gain - less, gain + more)

    def _log_odds(self, n: int) -> tuple[float, float]:
        """Return the log odds of an error of a head trained on n images, and their standard deviation.

        An increasing line is replaced by a flat one: in general, more images do not make heads worse.
        """
        doublings = float(np.log2(n / self.n))
        line = np.array([1.0, doublings])
        level, slope = self.mean
        middle = level + min(0.0, slope * doublings + _LEVELLING * doublings**2)
        variance = float(line @ np.array(self.covariance) @ line) + (_DRIFT * doublings) ** 2
        return middle, float(np.sqrt(variance + _sampling_variance(_rate(middle), n, _HEAD)))


def _rate(log_odds: float) -> float:
    return float(1 / (1 + np.exp(-log_odds)))


def _sampling_variance(rate: float, n: int, share: float) -> float:
    """Return the variance of the log odds of an error due to the draw of n training images."""
    rate = (n * rate + 0.5) / (n + 1)
    return share**2 / (n * rate * (1 - rate))


def _distance(first: float, second: float, correlation: float) -> float:
    """Return the half width of the interval of a difference, from those of both sides and their correlation."""
    return float(np.sqrt(max(0.0, first**2 + second**2 - 2 * correlation * first * second)))


def _rates(wrong: NDArray[np.float64], units: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the error rate of each point, and their covariance under sampling of the tested images.

    A pseudo-image that all heads get half wrong keeps both above 0 if there are no errors. The identity matrix
    corresponds to another pseudo-image that separates points with equal errors.
    """
    sizes = np.append(np.bincount(units), 1)
    sums = np.stack([np.append(np.bincount(units, row), 0.5) for row in wrong])
    rates = sums.sum(axis=1) / sizes.sum()
    apart = sums - rates[:, None] * sizes
    covariance = apart @ apart.T * len(sizes) / (len(sizes) - 1) + np.eye(len(rates))
    return rates, covariance / sizes.sum() ** 2
