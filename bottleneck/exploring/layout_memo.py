"""A memo of maps and clusters in the cache, so that t-SNE runs once for the same features."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save

from bottleneck.images.keys import Digests
from bottleneck.utils.files import canonical_json, read_whole, sha256_hex, write_atomic
from bottleneck.utils.tensors import parsed

FOLDER = "layouts"  # in a cache
VERSION = "1"  # of what is computed and how; increase it when either changes
_MOST = 40  # files
_LARGEST = 1 << 28  # bytes


class LayoutMemo:
    """Arrays of a row for each image, by name. It can always be deleted.

    Parameters
    ----------
    cache : Path
    fingerprint : str
        Of the features' spec.
    digests : ndarray of uint8, shape (n, 32)
        The images, in their order.
    """

    def __init__(self, cache: Path, fingerprint: str, digests: Digests) -> None:
        self._folder = cache / FOLDER
        self._images = sha256_hex(fingerprint.encode() + np.ascontiguousarray(digests).tobytes())
        self._count = len(digests)

    def get(self, name: str, options: Sequence[object] = ()) -> NDArray[np.float32] | None:
        """Return the array ``(n, c)`` that was stored under a name and options; None if there is none."""
        path = self._path(name, options)
        with suppress(OSError, ValueError, KeyError, TypeError, SafetensorError):
            tensors, metadata = parsed(read_whole(path, _LARGEST))
            found = tensors["rows"]
            if metadata.get("version") == VERSION and found.shape[:1] == (self._count,) and np.isfinite(found).all():
                os.utime(path)  # the files that were used last are kept
                return found.astype(np.float32)
        return None

    def put(self, name: str, rows: NDArray[np.float32], options: Sequence[object] = ()) -> None:
        """Store an array ``(n, c)``; nothing happens if the cache cannot be written."""
        with suppress(OSError):
            data = save({"rows": np.ascontiguousarray(rows, np.float32)}, {"version": VERSION})
            write_atomic(self._path(name, options), data, durable=False)
            self._forget()

    def _path(self, name: str, options: Sequence[object]) -> Path:
        key = sha256_hex(canonical_json([VERSION, self._images, name, *options]))
        return self._folder / f"{name}-{key[:32]}.safetensors"

    def _forget(self) -> None:
        """Delete all but the last used files."""
        files = sorted(self._folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime_ns)
        for file in files[:-_MOST]:
            file.unlink()
