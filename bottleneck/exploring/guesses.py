"""What a head predicts for each image: that of a run, or one that is trained on the current labels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.auditing.out_of_fold import OutOfFoldProbabilities, out_of_fold_probabilities
from bottleneck.auditing.selection import Selected
from bottleneck.errors import HeadError
from bottleneck.evaluation.familiarity import Familiarity, familiarity, reference_rows
from bottleneck.exploring.feature_rows import FeatureRows
from bottleneck.heads.head import Head
from bottleneck.heads.options import HeadOptions
from bottleneck.runs.images import Role
from bottleneck.runs.run import Run
from bottleneck.utils.text import counted

TOP = 5  # classes of each image
_ROWS = 2048  # predicted at once
_SEED = 0

Report = Callable[[float], None]
Features = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """Predictions for n images.

    Parameters
    ----------
    classes : tuple of str
    best : ndarray of uint16, shape (n, t)
        The most probable classes of each image, at most 5.
    shares : ndarray of float32, shape (n, t)
        Their probabilities.
    familiarity : ndarray of float32, shape (n,), or None
    head : Head
        Predicts further images, from the features or from their components.
    usual : Familiarity or None
        Tells how familiar these are.
    reduced : bool
        Whether the head uses principal components.
    accuracy : float or None
    interval : tuple of float or None
        The 95 % interval of the accuracy.
    text : str
        What predicted the images, and how honest that is.
    refitted : bool
        Whether the head was trained on edited labels.
    selected : Selected or None
        The hyperparameters of the head, which further ones use; None for that of a run.
    """

    classes: tuple[str, ...]
    best: NDArray[np.uint16]
    shares: NDArray[np.float32]
    familiarity: NDArray[np.float32] | None
    head: Head
    usual: Familiarity | None
    reduced: bool
    accuracy: float | None
    interval: tuple[float, float] | None
    text: str
    refitted: bool = False
    selected: Selected | None = None

    def probabilities(self, row: int) -> list[tuple[str, float]]:
        """Return the most probable classes of an image with their probabilities."""
        pairs = zip(self.best[row].tolist(), self.shares[row].tolist(), strict=True)
        return [(self.classes[code], share) for code, share in pairs]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "accuracy": self.accuracy,
            "accuracy_ci95": None if self.interval is None else list(self.interval),
            "text": self.text,
            "refitted": self.refitted,
            "cross_validated": self.selected is not None,
        }


def of_run(run: Run, rows: FeatureRows, digests: NDArray[np.uint8], report: Report) -> Guesses:
    """Return what the head of a run predicts; it was trained on some of the images.

    Raises
    ------
    RunError, HeadError
        If the run cannot be read, or is of other features.
    """
    head, known = run.head, run.uncertainty
    usual = np.empty(len(rows), np.float32) if known else None
    parts = []
    for part in _parts(len(rows)):
        features = rows.take(part)
        parts.append(top(head.probabilities(features)))
        if usual is not None and known is not None:
            usual[part] = known.familiarity.p_values(features)
        report(min(1.0, part.stop / len(rows)))
    trained = 0 if run.images is None else int((run.images.role_of(digests) == Role.TRAINED).sum())
    card, validated = run.card, run.card.get("headline") == "cross-validation" and not run.is_tuned
    scores = card["search"] if validated else run.metrics
    names = ("cv_accuracy", "cv_ci95") if validated else ("accuracy", "accuracy_ci95")
    accuracy, interval = (scores.get(name) for name in names)
    optimistic = (
        f". The head was trained on {trained:,} of these {counted(len(rows), 'image')}: errors among them are rarer "
        f"than among new images. Refit to see honest predictions"
        if trained
        else ""
    )
    return Guesses(
        classes=head.classes,
        best=np.concatenate([best for best, _ in parts]),
        shares=np.concatenate([shares for _, shares in parts]),
        familiarity=usual,
        head=head,
        usual=known.familiarity if known else None,
        reduced=False,
        accuracy=accuracy,
        interval=None if interval is None else (interval[0], interval[1]),
        text=f"{head.family} on {run.features}, of the run {run.name}; {card.get('headline', 'held-out')} accuracy"
        f"{optimistic}",
    )


def refitted(
    features: Features,
    labels: Sequence[str | None],
    groups: Sequence[str | None],
    head: str,
    name: str,
    fingerprint: str,
    reduced: bool,
    selected: Selected | None,
    report: Report,
) -> Guesses:
    """Train a head on the images that have a label, and predict all.

    Labelled images are predicted out of fold, by heads that were not trained on them; the others by the final head.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
    labels : sequence of str or None, length n
        None leaves an image out of the training.
    groups : sequence of str or None, length n
    head : str
        The kind of head.
    name : str
        Of the features, for people.
    fingerprint : str
        Of their spec.
    reduced : bool
        Whether the features are principal components.
    selected : Selected or None
        Hyperparameters of an earlier head; by default they are searched, which takes most of the time.
    report : callable

    Raises
    ------
    HeadError
        If there are fewer than two classes, or none has two images.
    """
    rows = np.array([row for row, label in enumerate(labels) if label is not None], np.intp)
    known = [str(labels[row]) for row in rows.tolist()]
    units = [groups[row] for row in rows.tolist()]
    own = features if len(rows) == len(features) else features[rows]
    if len(set(known)) < 2:
        raise HeadError("expected labels of two classes to train a head; label some images first")
    options = HeadOptions(seed=_SEED, normalize="shrunk" if reduced else "auto")
    if selected is not None and "C" in selected.params:
        options = replace(options, C=(selected.params["C"],), normalize=selected.normalize)
    found = options.search_head(head, own, known, units, fingerprint)
    report(0.4)
    names = {key: value for key, value in found.params.items() if key in found.points[0]}
    selected = Selected(names, found.normalize)
    honest = out_of_fold_probabilities(own, known, head=head, groups=units, options=options, selected=selected)
    report(0.7)
    best, shares = _all_rows(found.head, honest, features, rows)
    usual, p_values = _usual(features, rows, known, units)
    report(1.0)
    where = f"{features.shape[1]} principal components of {name}" if reduced else name
    others = len(features) - len(rows)
    return Guesses(
        classes=found.head.classes,
        best=best,
        shares=shares,
        familiarity=p_values,
        head=found.head,
        usual=usual,
        reduced=reduced,
        accuracy=honest.accuracy,
        interval=honest.interval(units),
        selected=selected,
        text=f"{head} on {where}, cross-validated: each labelled image is predicted by heads that were not trained on "
        f"it" + (f"; {counted(others, 'other image')} by the head of all labelled ones" if others else ""),
    )


def top(probabilities: NDArray[np.float64]) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Return the most probable classes ``(n, t)`` and their probabilities, of ``(n, k)``."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
    return best.astype(np.uint16), np.take_along_axis(probabilities, best, 1).astype(np.float32)


def _all_rows(
    head: Head, honest: OutOfFoldProbabilities, features: Features, rows: NDArray[np.intp]
) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Return the best classes of all images: out of fold where possible."""
    place_of = np.full(len(features), -1)
    place_of[rows[honest.tested]] = np.flatnonzero(honest.tested)
    parts = []
    for part in _parts(len(features)):
        found, places = head.probabilities(features[part]), place_of[part]
        found[places >= 0] = honest.probabilities[places[places >= 0]]
        parts.append(top(found))
    return np.concatenate([best for best, _ in parts]), np.concatenate([shares for _, shares in parts])


