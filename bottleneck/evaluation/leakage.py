"""What stands on both sides of a split, and makes a score too good: copies, groups, near copies."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.tuned import kept_tuned
from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckWarning, SplitError
from bottleneck.images.dataset import Dataset, two_labels
from bottleneck.images.naming import examples, from_images
from bottleneck.images.splits import parted
from bottleneck.fitting.inputs import some

NEAR = 0.9  # see `near_duplicates`
LISTED = 1000  # entries of each kind that a card lists; it counts them all
_BLOCK = 2048  # rows of each side that are compared at once

Features = NDArray[np.float32]  # (n, d)


@dataclass(frozen=True)
class Leaks:
    """What a dataset has on both sides of a split, and under two labels; all by paths.

    Parameters
    ----------
    duplicates : tuple of tuple of str
        The paths of each image that stands in more than one split.
    groups : dict of str to dict of str to tuple of str
        Group -> split -> paths, of each group that stands in more than one split.
    two_labels : tuple of tuple of str
        The paths of each image that stands under more than one label; it counts as no duplicate.
    """

    duplicates: tuple[tuple[str, ...], ...]
    groups: dict[str, dict[str, tuple[str, ...]]]
    two_labels: tuple[tuple[str, ...], ...]

    def refuse(self) -> None:
        """Raise if an image, or a group, stands in more than one split.

        Raises
        ------
        SplitError
            With the paths.
        """
        if self.duplicates:
            paths = [path for paths in self.duplicates for path in paths]
            raise SplitError(
                f"expected each image in one split, found {len(self.duplicates)} in more ({some(paths)}): the score "
                f"would be too good. Remove the copies, or say --allow-duplicates"
            )
        if self.groups:
            examples = [f"{name}: {_one_path_a_split(found)}" for name, found in sorted(self.groups.items())]
            raise SplitError(
                f"expected each group in one split, found {len(self.groups)} in more ({some(examples)}): the score "
                f"would be too good. Mend the splits, or say --allow-duplicates"
            )

    def card(self, near: "Near") -> dict[str, Any]:
        """Return all leaks as a JSON object for a run's card: ``counts`` of each kind, and the first of them."""
        kinds: dict[str, list[Any]] = {
            "near_duplicates": [list(pair) for pair in near.pairs],
            "duplicates_allowed": [list(paths) for paths in self.duplicates],
            "groups_allowed": [
                {"group": name, **{split: list(paths) for split, paths in found.items()}}
                for name, found in sorted(self.groups.items())
            ],
            "two_labels": [list(paths) for paths in self.two_labels],
        }
        return {
            "counts": {kind: len(found) for kind, found in kinds.items()},
            "near_threshold": near.threshold,
            **{kind: found[:LISTED] for kind, found in kinds.items()},
        }


@dataclass(frozen=True)
class Near:
    """Held-out images that have a near copy among those that are trained on.

    Parameters
    ----------
    pairs : tuple of (str, str, float)
        Path in the training part, held-out path, and cosine, the most similar first.
    threshold : float or None
        The least cosine; None where they were not looked for.
    """

    pairs: tuple[tuple[str, str, float], ...]
    threshold: float | None

    def message(self, images: Path) -> str:
        """Return what to tell a user, with paths as seen from IMAGES."""
        shown = examples(
            (
                f"{from_images(held_out, images)} is like {from_images(train, images)} ({cosine:.2f})"
                for train, held_out, cosine in self.pairs
            ),
            most=2,
        )
        noun = "image has" if len(self.pairs) == 1 else "images have"
        return (
            f"{len(self.pairs)} held-out {noun} a near copy in the training images, so the score may be too good: "
            f"{shown}. Give such images one group; card.json of a fit lists all"
        )


def find_leaks(dataset: Dataset) -> Leaks:
    """Return what can be told without features."""
    torn = two_labels(dataset)
    dataset = one_label(dataset)
    return Leaks(_parted_images(dataset), _parted_groups(dataset), tuple(tuple(paths) for paths in torn.values()))


