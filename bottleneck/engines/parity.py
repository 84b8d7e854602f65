"""The parity check of an engine: how close its features are to those of torch in fp32."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bottleneck.engines.engine import Engine
from bottleneck.engines.probe import probe_images
from bottleneck.engines.records import LEAST_COSINE, Check, EngineRecords
from bottleneck.errors import NoMemory
from bottleneck.utils.files import sha256_hex

if TYPE_CHECKING:
    from bottleneck.backbones.spec import Spec

Sample = Callable[[], NDArray[np.uint8]]  # returns images of the user, (n, h, w, 3), decoded on demand


@dataclass(frozen=True)
class Reference:
    """Images and their features from torch in fp32."""

    pixels: NDArray[np.uint8]
    features: NDArray[np.float32]


class ParityChecker:
    """Compares engines with torch in fp32, only on images that they have not been compared on before.

    Parameters
    ----------
    spec : Spec
        Spec of the features.
    plain : callable
        Returns the torch engine in fp32 with the unchanged network.
    records : EngineRecords
        Stores the checks.
    sample : callable or None
        Returns images of the user, if engines are to be compared on them too.
    """

    def __init__(
        self, spec: "Spec", plain: Callable[[], Engine], records: EngineRecords, sample: Sample | None
    ) -> None:
        self._spec = spec
        self._plain = plain
        self._records = records
        self._sample = sample
        self._own: NDArray[np.uint8] | None = None  # the sample, once it is needed
        self._made: dict[str, Reference] = {}

    def references(self, known: Check | None) -> dict[str, Reference]:
        """Return the references that an engine must still be compared with, by name: probe, own.

        Call this before anything changes the network.

        Parameters
        ----------
        known : Check or None
            The recorded check of the engine.

        Raises
        ------
        NoMemory
            If there is not enough memory for the images, or for the network in fp32.
        """
        try:
            wanted = {}
            if known is None:
                wanted["probe"] = probe_images(*self._spec.preprocessing.crop_size)
            if self._sample is not None:
                pixels = self._own = self._sample() if self._own is None else self._own
                if known is None or known.own_digest != _digest(pixels):
                    wanted["own"] = pixels
            self._compute({name: pixels for name, pixels in wanted.items() if name not in self._made})
        except MemoryError as error:  # the engine is not the cause
            raise NoMemory("not enough memory for a few images at once and the network in fp32") from error
        return {name: self._made[name] for name in wanted}

    def _compute(self, samples: dict[str, NDArray[np.uint8]]) -> None:
        if not samples:
            return
        plain = self._plain()
        try:
            for name, pixels in samples.items():
                self._made[name] = Reference(pixels, _features(plain, pixels))
        finally:
            plain.close()

    def checked(self, name: str, engine: Engine, known: Check | None, references: dict[str, Reference]) -> Check:
        """Compare an engine with the references and record the check; close the engine if it cannot run.

        Nothing is recorded if no reference feature is finite, so that there is nothing to compare.

        Raises
        ------
        ModelError, RuntimeError, MemoryError
            Any error of the engine.
        """
        check, comparable = known or Check(engine.name, self._spec.precision, None), True
        try:
            for which, reference in references.items():
                cosine = lowest_cosine(_features(engine, reference.pixels), reference.features)
                finite = bool(np.isfinite(reference.features).all(axis=1).any())
                if which == "probe":
                    check, comparable = replace(check, cosine=cosine), finite
                elif finite:
                    images = reference.pixels
                    check = replace(check, own_cosine=cosine, own_images=len(images), own_digest=_digest(images))
        except BaseException:
            engine.close()
            raise
        if check != known and comparable:
            self._records.keep_check(name, check)
        return check


def _digest(pixels: NDArray[np.uint8]) -> str:
    return sha256_hex(np.ascontiguousarray(pixels).tobytes())


def _features(engine: Engine, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the features ``(n, d)`` of any number of images."""
    size = engine.batch_size
    return np.concatenate([engine(pixels[start : start + size]) for start in range(0, len(pixels), size)])


def lowest_cosine(features: NDArray[np.float32], reference: NDArray[np.float32]) -> float | None:
    """Return the lowest cosine between rows of ``(n, d)``; None if a row is finite in only one of them.

    Rows that are finite in neither are ignored: the network itself causes them. Two rows of zeros are equal.
    """
    sound = np.isfinite(reference).all(axis=1)
    if (np.isfinite(features).all(axis=1) != sound).any():
        return None
    a, b = features[sound].astype(np.float64), reference[sound].astype(np.float64)
    norms = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    product = norms[0] * norms[1]
    alike = (norms[0] == norms[1]).astype(np.float64)
    cosines = np.divide((a * b).sum(axis=1), product, out=alike, where=product > 0)
    return math.floor(float(cosines.min(initial=1.0)) * 1e7) / 1e7


def shortfall(cosine: float | None) -> str:
    """Return the message about a cosine that is too low."""
    found = "some features are not finite" if cosine is None else f"lowest cosine {cosine:.5f}"
    return f"{found}, expected {LEAST_COSINE} or more against torch in fp32"
