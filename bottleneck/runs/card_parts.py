"""Large parts of a run's card, which are stored in separate files: classes, failures, the confusion matrix, ..."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck.errors import RunError
from bottleneck.evaluation.confusion import Confusion
from bottleneck.heads.load import load_head
from bottleneck.images.dataset import Failure
from bottleneck.images.failures import COLUMNS
from bottleneck.runs.images import load_run_images
from bottleneck.runs.uncertainty import load_uncertainty
from bottleneck.utils.csv_text import LARGEST, csv_bytes, parse_csv
from bottleneck.utils.files import parse_json, sha256_hex
from bottleneck.utils.tree import Tree

INLINE = 1 << 18  # characters of JSON; larger parts are stored in a file
PREDICTIONS = "predictions.csv"
_CONFUSION = "confusion.csv"
_SHARES = ("precision", "recall", "f1")

Names = list[str]  # the evaluated classes


@dataclass(frozen=True)
class _Part:
    """A part of a card, and its file format.

    Parameters
    ----------
    keys : tuple of str
        Its path in the card.
    file : str
        The name of its file.
    to_bytes : callable
        Writes the part, given the evaluated classes.
    of_bytes : callable
        Reads the part from the bytes of the file, given the evaluated classes.
    """

    keys: tuple[str, ...]
    file: str
    to_bytes: Callable[[Any, Names], bytes]
    of_bytes: Callable[[bytes, Names], Any]


class CardParts:
    """The card of a run and its parts, also those in separate files."""

    path: Path
    card: dict[str, Any]

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The held-out metrics, see `bottleneck.evaluation.metrics.evaluate`; raises the errors of `part`."""
        metrics: dict[str, Any] = self.card["metrics"]
        if not any(map(_is_reference, metrics.values())):
            return metrics
        return {name: self.part("metrics", name) for name in metrics}

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the head; raises the errors of `part`."""
        return tuple(self.part("classes"))

    @cached_property
    def failures(self) -> tuple[Failure, ...]:
        """The images that could not be used; raises the errors of `part`."""
        try:
            return tuple(Failure(**failure) for failure in self.part("failures"))
        except TypeError as error:
            raise RunError(
                f"expected failures with {', '.join(COLUMNS)} in the card of {self.path}: {error}"
            ) from error

    @property
    def predictions(self) -> list[dict[str, str]]:
        """The rows of ``predictions.csv``, with cells unescaped (see `bottleneck.utils.csv_text.escape_cell`).

        Raises
        ------
        RunError
            If they cannot be read.
        """
        file = self.path / PREDICTIONS
        try:
            return parse_csv(Tree(self.path).read(file, LARGEST))
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {file}: {error}. Fit again") from error

    def part(self, *keys: str) -> Any:
        """Return a part of the card, or None if the card lacks it.

        Parameters
        ----------
        *keys : str
            The path of the part: ``"failures"``, or ``"metrics", "confusion"``.

        Raises
        ------
        RunError
            If its file is missing, has changed, or cannot be read.
        """
        value = value_at(self.card, keys)
        part = next((part for part in _PARTS if part.keys == keys), None)
        if part is None or not _is_reference(value):
            return value
        file = self.path / part.file
        try:
            data = Tree(self.path).read(file, LARGEST)
            if sha256_hex(data) != value["sha256"]:
                raise RunError(f"expected {file} to be unchanged since it was written; it has changed. Fit again")
            names = self.part("metrics", "classes") if part.file == _CONFUSION else []
            return part.of_bytes(data, names)
        except RunError:
            raise
        except (OSError, ValueError, KeyError, OverflowError, RecursionError) as error:
            raise RunError(f"cannot read {file}, a part of the run's card: {error!r}. Fit again") from error


def check_read_back(run: CardParts, card: dict[str, Any], rows: int) -> None:
    """Check that all files of a new run can be read and are equal to what was written.

    Parameters
    ----------
    run : CardParts
        The run as it was read.
    card : dict
        The card before `store_parts`.
    rows : int
        Number of predictions.

    Raises
    ------
    RunError
        If a file cannot be read, or differs from what was written.
    """
    try:
        load_head(run.path / "head.safetensors")
        load_run_images(run.path)
        if "uncertainty_sha256" in run.card:
            load_uncertainty(run.path, run.card["uncertainty_sha256"])
        wrong = [".".join(part.keys) for part in _PARTS if not _equal(run.part(*part.keys), value_at(card, part.keys))]
        if wrong or len(run.predictions) != rows:
            raise RunError(f"found {', '.join(wrong) or PREDICTIONS} changed")
    except RunError as error:
        raise RunError(f"expected to read the new run as it was written, but it differs: {error}") from error


def store_parts(tree: Tree, folder: Path, card: dict[str, Any]) -> dict[str, Any]:
    """Write the large parts of a card to files, and return the card with references to them.

    A reference has the name of the file (``file``) and the SHA-256 of its bytes (``sha256``).

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    names = value_at(card, ("metrics", "classes")) or []
    for part in _PARTS:
        value = value_at(card, part.keys)
        if value is not None and _is_large(value):
            data = part.to_bytes(value, names)
            tree.write(folder / part.file, data)
            card = _with(card, part.keys, {"file": part.file, "sha256": sha256_hex(data)})
    return card


