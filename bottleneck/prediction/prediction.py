"""The predictions of a run for images, as objects, JSON and rows of a table."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, overload

from bottleneck.charts.html import block, line, note
from bottleneck.images.contact_sheet import MOST, ContactSheet, Tile
from bottleneck.images.dataset import Failure
from bottleneck.images.given import Given
from bottleneck.runs.run import Run
from bottleneck.utils.frames import as_frame
from bottleneck.utils.text import counted, one_line

UNFAMILIAR = "unfamiliar"


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Parameters
    ----------
    path : str
        As it was given: a cell of a CSV, an argument, or a file below a folder.
    digest : str or None
        SHA-256 of the image's bytes, hexadecimal; None if they could not be read.
    label : str or None
        The most probable class; None if the image cannot be used, or is rejected.
    probability : float or None
        Probability of `label`.
    top : tuple of (str, float)
        The most probable classes with their probabilities, also of an image that is rejected.
    failure : Failure or None
        Why the image cannot be used.
    familiarity : float or None
        How usual the image is for the training set, a p-value in (0, 1]: of images like those of the training set, a
        share of p has a familiarity of at most p. None if the run does not record it, or the image cannot be used.
    unfamiliar : bool
        Whether the familiarity is at most the threshold.
    set : tuple of str or None
        The prediction set, most probable class first, if a coverage was requested.
    """

    path: str
    digest: str | None
    label: str | None
    probability: float | None
    top: tuple[tuple[str, float], ...]
    failure: Failure | None = None
    familiarity: float | None = None
    unfamiliar: bool = False
    set: tuple[str, ...] | None = None

    @property
    def rejected(self) -> bool:
        """Whether the image has no label because it is unfamiliar."""
        return self.label is None and self.failure is None

    def __repr__(self) -> str:
        if self.label is None or self.probability is None:
            return one_line(self, self.path, self.failure.code if self.failure else UNFAMILIAR)
        return one_line(self, self.path, f"{self.label} {100 * self.probability:.1f} %")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object: with the most probable classes, or with an ``error`` that has a code and a message.

        An image that is rejected has ``"rejected": "unfamiliar"``, and no classes.
        """
        found: dict[str, Any] = {name: getattr(self, name) for name in ("path", "digest", "label", "probability")}
        if self.failure:
            return {**found, "error": {"code": self.failure.code, "message": self.failure.message}}
        top = () if self.rejected else self.top
        found["top"] = [{"label": label, "probability": share} for label, share in top]
        found["familiarity"] = None if self.familiarity is None else round(self.familiarity, 6)
        if self.set is not None:
            found["set"] = None if self.rejected else list(self.set)
        return {**found, "rejected": UNFAMILIAR} if self.rejected else found


@dataclass(frozen=True)
class Predictions(Sequence[Prediction]):
    """One prediction for each row and file that was given, in that order, including failures.

    A sequence of `Prediction`. An image that cannot be used has the label None and a `failure`; one that is rejected
    has the label None and no failure.

    Parameters
    ----------
    run : Run
        The run whose head predicted.
    items : tuple of Prediction
    failures : tuple of Failure
        The failures of `items`, with paths as they were given.
    remarks : tuple of str
        On the engine, if features were computed, for example that they are less accurate than usual.
    given : Given
        The images as they were given, with their labels.
    top : int
        Number of classes of each image in `Prediction.top`.
    threshold : float
        The familiarity at and below which an image is unfamiliar.
    reject : bool
        Whether unfamiliar images have no label.
    coverage : float or None
        The promised coverage of the sets.
    cautions : tuple of str
        What limits familiarity and sets, for example few calibration images.
    """

    run: Run
    items: tuple[Prediction, ...]
    failures: tuple[Failure, ...]
    remarks: tuple[str, ...] = ()
    given: Given = field(default_factory=lambda: Given((), (), ()), repr=False)
    top: int = 1
    threshold: float = 0.0
    reject: bool = False
    coverage: float | None = None
    cautions: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        files = self.given.files if len(self.given) == len(self) else tuple(item.path for item in self.items)
        sheet = ContactSheet(map(_tile, self.items[:MOST], files[:MOST]), left_out=max(0, len(self) - MOST))
        failed = f", {len(self.failures):,} of which cannot be used" if self.failures else ""
        head = line(f"{counted(len(self), 'image')}{failed}")
        return block(f"Predictions of {self.run.name}", head, sheet.to_html(), *map(note, self.cautions))

    @property
    def usable(self) -> tuple[Prediction, ...]:
        """The items without a failure."""
        return tuple(item for item in self.items if item.failure is None)

    @property
    def unfamiliar(self) -> tuple[Prediction, ...]:
        """The items whose familiarity is at most `threshold`."""
        return tuple(item for item in self.items if item.unfamiliar)

    @property
    def has_familiarity(self) -> bool:
        """Whether the run records how familiar images are."""
        return any(item.familiarity is not None for item in self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        failed = f"{len(self.failures):,} failed" if self.failures else ""
        return one_line(self, counted(len(self), "image"), failed, f"by {self.run.path}")

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Prediction, ...]: ...
    def __getitem__(self, index: int | slice) -> Prediction | tuple[Prediction, ...]:
        return self.items[index]

    def to_json(self) -> list[dict[str, Any]]:
        """Return a JSON object for each image, see `Prediction.to_json`."""
        return [item.to_json() for item in self.items]

    def to_rows(self) -> Iterator[list[object]]:
        """Yield the header and the rows of a table, one row per image; cells without a value are empty.

        Columns are path, digest, label, probability, label_2, probability_2, ..., code, message and familiarity. With a
        coverage, the column set is a JSON array of labels. If unfamiliar images are rejected, the column rejected is
        ``unfamiliar`` for these, and they have no label.
        """
        more = [name for place in range(2, self.top + 1) for name in (f"label_{place}", f"probability_{place}")]
        columns = ["familiarity", *["set"] * (self.coverage is not None), *["rejected"] * self.reject]
        yield ["path", "digest", "label", "probability", *more, "code", "message", *columns]
        for item in self.items:
            yield [item.path, item.digest or "", *self._labels(item), *self._failure(item), *self._trust(item)]

    def to_frame(self) -> Any:
        """Return a ``pandas.DataFrame`` with one row per image, and the fields of `Prediction` as columns.

        Raises
        ------
        BottleneckError
            If pandas is not installed.
        """
        names = [field.name for field in fields(Prediction)]
        return as_frame([names, *([getattr(item, name) for name in names] for item in self.items)])

    def _labels(self, item: Prediction) -> list[str]:
        if item.label is None:
            return [""] * 2 * self.top
        return [cell for label, share in item.top for cell in (label, f"{share:.6f}")]

    def _failure(self, item: Prediction) -> list[str]:
        return [item.failure.code, item.failure.message] if item.failure else ["", ""]

    def _trust(self, item: Prediction) -> list[str]:
        cells = ["" if item.familiarity is None else f"{item.familiarity:.6f}"]
        if self.coverage is not None:
            no_set = item.label is None or item.set is None
            cells.append("" if no_set else json.dumps(item.set, ensure_ascii=False))
        return [*cells, UNFAMILIAR if item.rejected else ""] if self.reject else cells


def _tile(item: Prediction, file: str) -> Tile:
    """Return a picture with its prediction."""
    digest = bytes.fromhex(item.digest) if item.digest else None
    if item.label is None or item.probability is None:
        return Tile(file, item.failure.code if item.failure else UNFAMILIAR, digest)
    doubt = f" · {UNFAMILIAR}" if item.unfamiliar else ""
    return Tile(file, f"{item.label} {item.probability:.0%}{doubt}", digest)
