"""A border or background that tells the class: how well the edge of the pictures alone predicts their labels."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import BottleneckWarning, HeadError
from bottleneck.evaluation.stats import cross_validated_interval
from bottleneck.heads.family import family
from bottleneck.heads.search import search
from bottleneck.images.dataset import Dataset
from bottleneck.images.keys import DigestSet
from bottleneck.images.thumbnails import SIDE, Thumbnails
from bottleneck.utils.process_settings import ignored_warnings

_WIDTH = 2  # pixels of a thumbnail: an eighth of the picture on each side
_PERMUTATIONS = 999
_SIGNIFICANT = 0.01
_SUBSTANTIAL = 0.5  # of the way from chance to perfect
_LEAST = 10  # images of a class that has a recall
_MOST_IMAGES = 5000


@dataclass(frozen=True)
class BorderFinding:
    """How well the edge of the pictures predicts their labels, by cross-validation.

    Parameters
    ----------
    is_finding : bool
        Whether it predicts them significantly and substantially better than chance: p below 0.01, and at least half of
        the way from chance to a perfect balanced accuracy.
    n : int
        The number of images.
    accuracy : float
    accuracy_ci95 : (float, float)
        See `bottleneck.evaluation.stats.cross_validated_interval`.
    balanced_accuracy : float
        The mean recall of the classes.
    largest_class : float
        The share of the largest class: the accuracy of predicting always that one.
    chance : float
        1 / k, the balanced accuracy of guessing.
    p_value : float
        Of the balanced accuracy, by permutations of the labels.
    recalls : dict of str to float
        The share of the images of each class that the edge predicts correctly, the highest first.
    told_apart : tuple of str
        The classes whose recall is at least half of the way from chance to 1, if this is a finding.
    reason : str
    """

    is_finding: bool
    n: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    balanced_accuracy: float
    largest_class: float
    chance: float
    p_value: float
    recalls: dict[str, float]
    told_apart: tuple[str, ...]
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {**asdict(self), "accuracy_ci95": list(self.accuracy_ci95), "told_apart": list(self.told_apart)}


def edges_of(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean colours along the edge of thumbnails, from 0 to 1.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n, SIDE, SIDE, 3)

    Returns
    -------
    ndarray of float32, shape (n, 84)
        28 squares of 2 x 2 pixels, each an eighth of the picture wide and high, in three colours.
    """
    cells = SIDE // _WIDTH
    means = pixels.reshape(len(pixels), cells, _WIDTH, cells, _WIDTH, 3).mean(axis=(2, 4)) / 255
    inner = np.zeros((cells, cells), bool)
    inner[1:-1, 1:-1] = True
    edges: NDArray[np.float32] = means[:, ~inner].reshape(len(pixels), -1).astype(np.float32)
    return edges


def find_border(dataset: Dataset, thumbnails: Thumbnails, *, seed: int = 0) -> BorderFinding | None:
    """Return how well the outer eighth of the pictures, on each side, predicts their labels.

    Parameters
    ----------
    dataset : Dataset
        Images without a label are ignored, and of each image one path is used.
    thumbnails : Thumbnails
        Of the images of the dataset.
    seed : int

    Returns
    -------
    BorderFinding or None
        None if fewer than two classes have two images with thumbnails.

    Notes
    -----
    A logistic head is cross-validated on the mean colours of 28 squares along the edge. Up to 5,000 images are used.
    The p-value compares the balanced accuracy of its out-of-fold predictions with that for permuted labels (B. Phipson
    and G. K. Smyth 2010, "Permutation p-values should never be zero", Statistical Applications in Genetics and
    Molecular Biology 9, 39).

    A photograph's subject often reaches its edge, and habitats are part of what a class looks like, so that some
    prediction above chance is normal: only a substantial one is a finding. Whether a classifier uses it is another
    question; test it on pictures without the border.
    """
    rows = _rows(dataset, thumbnails, seed)
    labels = [str(dataset.labels[row]) for row in rows]
    if len(set(labels)) < 2:
        return None
    groups = [dataset.groups[row] for row in rows]
    edges = edges_of(thumbnails.pixels[rows])
    try:
        with ignored_warnings(".*features that differ", BottleneckWarning):  # all borders may be white
            found = search(edges, labels, family("logistic"), groups=groups, repeats=1, seed=seed)
    except HeadError:
        return None  # such as one group per class
    classes, codes = np.unique(np.array(labels)[found.tested_rows], return_inverse=True)
    names = np.array(found.head.classes)[found.guesses[0]]
    guesses = np.searchsorted(classes, names)
    guesses[~np.isin(names, classes)] = len(classes)
    right = (guesses == codes).astype(np.float64)
    tested_groups = [groups[row] for row in found.tested_rows.tolist()]
    share = 1 - 1 / found.divided
    interval = cross_validated_interval(float(right.mean()), right, tested_groups, share=share)
    recalls = _recalls(codes, guesses, len(classes))
    return _finding(classes.tolist(), codes, recalls, float(right.mean()), interval, _p_value(codes, guesses, seed))


