"""Accuracy and calibration of the heads that a search selects, by scaling and rule, on five sets of images.

python benchmarks/bench_selection.py --work DIR [--images ANTS_AND_BEES] [--heads NAME,...] [--sizes N,...] [--all]

Training sets of 2 to 400 images per class are drawn from each set, and the heads are tested on all other images (at
most 2,000). A cell is a set, a size and a head; its replicates are drawn with the seeds 0, 1, 2, ... Differences are
paired by replicate.

"Raw" is the log-loss of our scores without the calibration factor. The referees are scikit-learn's calibrations at the
same C; "uncalibrated" are the scores of scikit-learn's head.
"""

import argparse
import contextlib
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
from selection_sets import NAMES, Features, draw, features, thinned

from bottleneck.heads.family import family
from bottleneck.heads.head import softmax
from bottleneck.heads.search import search

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin

REPLICATES = {2: 20, 5: 20, 20: 10, 100: 5, 400: 3}
HEADS = ("logistic", "svm", "softmax", "ridge", "svm-rbf", "knn")
BEFORE, NOW = ("standard", "simplest"), ("auto", "log-loss")  # the defaults
OTHERS = (
    ("standard", "log-loss"),
    ("shrunk", "simplest"),
    ("shrunk", "accuracy"),
    ("shrunk", "log-loss"),
    ("global", "log-loss"),
    ("l2", "log-loss"),
)
LEAST_PROBABILITY = 1e-15
UNEQUAL = {"elpv": 1.0, "ants": 0.2, "digits": 0.05, "glyphs": 0.05}  # smallest class, relative to the largest
UNEQUAL_REPLICATES = {5: 8, 20: 5, 100: 3}

Variant = tuple[str, str]  # normalize, rule


