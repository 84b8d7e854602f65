"""Labels, exclusions and tags of images while they are edited, with undo and redo. Nothing is on disk here."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import ImagesError
from bottleneck.utils.text import counted, is_unicode, normal

ACTIONS = ("label", "exclude", "include", "tag", "untag")
_LONGEST = 200  # characters of a label or tag
_MOST_TAGS = 50  # of one image
_CONTROLS = {"Cc", "Zl", "Zp"}  # of Unicode: control characters and ends of lines
_INVISIBLE = {"Cf", "Zs"}
_SEPARATOR = ";"  # of tags in a table

State = tuple[str | None, bool, tuple[str, ...]]  # label, excluded, tags


@dataclass(frozen=True)
class Edit:
    """One edit of several images.

    Parameters
    ----------
    action : str
        One of `ACTIONS`.
    value : str or None
        The label (None removes it) or tag.
    rows : tuple of int
    """

    action: str
    value: str | None
    rows: tuple[int, ...]

    @classmethod
    def checked(cls, action: object, value: object, rows: object, count: int) -> "Edit":
        """Return an edit of untrusted values, with a normalised label or tag and sorted rows.

        Raises
        ------
        ImagesError
            If a value is invalid.
        """
        if action not in ACTIONS:
            raise ImagesError(f"expected an action among {', '.join(ACTIONS)}, got {action!r:.50}")
        if not isinstance(rows, list) or not all(type(row) is int and 0 <= row < count for row in rows):
            raise ImagesError(f"expected rows as a list of integers from 0 to {count - 1}")
        if action in ("exclude", "include") or (action == "label" and value is None):
            name = None
        else:
            name = _name(str(action), value)
        return cls(str(action), name, tuple(sorted(set(rows))))

    @property
    def text(self) -> str:
        """What it does, for people."""
        images = counted(len(self.rows), "image")
        if self.action == "label" and self.value is None:
            return f"remove the label of {images}"
        return f"{self.action} {images}" + (f" {self.value}" if self.value else "")


def _name(action: str, value: object) -> str:
    name = normal(value.strip()) if isinstance(value, str) and is_unicode(value) else ""
    kinds = {unicodedata.category(char) for char in name}
    if not kinds - _INVISIBLE or kinds & _CONTROLS or len(name) > _LONGEST:
        raise ImagesError(f"expected a {action.removeprefix('un')} of 1 to {_LONGEST} characters on one line")
    if action != "label" and _SEPARATOR in name:
        raise ImagesError(f"expected a tag without {_SEPARATOR}, got {name!r:.50}")
    return name


@dataclass
class _AppliedEdit:
    """An edit that was applied, with what it changed."""

    edit: Edit
    before: dict[int, State] = field(default_factory=dict)


class Annotations:
    """The current label, exclusion and tags of each image.

    Parameters
    ----------
    labels : sequence of str or None, length n
        The labels of the dataset.
    """

    def __init__(self, labels: Sequence[str | None]) -> None:
        self.original = tuple(labels)
        self.labels = list(labels)
        self.excluded: NDArray[np.bool_] = np.zeros(len(labels), bool)
        self.tags: list[tuple[str, ...]] = [()] * len(labels)
        self._done: list[_AppliedEdit] = []
        self._undone: list[_AppliedEdit] = []

    def __len__(self) -> int:
        return len(self.original)

    @property
    def count(self) -> int:
        """The number of edits that are in effect."""
        return len(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether an edit was undone, and none was made since."""
        return bool(self._undone)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels of all images, sorted."""
        return tuple(sorted({label for label in self.labels if label is not None}))

    def is_edited(self, row: int) -> bool:
        """Return whether an image differs from the dataset."""
        return self._state(row) != (self.original[row], False, ())

    def changed_by(self, edit: Edit) -> tuple[int, ...]:
        """Return the rows that an edit would change."""
        return tuple(row for row in edit.rows if self._after(row, edit) != self._state(row))

    def apply(self, edit: Edit) -> tuple[int, ...]:
        """Apply an edit and return the rows that changed; an edit that changes nothing is not kept."""
        done = self._applied(edit)
        if done.before:
            self._done.append(done)
            self._undone.clear()
        return tuple(done.before)

    def replay(self, edit: Edit) -> None:
        """Apply an edit of a log, which counts for undo even if it changes nothing now."""
        self._done.append(self._applied(edit))
        self._undone.clear()

    def undo(self) -> tuple[Edit, tuple[int, ...]] | None:
        """Take back the last edit; return it and the rows that changed, or None if there is none."""
        if not self._done:
            return None
        done = self._done.pop()
        for row, state in done.before.items():
            self._set(row, state)
        self._undone.append(done)
        return done.edit, tuple(done.before)

    def redo(self) -> tuple[Edit, tuple[int, ...]] | None:
        """Apply the last edit that was undone; return it and the rows that changed, or None if there is none."""
        if not self._undone:
            return None
        done = self._applied(self._undone.pop().edit)
        self._done.append(done)
        return done.edit, tuple(done.before)

    def _applied(self, edit: Edit) -> _AppliedEdit:
        done = _AppliedEdit(edit)
        for row in edit.rows:
            before, after = self._state(row), self._after(row, edit)
            if before != after:
                done.before[row] = before
                self._set(row, after)
        return done

    def _state(self, row: int) -> State:
        return self.labels[row], bool(self.excluded[row]), self.tags[row]

    def _set(self, row: int, state: State) -> None:
        self.labels[row], self.excluded[row], self.tags[row] = state

    def _after(self, row: int, edit: Edit) -> State:
        label, excluded, tags = self._state(row)
        if edit.action == "label":
            return edit.value, excluded, tags
        if edit.action in ("exclude", "include"):
            return label, edit.action == "exclude", tags
        name = str(edit.value)
        rest = tuple(tag for tag in tags if tag != name)
        if edit.action == "untag":
            return label, excluded, rest
        return label, excluded, tags if name in tags or len(tags) >= _MOST_TAGS else (*tags, name)
