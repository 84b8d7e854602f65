"""The types of what a JSON file of ours holds, and the one way in which a value is checked against them.

Whoever reads such a file gives the type that it must have: a dataclass, a ``TypedDict``, or a type of the standard
library's with those below. Numbers that are NaN, infinite or beyond what fits, and ``True`` for a number, are refused.
"""

import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from bottleneck.utils.files import canonical_json

T = TypeVar("T")
_SHOWN = 300  # characters of what is wrong

Whole = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Finite = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
Number = Annotated[int, Meta(ge=-(2**53), le=2**53)] | Finite  # as it was written: 0 and 0.0 are two texts
Share = Annotated[float, Meta(ge=0, le=1)]


def checked(value: Any, kind: type[T], *, closed: bool = False) -> T:
    """Return a value that was read from JSON as the type that it must have.

    Parameters
    ----------
    value : object
    kind : type
        A dataclass is made of an object, and a tuple of an array.
    closed : bool
        Whether an object with a key that the dataclass does not know is refused. Else such a key is ignored: a later
        version may have added it.

    Raises
    ------
    ValueError
        If it is of another type; the message says where, what was expected and what was found.
    """
    if closed and isinstance(value, dict):
        known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
        if unknown := value.keys() - known:
            raise ValueError(f"unknown: {', '.join(sorted(unknown)):.{_SHOWN}}")
    try:
        return msgspec.convert(value, kind)
    except UnicodeEncodeError as error:
        raise ValueError("a key is no text") from error
    except msgspec.ValidationError as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{text[:1].lower()}{text[1:]:.{_SHOWN}}") from error


def expect_canonical(value: Mapping[str, Any], written: Mapping[str, Any]) -> None:
    """Refuse a value that is read as something else than it says: it has a field of a later version, say.

    Parameters
    ----------
    value : mapping
        What was read.
    written : mapping
        What would be written of it.

    Raises
    ------
    ValueError
        If the two differ.
    """
    if canonical_json(dict(value)) != canonical_json(dict(written)):
        odd = sorted(name for name in {*value, *written} if value.get(name) != written.get(name))
        raise ValueError(f"unknown or unusual: {', '.join(odd or value):.{_SHOWN}}")
