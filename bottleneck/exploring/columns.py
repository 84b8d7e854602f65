"""Columns of the map: one number or category for each image, as the page reads them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NONE = 65535  # in place of an index, for an image without a value


@dataclass(frozen=True, kw_only=True)
class MapColumn:
    """A value for each image.

    Parameters
    ----------
    name, title : str
    data : ndarray of uint16 or float32, shape (n,)
        Indices of `values`, or `NONE`; or numbers, or NaN.
    values : tuple of str or None
        The categories; None for numbers.
    revision : int
        Of its last change.
    """

    name: str
    title: str
    data: NDArray[Any]
    values: tuple[str, ...] | None = None
    revision: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object without the data."""
        common = {"name": self.name, "title": self.title, "revision": self.revision}
        if self.values is None:
            return {**common, "kind": "number"}
        return {**common, "kind": "category", "values": list(self.values)}

    def to_bytes(self) -> bytes:
        """Return the data, little-endian."""
        return self.data.astype("<f4" if self.values is None else "<u2").tobytes()

    def same_as(self, other: "MapColumn | None") -> bool:
        """Return whether another column has the same values."""
        return (
            other is not None
            and self.values == other.values
            and np.array_equal(self.data, other.data, equal_nan=self.values is None)
        )


def categories(name: str, title: str, texts: "list[str | None]", values: tuple[str, ...] | None = None) -> MapColumn:
    """Return a column of texts; those beyond 65,535 different ones have no value.

    Parameters
    ----------
    name, title : str
    texts : list of str or None, length n
    values : tuple of str, optional
        The categories in their order; by default those that occur, sorted.
    """
    if values is None:
        values = tuple(sorted({text for text in texts if text is not None}))
    values = values[:NONE]
    index: dict[str | None, int] = {text: place for place, text in enumerate(values)}
    codes = np.fromiter((index.get(text, NONE) for text in texts), np.uint16, len(texts))
    return MapColumn(name=name, title=title, data=codes, values=values)


def numbers(name: str, title: str, data: NDArray[np.float32]) -> MapColumn:
    """Return a column of numbers ``(n,)``."""
    return MapColumn(name=name, title=title, data=data)
