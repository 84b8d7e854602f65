"""Assignment of images to splits, such that no image changes its split when images are added."""

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
    """Return the split (train, val or test) named by a folder or cell; None if it does not name a split."""
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
    """Return the split of the image, or group, with a key.

    The first 8 bytes of SHA-256(salt + key) are a uniform number in [0, 1), which the shares partition. For an image
    never to change its split, the rule can depend only on the image itself. So each class gets its shares only in
    expectation: of n images, 10 % are ``0.1 n ± sqrt(0.09 n)``.
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
        Given splits, which are kept.
    shares : Shares
        Shares for the other images.

    Notes
    -----
    Images with the same digest or group are connected, transitively, and get the same split: that of a connected image
    with a given split, or else the split of the smallest key in the component.
    """
    if None not in given:
        return tuple(split for split in given if split is not None)
    sets = _UnionFind()
    keys = [b"digest " + row.tobytes() for row in digests]
    for key, group in zip(keys, groups, strict=True):
        sets.join(key, b"group " + group.encode("utf-8", "surrogateescape") if group is not None else key)
    root_of = [sets.root(key) for key in keys]
    followed: dict[bytes, str] = {}
    for root, split in zip(root_of, given, strict=True):
        if split is not None:  # of several given splits, the first of SPLITS, for any order of the files
            followed[root] = min(followed.get(root, split), split, key=SPLITS.index)
    decided = {root: followed.get(root) or split_of(root, shares) for root in set(root_of)}
    return tuple(split or decided[root] for split, root in zip(given, root_of, strict=True))


def across_splits(keys: Iterable[str], splits: Iterable[str]) -> dict[str, set[str]]:
    """Return the keys (digests or groups) that appear in more than one split, with those splits."""
    seen: dict[str, set[str]] = {}
    for key, split in zip(keys, splits, strict=True):
        seen.setdefault(key, set()).add(split)
    return {key: found for key, found in seen.items() if len(found) > 1}


class _UnionFind:
    """Disjoint sets of keys; the smallest key represents its set.

    Groups sort before digests, so that the name of a group determines its split and new images of the group follow it.
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
