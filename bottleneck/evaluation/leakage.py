"""Data leakage: copies of an image, and images of a group, in more than one split."""

from dataclasses import dataclass
from typing import Any

from bottleneck.errors import SplitError
from bottleneck.evaluation.near_duplicates import NearDuplicates
from bottleneck.images.dataset import Dataset, two_labels
from bottleneck.images.splits import across_splits
from bottleneck.utils.text import first_few

LISTED = 1000  # maximum number of entries of each kind that a card lists; the counts cover all of them


@dataclass(frozen=True)
class Leaks:
    """Images and groups of a dataset in more than one split, and images with more than one label, by path.

    Parameters
    ----------
    duplicates : tuple of tuple of str
        The paths of each image that appears in more than one split.
    groups : dict of str to dict of str to tuple of str
        The paths of each group that appears in more than one split, by group and split.
    two_labels : tuple of tuple of str
        The paths of each image with more than one label; these do not count as duplicates.
    """

    duplicates: tuple[tuple[str, ...], ...]
    groups: dict[str, dict[str, tuple[str, ...]]]
    two_labels: tuple[tuple[str, ...], ...]

    def refuse(self) -> None:
        """Raise an error if an image, or a group, appears in more than one split.

        Raises
        ------
        SplitError
            If one does; the message names paths.
        """
        if self.duplicates:
            paths = [path for paths in self.duplicates for path in paths]
            raise SplitError(
                f"expected each image in one split, found {len(self.duplicates)} in more ({first_few(paths)}): the "
                f"score would be optimistic. Remove the copies, or use --allow-duplicates"
            )
        if self.groups:
            examples = [f"{name}: {_first_path_per_split(found)}" for name, found in sorted(self.groups.items())]
            raise SplitError(
                f"expected each group in one split, found {len(self.groups)} in more ({first_few(examples)}): the "
                f"score would be optimistic. Correct the splits, or use --allow-duplicates"
            )

    def card(self, near: NearDuplicates, listed: int = LISTED) -> dict[str, Any]:
        """Return the leaks as JSON for a run's card: ``counts`` of each kind, and the first `listed` of each."""
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
            "near_thumbnails": near.thumbnails,
            **{kind: found[:listed] for kind, found in kinds.items()},
        }


def find_leaks(dataset: Dataset) -> Leaks:
    """Return the leaks that can be found without features."""
    ambiguous = two_labels(dataset)
    dataset = one_label(dataset)
    return Leaks(
        _duplicates_across_splits(dataset),
        _groups_across_splits(dataset),
        tuple(tuple(paths) for paths in ambiguous.values()),
    )


def one_label(dataset: Dataset) -> Dataset:
    """Return the dataset without the images that have more than one label."""
    ambiguous = two_labels(dataset)
    if not ambiguous:
        return dataset
    return dataset.subset(row for row, digest in enumerate(dataset.digests) if digest.tobytes() not in ambiguous)


def _duplicates_across_splits(dataset: Dataset) -> tuple[tuple[str, ...], ...]:
    digests = [row.tobytes().hex() for row in dataset.digests]
    found: dict[str, list[str]] = {digest: [] for digest in across_splits(digests, dataset.splits)}
    for path, digest in zip(dataset.paths, digests, strict=True):
        if digest in found:
            found[digest].append(path)
    return tuple(sorted(tuple(paths) for paths in found.values()))


def _groups_across_splits(dataset: Dataset) -> dict[str, dict[str, tuple[str, ...]]]:
    named = [
        (group, split, path)
        for group, split, path in zip(dataset.groups, dataset.splits, dataset.paths, strict=True)
        if group is not None
    ]
    found = across_splits([group for group, _, _ in named], [split for _, split, _ in named])
    paths: dict[str, dict[str, list[str]]] = {group: {} for group in found}
    for group, split, path in named:
        if group in found:
            paths[group].setdefault(split, []).append(path)
    return {group: {split: tuple(listed) for split, listed in where.items()} for group, where in paths.items()}


def _first_path_per_split(found: dict[str, tuple[str, ...]]) -> str:
    return ", ".join(f"{paths[0]} in {split}" for split, paths in found.items())
