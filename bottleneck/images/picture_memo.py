"""A memo of something small that was made from each picture, by digest, so that it is decoded only once."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from bottleneck.images.database import LARGEST_FILE
from bottleneck.images.memo import Memo
from bottleneck.images.undecodable import decoder_key
from bottleneck.utils.files import sha256_hex

FULL = LARGEST_FILE - (64 << 20)  # bytes; a larger file would be made anew


class PictureMemo:
    """Digest -> bytes, of this version of the decoder. It can always be deleted.

    A full memo stores no more.

    Parameters
    ----------
    path : path
        Path of the database.
    table : str
        Name and version of what is stored.
    decoder : callable
        Returns the key of the decoder.
    full : int
        Bytes from which on the file is full.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        table: str,
        decoder: Callable[[], bytes] = decoder_key,
        *,
        full: int = FULL,
    ) -> None:
        self._memo = Memo(os.fspath(path), table)
        self._decoder = decoder
        self._full = full

    def get(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return what is stored."""
        if not os.path.lexists(self._memo.path):
            return {}
        prefix = self._prefix()
        found = self._memo.get([prefix + digest for digest in digests])
        return {key[len(prefix) :]: value for key, value in found.items()}

    def put(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Store bytes by digest."""
        with suppress(FileNotFoundError):
            if self._memo.path.lstat().st_size >= self._full:
                return
        prefix = self._prefix()
        self._memo.put((prefix + digest, value) for digest, value in rows)

    def _prefix(self) -> bytes:
        return bytes.fromhex(sha256_hex(self._decoder()))[:8]