def _equal(found: Any, written: Any) -> bool:
    """Return whether two parts are equal; tuples are equal to lists, which JSON has instead."""
    return bool(found == written) or (not isinstance(written, Confusion) and json.dumps(found) == json.dumps(written))


def _is_reference(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("sha256"), str)


def _is_large(value: Any) -> bool:
    return isinstance(value, Confusion) or len(json.dumps(value)) > INLINE


def value_at(card: Any, keys: Sequence[str]) -> Any:
    """Return the value at a path of keys in a card, or None if there is none."""
    for key in keys:
        card = card.get(key) if isinstance(card, dict) else None
    return card


def _with(card: dict[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    first, *rest = keys
    return {**card, first: _with(card[first], rest, value) if rest else value}


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    return csv_bytes([header, *rows])


def _failures_table(failures: list[dict[str, Any]], _: Names) -> bytes:
    return _table(COLUMNS, ([failure[name] for name in COLUMNS] for failure in failures))


def _failures(data: bytes, _: Names) -> list[dict[str, Any]]:
    rows = ({name: row[name] for name in COLUMNS} for row in parse_csv(data))
    return [{**row, "digest": row["digest"] or None} for row in rows]


def _confusion_table(confusion: Sequence[list[int]], names: Names) -> bytes:
    if isinstance(confusion, Confusion):
        cells = confusion.cells()
    else:
        cells = [[a, b, count] for a, row in enumerate(confusion) for b, count in enumerate(row) if count]
    return _table(("label", "predicted", "images"), ([names[a], names[b], count] for a, b, count in cells))


def _confusion(data: bytes, names: Names) -> Confusion:
    code = {name: place for place, name in enumerate(names)}
    cells = [(code[row["label"]], code[row["predicted"]], int(row["images"])) for row in parse_csv(data)]
    return Confusion(len(names), *np.array(cells, np.int64).reshape(-1, 3).T)


def _per_class_table(per_class: dict[str, dict[str, Any]], _: Names) -> bytes:
    return _table(
        ("class", *_SHARES, "n"), ([name, *(row[key] for key in (*_SHARES, "n"))] for name, row in per_class.items())
    )


def _per_class(data: bytes, _: Names) -> dict[str, dict[str, Any]]:
    return {row["class"]: {**{key: float(row[key]) for key in _SHARES}, "n": int(row["n"])} for row in parse_csv(data)}


def _names_table(names: list[str], _: Names) -> bytes:
    return _table(("class",), ([name] for name in names))


def _names(data: bytes, _: Names) -> list[str]:
    return [row["class"] for row in parse_csv(data)]


def _counts_table(counts: dict[str, int], _: Names) -> bytes:
    return _table(("label", "images"), counts.items())


def _counts(data: bytes, _: Names) -> dict[str, int]:
    return {row["label"]: int(row["images"]) for row in parse_csv(data)}


def _leaks(data: bytes, _: Names) -> dict[str, Any]:
    leaks = parse_json(data)
    if not isinstance(leaks, dict):
        raise ValueError(f"expected a JSON object, found {leaks!r:.50}")
    return leaks


_PARTS = (
    _Part(("classes",), "classes.csv", _names_table, _names),
    _Part(("metrics", "classes"), "evaluated_classes.csv", _names_table, _names),
    _Part(("metrics", "per_class"), "per_class.csv", _per_class_table, _per_class),
    _Part(("metrics", "confusion"), _CONFUSION, _confusion_table, _confusion),
    _Part(("search", "cv", "per_class"), "cv_per_class.csv", _per_class_table, _per_class),
    _Part(("dataset", "labels"), "labels.csv", _counts_table, _counts),
    _Part(("failures",), "failures.csv", _failures_table, _failures),
    _Part(("leaks",), "leaks.json", lambda leaks, _: json.dumps(leaks).encode(), _leaks),
)

FILES = tuple(part.file for part in _PARTS)  # which a run may have
