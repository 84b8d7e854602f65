"""A shard that cannot be trusted is taken out of use."""

import time
from contextlib import suppress
from pathlib import Path

from bottleneck.cache.rooms import remedy
from bottleneck.cache.shard import matches_name
from bottleneck.errors import DamagedShard, ShardError


def quarantine(path: Path, error: ShardError) -> str | None:
    """Move a shard that cannot be trusted to ``quarantine/``; see `bottleneck.cache.store.Store.retire`."""
    name, folder = path.stem, path.parents[1]
    if isinstance(error, DamagedShard) and matches_name(path, name):
        return None
    target = folder / "quarantine" / f"{name}-{time.time_ns()}.h5"
    moved = f"It was moved to {target.parent}"
    try:
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
    except FileNotFoundError:
        moved = "Another process has moved it to quarantine"
    except OSError:
        moved = "It is left where it is, and not used"
    if isinstance(error, DamagedShard) and matches_name(target, name):
        with suppress(OSError):  # it was written again between the look and the move
            target.replace(path)
            return None
    return f"{error}. {moved}; {remedy(folder)} computes its images again"
