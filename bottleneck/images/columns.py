"""Columns of a table: those with the standard names, those named by the user, and similar names to suggest."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from bottleneck.errors import ImagesError
from bottleneck.images.splits import split_named
from bottleneck.utils.text import normal

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SHOWN = 3  # columns that a message names

_SYNONYMS = {
    "path": "image images img file files filename file_name filepath file_path fname image_path img_path image_name "
    "image_file name url",
    "label": "class classes class_name classname category categories target targets species y labels label_name breed "
    "diagnosis dx ground_truth gt truth annotation tag tags",
    "split": "is_valid valid validation is_validation is_val val is_test test is_train train is_training "
    "is_training_image subset subsets fold folds set sets partition phase usage splits data_split dataset_split "
    "split_name train_test train_val_test",
    "group": "patient subject video clip sequence person participant individual animal case study exam session scene "
    "series location site camera specimen slide lesion groups",
}
_ROLES = {name: role for role, names in _SYNONYMS.items() for name in names.split()}

_TRUE, _FALSE = ("true", "1", "1.0", "t", "yes", "y"), ("false", "0", "0.0", "f", "no", "n")
_YES_OR_NO = {  # name of a boolean column -> split if true, split if false
    **dict.fromkeys(("valid", "validation", "val"), ("val", "train")),
    "test": ("test", "train"),
    **dict.fromkeys(("train", "training", "training_image"), ("train", "test")),
}


@dataclass(frozen=True)
class Columns:
    """The columns named by the user; None or an empty name selects the standard name.

    Parameters
    ----------
    path, label, split, group : str, optional
        Names in the header.
    """

    path: str | None = None
    label: str | None = None
    split: str | None = None
    group: str | None = None

    def __bool__(self) -> bool:
        return any(asdict(self).values())

    def __str__(self) -> str:
        return ", ".join(f"{role} from {name}" for role, name in asdict(self).items() if name)

    def to_json(self) -> dict[str, str]:
        """Return a JSON object of the named columns."""
        return {role: name for role, name in asdict(self).items() if name}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Columns":
        """Return the columns of a JSON object written by `to_json`."""
        return cls(**{field.name: str(value[field.name]) for field in fields(cls) if value.get(field.name)})

    def keywords(self) -> dict[str, Any]:
        """Return the columns as keyword arguments of `bottleneck.scan`."""
        return {f"{role}_column": name for role, name in asdict(self).items()}

    def options(self) -> str:
        """Return the equivalent command-line options."""
        return " ".join(f"--{role}-column {shlex.quote(name)}" for role, name in asdict(self).items() if name)


@dataclass(frozen=True)
class Header:
    """The columns of a table.

    Parameters
    ----------
    names : sequence of str
    places : dict of str to int
        Role (path, label, split or group) -> index of the column.
    unused : dict of int to str
        Index -> role, for unused columns whose names look like that role.
    """

    names: Sequence[str]
    places: dict[str, int]
    unused: dict[int, str] = field(default_factory=dict)

    def cell(self, row: Sequence[str], role: str) -> str:
        """Return the stripped cell of a role; an empty string if no column has the role."""
        place = self.places.get(role)
        return "" if place is None else row[place].strip()

    def split(self, text: str) -> str | None:
        """Return the split named by a cell; None if it is unknown."""
        return _split(self.names[self.places["split"]], text)

    def remark(self, table: object, rows: Iterable[Sequence[str]]) -> str | None:
        """Return a message about unused columns and the options to use them; None if there are none.

        Parameters
        ----------
        table : object
            Its name in messages.
        rows : iterable of sequence of str
            Its rows, or the first of them.
        """
        if not self.unused:
            return None
        rows = list(rows)
        shown = [self._hint(place, role, rows) for place, role in list(self.unused.items())[:_SHOWN]]
        more = f" and {len(self.unused) - _SHOWN} more" if len(self.unused) > _SHOWN else ""
        return f"{table}: column{'s' * (len(self.unused) > 1)} not used: {', '.join(shown)}{more}"

    def _hint(self, place: int, role: str, rows: Iterable[Sequence[str]]) -> str:
        name = self.names[place]
        cells = {row[place].strip() for row in rows}
        if role == "split" and any(cell and _split(name, cell) is None for cell in cells):
            return f"{name} (a split? --split-column takes train, val and test)"
        return f"{name} (a {role}? --{role}-column {shlex.quote(name)})"


def read_header(table: object, cells: Sequence[str], columns: Columns, *, labelled: bool) -> Header:
    """Find the columns of a table.

    Parameters
    ----------
    table : object
        Its name in messages.
    cells : sequence of str
        The header.
    columns : Columns
        The columns named by the user.
    labelled : bool
        Whether to read labels, splits and groups.

    Raises
    ------
    ImagesError
        If a required or named column is missing or ambiguous.
    """
    names = [normal(cell.strip()) for cell in cells]
    roles = ("path", "label", "split", "group") if labelled else ("path",)
    places: dict[str, int] = {}
    for role in roles:
        named = getattr(columns, role)
        place = _place(table, names, named or role, role, named=bool(named))
        if place is not None:
            places[role] = place
    bare = [_key(name) for name in names] == ["path"]  # a list of paths, not a table with a misspelt column
    if "path" not in places or (labelled and not bare and len(names) > 1 and "label" not in places):
        raise ImagesError(_missing(table, names, places))
    return Header(names, places, dict(_unused(names, places, columns)) if "label" in places else {})


def _place(table: object, names: Sequence[str], wanted: str, role: str, *, named: bool) -> int | None:
    exact = [place for place, name in enumerate(names) if name == normal(wanted.strip())]
    alike = exact or [place for place, name in enumerate(names) if name.lower() == normal(wanted.strip()).lower()]
    if named and not alike:
        raise ImagesError(f"{table}: expected a column {wanted!r} for --{role}-column, found {_listed(names)}")
    if len(exact) > 1 or (named and len(alike) > 1):
        raise ImagesError(f"{table}: expected one column {wanted!r}, found {len(alike)}: {_listed(names)}")
    return alike[0] if alike else None


def _missing(table: object, names: Sequence[str], places: Mapping[str, int]) -> str:
    found = ",".join(names)
    guesses = [
        f"--{role}-column {shlex.quote(next(name for name in names if _role(name) == role))}"
        for role in ("path", "label")
        if role not in places and any(_role(name) == role for name in names)
    ]
    hint = f"; name them with {' '.join(guesses)}" if guesses else ""
    return (
        f"{table}: expected the columns path,label[,split][,group] in the first line (without labels, path and "
        f"--no-labels), found {found!r}{hint}"
    )


def _unused(names: Sequence[str], places: Mapping[str, int], columns: Columns) -> Iterator[tuple[int, str]]:
    """Yield unused columns that look like a label, split or group, unless the user has named that role."""
    for place, name in enumerate(names):
        role = _role(name)
        if place not in places.values() and role not in (None, "path") and not getattr(columns, role):
            yield place, role


def _split(column: str, text: str) -> str | None:
    word = normal(text).strip().lower()
    answers = _YES_OR_NO.get(_key(column).removeprefix("is_"))
    if answers and word in _TRUE + _FALSE:
        return answers[word in _FALSE]
    return split_named(text)


def _role(name: str) -> str | None:
    key = _key(name)
    role = _ROLES.get(key, key if key in _SYNONYMS else None)
    return role or ("group" if _ROLES.get(key.removesuffix("id").rstrip("_")) == "group" else None)


def _key(name: str) -> str:
    """Return a name in snake case: ``patient_id`` for ``PatientID``, ``patient-id`` and ``Patient Id``."""
    return "_".join(_HUMP.sub("_", name).lower().replace("-", " ").replace("_", " ").split())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "no columns"
