"""What appears in two splits and makes a score too good: copies of an image, and groups."""

from dataclasses import dataclass
from typing import Any

from bottleneck.errors import SplitError
from bottleneck.evaluation.near_duplicates import Near
from bottleneck.images.dataset import Dataset, two_labels
from bottleneck.images.splits import parted
from bottleneck.utils.text import first_few

LISTED = 1000  # entries of each kind that a card lists; it counts them all


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
                f"expected each image in one split, found {len(self.duplicates)} in more ({first_few(paths)}): the "
                f"score would be too good. Remove the copies, or say --allow-duplicates"
            )
        if self.groups:
            examples = [f"{name}: {_one_path_a_split(found)}" for name, found in sorted(self.groups.items())]
            raise SplitError(
                f"expected each group in one split, found {len(self.groups)} in more ({first_few(examples)}): the "
                f"score would be too good. Mend the splits, or say --allow-duplicates"
            )

    def card(self, near: Near) -> dict[str, Any]:
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
