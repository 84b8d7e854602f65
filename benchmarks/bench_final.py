"""Gain of `fit --final`: compare a head trained on four fifths of some images with one trained on all of them.

python benchmarks/bench_final.py [--work DIR] [--images ANTS_AND_BEES] [--sets NAME,...] [--seeds N] [--normalize NAME]
"""

import argparse
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from selection_sets import NAMES, Features, draw, features

from bottleneck.evaluation.metrics import evaluate_probabilities
from bottleneck.heads.features import NORMALIZE
from bottleneck.heads.folds import divide
from bottleneck.heads.head import Head
from bottleneck.heads.options import HeadOptions
from bottleneck.heads.refit import refit

HEADS = {
    "logistic": {}, "svm": {}, "ridge": {}, "softmax": {"epochs": 10}, "centroid": {}, "knn": {},
    "svm rbf": {"kernel": "rbf"},
}  # fmt: skip
SIZES = (5, 20, 100)  # labelled images per class


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"), help="folder of images and features")
    parser.add_argument("--images", type=Path, help="the ants and bees of PyTorch's tutorial")
    parser.add_argument("--sets", default=",".join(NAMES))
    parser.add_argument("--heads", default=",".join(HEADS))
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--normalize", choices=NORMALIZE, default="shrunk")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| set | images per class | head | accuracy, tested | final | gain ± 95 % | log-loss, tested | final |")
    print("|---|---|---|---|---|---|---|---|")
    gains: dict[int, list[float]] = {}
    for name in options.sets.split(","):
        images = features(name, options.work, options.images)
        for size in SIZES if images else ():
            for head in options.heads.split(","):
                found = np.array(list(pairs(images, size, head, options.normalize, options.seeds)))
                gains.setdefault(size, []).append(print_row(name, size, head, found))
    for size, found in gains.items():
        print(f"{size} images per class: mean gain {100 * np.mean(found):+.2f} points over {len(found)} cells")


def pairs(images: Features, size: int, head: str, normalize: str, seeds: int) -> Iterator[list[float]]:
    """Yield accuracy and log-loss of the tested head, then of the final one, for each seed."""
    for seed in range(seeds):
        drawn = draw(images.codes, images.count, size, seed)
        x, labels = images.x[drawn.train], [f"{code:03d}" for code in images.codes[drawn.train]]
        seen = divide(images.codes[drawn.train], None, 5, seed).trained[:, 0]
        options = HeadOptions(normalize=normalize, seed=seed, **HEADS[head])
        name, some = head.split()[0], options.family(head.split()[0])
        known = [label for label, trained in zip(labels, seen, strict=True) if trained]
        tested = options.search_head(name, x[seen], known, [None] * len(known), "")
        final = refit(tested.head, some, tested.params, x, labels, seen=seen, normalize=normalize, seed=seed)
        others = [f"{code:03d}" for code in images.codes[drawn.test]]
        yield [*scores(tested.head, images.x[drawn.test], others), *scores(final, images.x[drawn.test], others)]


def scores(head: Head, x: np.ndarray, labels: list[str]) -> tuple[float, float]:
    """Return accuracy and log-loss on images that neither head was trained on."""
    probabilities = head.probabilities(x)
    right = np.array(head.classes)[probabilities.argmax(axis=1)] == np.array(labels)
    return float(right.mean()), evaluate_probabilities(labels, probabilities, head.classes)["log_loss"]


def print_row(name: str, size: int, head: str, found: np.ndarray) -> float:
    """Print a row, and return the mean gain in accuracy."""
    gain = found[:, 2] - found[:, 0]
    error = 1.96 * gain.std(ddof=1) / len(gain) ** 0.5
    before, loss, after, last = found.mean(axis=0)
    print(
        f"| {name} | {size} | {head} | {before:.1%} | {after:.1%} | {100 * gain.mean():+.1f} ± {100 * error:.1f} | "
        f"{loss:.3f} | {last:.3f} |",
        flush=True,
    )
    return float(gain.mean())


if __name__ == "__main__":
    main()
