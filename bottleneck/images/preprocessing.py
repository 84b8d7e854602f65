"""The preprocessing of a network: resize, crop, mean and std, as in the training of its weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bottleneck.errors import ModelError
from bottleneck.images.bounds import LARGEST_SIDE
from bottleneck.images.view import View
from bottleneck.utils.schema import Number, checked

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
MODES = ("center", "squash", "border")

Size = int | tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resize, crop the centre, then ``(pixels / 255 - mean) / std``.

    Parameters
    ----------
    resize : int or (int, int)
        In pixels, at most 16,384; (height, width) if they differ.
    crop : int or (int, int)
        Size of the centre crop, in pixels. If it exceeds the resized image, the rest is black (``border``: the mean).
    interpolation : str
        One of `INTERPOLATIONS`.
    antialias : bool
        Whether the filter widens when downscaling. Pillow always does this.
    mean, std : tuple of 3 floats
        Per channel (red, green, blue), for values in [0, 1].
    mode : str
        Meaning of `resize`, as timm's ``crop_mode``. ``center``: the length of the shorter side. ``squash``: that of
        both sides, without keeping the aspect ratio. ``border``: that of the longer side.
    fast_jpeg : bool
        Whether large JPEGs are decoded at 1/2, 1/4 or 1/8 of their size (DCT scaling), but at least twice the size that
        they are resized to. Ignored with a view: a crop of 8 % of the area needs all pixels.
    view : View, optional
        The random view that replaces the centre crop of each image. `resize`, `mode` and `fast_jpeg` are then ignored,
        and random crops are resized to `crop`; see `bottleneck.images.augment.augmented`.
    """

    resize: Size
    crop: Size
    interpolation: str
    antialias: bool
    mean: tuple[Number, Number, Number]
    std: tuple[Number, Number, Number]
    mode: str = "center"
    fast_jpeg: bool = False
    view: View | None = None

    def __post_init__(self) -> None:
        for name in ("resize", "crop"):  # one representation of a square, and so a single fingerprint
            object.__setattr__(self, name, _simplest(name, getattr(self, name)))
        sides = *self.resize_size, *self.crop_size
        if min(sides) < 1:
            raise ModelError(f"expected at least 1 pixel, got resize {self.resize} and crop {self.crop}")
        if max(sides) > LARGEST_SIDE:
            raise ModelError(f"expected at most {LARGEST_SIDE:,} pixels, got resize {self.resize} and crop {self.crop}")
        for name in ("mean", "std"):
            _check_channels(name, getattr(self, name))
        if self.interpolation not in INTERPOLATIONS or not self.antialias:
            raise ModelError(
                f"expected one of {', '.join(INTERPOLATIONS)}, antialiased, got {self.interpolation!r}, "
                f"antialias {self.antialias}"
            )
        if self.mode not in MODES:
            raise ModelError(f"expected one of {', '.join(MODES)}, got mode {self.mode!r}")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ModelError(f"expected a finite mean and a std above 0, got {self.mean} and {self.std}")

    @property
    def resize_size(self) -> tuple[int, int]:
        """Height and width of `resize`, in pixels."""
        return _pair(self.resize)

    @property
    def crop_size(self) -> tuple[int, int]:
        """Height and width of the input of the network, in pixels."""
        return _pair(self.crop)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; `mode`, `fast_jpeg` and `view` are omitted if they have their defaults."""
        value: dict[str, Any] = {
            "resize": _listed(self.resize),
            "crop": _listed(self.crop),
            "interpolation": self.interpolation,
            "antialias": self.antialias,
            "mean": list(self.mean),
            "std": list(self.std),
        }
        if self.mode != "center":
            value["mode"] = self.mode
        if self.fast_jpeg:
            value["fast_jpeg"] = True
        if self.view is not None:
            value["view"] = self.view.to_json()
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Preprocessing":
        """Return the preprocessing of a JSON object written by `to_json`.

        Raises
        ------
        ModelError
            If the object is invalid.
        """
        try:
            return checked(value, cls)
        except ValueError as error:
            raise ModelError(str(error)) from error


def _pair(size: Size) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _simplest(name: str, size: int | Sequence[int]) -> Size:
    sides = (size, size) if isinstance(size, int) else size
    if not isinstance(sides, (tuple, list)) or len(sides) != 2 or any(type(side) is not int for side in sides):
        raise ModelError(f"expected {name} as one or two integers, got {size!r}")
    height, width = sides
    return height if height == width else (height, width)


def _check_channels(name: str, values: Sequence[float]) -> None:
    numbers = isinstance(values, (tuple, list)) and all(type(value) in (int, float) for value in values)
    if not numbers or len(values) != 3 or not all(math.isfinite(value) for value in values):
        raise ModelError(f"expected {name} as three finite numbers, got {values!r}")


def _listed(size: Size) -> int | list[int]:
    return list(size) if isinstance(size, tuple) else size
