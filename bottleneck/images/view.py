"""Reproducible random views of an image."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottleneck.errors import ModelError
from bottleneck.utils.schema import checked

AUGMENTATIONS = ("none", "light", "standard", "strong")

_SALT = "bottleneck view 1"  # a change would change all views


@dataclass(frozen=True, kw_only=True)
class View:
    """A randomly augmented view of each image.

    Parameters
    ----------
    augmentation : str
        Strength of the augmentation, see `bottleneck.images.augment.augmented`: one of `AUGMENTATIONS` except ``none``.
    seed : int
        At least 0.
    number : int
        Number of the view for this seed, from 0.

    Raises
    ------
    ModelError
        If a value is invalid.
    """

    augmentation: str
    seed: int
    number: int

    def __post_init__(self) -> None:
        if self.augmentation not in AUGMENTATIONS[1:]:
            raise ModelError(
                f"expected one of {', '.join(AUGMENTATIONS[1:])} for a view, got augmentation {self.augmentation!r}"
            )
        for name in ("seed", "number"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:  # True and 1.0 are 1 too, and would have other fingerprints
                raise ModelError(f"expected an integer of at least 0 as a view's {name}, got {value!r}")

    def random(self, digest: bytes) -> np.random.Generator:
        """Return the random generator of this view of an image.

        Parameters
        ----------
        digest : bytes
            Digest of the image, 32 bytes.

        Returns
        -------
        Generator
            Its seed depends only on the digest and the view, not on the path, the order or the threads.
        """
        name = f"{_SALT} {self.augmentation} {self.seed} {self.number}\0".encode()
        state = hashlib.sha256(name + digest).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(state, "big")))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"augmentation": self.augmentation, "seed": self.seed, "number": self.number}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "View":
        """Return the view of a JSON object written by `to_json`.

        Raises
        ------
        ValueError
            If the object is invalid.
        """
        return checked(value, cls)
