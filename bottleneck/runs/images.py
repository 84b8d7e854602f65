"""The role of each image in a run, and whether the run classifies it correctly."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save

from bottleneck.errors import RunError
from bottleneck.heads.head import with_sorted_header
from bottleneck.images.dataset import Dataset
from bottleneck.images.keys import Digests, DigestSet
from bottleneck.utils.tensors import parsed
from bottleneck.utils.tree import Tree

IMAGES = "images.safetensors"  # in the folder of a run
VERSION = 1
_LARGEST = 8 << 30  # bytes; an image has 34
_UNKNOWN = -1


class Role(IntEnum):
    """The role of an image; if it has several roles, the first one applies."""

    TRAINED = 0  # the head or its backbone was trained on it
    SELECTED = 1  # it selected the epoch of a fine-tuning
    HELD_OUT = 2
    UNUSED = 3


@dataclass(frozen=True, kw_only=True)
class RunImages:
    """The images of a run, each once.

    Parameters
    ----------
    digests : ndarray of uint8, shape (n, 32)
    roles : ndarray of uint8, shape (n,)
        See `Role`.
    right : ndarray of int8, shape (n,)
        1 if the run correctly classifies an image that it was not trained on, 0 if it misclassifies it, -1 if unknown.
        Training images are predicted by the heads of the other folds, validation images by the run itself, or, in a
        final run, by the tested head. Held-out images always have -1, so that they are never used to select runs.
    complete : bool
        Whether all training images of the run are known. They are not if the backbone is a fine-tuned network whose
        training images are unknown.
    """

    digests: Digests
    roles: NDArray[np.uint8]
    right: NDArray[np.int8]
    complete: bool = True

    def role_of(self, digests: Digests) -> NDArray[np.intp]:
        """Return the role ``(m,)`` of each of ``(m, 32)`` digests; ``UNUSED`` for an image that is not in the run."""
        rows = DigestSet(self.digests).find(digests)
        return np.where(rows >= 0, self.roles[rows], int(Role.UNUSED)) if len(self.roles) else rows * 0 + Role.UNUSED

    def shared(self, other: "RunImages") -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return whether each of two runs correctly classifies the images for which this is known of both."""
        rows = DigestSet(other.digests).find(self.digests)
        mine, theirs = self.right, np.where(rows >= 0, other.right[rows], _UNKNOWN)
        both = (mine != _UNKNOWN) & (theirs != _UNKNOWN)
        return mine[both] == 1, theirs[both] == 1

    def with_role(self, digests: Digests, role: Role) -> "RunImages":
        """Return the images with another role for some of them."""
        rows = DigestSet(self.digests).find(digests)
        roles = self.roles.copy()
        roles[rows[rows >= 0]] = role
        return RunImages(digests=self.digests, roles=roles, right=self.right, complete=self.complete)

    def after(self, before: "RunImages | None") -> "RunImages":
        """Return the images together with the training images of the run that this run is based on.

        Parameters
        ----------
        before : RunImages or None
            None if they are unknown.
        """
        if before is None:
            return RunImages(
                digests=self.digests, roles=self.roles, right=np.full_like(self.right, _UNKNOWN), complete=False
            )
        seen = np.isin(before.roles, (Role.TRAINED, Role.SELECTED))
        digests = np.concatenate([self.digests, before.digests[seen]])
        roles = np.concatenate([self.roles, before.roles[seen]])
        right = np.concatenate([self.right, np.full(int(seen.sum()), _UNKNOWN, np.int8)])
        first = DigestSet(digests).find(digests)
        least = np.full(len(digests), int(Role.UNUSED), np.uint8)
        np.minimum.at(least, first, roles)
        trained = before.role_of(digests) == Role.TRAINED
        right[trained] = _UNKNOWN
        kept = np.unique(first)
        return RunImages(
            digests=digests[kept],
            roles=least[kept],
            right=right[kept],
            complete=self.complete and before.complete,
        )

    def to_bytes(self) -> bytes:
        """Return the bytes of ``images.safetensors``."""
        tensors = {"digests": self.digests, "roles": self.roles, "right": self.right}
        metadata = {"format_version": str(VERSION), "complete": str(self.complete).lower()}
        data = save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, metadata)
        return with_sorted_header(data)


def images_of(dataset: Dataset, roles: dict[str, Role]) -> RunImages:
    """Return the images of a dataset with the role of their split, or the first of its roles.

    Images are in the order of their digests.
    """
    codes = np.array([roles.get(split, Role.UNUSED) for split in dataset.splits], np.uint8)
    distinct = DigestSet(dataset.digests)
    least = np.full(len(codes), int(Role.UNUSED), np.uint8)
    np.minimum.at(least, distinct.find(dataset.digests), codes)
    kept = distinct.sorted_rows
    return RunImages(digests=dataset.digests[kept], roles=least[kept], right=np.full(len(kept), _UNKNOWN, np.int8))


def with_correctness(images: RunImages, digests: Digests, right: NDArray[np.bool_] | Sequence[bool]) -> RunImages:
    """Return the images with a record of whether the run correctly classifies some of them."""
    found = images.right.copy()
    rows = DigestSet(images.digests).find(digests)
    found[rows[rows >= 0]] = np.asarray(right, np.int8)[rows >= 0]
    found[images.roles == Role.HELD_OUT] = _UNKNOWN
    return RunImages(digests=images.digests, roles=images.roles, right=found, complete=images.complete)


def load_run_images(folder: Path) -> RunImages | None:
    """Read the images of a run; return None for a run of an earlier version, which lacks the file.

    Raises
    ------
    RunError
        If the file is damaged, or of a newer format.
    """
    path = folder / IMAGES
    try:
        tensors, metadata = parsed(Tree(folder).read(path, _LARGEST))
        if metadata.get("format_version") != str(VERSION):
            raise RunError(
                f"expected format version {VERSION} of {path}, found {metadata.get('format_version')}: update "
                f"bottleneck, or fit again"
            )
        found = RunImages(
            digests=tensors["digests"],
            roles=tensors["roles"],
            right=tensors["right"],
            complete=metadata.get("complete") == "true",
        )
    except FileNotFoundError:
        return None
    except RunError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise RunError(f"cannot read {path}: {error}. Fit again") from error
    n = len(found.digests)
    wanted = {"digests": ((n, 32), "uint8"), "roles": ((n,), "uint8"), "right": ((n,), "int8")}
    held = {name: (value.shape, value.dtype.name) for name in wanted for value in [getattr(found, name)]}
    if held != wanted:
        raise RunError(f"expected {wanted} in {path}, found {held}. Fit again")
    if n and not (found.roles.max() <= max(Role) and _UNKNOWN <= found.right.min() <= found.right.max() <= 1):
        raise RunError(
            f"expected roles from 0 to {max(Role):d} and right from -1 to 1 in {path}, found other values. Fit again"
        )
    return found
