"""The result of a comparison: a row for each model and head, the best first."""

from dataclasses import dataclass
from typing import Any

from bottleneck.charts.html import block, html_table, line, note, side_by_side
from bottleneck.comparison.charts import held_out_chart, ranking_chart
from bottleneck.comparison.leaderboard_row import LeaderboardRow
from bottleneck.heads.learning_curve import Curve
from bottleneck.images.dataset import Failure
from bottleneck.utils.text import counted, one_line

_SHOWN = 40  # rows of the table in a notebook
_HEADER = ("model", "head", "cross-validated", "held-out", "p", "against the best")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A leaderboard.

    Parameters
    ----------
    rows : tuple of LeaderboardRow
        The best by cross-validation first, which is chosen without the held-out split.
    curve : Curve or None
        The learning curve of the best row.
    source : str
        The images.
    classes : tuple of str
    heldout : str
        The held-out split.
    n_train, n_heldout : int
        Number of images of both splits, the same for all rows.
    failures : tuple of Failure
        Images that not all models can use.
    remarks : tuple of str
        About models, heads and images that were left out.
    """

    rows: tuple[LeaderboardRow, ...]
    curve: Curve | None
    source: str
    classes: tuple[str, ...]
    heldout: str
    n_train: int
    n_heldout: int
    failures: tuple[Failure, ...]
    remarks: tuple[str, ...]

    def __repr__(self) -> str:
        best = f"best {self.best.model} {self.best.head}, accuracy {100 * self.best.accuracy:.1f} %"
        return one_line(self, counted(len(self.rows), "row"), best, self.source)

    def _repr_html_(self) -> str:
        cells = [
            [row.model, row.head, f"{row.cv_accuracy:.1%}", f"{row.accuracy:.1%}", _p_value(row), row.verdict]
            for row in self.rows[:_SHOWN]
        ]
        return block(
            f"{self.best.head} on {self.best.model} is best",
            line(f"cross-validated {self.best.cv_accuracy:.1%}, held-out {self.best.accuracy:.1%} of {self.n_heldout}"),
            side_by_side(ranking_chart(self.rows), held_out_chart(self.rows)),
            html_table(_HEADER, cells, numbers=_HEADER[2:5], more=len(self.rows) - len(cells)),
            *map(note, self.remarks),
            note(self.curve.advice()) if self.curve else None,
        )

    @property
    def best(self) -> LeaderboardRow:
        """The best row by cross-validated accuracy; ties are broken by the size of the features."""
        return self.rows[0]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "source": self.source,
            "classes": list(self.classes),
            "heldout": self.heldout,
            "n_train": self.n_train,
            "n_heldout": self.n_heldout,
            "best": {"model": self.best.model, "head": self.best.head},
            "rows": [row.to_json() for row in self.rows],
            "curve": self.curve.to_json() if self.curve else None,
            "remarks": list(self.remarks),
            "failed": len(self.failures),
            "failures": [vars(failure) for failure in self.failures],
        }

    def to_rows(self) -> list[list[object]]:
        """Return the header and the rows of a table."""
        records = [row.to_record() for row in self.rows]
        return [list(records[0]), *(list(record.values()) for record in records)]


def _p_value(row: LeaderboardRow) -> str:
    return "" if row.p_value is None else f"{row.p_value:.2g}"
