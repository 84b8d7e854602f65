"""What a linear head is: a feature scaling, ``W (k, d)`` and ``b (k,)``; and how it is kept."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bottleneck.errors import HeadError, RunError
from bottleneck.files import write_atomic

Features = NDArray[np.float32]  # (n, d)

FORMAT_VERSION = 1
_LARGEST_FILE = 1 << 31
_TENSORS = ("weight", "bias", "mean", "scale")


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """A classifier ``argmax(W ((x - mean) / scale) + b)``.

    Parameters
    ----------
    family : str
        ``logistic``, ``svm`` or ``softmax``.
    classes : tuple of str, length k
    weight : ndarray of float32, shape (k, d)
    bias : ndarray of float32, shape (k,)
    mean, scale : ndarray of float32, shape (d,)
        Of the features of the training part.
    sharpness : float
        Probabilities are ``softmax(sharpness * scores)``. Fitted on out-of-fold scores, so that a strongly
        regularised head is not timid and an SVM's margins become probabilities; the order of classes is untouched.
    fingerprint : str
        Of the spec of the features the head was trained on.
    """

    family: str
    classes: tuple[str, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    sharpness: float = 1.0
    fingerprint: str = ""

    def __post_init__(self) -> None:
        count, dim = self.weight.shape
        shapes = {"bias": (count,), "mean": (dim,), "scale": (dim,)}
        wrong = [f"{name} {getattr(self, name).shape}" for name, s in shapes.items() if getattr(self, name).shape != s]
        if wrong or count != len(self.classes) or count < 2:
            raise HeadError(f"expected {len(self.classes)} classes to fit weight {self.weight.shape}, got {wrong}")
        if not all(np.isfinite(getattr(self, name)).all() for name in _TENSORS) or not self.scale.all():
            raise HeadError("expected finite tensors and no zero in the scale")
        if not 0 < self.sharpness < np.inf:
            raise HeadError(f"expected a sharpness above 0, got {self.sharpness}")

    def scores(self, features: Features) -> NDArray[np.float64]:
        """Return the scores ``(n, k)`` of features ``(n, d)``.

        Raises
        ------
        HeadError
            If d is not the head's.
        """
        if features.ndim != 2 or features.shape[1] != self.weight.shape[1]:
            raise HeadError(f"expected features (n, {self.weight.shape[1]}), got {features.shape}")
        scores: NDArray[np.float64] = ((features - self.mean) / self.scale) @ self.weight.T.astype(
            np.float64
        ) + self.bias
        return scores

    def probabilities(self, features: Features) -> NDArray[np.float64]:
        """Return the probability of each class, ``(n, k)``, of features ``(n, d)``."""
        return softmax(self.sharpness * self.scores(features))

    def predict(self, features: Features) -> NDArray[np.str_]:
        """Return the first class ``(n,)`` of features ``(n, d)``."""
        labels: NDArray[np.str_] = np.array(self.classes)[self.scores(features).argmax(axis=1)]
        return labels

    def save(self, path: Path) -> None:
        """Write the head as safetensors, atomically; what is no tensor goes into its metadata."""
        metadata = {
            "format_version": str(FORMAT_VERSION),
            "family": self.family,
            "classes": json.dumps(self.classes),
            "sharpness": repr(self.sharpness),
            "fingerprint": self.fingerprint,
        }
        write_atomic(path, save({name: np.ascontiguousarray(getattr(self, name)) for name in _TENSORS}, metadata))

    @classmethod
    def load(cls, path: Path) -> "LinearHead":
        """Read what `save` wrote. No code in the file can run: it holds tensors and strings.

        Raises
        ------
        RunError
            If the file is missing, damaged, huge or of a newer format.
        """
        try:
            if path.stat().st_size > _LARGEST_FILE:
                raise RunError(f"expected a head of less than {_LARGEST_FILE >> 30} GiB in {path}")
            with safe_open(path, framework="numpy") as file:
                metadata: dict[str, Any] = file.metadata() or {}
                if metadata.get("format_version") != str(FORMAT_VERSION):
                    found = metadata.get("format_version")
                    raise RunError(f"expected a head of format version {FORMAT_VERSION} in {path}, found {found}")
                tensors = {name: file.get_tensor(name).astype(np.float32) for name in _TENSORS}
            classes = json.loads(metadata["classes"])
            if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
                raise RunError(f"expected a list of class names in {path}, found {classes!r:.100}")
            return cls(
                family=metadata["family"],
                classes=tuple(classes),
                sharpness=float(metadata["sharpness"]),
                fingerprint=metadata["fingerprint"],
                **tensors,
            )
        except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(f"expected a head in {path}, cannot read it: {error}. Fit it again") from error


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``exp(s_j) / sum_i exp(s_i)`` along the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return shares
