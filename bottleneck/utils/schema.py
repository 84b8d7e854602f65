"""Validate the content of JSON files against types.

The type is a dataclass, a ``TypedDict``, or a type of the standard library, with the types below. NaN, infinite and too
large numbers, and ``True`` for a number, are refused.
"""

import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from bottleneck.utils.files import canonical_json

T = TypeVar("T")
_SHOWN = 300  # characters of a message

Whole = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Finite = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
Number = Annotated[int, Meta(ge=-(2**53), le=2**53)] | Finite  # as written: 0 and 0.0 differ as text
Share = Annotated[float, Meta(ge=0, le=1)]


def checked(value: Any, kind: type[T], *, closed: bool = False) -> T:
    """Convert a value that was read from JSON to its expected type.

    Parameters
    ----------
    value : object
    kind : type
        JSON objects become dataclasses, arrays become tuples.
    closed : bool
        Whether to refuse keys that the dataclass does not have. By default they are ignored: a later version may have
        added them.

    Raises
    ------
    ValueError
        If it has another type; the message says where, what was expected and what was found.
    """
    if closed and isinstance(value, dict):
        known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
        if unknown := value.keys() - known:
            raise ValueError(f"unknown: {', '.join(sorted(unknown)):.{_SHOWN}}")
    try:
        return msgspec.convert(value, kind)
    except UnicodeEncodeError as error:
        raise ValueError("a key is not a string") from error
    except msgspec.ValidationError as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{text[:1].lower()}{text[1:]:.{_SHOWN}}") from error


def expect_canonical(value: Mapping[str, Any], written: Mapping[str, Any]) -> None:
    """Refuse a value that would be written differently, for example because it has fields of a later version.

    Parameters
    ----------
    value : mapping
        The value that was read.
    written : mapping
        The same value as it would be written now.

    Raises
    ------
    ValueError
        If the two differ.
    """
    if canonical_json(dict(value)) != canonical_json(dict(written)):
        odd = sorted(name for name in {*value, *written} if value.get(name) != written.get(name))
        raise ValueError(f"unknown or unusual: {', '.join(odd or value):.{_SHOWN}}")
