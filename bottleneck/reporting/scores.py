"""The scores of a run, and its accuracy in words that need no statistics."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bottleneck.charts.markup import Markup
from bottleneck.charts.rows import ChartRow, interval_chart
from bottleneck.evaluation.stats import is_guessing
from bottleneck.utils.text import counted

if TYPE_CHECKING:  # commands that show scores would import more than they need
    from bottleneck.runs.run import Run

_BASES = (100, 1000, 10_000)  # pictures of which a sentence gives the number that is right
_FEWEST_ERRORS = 1.0  # among them, so that rounding hides no difference
_CROSS = "cross-validation"

Metrics = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The accuracy of a run with its interval.

    Parameters
    ----------
    accuracy : float
    low, high : float or None
        The 95 % interval; None if the card lacks it.
    n : int
        Images that were classified.
    by_folds : bool
        Whether these are training images, classified by heads that were not trained on them.
    """

    accuracy: float
    low: float | None
    high: float | None
    n: int
    by_folds: bool

    @property
    def sentence(self) -> str:
        """The accuracy, for readers who know no statistics."""
        base = self._base()
        about = f"Of {base:,} new pictures like these, about {_of(base, self.accuracy)} are classified correctly"
        if self.accuracy == 1:
            noun = "picture" if self.by_folds else "test picture"
            about = f"All {counted(self.n, noun)} were classified correctly"
        if self.low is None or self.high is None:
            return f"{about}."
        low, high = _of(base, self.low), _of(base, self.high)
        if self.accuracy == 1:
            return f"{about}. Of {base:,} new pictures like these, expect {low} to {high}."
        if low == high:
            return f"{about}."
        return f"{about}; with this many test images it could be {low} to {high}."

    @property
    def source(self) -> str:
        """On which images it was measured, and how."""
        if self.by_folds:
            return (
                f"measured by cross-validation: each of {counted(self.n, 'training image')} was classified by a head "
                f"that was trained on others"
            )
        return f"measured on {counted(self.n, 'held-out image')}, on which the model was not trained"

    def _base(self) -> int:
        wrong = 1 - self.accuracy or 1 - (self.low or 0.0)
        return next((base for base in _BASES if base * wrong >= _FEWEST_ERRORS), _BASES[-1])


def headline(run: "Run") -> Headline:
    """Return the accuracy that the run itself reports first."""
    by_folds = run.card.get("headline") == _CROSS
    found = out_of_fold(run) if by_folds else run.metrics
    low, high = found.get("accuracy_ci95") or (None, None)
    return Headline(
        accuracy=float(found["accuracy"]), low=low, high=high, n=int(found.get("n") or 0), by_folds=by_folds
    )


def accuracies_figure(run: "Run") -> Markup:
    """Return a chart of the held-out and the cross-validated accuracy, with the share of the largest class."""
    found = [(f"{run.metrics.get('n') or 0:,} held-out images", run.metrics)]
    search = run.card.get("search") or {}
    if "cv" in search and "cv_ci95" in search:
        found.append((f"cross-validation of {run.card.get('n_train') or 0:,} images", out_of_fold(run)))
    rows = []
    for label, metrics in found:
        low, high = metrics.get("accuracy_ci95") or (None, None)
        rows.append(ChartRow(label=label, estimate=metrics["accuracy"], low=low, high=high))
    counts = [row["n"] for row in (run.metrics.get("per_class") or {}).values()]
    reference = max(counts) / sum(counts) if sum(counts) else None
    return interval_chart(rows, title="Accuracy", x_label="accuracy", reference=reference)


def out_of_fold(run: "Run") -> Metrics:
    """Return the metrics of the cross-validation in the form of those of the held-out split."""
    search, per_class = run.card["search"], run.part("search", "cv", "per_class")
    return {
        **search["cv"],
        "accuracy": run.cv_accuracy,
        "accuracy_ci95": search["cv_ci95"],
        "balanced_accuracy": search["cv_balanced_accuracy"],
        "classes": list(per_class),
        "per_class": per_class,
    }


def cautions(run: "Run") -> Iterator[str]:
    """Yield what makes the headline say less, or more, than it seems to."""
    found = out_of_fold(run) if run.card.get("headline") == _CROSS else run.metrics
    yield from _of_selection(run)
    yield from _of_leaks(run)
    yield from _of_classes(found)


def _of_selection(run: "Run") -> Iterator[str]:
    card = run.card
    if card.get("validation", {}).get("is_heldout"):
        yield (
            "The held-out images also selected the epoch that was kept, because there is no test split. The accuracy "
            "is optimistic: expect less on new pictures."
        )
    if run.is_final:
        yield (
            f"The head in this run was trained again on all {card['final']['n_train']:,} labelled images. The scores "
            f"are those of the head before that, which was trained on {card['n_train']:,} of them."
        )
    if card.get("headline") == _CROSS:
        yield (
            f"Only {counted(card['n_heldout'], 'image')} are held out, too few for a reliable accuracy. The headline "
            f"is that of the cross-validation, which also selected the hyperparameters: it may be slightly optimistic."
        )
    if card.get("kind") == "fit" and "score" in card:
        yield (
            "The network was fine-tuned on labels of these images before, so its cross-validation is optimistic. "
            "The held-out images are a fair test."
        )


def _of_leaks(run: "Run") -> Iterator[str]:
    counts = (run.part("leaks") or {}).get("counts", {})
    if counts.get("near_duplicates"):
        yield (
            f"{counted(counts['near_duplicates'], 'pair')} of a training image and a held-out image are near copies: "
            f"the accuracy may be optimistic."
        )
    for name, what in (("duplicates_allowed", "image"), ("groups_allowed", "group")):
        if counts.get(name):
            yield f"{counted(counts[name], what)} of several splits were allowed: the accuracy is optimistic."


def _of_classes(found: Metrics) -> Iterator[str]:
    per_class = found.get("per_class") or {}
    counts = {name: row["n"] for name, row in per_class.items()}
    if not sum(counts.values()) or "accuracy_ci95" not in found or "balanced_accuracy" not in found:
        return
    low, high = found["accuracy_ci95"]
    largest = max(counts, key=counts.__getitem__)
    share = counts[largest] / sum(counts.values())
    always = f"always answering “{largest}” would be right for {share:.1%} of them"
    if share == 1:
        yield f"Only images of “{largest}” were tested: this does not show whether the classes are told apart."
    elif is_guessing((low, high), found["balanced_accuracy"], list(counts.values())):
        yield f"On these images the head is not significantly better than guessing: {always}."
    elif low <= share:
        yield f"The classes are of unequal size: {always}. The balanced accuracy counts each class equally."


def _of(base: int, share: float) -> str:
    return f"{round(base * share):,}"