def one_label(dataset: Dataset) -> Dataset:
    """Return the dataset without the images that stand under more than one label."""
    torn = two_labels(dataset)
    if not torn:
        return dataset
    return dataset.subset(row for row, digest in enumerate(dataset.digests) if digest.tobytes() not in torn)


def score_on_tuned(store: Store, usable: Dataset, accuracy: float) -> float | None:
    """Return what a head on features of a fine-tuned network may be chosen by; None on features of any other.

    Such a network knows the labels of the images that it was trained on, and cross-validation, which sees these alone,
    can say anything with its features. So it says at most what the fine-tuning said of itself.

    Parameters
    ----------
    store : Store
        Of the features.
    usable : Dataset
        The images on which a head was trained and tested.
    accuracy : float
        The head's, cross-validated.

    Warns
    -----
    BottleneckWarning
        That cross-validation flatters; or, where the network was trained with other images or splits, that even the
        held-out part may.
    """
    found = kept_tuned(store.folder)
    if found is None:
        return None
    if found.dataset != usable.fingerprint():
        said = (
            f"{store.short_name} are features of a network that was fine-tuned on other images, labels or splits: if "
            f"held-out images are among those that it was trained on, their accuracy flatters"
        )
    else:
        said = (
            f"{store.short_name} are features of a network that was fine-tuned on these training images: "
            f"cross-validation, which sees them alone, flatters every head; look at the held-out part"
        )
    warnings.warn(said, BottleneckWarning, stacklevel=3)
    return min(accuracy, found.score)


def find_near(
    train: Dataset, train_features: Features, heldout: Dataset, heldout_features: Features, threshold: float = NEAR
) -> Near:
    """Return the held-out images that have a near copy in the training part; exact copies are none.

    Parameters
    ----------
    train, heldout : Dataset
        Each image once; those of `train` have labels.
    train_features, heldout_features : ndarray of float32, shape (n, d) and (m, d)
    threshold : float
        See `near_duplicates`.
    """
    exact = {row.tobytes() for row in train.digests}
    other = np.array([row for row, digest in enumerate(heldout.digests) if digest.tobytes() not in exact], np.intp)
    if len(other) < len(heldout):
        heldout, heldout_features = heldout.subset(other.tolist()), heldout_features[other]
    labels = np.unique(np.array(train.labels, str), return_inverse=True)[1]
    rows, cosines = near_duplicates(train_features, heldout_features, threshold, labels=labels)
    pairs = zip(rows.tolist(), cosines.tolist(), strict=True)
    return Near(tuple((train.paths[a], heldout.paths[b], round(cosine, 4)) for (a, b), cosine in pairs), threshold)


def near_duplicates(
    train_features: Features,
    heldout_features: Features,
    threshold: float = NEAR,
    *,
    labels: NDArray[np.intp] | None = None,
) -> tuple[NDArray[np.intp], Features]:
    """Return the held-out rows whose nearest training row is a near copy: the same photograph, edited.

    Parameters
    ----------
    train_features, heldout_features : ndarray of float32, shape (n, d) and (m, d)
    threshold : float
        The least cosine of a near copy.
    labels : ndarray of int, shape (n,), optional
        The class of each training row, from 0; by default all are of one class.

    Returns
    -------
    rows : ndarray of int, shape (p, 2)
        Training row and held-out row of each pair, the most similar first; the nearest training row only.
    cosines : ndarray of float32, shape (p,)

    Notes
    -----
    Features are mostly positive and those of a class are alike, so that the cosine of two rows is high for any two
    images of a class. It is therefore taken from the mean of the training row's class, itself drawn by 1 / (1 + its
    rows) to the mean of all, so that a class of one image is no zero.

    The threshold was chosen with EfficientNet-Lite0. Different images: among 153 held-out photographs of ants and bees
    the nearest of 244 has a cosine of at most 0.63; of 366 of scikit-learn's digits, which differ little, 2 are above
    0.9, the highest 0.91. Edited copies of 60 photographs that are above 0.9: brightness +10 % 100 %, +25 % 96 %,
    resized to 80 % 100 %, 5 % cropped 88 %, mirrored 83 %, turned by 3° 91 %, JPEG of quality 50 26 %. More than a
    light edit is missed: this finds leaks, and cannot rule them out.
    """
    n, m = len(train_features), len(heldout_features)
    nearest, best = np.zeros(m, np.intp), np.full(m, -np.inf, np.float32)
    if n and m:
        codes = np.zeros(n, np.intp) if labels is None else labels
        centre = train_features.mean(axis=0, dtype=np.float64).astype(np.float32)
        means = _class_means(train_features, codes, centre)
        for start in range(0, m, _BLOCK):
            part = slice(start, start + _BLOCK)
            rows = heldout_features[part] - centre
            lengths = _distances(rows, means)
            for first in range(0, n, _BLOCK):
                block = slice(first, first + _BLOCK)
                cosines = _cosines(rows, lengths, train_features[block] - centre, means, codes[block])
                winner = cosines.argmax(axis=1)
                found = cosines[np.arange(len(rows)), winner]
                better = found > best[part]
                best[part][better], nearest[part][better] = found[better], winner[better] + first
    order = np.argsort(-best, kind="stable")
    order = order[best[order] >= threshold]
    return np.column_stack([nearest[order], order]), best[order]


