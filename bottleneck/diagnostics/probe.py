"""A probe looks at one thing. One that fails is a line of the diagnosis, not the end of it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from bottleneck.diagnostics.diagnosis import WRONG, Symptom

_LONGEST = 300  # characters of an error's text


@dataclass(frozen=True)
class Probe:
    """Something to look at.

    Parameters
    ----------
    name : str
        Shown if `look` fails.
    look : callable
        Returns the symptoms that it found; none if there is nothing to say.
    remedy : str
        What to do if it fails.
    state : str
        The state of a failure.
    """

    name: str
    look: Callable[[], Iterable[Symptom]]
    remedy: str = ""
    state: str = WRONG

    def symptoms(self) -> Iterator[Symptom]:
        """Yield what was found; if it fails, what was found before, and the reason."""
        try:
            yield from self.look()
        except (Exception, SystemExit) as error:
            yield Symptom(self.name, reason(error), self.state, self.remedy)


def reason(error: BaseException) -> str:
    """Return the type and the first line of an error."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__
