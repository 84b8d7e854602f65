"""The spec: everything that determines the value of a feature, with its fingerprint."""

import hashlib
from dataclasses import dataclass
from typing import Any

from bottleneck.errors import CacheError
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.utils.files import canonical_json
from bottleneck.utils.schema import checked, expect_canonical
from bottleneck.utils.text import one_line

SPEC_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Everything that determines the value of a feature. Only features with equal fingerprints can be compared.

    Parameters
    ----------
    backbone : str
        Name of the network.
    weights : str
        Digest of its tensors, see `bottleneck.backbones.weights.tensors_digest`.
    layer : str
        Where the network is cut: ``"layer4"`` is the output of the module ``layer4``, ``"fc:input"`` the input of
        ``fc``, ``"layer3+layer4"`` the outputs of both, concatenated.
    pooling : str
        How the positions of the layer are pooled: ``"avg"``, ``"max"``, ``"gem"``, ``"cls"`` or ``"none"``; the input
        of most classifiers is already pooled by the network. See `bottleneck.backbones.pooling`.
    preprocessing : Preprocessing
        Resize, crop, filter, mean and std; and the view, if the features are those of random views.
    transform_input : bool
        Whether the network first maps ImageNet's mean and std to 0.5 (Inception-v3 and GoogLeNet, as trained).
    precision : str
        ``"fp32"``, ``"bf16"`` or ``"fp16"``, with any engine.
    decoder : int
        Version of `bottleneck.images.decode`.
    flip : bool
        Whether the features of an image and of its mirror image are averaged.
    """

    backbone: str
    weights: str
    layer: str
    pooling: str
    preprocessing: Preprocessing
    transform_input: bool
    precision: str
    decoder: int
    flip: bool = False

    def __repr__(self) -> str:
        return one_line(self, self.backbone, self.layer, self.pooling, self.precision, self.fingerprint[:8])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the spec's canonical JSON, 64 hexadecimal digits."""
        return hashlib.sha256(canonical_json(self.to_json())).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object.

        Fields added in later versions are written only if they differ from their default, so that existing specs keep
        their fingerprints.
        """
        value = {
            "version": SPEC_VERSION,
            "backbone": self.backbone,
            "weights": self.weights,
            "layer": self.layer,
            "pooling": self.pooling,
            "preprocessing": self.preprocessing.to_json(),
            "transform_input": self.transform_input,
            "precision": self.precision,
            "decoder": self.decoder,
        }
        return {**value, "flip": True} if self.flip else value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Spec":
        """Read what `to_json` wrote.

        Raises
        ------
        CacheError
            If it has another version, or is not a spec.
        """
        version = value.get("version", SPEC_VERSION) if isinstance(value, dict) else SPEC_VERSION
        if version != SPEC_VERSION:
            raise CacheError(f"expected a spec of version {SPEC_VERSION}, found {version!r:.50}: update bottleneck")
        try:
            found = checked(value, cls)
            expect_canonical(value, found.to_json())
            return found
        except (ValueError, RecursionError) as error:
            raise CacheError(f"expected a spec: {error}; found {value!r:.200}") from error
