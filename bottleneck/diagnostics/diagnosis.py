"""The result of a diagnosis: what was found, in sections, as text for a bug report and as JSON."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from bottleneck.errors import printable
from bottleneck.utils.text import one_line

OK, NOTE, WRONG = "ok", "note", "wrong"
_MARKS = {OK: "", NOTE: "note: ", WRONG: "WRONG: "}


@dataclass(frozen=True)
class Symptom:
    """One line of a diagnosis.

    Parameters
    ----------
    name : str
        What was checked, such as ``torch``.
    value : str
        What was found.
    state : str
        ``ok``; ``note`` for something that costs speed or comfort; or ``wrong`` for something that must be fixed.
    remedy : str
        What to do, as a sentence; empty if there is nothing to do.
    """

    name: str
    value: str
    state: str = OK
    remedy: str = ""

    def line(self) -> str:
        """Return the item of a Markdown list."""
        found = f"{self.name}: {_MARKS[self.state]}{self.value}"
        return "- " + printable(f"{found}. {self.remedy}" if self.remedy else found)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return dict(vars(self))


@dataclass(frozen=True)
class SymptomGroup:
    """One section of a diagnosis.

    Parameters
    ----------
    title : str
    symptoms : tuple of Symptom
    """

    title: str
    symptoms: tuple[Symptom, ...]

    def lines(self) -> list[str]:
        """Return the section as lines of Markdown."""
        return [f"### {self.title}", "", *(symptom.line() for symptom in self.symptoms), ""]

    def hidden(self, hide: "Hide") -> "SymptomGroup":
        """Return the section with private words replaced in each value and remedy."""
        return replace(self, symptoms=tuple(_hidden(symptom, hide) for symptom in self.symptoms))


class Hide:
    """Leave a text unchanged; `bottleneck.diagnostics.privacy.Privacy` removes what is private."""

    def __call__(self, text: str) -> str:
        """Return the text to show."""
        return text


@dataclass(frozen=True)
class Diagnosis:
    """What an installation and its machine can do.

    Parameters
    ----------
    groups : tuple of SymptomGroup
        The sections, in the order in which they were found.
    seconds : float
        How long it took.
    """

    groups: tuple[SymptomGroup, ...]
    seconds: float

    @property
    def works(self) -> bool:
        """Whether nothing must be fixed."""
        return not self.wrong

    @property
    def wrong(self) -> list[Symptom]:
        """What must be fixed."""
        return [symptom for symptom in self if symptom.state == WRONG]

    @property
    def notes(self) -> list[Symptom]:
        """What costs speed or comfort."""
        return [symptom for symptom in self if symptom.state == NOTE]

    def __iter__(self) -> Iterator[Symptom]:
        return (symptom for group in self.groups for symptom in group.symptoms)

    def __repr__(self) -> str:
        return one_line(self, f"{len(self.wrong)} wrong", f"{len(self.notes)} notes", f"{self.seconds:.1f} s")

    def __str__(self) -> str:
        return "\n".join([*(line for group in self.groups for line in group.lines()), self.verdict()])

    def verdict(self) -> str:
        """Return the last line: whether it works, and how long the diagnosis took."""
        if self.works:
            notes = f"; see {len(self.notes)} notes above" if len(self.notes) > 1 else "; see the note above"
            return f"bottleneck works here{notes if self.notes else ''} ({self.seconds:.1f} s)"
        names = ", ".join(symptom.name for symptom in self.wrong)
        return printable(f"fix what is marked WRONG: {names} ({self.seconds:.1f} s)")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        found = {group.title: [symptom.to_json() for symptom in group.symptoms] for group in self.groups}
        return {"works": self.works, "seconds": round(self.seconds, 2), "found": found}


def _hidden(symptom: Symptom, hide: Hide) -> Symptom:
    return replace(symptom, value=hide(symptom.value), remedy=hide(symptom.remedy))