def _rows(dataset: Dataset, thumbnails: Thumbnails, seed: int) -> list[int]:
    """Return rows of labelled images of classes with at least two, each image once, in the order of digests."""
    known = thumbnails.known
    rows = [
        row for row in DigestSet(dataset.digests).sorted_rows.tolist() if known[row] and dataset.labels[row] is not None
    ]
    if len(rows) > _MOST_IMAGES:
        rows = [rows[i] for i in np.sort(np.random.default_rng(seed).permutation(len(rows))[:_MOST_IMAGES]).tolist()]
    counts = dict(zip(*np.unique([str(dataset.labels[row]) for row in rows], return_counts=True), strict=True))
    return [row for row in rows if counts[str(dataset.labels[row])] > 1]


def _finding(
    classes: Sequence[str],
    codes: NDArray[np.intp],
    recalls: NDArray[np.float64],
    accuracy: float,
    interval: tuple[float, float],
    p_value: float,
) -> BorderFinding:
    k, counts = len(classes), np.bincount(codes)
    balanced, chance, largest = float(recalls.mean()), 1 / k, float(counts.max() / counts.sum())
    bound = chance + _SUBSTANTIAL * (1 - chance)
    is_finding = p_value < _SIGNIFICANT and balanced >= bound and accuracy > largest
    order = sorted(range(k), key=lambda code: (-recalls[code], classes[code]))
    told = [classes[code] for code in order if recalls[code] >= bound and counts[code] >= _LEAST]
    verdict = "so the border or background may tell the class" if is_finding else "not enough for a finding"
    return BorderFinding(
        is_finding=is_finding,
        n=len(codes),
        accuracy=accuracy,
        accuracy_ci95=interval,
        balanced_accuracy=balanced,
        largest_class=largest,
        chance=chance,
        p_value=p_value,
        recalls={classes[code]: float(recalls[code]) for code in order},
        told_apart=tuple(told) if is_finding else (),
        reason=(
            f"the outer eighth of the pictures predicts the label with a balanced accuracy of {balanced:.1%}; chance "
            f"is {chance:.1%}, and a finding begins at {bound:.1%}: {verdict}"
        ),
    )


def _recalls(codes: NDArray[np.intp], guesses: NDArray[np.intp], k: int) -> NDArray[np.float64]:
    right = np.bincount(codes[codes == guesses], minlength=k)
    recalls: NDArray[np.float64] = right / np.bincount(codes, minlength=k)
    return recalls


def _p_value(codes: NDArray[np.intp], guesses: NDArray[np.intp], seed: int) -> float:
    """Return the share of permuted labels, and of the labels, that the guesses fit at least as well."""
    k = int(codes.max()) + 1
    random = np.random.default_rng(seed)
    observed = _recalls(codes, guesses, k).mean()

    def permuted() -> Iterator[bool]:
        for _ in range(_PERMUTATIONS):
            yield bool(_recalls(random.permutation(codes), guesses, k).mean() >= observed - 1e-12)

    return (1 + sum(permuted())) / (1 + _PERMUTATIONS)