@dataclass(frozen=True)
class Tested:
    """Metrics of a head on the test images: accuracy, balanced accuracy, and log-loss with and without calibration."""

    accuracy: float
    balanced: float
    loss: float
    uncalibrated: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder for images and features, made once")
    parser.add_argument("--images", type=Path, help="the ants and bees of PyTorch's transfer-learning tutorial")
    parser.add_argument("--sets", default=",".join(NAMES))
    parser.add_argument("--sizes", default="5,20,100,400", help="images per class, the mean over the classes")
    parser.add_argument("--heads", default=",".join(HEADS))
    parser.add_argument("--replicates", type=int, help="replicates of each cell; by default fewer for larger sizes")
    parser.add_argument("--all", action="store_true", help="also evaluate other scalings and rules")
    parser.add_argument("--referees", action="store_true", help="also scikit-learn's calibrations of the same head")
    parser.add_argument(
        "--unequal", action="store_true", help="evaluate classes of unequal sizes, with and without prior adjustment"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    options.work.mkdir(parents=True, exist_ok=True)
    if options.unequal:
        print_unequal(options.work, options.images)
        return
    variants = (BEFORE, NOW, *(OTHERS if options.all else ()))
    print_row("head", "images per class", "set", "replicates", *_headings(variants), "log-loss, before", "now", "raw")
    print_row(*["---"] * (7 + len(_headings(variants))))
    sets = {name: features(name, options.work, options.images) for name in options.sets.split(",")}
    for head in options.heads.split(","):
        for size in map(int, options.sizes.split(",")):
            count = options.replicates or REPLICATES[size]
            for name, given in sets.items():
                if given is None or size * given.count > 0.75 * len(given.codes):
                    continue
                found = [list(_replicate(given, head, size, seed, variants)) for seed in range(count)]
                print_cell(head, size, name, found, variants)
                if options.referees and head in REFEREES:
                    print_referees(given, head, size, count)


def _headings(variants: Sequence[Variant]) -> list[str]:
    return ["accuracy before, %", *(f"{normalize}, {rule}" for normalize, rule in variants[1:])]


def _replicate(given: Features, head: str, size: int, seed: int, variants: Sequence[Variant]) -> Iterator[Tested]:
    """Yield the metrics of each variant's head for one training set."""
    drawn = draw(given.codes, given.count, size, seed, stratified=True)
    labels = [f"{code:03d}" for code in given.codes[drawn.train]]
    codes = given.codes[drawn.test]
    some = family("svm", kernel="rbf") if head == "svm-rbf" else family(head)
    for normalize, rule in variants:
        started = time.perf_counter()
        found = search(given.x[drawn.train], labels, some, normalize=normalize, rule=rule, seed=seed)
        seconds = time.perf_counter() - started
        scores = found.head.scores(given.x[drawn.test])
        right = scores.argmax(axis=1) == codes
        yield Tested(
            accuracy=float(right.mean()),
            balanced=float(np.mean([right[codes == code].mean() for code in np.unique(codes)])),
            loss=log_loss(softmax(found.head.inverse_temperature * scores), codes),
            uncalibrated=log_loss(softmax(scores), codes),
            seconds=seconds,
        )


def log_loss(probabilities: np.ndarray, codes: np.ndarray) -> float:
    """Return the mean of -log p of the true class."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(codes)), codes], LEAST_PROBABILITY)).mean())


def print_cell(head: str, size: int, name: str, found: list[list[Tested]], variants: Sequence[Variant]) -> None:
    """Print the mean of the first variant, and the differences of the other variants with their standard errors."""
    accuracy = 100 * np.array([[one.accuracy for one in replicate] for replicate in found])
    loss = np.array([[(one.loss, one.uncalibrated) for one in replicate] for replicate in found]).mean(axis=0)
    gains = (accuracy[:, 1:] - accuracy[:, :1]).T
    shown = [f"{gain.mean():+.1f} ± {gain.std(ddof=1) / np.sqrt(len(gain)):.1f}" for gain in gains]
    print_row(
        head, size, name, len(found), f"{accuracy[:, 0].mean():.1f}", *shown, f"{loss[0, 0]:.3f}",
        f"{loss[1, 0]:.3f}", f"{loss[1, 1]:.3f}",
    )  # fmt: skip


# --- classes of unequal sizes -----------------------------------------------------------------------------------


def print_unequal(work: Path, images: Path | None) -> None:
    """Print the gain of heads that take class frequencies into account."""
    print_row(
        "head", "set", "images per class", *(f"{what}, without, with" for what in ("log-loss", "accuracy", "balanced"))
    )
    print_row(*["---"] * 6)
    sets = {name: found for name in UNEQUAL if (found := features(name, work, images)) is not None}
    for head in ("svm", "logistic", "ridge"):
        for name, found in sets.items():
            given = thinned(found, UNEQUAL[name])
            for size, count in UNEQUAL_REPLICATES.items():
                if size * given.count > 0.5 * len(given.codes):
                    continue
                means = []
                for without in (True, False):
                    patch = mock.patch("bottleneck.heads.linear_family.prior_offset", return_value=0.0)
                    with patch if without else contextlib.nullcontext():
                        tested = [one for seed in range(count) for one in _replicate(given, head, size, seed, [NOW])]
                    means.append(
                        np.mean([(one.loss, 100 * one.accuracy, 100 * one.balanced) for one in tested], axis=0)
                    )
                (loss, right, recall), (loss_with, right_with, recall_with) = means
                pairs = f"{right:.1f}, {right_with:.1f}", f"{recall:.1f}, {recall_with:.1f}"
                print_row(head, name, size, f"{loss:.3f}, {loss_with:.3f}", *pairs)


# --- referees ---------------------------------------------------------------------------------------------------


def print_referees(given: Features, head: str, size: int, count: int) -> None:
    """Print the log-loss of our head, of its uncalibrated scores, and of scikit-learn's calibrations at the same C."""
    rows = [_referees(given, head, size, seed) for seed in range(count)]
    means = {name: np.mean([row[name] for row in rows]) for name in rows[0]}
    print_row("calibration", size, "", count, *(f"{name} {value:.3f}" for name, value in means.items()))


def _referees(given: Features, head: str, size: int, seed: int) -> dict[str, float]:
    from sklearn.calibration import CalibratedClassifierCV

    from bottleneck.heads.folds import divide

    drawn = draw(given.codes, given.count, size, seed, stratified=True)
    codes, tested = given.codes[drawn.train], given.codes[drawn.test]
    found = search(given.x[drawn.train], [f"{code:03d}" for code in codes], family(head), seed=seed)
    x, other = (found.head.scaling(given.x[rows]) for rows in (drawn.train, drawn.test))
    losses = {
        "ours": log_loss(found.head.probabilities(given.x[drawn.test]), tested),
        "uncalibrated": log_loss(softmax(_scores(REFEREES[head](found.params["C"]).fit(x, codes), other)), tested),
    }
    place = divide(codes, None, 5, seed).tested
    folds = [(np.flatnonzero(place != fold), np.flatnonzero(place == fold)) for fold in range(place.max() + 1)]
    for method in ("temperature", "sigmoid"):
        for together in (False, True):
            model = REFEREES[head](found.params["C"])
            referee = CalibratedClassifierCV(model, method=method, cv=folds, ensemble=together).fit(x, codes)
            name = f"{method}{', five heads' if together else ''}"
            losses[name] = log_loss(referee.predict_proba(other), tested)
    return losses


def _scores(model: "ClassifierMixin", x: np.ndarray) -> np.ndarray:
    scores = model.decision_function(x)
    return scores if scores.ndim == 2 else np.stack([-scores / 2, scores / 2], axis=1)


def _logistic(strength: float) -> "ClassifierMixin":
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=2000)


def _svm(strength: float) -> "ClassifierMixin":
    from sklearn.svm import LinearSVC

    return LinearSVC(C=strength, dual=False)


def _ridge(strength: float) -> "ClassifierMixin":
    from sklearn.linear_model import RidgeClassifier

    return RidgeClassifier(1 / (2 * strength))


REFEREES = {"logistic": _logistic, "svm": _svm, "ridge": _ridge}


def print_row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
