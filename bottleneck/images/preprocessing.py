"""How pixels reach a network: resize, crop, mean and std, as its weights were trained."""

from dataclasses import asdict, dataclass
from typing import Any

from bottleneck.errors import ModelError

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resize the shorter side, crop the centre, then ``(pixels / 255 - mean) / std``.

    Parameters
    ----------
    resize : int
        Length of the shorter side, in pixels.
    crop : int
        Side of the square in the centre, in pixels; at most `resize`.
    interpolation : str
        One of `INTERPOLATIONS`.
    antialias : bool
        Whether the filter widens as the image shrinks. Pillow always does.
    mean, std : tuple of 3 floats
        Per channel (red, green, blue), of values in [0, 1].
    """

    resize: int
    crop: int
    interpolation: str
    antialias: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize:
            raise ModelError(f"expected 1 <= crop <= resize, got crop {self.crop} and resize {self.resize}")
        if self.interpolation not in INTERPOLATIONS or not self.antialias:
            raise ModelError(
                f"expected one of {', '.join(INTERPOLATIONS)}, antialiased, got {self.interpolation!r}, "
                f"antialias {self.antialias}"
            )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Preprocessing":
        """Read what `to_json` wrote."""
        return cls(**{**value, "mean": tuple(value["mean"]), "std": tuple(value["std"])})