def _parted_images(dataset: Dataset) -> tuple[tuple[str, ...], ...]:
    digests = [row.tobytes().hex() for row in dataset.digests]
    found: dict[str, list[str]] = {digest: [] for digest in parted(digests, dataset.splits)}
    for path, digest in zip(dataset.paths, digests, strict=True):
        if digest in found:
            found[digest].append(path)
    return tuple(sorted(tuple(paths) for paths in found.values()))


def _parted_groups(dataset: Dataset) -> dict[str, dict[str, tuple[str, ...]]]:
    named = [
        (group, split, path)
        for group, split, path in zip(dataset.groups, dataset.splits, dataset.paths, strict=True)
        if group is not None
    ]
    found = parted([group for group, _, _ in named], [split for _, split, _ in named])
    paths: dict[str, dict[str, list[str]]] = {group: {} for group in found}
    for group, split, path in named:
        if group in found:
            paths[group].setdefault(split, []).append(path)
    return {group: {split: tuple(listed) for split, listed in where.items()} for group, where in paths.items()}


def _one_path_a_split(found: dict[str, tuple[str, ...]]) -> str:
    return ", ".join(f"{paths[0]} in {split}" for split, paths in found.items())


def _class_means(features: Features, codes: NDArray[np.intp], centre: Features) -> Features:
    """Return the mean ``(k, d)`` of each class less the centre, as if each had one more row, the centre."""
    counts = np.bincount(codes)
    sums = np.zeros((len(counts), features.shape[1]))
    for first in range(0, len(features), _BLOCK):
        part = codes[first : first + _BLOCK]
        order = np.argsort(part, kind="stable")
        present, starts = np.unique(part[order], return_index=True)
        sums[present] += np.add.reduceat(features[first : first + _BLOCK][order] - centre, starts, axis=0)
    means: Features = (sums / (counts + 1)[:, None]).astype(np.float32)
    return means


def _distances(rows: Features, means: Features) -> Features:
    """Return the distance ``(n, k)`` of each row from the mean of each class."""
    squares = (rows**2).sum(axis=1)[:, None] - 2 * rows @ means.T + (means**2).sum(axis=1)
    distances: Features = np.sqrt(np.maximum(squares, 0))
    return distances


def _cosines(rows: Features, lengths: Features, block: Features, means: Features, codes: NDArray[np.intp]) -> Features:
    """Return the cosines ``(m, n)`` of `rows` (m, d) and `block` (n, d), seen from the mean of the latter's class.

    `lengths` (m, k) are the distances of `rows` from the means; (x - a)(y - a) = x (y - a) - a (y - a) does the rest.
    """
    seen = block - means[codes]
    own = np.sqrt((seen**2).sum(axis=1))
    products = rows @ seen.T - (seen * means[codes]).sum(axis=1)
    scale = lengths[:, codes] * own
    cosines: Features = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    return cosines
