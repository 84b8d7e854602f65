"""Results as a DataFrame of pandas, which is not a dependency."""

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

from bottleneck.errors import BottleneckError


def as_frame(rows: Iterable[Sequence[object]]) -> Any:
    """Return a ``pandas.DataFrame`` of rows, of which the first is the header.

    Raises
    ------
    BottleneckError
        If pandas is not installed.
    """
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise BottleneckError(
            "expected pandas, which makes data frames, found none: `pip install pandas`, or use `to_json`"
        ) from error
    header, *body = rows
    return pandas.DataFrame(body, columns=list(header))
