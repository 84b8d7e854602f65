"""Let only rank 0 of a distributed run print. Importing this module does not import torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bottleneck.errors import OtherFailed


def is_rank_zero() -> bool:
    """Return whether this is the only process, or rank 0 of those that torchrun started."""
    return int(os.environ.get("WORLD_SIZE") or 1) < 2 or os.environ.get("RANK", "0") == "0"


@contextmanager
def raised_on_rank_zero() -> Iterator[None]:
    """Let rank 0 report an error that every process finds, such as a wrong option.

    Raises
    ------
    OtherFailed
        In place of the error, on all other ranks.
    """
    try:
        yield
    except Exception as error:
        if is_rank_zero():
            raise
        raise OtherFailed(f"rank 0 reports this error: {error}") from error
