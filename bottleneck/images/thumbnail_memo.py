"""A memo of thumbnails by digest, so that each picture is decoded for them only once."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bottleneck.images.picture_memo import FULL, PictureMemo
from bottleneck.images.thumbnails import Thumbnail
from bottleneck.images.undecodable import decoder_key

NAME = "thumbnails.sqlite"  # in the folder of a cache


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
        self, path: str | os.PathLike[str], decoder: Callable[[], bytes] = decoder_key, *, full: int = FULL
    ) -> None:
        self._memo = PictureMemo(path, "thumbnails_1", decoder, full=full)

    @classmethod
    def in_cache(cls, cache: Path) -> "ThumbnailMemo":
        """Return the memo of a cache."""
        return cls(cache / NAME)

    def get(self, digests: Sequence[bytes]) -> dict[bytes, Thumbnail]:
        """Return the thumbnails that are stored."""
        found: dict[bytes, Thumbnail] = {}
        for digest, value in self._memo.get(digests).items():
            with suppress(ValueError):
                found[digest] = Thumbnail.from_bytes(value)
        return found

    def put(self, thumbnails: Mapping[bytes, Thumbnail]) -> None:
        """Store thumbnails by digest."""
        self._memo.put((digest, one.to_bytes()) for digest, one in thumbnails.items())