def _usual(
    features: Features, rows: NDArray[np.intp], labels: Sequence[str], groups: Sequence[str | None]
) -> tuple[Familiarity, NDArray[np.float32]]:
    """Return the familiarity to the labelled images, and that of each image to labelled images of the other half.

    An image must not be compared with itself, so labelled ones are compared with those of the other half alone.
    """
    units = [group if group is not None else str(row) for row, group in zip(rows.tolist(), groups, strict=True)]
    numbers = np.unique(np.array(units), return_inverse=True)[1]
    half = np.random.default_rng(_SEED).permutation(numbers.max() + 1)[numbers] % 2
    whole = _familiarity(features, rows, labels, groups)
    found = np.full(len(features), np.nan, np.float32)
    others = np.setdiff1d(np.arange(len(features)), rows)
    found[others] = whole.p_values(features[others]) if len(others) else 0
    for side in (0, 1):
        theirs, mine = np.flatnonzero(half != side), rows[half == side]
        if len(theirs) and len(mine):
            some = [labels[place] for place in theirs.tolist()]
            reference = _familiarity(features, rows[theirs], some, [groups[place] for place in theirs.tolist()])
            found[mine] = reference.p_values(features[mine])
    return whole, found


def _familiarity(
    features: Features, rows: NDArray[np.intp], labels: Sequence[str], groups: Sequence[str | None]
) -> Familiarity:
    some = reference_rows(labels, seed=_SEED).tolist()
    return familiarity(features[rows[some]], [labels[i] for i in some], [groups[i] for i in some], seed=_SEED)


def as_refitted(found: Guesses) -> Guesses:
    """Return guesses that are marked as those of a head that a user trained."""
    return replace(found, refitted=True)


def _parts(count: int) -> Iterator[slice]:
    for start in range(0, count, _ROWS):
        yield slice(start, start + _ROWS)
