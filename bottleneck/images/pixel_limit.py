"""Pillow's limit on the pixels of an image, which applies to the whole process."""

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
    """Let Pillow open images of up to `max_pixels` pixels without a warning; other threads may set their own limits."""
    with _lock:
        if not _limits:
            _before[:] = [Image.MAX_IMAGE_PIXELS]
        _limits.append(max_pixels)
        _apply()
    try:
        # Pillow warns above its limit, and raises an error above twice the limit.
        with ignored_warnings(category=Image.DecompressionBombWarning):
            yield
    finally:
        with _lock:
            _limits.remove(max_pixels)
            _apply()


def _apply() -> None:
    """Set the largest limit in use, or restore the caller's if none is. Do nothing if the caller has no limit."""
    (before,) = _before
    if before is not None:
        Image.MAX_IMAGE_PIXELS = max([before, *_limits])
