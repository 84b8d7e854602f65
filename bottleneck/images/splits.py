"""Which split an image belongs to, decided so that it never moves as the set grows."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import SplitError
from bottleneck.utils.text import normal

SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_SALT = b"bottleneck split 1\0"


def split_named(name: str) -> str | None:
    """Return the split that a folder, or a cell, of this name stands for: train, val, test; None if it is none."""
    return SPLIT_FOLDERS.get(normal(name).strip().lower())


@dataclass(frozen=True)
class Shares:
    """The percentages of train, val and test; they add up to 100."""

    train: int = 80
    val: int = 10
    test: int = 10

    def __post_init__(self) -> None:
        parts = (self.train, self.val, self.test)
        if min(parts) < 0 or sum(parts) != 100 or not self.train or not self.val + self.test:
            raise SplitError(
                f"expected three percentages train/val/test that add up to 100, with something to train on and "
                f"something to hold out, as in 80/10/10; got {self}"
            )

    def __str__(self) -> str:
        return f"{self.train}/{self.val}/{self.test}"

    @classmethod
    def parse(cls, text: str) -> "Shares":
        """Read ``"80/10/10"``.

        Raises
        ------
        SplitError
            If `text` is not of that form, or the numbers do not add up to 100.
        """
        try:
            train, val, test = (int(part) for part in str(text).split("/"))
        except ValueError:
            raise SplitError(f"expected percentages train/val/test as in 80/10/10, got {text!r}") from None
        return cls(train, val, test)


def split_of(key: bytes, shares: Shares) -> str:
    """Return the split of the image, or group, that `key` names.

    The first 8 bytes of SHA-256(salt + key) are a number that is uniform on [0, 1); the shares cut that interval.
    A rule by which no image ever moves, whatever is added, can look at nothing but the image, so each class gets
    its shares in expectation and not exactly: of n images, 10 % are ``0.1 n ± sqrt(0.09 n)``.
    """
    number = int.from_bytes(hashlib.sha256(_SALT + key).digest()[:8], "big") / 2**64 * 100
    if number < shares.train:
        return "train"
    return "val" if number < shares.train + shares.val else "test"


def assign(
    digests: NDArray[np.uint8],
    groups: Sequence[str | None],
    given: Sequence[str | None],
    shares: Shares,
) -> tuple[str, ...]:
    """Return the split of each image.

    Parameters
    ----------
    digests : ndarray of uint8, shape (n, 32)
    groups : sequence of str or None, length n
        Images of one group (a patient, a scene, a video) stay together.
    given : sequence of str or None, length n
        Splits that are already decided; they are kept.
    shares : Shares
        How the others are divided.

    Notes
    -----
    Images are tied by an equal digest or an equal group, and ties carry over: what is tied shares one fate. An
    undecided image that is tied to a given one follows it; otherwise the smallest key among the tied decides.
    """
    if None not in given:
        return tuple(split for split in given if split is not None)
    ties = _Ties()
    keys = [b"digest " + row.tobytes() for row in digests]
    for key, group in zip(keys, groups, strict=True):
        ties.join(key, b"group " + group.encode("utf-8", "surrogateescape") if group is not None else key)
    root_of = [ties.root(key) for key in keys]
    followed: dict[bytes, str] = {}
    for root, split in zip(root_of, given, strict=True):
        if split is not None:  # of several, the first of SPLITS, whatever the order of the files
            followed[root] = min(followed.get(root, split), split, key=SPLITS.index)
    decided = {root: followed.get(root) or split_of(root, shares) for root in set(root_of)}
    return tuple(split or decided[root] for split, root in zip(given, root_of, strict=True))


def parted(keys: Iterable[str], splits: Iterable[str]) -> dict[str, set[str]]:
    """Return the keys (digests or groups) that stand in more than one split, with those splits."""
    seen: dict[str, set[str]] = {}
    for key, split in zip(keys, splits, strict=True):
        seen.setdefault(key, set()).add(split)
    return {key: found for key, found in seen.items() if len(found) > 1}


class _Ties:
    """Sets of keys that belong together (union-find); the smallest key stands for its set.

    Groups stand before digests where both occur, so that a group's name alone decides and new images of the group
    follow it: the prefix of a group is made to sort first.
    """

    def __init__(self) -> None:
        self._parent: dict[bytes, bytes] = {}

    def root(self, key: bytes) -> bytes:
        path = []
        while (parent := self._parent.setdefault(key, key)) != key:
            path.append(key)
            key = parent
        for visited in path:
            self._parent[visited] = key
        return key

    def join(self, a: bytes, b: bytes) -> None:
        first, second = sorted((self.root(a), self.root(b)), key=lambda key: (key.startswith(b"digest "), key))
        self._parent[second] = first
