"""Coverage of the 95 % interval of a cross-validated accuracy: how often it contains the accuracy on new images.

python benchmarks/bench_intervals.py --work DIR [--images FOLDER] [--replicates N] [--sets NAME,...] [--heads NAME,...]

Each replicate draws a training set from one of the sets of `selection_sets`, searches a head on it as ``fit`` does, and
compares the interval with the accuracy of that head on all other images of the set.

The number m of other images is limited, so their accuracy p' has an error of variance p' (1 - p') / m. An interval [l,
h] therefore covers p' if p' is within sqrt(((h - l) / 2)^2 + 1.96^2 p' (1 - p') / m) of its centre; a correct interval
does so in 95 % of the replicates. Training images and other images are drawn from one finite set. For n and m of n + m
images, the difference of two means has exactly the variance S^2 (1 / n + 1 / m), as for two independent samples
(Cochran 1977, "Sampling techniques", section 2.9).

With groups, each drawn image occurs up to five times with small changes, like images of one patient; the other images
are changed by the same amount.
"""

import argparse
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from selection_sets import NAMES, Features, draw, features

from bottleneck.evaluation.stats import cross_validated_interval, wilson_interval
from bottleneck.heads.family import family
from bottleneck.heads.search import Search, search

SIZES = (20, 100, 400)  # images per class
LEAST_TESTED = 150
NOISE = 0.2  # of the images of a group, relative to the standard deviation of each feature
LARGEST_GROUP = 5
NORMAL = 1.959963984540054
COLUMNS = (
    "set",
    "images per class",
    "head",
    "replicates",
    "accuracy, %",
    "cross-validated minus accuracy, points",
    "coverage of the interval, %",
    "its half width, points",
    "coverage of Wilson's interval alone, %",
    "coverage of ± spread, %",
    "spread, points",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of images and features")
    parser.add_argument("--images", type=Path, help="the ants and bees; this set is omitted by default")
    parser.add_argument("--replicates", type=int, default=300, help="for 20 images per class; fewer for larger sizes")
    parser.add_argument("--sets", default=",".join(NAMES))
    parser.add_argument("--heads", default="logistic")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name in options.sets.split(","):
        found = features(name, options.work, options.images)
        for size in map(int, options.sizes.split(",")) if found else ():
            for head in options.heads.split(","):
                count = max(10, round(options.replicates * math.sqrt(SIZES[0] / size)))
                for kind, trained in (("", plain), (", groups", grouped)):
                    if len(found.x) - size * found.count >= LEAST_TESTED and not (kind and size > SIZES[0]):
                        done = [replicate(found, size, head, seed, trained) for seed in range(count)]
                        print(row(name + kind, size, head, done), flush=True)


@dataclass(frozen=True)
class Trained:
    """Features and classes of training images, their groups, and features and classes of other images."""

    x: np.ndarray
    codes: np.ndarray
    groups: list[str] | None
    other: np.ndarray
    other_codes: np.ndarray


@dataclass(frozen=True)
class Replicate:
    """The result of cross-validation, and the accuracy on `tested` other images."""

    cross_validated: float
    interval: tuple[float, float]
    wilson: tuple[float, float]
    spread: float
    accuracy: float
    tested: int

    def covered(self, low: float, high: float) -> bool:
        """Return whether an interval covers the accuracy on other images, given the error of that accuracy."""
        error = NORMAL**2 * self.accuracy * (1 - self.accuracy) / self.tested
        return abs(self.accuracy - (low + high) / 2) <= math.sqrt(((high - low) / 2) ** 2 + error)


def plain(found: Features, size: int, seed: int) -> Trained:
    """Draw a training set; all other images are for testing."""
    train = draw(found.codes, found.count, size, seed).train
    other = np.setdiff1d(np.arange(len(found.x)), train)
    return Trained(found.x[train], found.codes[train], None, found.x[other], found.codes[other])


def grouped(found: Features, size: int, seed: int) -> Trained:
    """Draw a training set, and add images that are similar to each of its images to its group."""
    some = draw(found.codes, found.count, size, seed).train
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(some)), random.integers(1, LARGEST_GROUP + 1, len(some)))
    rows = some[groups]
    other, names = np.setdiff1d(np.arange(len(found.x)), some), [f"g{group}" for group in groups.tolist()]
    x, others = (changed(found.x, which, random) for which in (rows, other))
    return Trained(x, found.codes[rows], names, others, found.codes[other])


def changed(x: np.ndarray, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the features of images that are similar to some rows."""
    noise = random.normal(0, NOISE, (len(rows), x.shape[1])) * x.std(axis=0)
    return (x[rows] + noise).astype(np.float32)


def replicate(found: Features, size: int, head: str, seed: int, made: Callable[..., Trained]) -> Replicate:
    """Draw a training set, search as ``fit`` does, and test on the other images."""
    drawn = made(found, size, seed)
    labels = np.array([f"{code:03d}" for code in range(found.count)])
    done = search(drawn.x, labels[drawn.codes].tolist(), family(head), groups=drawn.groups, seed=seed)
    said = np.array(done.head.classes)[done.head.probabilities(drawn.other).argmax(axis=1)]
    return Replicate(
        cross_validated=done.accuracy,
        interval=interval(done, labels[drawn.codes], drawn.groups),
        wilson=wilson_interval(done.accuracy * len(done.tested_rows), len(done.tested_rows)),
        spread=done.spread,
        accuracy=float((said == labels[drawn.other_codes]).mean()),
        tested=len(drawn.other),
    )


def interval(done: Search, labels: np.ndarray, groups: list[str] | None) -> tuple[float, float]:
    """Return the interval that ``fit`` prints."""
    right = (np.array(done.head.classes)[done.guesses] == labels[done.tested_rows]).mean(axis=0)
    of_rows = groups and [groups[row] for row in done.tested_rows.tolist()]
    return cross_validated_interval(done.accuracy, right, of_rows, share=1 - 1 / done.divided)


def row(name: str, size: int, head: str, done: list[Replicate]) -> str:
    """Return a row of the table."""
    accuracy = np.mean([one.accuracy for one in done])
    off = np.mean([one.cross_validated - one.accuracy for one in done])
    new = np.mean([one.covered(*one.interval) for one in done])
    alone = np.mean([one.covered(*one.wilson) for one in done])
    half = np.mean([np.diff(one.interval)[0] / 2 for one in done])
    old = np.mean([one.covered(one.cross_validated - one.spread, one.cross_validated + one.spread) for one in done])
    spread = np.mean([one.spread for one in done])
    shares = (accuracy, new, half, alone, old, spread)
    first, *rest = (f"{100 * share:.1f}" for share in shares)
    return f"| {' | '.join([name, str(size), head, str(len(done)), first, f'{100 * off:+.1f}', *rest])} |"


if __name__ == "__main__":
    main()
