"""A memo of images that the decoder cannot decode, by digest, so that they are not read again."""

import json
import os
from collections.abc import Callable
from contextlib import suppress

import PIL

from bottleneck.errors import ImageError
from bottleneck.images.decode import DECODER_VERSION, formats
from bottleneck.images.memo import Memo
from bottleneck.utils.files import canonical_json

# Failures that depend only on the bytes, not on --max-pixels or memory.
_REMEMBERED = ("not-an-image", "truncated", "corrupt")


def decoder_key() -> bytes:
    """Return the key of the decoder: another version of Pillow, or other plugins, may decode more."""
    return f"{DECODER_VERSION} {PIL.__version__} {','.join(formats())} ".encode()


class UndecodableMemo:
    """Digest -> error of this version of the decoder. It can always be deleted.

    It stores only confirmed failures: decoded again, exclusively and with spare memory, the image failed with the same
    code. Tables of earlier versions, which also contained other failures, are not read.

    Parameters
    ----------
    path : path
        Path of the database.
    decoder : callable
        Returns the key of the decoder.
    """

    def __init__(self, path: str | os.PathLike[str], decoder: Callable[[], bytes] = decoder_key) -> None:
        self._memo = Memo(os.fspath(path), "undecodable_3")
        self._decoder = decoder

    def load(self) -> dict[bytes, ImageError]:
        """Return the stored errors of this decoder."""
        found: dict[bytes, ImageError] = {}
        rows = self._memo.all()
        this = self._decoder() if rows else b""
        for key, value in rows.items():
            decoder, digest = key[:-32], key[-32:]
            with suppress(ValueError, TypeError, RecursionError):
                code, message = json.loads(value)
                if decoder == this and code in _REMEMBERED:
                    found[digest] = ImageError(code, message)
        return found

    def remember(self, errors: dict[bytes, ImageError]) -> None:
        """Store the confirmed errors of images by digest."""
        if not errors:
            return
        this = self._decoder()
        self._memo.put(
            (this + digest, canonical_json([error.code, str(error)]))
            for digest, error in errors.items()
            if error.code in _REMEMBERED and not error.doubtful
        )
