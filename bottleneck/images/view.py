"""One of many random views of an image, named so that it can be made again."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottleneck.errors import ModelError
from bottleneck.utils.schema import checked

AUGMENTATIONS = ("none", "light", "standard", "strong")

_SALT = "bottleneck view 1"  # another one gives other views of everything


@dataclass(frozen=True, kw_only=True)
class View:
    """One randomly augmented view of each image.

    Parameters
    ----------
    augmentation : str
        How far a view is from the image, see `bottleneck.images.augment.augmented`: one of `AUGMENTATIONS`, except
        ``none``, which is no view.
    seed : int
        At least 0. Another one gives other views.
    number : int
        Which of the views of this seed, from 0.

    Raises
    ------
    ModelError
        If there is no such view.
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
                raise ModelError(f"expected a whole number of at least 0 as a view's {name}, got {value!r}")

    def random(self, digest: bytes) -> np.random.Generator:
        """Return the random numbers that make this view of one image.

        Parameters
        ----------
        digest : bytes
            The image's, 32 bytes.

        Returns
        -------
        Generator
            Seeded by the digest and the view, and by nothing else: not by the path, the order or the threads.
        """
        name = f"{_SALT} {self.augmentation} {self.seed} {self.number}\0".encode()
        state = hashlib.sha256(name + digest).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(state, "big")))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"augmentation": self.augmentation, "seed": self.seed, "number": self.number}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "View":
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            If it is something else.
        """
        return checked(value, cls)
