"""When Python looks for garbage: not while large packages are imported."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep Python from looking for cycles of dead objects.

    What an import makes lives for ever, and looking it through again and again takes a fifth of the time: with torch,
    torchvision and timm 0.7 s of 3.4. Not for work that makes garbage.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
