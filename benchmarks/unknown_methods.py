"""Methods that recognise images which no class fits; each returns a number that is larger for unusual images."""

from dataclasses import dataclass

import numpy as np

from bottleneck.evaluation.familiarity import Familiarity, familiarity
from bottleneck.evaluation.neighbours import nearest_neighbours, unit_rows
from bottleneck.heads.family import family
from bottleneck.heads.features import InMemoryFeatures, scalings
from bottleneck.heads.search import Search, search

K = 10
VIM = 256  # principal directions
METHODS = (
    "cosine to the 10 nearest",
    "the same, centred at the mean",
    "the same, shrunk scaling",
    "the same, whitened within classes",
    "Mahalanobis",
    "relative Mahalanobis",
    "ViM",
    "energy",
    "maximum logit",
    "maximum probability",
    "nearest + probability, Fisher",
    "nearest + probability, sum of p",
    "discriminants alone",
    "familiarity",
)


@dataclass(frozen=True)
class Known:
    """Training features x ``(n, d)`` of classes ``(n,)``, what is fitted on them, and a head of several classes."""

    x: np.ndarray
    codes: np.ndarray
    head: Search | None
    ours: Familiarity

    @classmethod
    def of(cls, x: np.ndarray, codes: np.ndarray) -> "Known":
        """Fit a logistic head and the familiarity."""
        codes = np.unique(codes, return_inverse=True)[1]
        names = [f"{code:03d}" for code in codes]
        head = search(x, names, family("logistic"), repeats=1) if codes.max() else None
        return cls(x, codes, head, familiarity(x, names))

    def unusual(self, q: np.ndarray) -> dict[str, np.ndarray]:
        """Return the result of each method for features ``(m, d)``."""
        x, mean = self.x, self.x.mean(axis=0)
        scaling = scalings(InMemoryFeatures(x), np.zeros((len(x), 0), bool), "shrunk")[0]
        means = np.stack([x[self.codes == code].mean(axis=0) for code in range(self.codes.max() + 1)])
        within, total = _covariance(x - means[self.codes]), _covariance(x - mean)
        variances, axes = np.linalg.eigh(within)
        whitening = (axes / np.sqrt(variances)).astype(np.float32)
        near = _far(unit_rows(x), unit_rows(q))
        to_class = np.min([_mahalanobis((q - one) @ whitening) for one in means], axis=0)
        values, vectors = np.linalg.eigh(total)
        found = {
            "cosine to the 10 nearest": near,
            "the same, centred at the mean": _far(unit_rows(x, mean), unit_rows(q, mean)),
            "the same, shrunk scaling": _far(unit_rows(scaling(x)), unit_rows(scaling(q))),
            "the same, whitened within classes": _far(
                unit_rows((x - mean) @ whitening), unit_rows((q - mean) @ whitening)
            ),
            "Mahalanobis": to_class,
            "relative Mahalanobis": to_class - _mahalanobis((q - mean) @ (vectors / np.sqrt(values))),
            "discriminants alone": self._discriminants(q),
            "familiarity": self._familiarity(q),
        }
        return found | (self._of_head(q, near, vectors, mean) if self.head else {})

    def _of_head(self, q: np.ndarray, near: np.ndarray, vectors: np.ndarray, mean: np.ndarray) -> dict[str, np.ndarray]:
        assert self.head is not None
        head, x = self.head.head, self.x
        logits = head.inverse_temperature * head.scores(q)
        highest = logits.max(axis=1)
        energy = -highest - np.log(np.exp(logits - highest[:, None]).sum(axis=1))
        probability = -head.probabilities(q).max(axis=1)
        outside = vectors[:, : -min(len(x) // 4, VIM)]
        residual, usual = (np.linalg.norm((rows - mean) @ outside, axis=1) for rows in (q, x))
        weight = (head.inverse_temperature * head.scores(x)).max(axis=1).mean() / max(usual.mean(), 1e-9)
        near_p = _p_values(_far(unit_rows(x), None), near)
        probability_p = _p_values(-self.head.probabilities.max(axis=1), probability)
        return {
            "ViM": weight * residual + energy,
            "energy": energy,
            "maximum logit": -highest,
            "maximum probability": probability,
            "nearest + probability, Fisher": -np.log(near_p) - np.log(probability_p),
            "nearest + probability, sum of p": -near_p - probability_p,
        }

    def _discriminants(self, q: np.ndarray) -> np.ndarray:
        known = self.ours
        rows = unit_rows(q) @ known.directions
        return _far(known.discriminant(known.references.astype(np.float32)), known.discriminant(rows))

    def _familiarity(self, q: np.ndarray) -> np.ndarray:
        """Return the statistic, of which the p-value is a decreasing function with fewer values."""
        return self.ours.unusual(q)


def _far(references: np.ndarray, queries: np.ndarray | None) -> np.ndarray:
    """Return the mean of 1 - cosine to the nearest references, by default of each reference to the others."""
    found = nearest_neighbours(references, k=K) if queries is None else nearest_neighbours(queries, references, K)
    return 1 - found.cosines.mean(axis=1)


def _mahalanobis(white: np.ndarray) -> np.ndarray:
    return np.square(white).sum(axis=1)


def _p_values(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    return (1 + len(known) - np.searchsorted(np.sort(known), values)) / (len(known) + 1)


def _covariance(rows: np.ndarray) -> np.ndarray:
    """Return the covariance with the shrinkage of Ledoit and Wolf."""
    n, dim = rows.shape
    exact = rows.astype(np.float64)
    covariance = exact.T @ exact / n
    scale = np.trace(covariance) / dim
    difference = np.square(covariance - scale * np.eye(dim)).sum()
    error = (np.square(np.square(exact).sum(axis=1)).sum() / n - np.square(covariance).sum()) / n
    share = np.clip(error / difference, 1e-6, 1)
    return (1 - share) * covariance + share * scale * np.eye(dim)
