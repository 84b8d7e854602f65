"""Pillow's limit on the pixels of an image, which is one for the whole process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from bottleneck.utils.process_settings import ignored_warnings

_lock = threading.Lock()
_limits: list[int] = []  # of the images that are being decoded
_before: list[int | None] = []  # the caller's limit


@contextmanager
def raised_pixel_limit(max_pixels: int) -> Iterator[None]:
    """Let Pillow open images of up to `max_pixels` pixels, without a warning; images of other threads keep theirs."""
    with _lock:
        if not _limits:
            _before[:] = [Image.MAX_IMAGE_PIXELS]
        _limits.append(max_pixels)
        _apply()
    try:
        # Pillow warns above its limit, and refuses above twice as many.
        with ignored_warnings(category=Image.DecompressionBombWarning):
            yield
    finally:
        with _lock:
            _limits.remove(max_pixels)
            _apply()


def _apply() -> None:
    """Set the largest limit that is needed; restore the caller's where none is. Do nothing where there is no limit."""
    (before,) = _before
    if before is not None:
        Image.MAX_IMAGE_PIXELS = max([before, *_limits])
