"""Label errors: how well they are ranked and named, what correcting them regains, and whether `worth_of` is right.

Labels of the digits of the demonstration and of ants and bees are flipped, at random ("symmetric") or to the class with
the nearest mean ("similar"). The labels of both sets are assumed to be correct.

- Ranking: average precision of the scores for the flipped images, and of cleanlab's on the same probabilities.
- Naming: how many of the named images are flipped (precision), and of the flipped are named (recall).
- Correcting: heads are searched on flipped, corrected and clean labels of 1,200 digits, and tested on the other 597.
- Worth of the first list: whether the 95 % intervals contain the change of accuracy on images that were never trained
  on. These are limited, too, so an interval counts as right within their own error, as in ``bench_intervals.py``.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from selection_sets import Features, features

from bottleneck.auditing.label_errors import LabelErrors, find_label_errors, find_label_errors_again, label_neighbours
from bottleneck.auditing.out_of_fold import OutOfFoldProbabilities, out_of_fold_probabilities
from bottleneck.auditing.selection import Selected
from bottleneck.auditing.worth import Change, Worth, worth_of
from bottleneck.heads.family import family
from bottleneck.heads.search import search

RATES = (0.0, 0.01, 0.05, 0.1, 0.2)
TRAINED = {"digits": 1200, "ants": 250}
REFEREES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
NORMAL = 1.959963984540054


def section(work: Path, images: Path | None, *, quick: bool) -> Iterator[str]:
    """Yield the lines of the tables."""
    sets = {name: found for name in ("digits", "ants") if (found := features(name, work, images))}
    seeds = {"digits": 1, "ants": 2} if quick else {"digits": 5, "ants": 10}
    yield from rankings(sets, seeds)
    yield ""
    yield from corrections(sets["digits"], 2 if quick else 8)
    yield ""
    yield from worths(sets, 2 if quick else 20)


def flipped(found: Features, rate: float, kind: str, seed: int) -> np.ndarray:
    """Return the classes with a share of them flipped."""
    random = np.random.default_rng([seed, round(1000 * rate)])
    n, count, codes = len(found.codes), found.count, found.codes
    rows = random.choice(n, round(rate * n), replace=False)
    new = codes.copy()
    if kind == "symmetric":
        new[rows] = (codes[rows] + random.integers(1, count, len(rows))) % count
    else:
        means = np.stack([found.x[codes == code].mean(axis=0) for code in range(count)])
        apart = np.square(means[:, None] - means).sum(axis=2)
        np.fill_diagonal(apart, np.inf)
        new[rows] = apart.argmin(axis=1)[codes[rows]]
    return new


def kinds(found: Features) -> tuple[str, ...]:
    return ("symmetric", "similar") if found.count > 2 else ("symmetric",)


def names(codes: np.ndarray) -> list[str]:
    return [f"c{code:02d}" for code in codes]


def audited(x: np.ndarray, codes: np.ndarray) -> tuple[OutOfFoldProbabilities, LabelErrors, LabelErrors]:
    """Return probabilities of the given labels, and the first and the second list."""
    found, neighbours = out_of_fold_probabilities(x, names(codes)), label_neighbours(x).rows
    return found, find_label_errors(found, neighbours), find_label_errors_again(x, found, neighbours)


def corrected(codes: np.ndarray, errors: LabelErrors) -> np.ndarray:
    new = codes.copy()
    new[errors.rows] = errors.suggested[errors.rows]
    return new


def rankings(sets: dict[str, Features], seeds: dict[str, int]) -> Iterator[str]:
    """Yield average precision, and precision and recall of the named images."""
    from cleanlab.rank import get_label_quality_scores
    from sklearn.metrics import average_precision_score

    yield "Average precision of the scores (and its standard deviation over the seeds) of the first list, of the second"
    yield "list, and of cleanlab on the probabilities of the first list. Of each list: how many images are named, their"
    yield "precision and recall, and how many labels are wrong after correction as suggested."
    titles = ("set", "flips", "share", "seeds", "first", "second", *REFEREES, "wrong labels")
    yield line(
        *titles,
        *(f"{which}: {what}" for which in ("first", "second") for what in ("named", "precision, recall", "left")),
    )
    yield "|---" * (len(titles) + 6) + "|"
    for name, found in sets.items():
        for kind in kinds(found):
            for rate in RATES:
                rows = []
                for seed in range(seeds[name] if rate else 1):
                    codes = flipped(found, rate, kind, seed)
                    wrong = codes != found.codes
                    out, *lists = audited(found.x, codes)
                    quality = [get_label_quality_scores(codes, out.probabilities, method=one) for one in REFEREES]
                    scores = [*(errors.scores for errors in lists), *(-one for one in quality)]
                    row = [average_precision_score(wrong, one) if rate else math.nan for one in scores]
                    for errors in lists:
                        left = (corrected(codes, errors) != found.codes).sum()
                        row += [len(errors.rows), wrong[errors.rows].sum(), left]
                    rows.append([*row, wrong.sum()])
                yield line(name, kind, f"{100 * rate:g} %", len(rows), *_cells(np.array(rows, float)))


def _cells(rows: np.ndarray) -> Iterator[str]:
    mean, spread, scores = rows.mean(axis=0), rows.std(axis=0), 2 + len(REFEREES)
    wrong = mean[-1]
    for place in range(scores):
        yield f"{mean[place]:.3f} ({spread[place]:.3f})" if wrong else ""
    yield f"{wrong:.0f}"
    for named, hits, left in mean[scores:-1].reshape(2, 3):
        yield f"{named:.1f}"
        yield f"{hits / named if named else 1:.2f}, {hits / wrong:.2f}" if wrong else ""
        yield f"{left:.1f}"


def corrections(found: Features, seeds: int) -> Iterator[str]:
    """Yield the held-out accuracy of heads on flipped, corrected and clean labels."""
    yield f"10 % of the labels of {TRAINED['digits']:,} digits flipped: accuracy in %, and the share regained"
    yield line("flips", "seeds", "labels", "accuracy", "spread over the seeds", "regained", "standard error")
    yield "|---" * 7 + "|"
    for kind in kinds(found):
        rows: list[dict[str, float]] = [_corrected(found, kind, seed) for seed in range(seeds)]
        lost = np.array([row["clean"] - row["flipped"] for row in rows])
        for which in rows[0]:
            values = np.array([row[which] for row in rows])
            gained = values - [row["flipped"] for row in rows]
            share = gained.mean() / lost.mean()
            error = (gained - share * lost).std(ddof=1) / math.sqrt(seeds) / lost.mean()
            cells = f"{100 * values.mean():.2f}", f"{100 * values.std(ddof=1):.2f}", f"{share:.2f}", f"{error:.2f}"
            yield line(kind, seeds, which, *cells)


def _corrected(found: Features, kind: str, seed: int) -> dict[str, float]:
    train, test = drawn("digits", found, seed)
    own = Features(found.x[train], found.codes[train], found.count)
    codes = flipped(own, 0.1, kind, seed)
    first, second = audited(own.x, codes)[1:]
    reviewed = codes.copy()
    reviewed[second.rows] = own.codes[second.rows]
    every = np.arange(len(codes))

    def accuracy(some: np.ndarray, labels: np.ndarray) -> float:
        head = search(own.x[some], names(labels[some]), family("logistic")).head
        return float((head.predict(found.x[test]) == names(found.codes[test])).mean())

    return {
        "flipped": accuracy(every, codes),
        "first list corrected": accuracy(every, corrected(codes, first)),
        "second list removed": accuracy(np.setdiff1d(every, second.rows), codes),
        "second list corrected": accuracy(every, corrected(codes, second)),
        "second list reviewed": accuracy(every, reviewed),
        "clean": accuracy(every, own.codes),
    }


def drawn(name: str, found: Features, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(found.codes))
    return np.sort(order[: TRAINED[name]]), np.sort(order[TRAINED[name] :])


@dataclass(frozen=True)
class Simulated:
    """An interval, and the change on other images with its standard error."""

    found: Worth
    change: float
    error: float

    @property
    def covered(self) -> bool:
        """Whether the interval contains the change, given its error."""
        low, high = self.found.ci95
        half = math.sqrt(((high - low) / 2) ** 2 + (NORMAL * self.error) ** 2)
        return abs(self.change - (low + high) / 2) <= half


def worths(sets: dict[str, Features], seeds: int) -> Iterator[str]:
    """Yield how often the intervals of `worth_of` contain the change of accuracy on other images."""
    yield line(
        "set, share and kind of flips",
        "seeds",
        "change",
        "measured gain, points",
        "gain on other images, points",
        "half width of the interval, points",
        "interval contains the gain on other images",
        "interval contains 0",
    )
    yield "|---" * 8 + "|"
    cases = [
        ("digits", 0.1, "symmetric"),
        ("digits", 0.1, "similar"),
        ("ants", 0.1, "symmetric"),
        ("digits", 0.0, "symmetric"),
    ]
    for name, rate, kind in cases:
        if name not in sets:
            continue
        done = [_simulated(name, sets[name], rate, kind, seed) for seed in range(seeds)]
        for which in done[0]:
            some = [one[which] for one in done if which in one]
            gains = np.array([[one.found.gain, one.change, np.diff(one.found.ci95)[0] / 2] for one in some])
            zero = np.mean([one.found.ci95[0] <= 0 <= one.found.ci95[1] for one in some])
            cells = [f"{100 * one:+.2f}" for one in gains.mean(axis=0)[:2]] + [f"{100 * gains.mean(axis=0)[2]:.2f}"]
            shares = f"{100 * np.mean([one.covered for one in some]):.0f} %", f"{100 * zero:.0f} %"
            yield line(f"{name}, {100 * rate:g} %, {kind}", len(some), which, *cells, *shares)


def _simulated(name: str, found: Features, rate: float, kind: str, seed: int) -> dict[str, Simulated]:
    train, test = drawn(name, found, seed)
    own = Features(found.x[train], found.codes[train], found.count)
    codes = flipped(own, rate, kind, seed)
    out = out_of_fold_probabilities(own.x, names(codes))
    errors = find_label_errors(out, label_neighbours(own.x).rows)
    rows, random = errors.rows, np.random.default_rng(seed)
    some = random.choice(len(codes), max(1, len(codes) // 20), replace=False)
    suggested = names(errors.suggested[rows])
    changes = [Change("5 % at random removed", some)]
    if len(rows):
        changes += [Change("named removed", rows), Change("named corrected", rows, suggested)]
    right = partial(_right, own.x, found.x[test], names(found.codes[test]), out.selected)
    before = right(np.arange(len(codes)), names(codes))
    measured = worth_of(own.x, names(codes), changes, selected=out.selected)
    result = {}
    for change, worth in zip(changes, measured, strict=True):
        labels, kept = names(codes), np.arange(len(codes))
        if change.labels is None:
            kept = np.setdiff1d(kept, change.rows)
        for row, label in zip(change.rows, change.labels or (), strict=False):
            labels[row] = label
        apart = right(kept, labels) - before
        result[change.name] = Simulated(worth, apart.mean(), apart.std() / math.sqrt(len(apart)))
    return result


def _right(
    x: np.ndarray, other: np.ndarray, truth: list[str], selected: Selected, rows: np.ndarray, labels: Sequence[str]
) -> np.ndarray:
    """Return which other images a head classifies correctly that is trained on some rows, 1 or 0."""
    grid = [selected.params["C"]]
    some = [labels[row] for row in rows]
    head = search(x[rows], some, family("logistic"), grid=grid, normalize=selected.normalize, repeats=1).head
    return (head.predict(other) == truth).astype(float)


def line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"
