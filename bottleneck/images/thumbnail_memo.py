"""A memo of thumbnails by digest, so that each picture is decoded for them only once."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bottleneck.images.database import LARGEST_FILE
from bottleneck.images.memo import Memo
from bottleneck.images.thumbnails import Thumbnail
from bottleneck.images.undecodable import decoder_key
from bottleneck.utils.files import sha256_hex

NAME = "thumbnails.sqlite"  # in the folder of a cache
_FULL = LARGEST_FILE - (64 << 20)  # bytes; a larger file would be made anew


class ThumbnailMemo:
    """Digest -> thumbnail, of this version of the decoder. It can always be deleted.

    A full memo, of about two million images, stores no more.

    Parameters
    ----------
    path : path
        Path of the database.
    decoder : callable
        Returns the key of the decoder.
    full : int
        Bytes from which on the file is full.
    """

    def __init__(
        self, path: str | os.PathLike[str], decoder: Callable[[], bytes] = decoder_key, *, full: int = _FULL
    ) -> None:
        self._memo = Memo(os.fspath(path), "thumbnails_1")
        self._decoder = decoder
        self._full = full

    @classmethod
    def in_cache(cls, cache: Path) -> "ThumbnailMemo":
        """Return the memo of a cache."""
        return cls(cache / NAME)

    def get(self, digests: Sequence[bytes]) -> dict[bytes, Thumbnail]:
        """Return the thumbnails that are stored."""
        found: dict[bytes, Thumbnail] = {}
        if not os.path.lexists(self._memo.path):
            return found
        prefix = self._prefix()
        for key, value in self._memo.get([prefix + digest for digest in digests]).items():
            with suppress(ValueError):
                found[key[len(prefix) :]] = Thumbnail.from_bytes(value)
        return found

    def put(self, thumbnails: Mapping[bytes, Thumbnail]) -> None:
        """Store thumbnails by digest."""
        with suppress(FileNotFoundError):
            if self._memo.path.lstat().st_size >= self._full:
                return
        prefix = self._prefix()
        self._memo.put((prefix + digest, one.to_bytes()) for digest, one in thumbnails.items())

    def _prefix(self) -> bytes:
        return bytes.fromhex(sha256_hex(self._decoder()))[:8]
