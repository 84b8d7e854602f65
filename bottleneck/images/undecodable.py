"""Images that this decoder cannot decode, known by digest: they need not be read again to be reported."""

import json
import os
from contextlib import suppress

import PIL

from bottleneck.errors import ImageError
from bottleneck.images.decode import DECODER_VERSION, formats
from bottleneck.images.memo import Memo
from bottleneck.utils.files import canonical_json

# What bytes alone can decide: a larger --max-pixels, or more memory, makes a large image small enough.
_REMEMBERED = ("not-an-image", "truncated", "corrupt")


class UndecodableMemo:
    """Digest -> why this version of the decoder cannot decode it. It can always be deleted.

    It holds what bytes prove: decoded once more, alone and with memory to spare, the image failed in the same way.
    Tables of earlier versions, which held other failures too, are not read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._memo = Memo(os.fspath(path), "undecodable_3")

    @property
    def _decoder(self) -> bytes:
        """What of this decoder decides: another Pillow, or one with other plugins, may read what this one cannot."""
        return f"{DECODER_VERSION} {PIL.__version__} {','.join(formats())} ".encode()

    def load(self) -> dict[bytes, ImageError]:
        """Return all that is known of this decoder."""
        found: dict[bytes, ImageError] = {}
        rows = self._memo.all()
        this = self._decoder if rows else b""
        for key, value in rows.items():
            decoder, digest = key[:-32], key[-32:]
            with suppress(ValueError, TypeError, RecursionError):
                code, message = json.loads(value)
                if decoder == this and code in _REMEMBERED:
                    found[digest] = ImageError(code, message)
        return found

    def remember(self, errors: dict[bytes, ImageError]) -> None:
        """Keep why images of these digests could not be decoded, where the bytes prove it."""
        if not errors:
            return
        this = self._decoder
        self._memo.put(
            (this + digest, canonical_json([error.code, str(error)]))
            for digest, error in errors.items()
            if error.code in _REMEMBERED and not error.doubtful
        )
