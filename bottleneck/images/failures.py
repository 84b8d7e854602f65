"""Failed images: grouping by reason, tables, and the limit on their number."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from bottleneck.images.dataset import Dataset, Failure, conflicting_rows
from bottleneck.utils.csv_text import csv_bytes
from bottleneck.utils.tree import Tree

COLUMNS = ("path", "code", "message", "digest")


@dataclass(frozen=True)
class Limit:
    """The maximum number of failed images.

    Parameters
    ----------
    value : float
        A number of images, or a percentage of them.
    percent : bool
    """

    value: float
    percent: bool

    @classmethod
    def parse(cls, text: str) -> "Limit":
        """Read ``"10%"`` or ``"25"``.

        Raises
        ------
        ValueError
            If the text is neither.
        """
        number = text.strip().removesuffix("%")
        percent = text.strip().endswith("%")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf or (percent and value > 100) or (not percent and value != int(value)):
            raise ValueError(f"expected a number of images, such as 25, or a share, such as 10%; got {text!r}")
        return cls(value, percent)

    def __str__(self) -> str:
        return f"{self.value:g}%" if self.percent else f"{self.value:g}"

    def exceeded(self, failed: int, total: int) -> bool:
        """Return whether `failed` of `total` images exceed the limit."""
        limit = Fraction(str(self.value))  # exact: 57 of 10,000 are not more than 0.57%
        return failed > (limit * total / 100 if self.percent else limit)

    def problem(self, failed: int, total: int, table: Path | None = None) -> str | None:
        """Return an error message if the limit is exceeded, else None."""
        if not self.exceeded(failed, total):
            return None
        listed = f"; {table} lists them" if table else ""
        return (
            f"expected at most {self} of the images to fail, {failed} of {total} did{listed}. The other images are "
            f"cached; fix or remove the failed images, or allow more with --max-failures"
        )


def by_reason(failures: Iterable[Failure]) -> dict[str, list[Failure]]:
    """Return the failures of each code, the most frequent code first."""
    groups: dict[str, list[Failure]] = {}
    for failure in failures:
        groups.setdefault(failure.code, []).append(failure)
    return dict(sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])))


def none_usable(count: int) -> str:
    """Return the beginning of a message that all images failed."""
    return "the image cannot be used" if count == 1 else f"none of the {count} images can be used"


def write_table(path: Path, failures: Sequence[Failure]) -> None:
    """Write the failures as a CSV into ``datasets/`` of a cache, or remove the file if there are none.

    A file that is up to date is not written.
    """
    rows = [[failure.path, failure.code, failure.message, failure.digest or ""] for failure in failures]
    _write(path, COLUMNS, rows)


def write_conflicts(path: Path, dataset: Dataset) -> None:
    """Write the images with several labels as a CSV with a row for each path; see `write_table`."""
    rows = [
        [dataset.paths[row], dataset.labels[row] or "", dataset.digests[row].tobytes().hex()]
        for rows in conflicting_rows(dataset)
        for row in rows
    ]
    _write(path, ("path", "label", "digest"), rows)


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    cache = Tree.above(path, 2)
    if not rows:
        if cache.exists(path):  # on a read-only disk, deleting a missing file is an error
            cache.unlink(path)
        return
    cache.write_changed(path, csv_bytes([header, *rows], quote_all=True))
