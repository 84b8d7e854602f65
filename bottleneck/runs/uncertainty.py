"""What a run knows about its uncertainty: how familiar images are, and prediction sets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save

from bottleneck.errors import RunError
from bottleneck.evaluation.conformal import Conformal
from bottleneck.evaluation.discriminant import Discriminant
from bottleneck.evaluation.familiarity import Familiarity
from bottleneck.heads.head import with_sorted_header
from bottleneck.utils.files import sha256_hex
from bottleneck.utils.tensors import parsed
from bottleneck.utils.tree import Tree

UNCERTAINTY = "uncertainty.safetensors"  # in the folder of a run
VERSION = 1
_LARGEST = 1 << 30  # bytes; 10,000 references take 5 MB
_DTYPES = {
    "directions": "float32",
    "references": "float16",
    "discriminant_centre": "float32",
    "discriminant_directions": "float32",
    "location": "float32",
    "spread": "float32",
    "distances": "float32",
    "scores": "float32",
}


@dataclass(frozen=True)
class Uncertainty:
    """The familiarity of images to the training images of a run, and the sizes of its prediction sets.

    Parameters
    ----------
    familiarity : Familiarity
    conformal : Conformal
    """

    familiarity: Familiarity
    conformal: Conformal

    def to_bytes(self) -> bytes:
        """Return the bytes of ``uncertainty.safetensors``."""
        usual = self.familiarity
        tensors = {
            "directions": usual.directions,
            "references": usual.references,
            "discriminant_centre": usual.discriminant.centre,
            "discriminant_directions": usual.discriminant.directions,
            "location": usual.location,
            "spread": usual.spread,
            "distances": usual.calibration,
            "scores": self.conformal.scores,
        }
        metadata = {"format_version": str(VERSION), "unseen": str(usual.unseen).lower()}
        return with_sorted_header(
            save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, metadata)
        )


def load_uncertainty(folder: Path, sha256: str | None = None, dim: int | None = None) -> Uncertainty:
    """Read the uncertainty of a run.

    Parameters
    ----------
    folder : Path
        The run's folder.
    sha256 : str, optional
        The hash of the file, by default any.
    dim : int, optional
        The number of features, by default any.

    Raises
    ------
    RunError
        If the file is missing, damaged, changed, of a newer format, or of other features.
    """
    path = folder / UNCERTAINTY
    try:
        data = Tree(folder).read(path, _LARGEST)
        if sha256 is not None and sha256_hex(data) != sha256:
            raise RunError(f"expected {path} to be unchanged since it was written; it has changed. Fit again")
        tensors, metadata = parsed(data)
        if metadata.get("format_version") != str(VERSION):
            raise RunError(
                f"expected format version {VERSION} of {path}, found {metadata.get('format_version')}: update "
                f"bottleneck, or fit again"
            )
        _check(path, tensors, dim)
        return _uncertainty(tensors, metadata)
    except RunError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise RunError(f"cannot read {path}: {error}. Fit again") from error


def _uncertainty(tensors: dict[str, NDArray[Any]], metadata: dict[str, str]) -> Uncertainty:
    usual = Familiarity(
        directions=tensors["directions"],
        references=tensors["references"],
        discriminant=Discriminant(tensors["discriminant_centre"], tensors["discriminant_directions"]),
        location=tensors["location"],
        spread=tensors["spread"],
        calibration=tensors["distances"],
        unseen=metadata["unseen"] == "true",
    )
    return Uncertainty(usual, Conformal(tensors["scores"]))


def _check(path: Path, tensors: dict[str, NDArray[Any]], dim: int | None) -> None:
    """Check dtypes, shapes and values."""
    found = {name: tensors[name].dtype.name for name in _DTYPES}
    if found != _DTYPES:
        raise RunError(f"expected {_DTYPES} in {path}, found {found}. Fit again")
    (count, r), (m, _), (_, q), (scored,), (known,) = (
        tensors[name].shape for name in ("directions", "references", "discriminant_directions", "distances", "scores")
    )
    wanted = {
        "directions": (count if dim is None else dim, r),
        "references": (m, r),
        "discriminant_centre": (r,),
        "discriminant_directions": (r, q),
        "location": (2,),
        "spread": (2,),
        "distances": (scored,),
        "scores": (known,),
    }
    shapes = {name: tensors[name].shape for name in wanted}
    if shapes != wanted:
        raise RunError(f"expected shapes {wanted} in {path}, found {shapes}. Fit again")
    if not m or not all(np.isfinite(tensors[name]).all() for name in wanted) or not (tensors["spread"] > 0).all():
        raise RunError(f"expected finite numbers, references and a spread above 0 in {path}. Fit again")
    if any((np.diff(tensors[name]) < 0).any() for name in ("distances", "scores")):
        raise RunError(f"expected sorted distances and scores in {path}. Fit again")
