"""What a user may have meant by a name that is none."""

import difflib
from collections.abc import Iterable, Sequence


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known names that are nearest to a misspelt one."""
    return difflib.get_close_matches(name, list(known), n=most, cutoff=0.5)


def did_you_mean(names: Sequence[str]) -> str:
    """Return ``did you mean a, b or c?``, or nothing."""
    if not names:
        return ""
    *others, last = names
    return f"did you mean {', '.join(others)} or {last}?" if others else f"did you mean {last}?"
