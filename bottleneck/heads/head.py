"""The base class of heads: scaling, scores, probabilities, and saving."""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from bottleneck.errors import HeadError
from bottleneck.heads.features import Features, Scaling
from bottleneck.utils.output_file import write_output
from bottleneck.utils.text import counted, one_line

FORMAT_VERSION = 2
LARGEST_FILE = 1 << 31  # bytes
_ROWS = 4096  # scored at once
_STORED_NAMES = {"inverse_temperature": "sharpness"}  # field -> key of the metadata, where they differ


@dataclass(frozen=True, kw_only=True)
class Head(ABC):
    """A classifier over features.

    Parameters
    ----------
    family : str
        One of `bottleneck.heads.family.NAMES`.
    classes : tuple of str, length k
    mean, scale : ndarray of float32, shape (d,)
        The scaling of features, ``(x - mean) / scale``.
    unit : bool
        Whether each row is divided by its Euclidean norm before that.
    inverse_temperature : float
        Probabilities are ``softmax(inverse_temperature * scores)``. It is fitted on out-of-fold scores, which corrects
        the low confidence of strongly regularised heads and turns SVM margins into probabilities. The ranking of the
        classes does not change.
    fingerprint : str
        Fingerprint of the spec of the features that the head was trained on.
    """

    family: str
    classes: tuple[str, ...]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    unit: bool = False
    inverse_temperature: float = 1.0
    fingerprint: str = ""

    form: ClassVar[str]
    tensors: ClassVar[tuple[str, ...]] = ("mean", "scale")
    kinds: ClassVar[dict[str, str]] = {}  # dtypes of the tensors that are not float32
    numbers: ClassVar[tuple[str, ...]] = ()  # names of scalar parameters

    def __post_init__(self) -> None:
        count, dim = len(self.classes), len(self.mean)
        shapes = {"mean": (dim,), "scale": (dim,), **self.shapes(count, dim)}
        wrong = [f"{name} {getattr(self, name).shape}" for name, s in shapes.items() if getattr(self, name).shape != s]
        if wrong or count < 2:
            raise HeadError(f"expected tensors for {count} classes and {dim} features, got {', '.join(wrong) or count}")
        if not all(np.isfinite(getattr(self, name)).all() for name in shapes) or not self.scale.all():
            raise HeadError("expected finite tensors and a scale without zeros")
        if not 0 < self.inverse_temperature < np.inf:
            raise HeadError(f"expected an inverse temperature above 0, got {self.inverse_temperature}")

    def __repr__(self) -> str:
        return one_line(self, self.family, counted(len(self.classes), "class"), f"{len(self.mean)} features")

    @abstractmethod
    def shapes(self, count: int, dim: int) -> dict[str, tuple[int, ...]]:
        """Return the expected shapes of the additional tensors for k classes and d features.

        Raises
        ------
        HeadError
            If the tensors are inconsistent.
        """

    @abstractmethod
    def decide(self, scaled: Features) -> NDArray[np.float64]:
        """Return the scores ``(n, k)`` of scaled features ``(n, d)``."""

    @property
    def scaling(self) -> Scaling:
        """The scaling of features."""
        return Scaling(mean=self.mean, scale=self.scale, unit=self.unit)

    def scores(self, features: Features) -> NDArray[np.float64]:
        """Return the scores ``(n, k)`` of features ``(n, d)``.

        Raises
        ------
        HeadError
            If d does not match the head.
        """
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise HeadError(f"expected features (n, {len(self.mean)}), got {features.shape}")
        scores = np.empty((len(features), len(self.classes)))
        for start in range(0, len(features), _ROWS):
            rows = slice(start, start + _ROWS)
            scores[rows] = self.decide(self.scaling(features[rows]))
        return scores

    def probabilities(self, features: Features) -> NDArray[np.float64]:
        """Return the probability of each class, ``(n, k)``, of features ``(n, d)``."""
        return softmax(self.inverse_temperature * self.scores(features))

    def predict(self, features: Features) -> NDArray[np.str_]:
        """Return the most probable class ``(n,)`` of features ``(n, d)``."""
        labels: NDArray[np.str_] = np.array(self.classes)[self.scores(features).argmax(axis=1)]
        return labels

    def save(self, path: Path) -> None:
        """Write the head as a safetensors file.

        Raises
        ------
        HeadError
            If it is too large to be loaded again.
        OutputError
            If it cannot be written, see `bottleneck.utils.output_file.write_output`.
        """
        data = self.to_bytes()
        write_output(path, lambda file: file.write(data))

    def to_bytes(self) -> bytes:
        """Return the head as a safetensors file, with all fields but the tensors in its metadata.

        Raises
        ------
        HeadError
            If it is too large to be loaded again.
        """
        names = self.tensors
        size = sum(getattr(self, name).nbytes for name in names)
        if size >= LARGEST_FILE:
            raise HeadError(f"expected a head of less than {LARGEST_FILE >> 30} GiB, got one of {size / 2**30:.1f} GiB")
        rest = {
            _STORED_NAMES.get(field.name, field.name): getattr(self, field.name)
            for field in fields(self)
            if field.name not in names
        }
        metadata = {
            "format_version": str(FORMAT_VERSION),
            "form": self.form,
            **{name: value if isinstance(value, str) else json.dumps(value) for name, value in rest.items()},
        }
        data = save({name: np.ascontiguousarray(getattr(self, name)) for name in names}, metadata)
        return with_sorted_header(data)


def with_sorted_header(data: bytes) -> bytes:
    """Return a safetensors file with a sorted header; the library writes the metadata in random order."""
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``exp(s_j) / sum_i exp(s_i)`` along the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return shares
