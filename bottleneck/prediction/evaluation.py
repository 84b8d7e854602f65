"""Results of an evaluation: metrics, errors, what was left out, and the comparison with another run."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from bottleneck.charts.html import block, html_table, line, note
from bottleneck.evaluation.confusion import as_json
from bottleneck.evaluation.metrics_html import accuracy_html, confusion_html
from bottleneck.evaluation.stats import wilson_interval
from bottleneck.images.dataset import Failure
from bottleneck.prediction.unseen import LeftOut
from bottleneck.runs.ranking import LEVEL
from bottleneck.runs.run import Run
from bottleneck.utils.text import counted, one_line

_SHOWN = 10  # errors in a notebook
_ERRORS = ("image", "label", "prediction", "probability")


@dataclass(frozen=True, kw_only=True)
class Misclassification:
    """An image whose most probable class is not its label.

    Parameters
    ----------
    path : str
        As it was given.
    digest : str
        SHA-256 of the image's bytes, hexadecimal.
    label, predicted : str
    probability : float
        Probability of `predicted`.
    label_probability : float
        Probability of `label`; 0 if the run does not have this class.
    """

    path: str
    digest: str
    label: str
    predicted: str
    probability: float
    label_probability: float


@dataclass(frozen=True, kw_only=True)
class RunComparison:
    """The comparison with another run on the same images.

    Parameters
    ----------
    run : Run
    accuracy : float
    accuracy_ci95 : tuple of float
    only_run, only_against : int
        Numbers of images that only the evaluated run, or only the other one, classifies correctly.
    p_value : float
        P-value of McNemar's test, exact and two-sided.
    """

    run: Run
    accuracy: float
    accuracy_ci95: tuple[float, float]
    only_run: int
    only_against: int
    p_value: float

    def __repr__(self) -> str:
        return one_line(self, str(self.run.path), f"accuracy {100 * self.accuracy:.1f} %", self.verdict)

    @property
    def verdict(self) -> str:
        """Whether the evaluated run is ``better`` or ``worse``, if p is below 0.05; else ``not told apart``."""
        if self.p_value >= LEVEL:
            return "not told apart"
        return "better" if self.only_run > self.only_against else "worse"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "run": str(self.run.path),
            "accuracy": self.accuracy,
            "accuracy_ci95": list(self.accuracy_ci95),
            "only_run": self.only_run,
            "only_against": self.only_against,
            "p_value": self.p_value,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics and errors of a run on images that it was not trained on.

    Parameters
    ----------
    run : Run
    labels_from : tuple of str
        Where the labels come from: ``the folders of photos``, ``the column label of test.csv``.
    metrics : dict
        See `bottleneck.evaluation.metrics.evaluate` and `evaluate_probabilities`.
    errors : tuple of Misclassification
        The most confident first.
    left : LeftOut
    selected_by : int
        Number of images that also selected the epoch of a fine-tuning. They are evaluated, but their accuracy is
        optimistic.
    unknown_labels : dict of str to int
        Labels that are not classes of the run, with the numbers of their images, which count as errors.
    unrecorded : tuple of Run
        Runs that do not record all of their training images, so that these could not be left out.
    near : tuple of (str, float)
        Near duplicates of training images, with the cosine similarity of their features, the most similar first. They
        are evaluated, so the accuracy may be optimistic. See `bottleneck.evaluation.near_duplicates.near_duplicates`.
    failures : tuple of Failure
    against : RunComparison or None
    remarks : tuple of str
        See `bottleneck.prediction.predict.Predictions`.
    """

    run: Run
    labels_from: tuple[str, ...]
    metrics: dict[str, Any]
    errors: tuple[Misclassification, ...]
    left: LeftOut
    selected_by: int
    unknown_labels: dict[str, int]
    unrecorded: tuple[Run, ...]
    near: tuple[tuple[str, float], ...]
    failures: tuple[Failure, ...]
    against: RunComparison | None = None
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        compared = f"{self.against.verdict} against {self.against.run.path}" if self.against else ""
        accuracy = f"accuracy {100 * self.accuracy:.1f} % on {counted(self.n, 'image')}"
        return one_line(self, str(self.run.path), accuracy, compared)

    def _repr_html_(self) -> str:
        rows = [[one.path, one.label, one.predicted, f"{one.probability:.3f}"] for one in self.errors[:_SHOWN]]
        matrix = self.metrics.get("confusion")
        return block(
            f"{self.run.name} on {counted(self.n, 'image')}",
            accuracy_html(self.metrics, "image"),
            line(f"{self.against.verdict} against {self.against.run.name} (p = {self.against.p_value:.2g})")
            if self.against
            else None,
            None if matrix is None else confusion_html(matrix, self.metrics["classes"]),
            line("The most confident errors:") if rows else None,
            html_table(_ERRORS, rows, numbers=_ERRORS[3:], more=len(self.errors) - len(rows)) if rows else None,
            note(f"{counted(len(self.failures), 'image')} could not be used") if self.failures else None,
            *map(note, self.remarks),
        )

    @property
    def n(self) -> int:
        """Number of evaluated images."""
        return int(self.metrics["n"])

    @property
    def accuracy(self) -> float:
        """The share of images whose most probable class is their label."""
        return float(self.metrics["accuracy"])

    @property
    def accuracy_ci95(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy, by Wilson."""
        low, high = self.metrics["accuracy_ci95"]
        return low, high

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "run": str(self.run.path),
            "labels_from": list(self.labels_from),
            **self.metrics,
            "confusion": as_json(self.metrics["confusion"]),
            "left_out": vars(self.left),
            "selected_by": self.selected_by,
            "unknown_labels": self.unknown_labels,
            "trained_on_unrecorded": [str(run.path) for run in self.unrecorded],
            "near_duplicates": [list(pair) for pair in self.near],
            "against": self.against.to_json() if self.against else None,
            "errors": [vars(error) for error in self.errors],
            "failed": len(self.failures),
            "failures": [vars(failure) for failure in self.failures],
        }

    def to_rows(self) -> Iterator[list[object]]:
        """Yield the header and the rows of a table of all errors, the most confident first."""
        yield [field.name for field in fields(Misclassification)]
        for error in self.errors:
            yield [f"{value:.6f}" if isinstance(value, float) else value for value in vars(error).values()]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The accuracy of predictions; see `bottleneck.prediction.evaluate.summary`.

    Parameters
    ----------
    labels_from : tuple of str
    n, right : int
        Numbers of compared images and of correct predictions.
    left : LeftOut
    unrecorded : bool
        Whether the run does not record all of its training images.
    passed_over : tuple of str
        Messages about names of folders and labels that are not compared.
    """

    labels_from: tuple[str, ...]
    n: int
    right: int
    left: LeftOut
    unrecorded: bool
    passed_over: tuple[str, ...]

    @property
    def accuracy_ci95(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy, by Wilson."""
        return wilson_interval(self.right, self.n)
