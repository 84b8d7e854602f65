"""A shard that cannot be trusted is taken out of use."""

import time
from contextlib import suppress
from pathlib import Path

from bottleneck.cache.kinds import remedy, tree_of_shard
from bottleneck.cache.shard import matches_name
from bottleneck.errors import DamagedShard, ShardError
from bottleneck.utils.folder import LinkError


def quarantine(path: Path, error: ShardError) -> str | None:
    """Move a shard that cannot be trusted to ``quarantine/``; see `bottleneck.cache.store.Store.retire`."""
    name, folder = path.stem, path.parents[1]
    if isinstance(error, DamagedShard) and matches_name(path, name):
        return None
    target = folder / "quarantine" / f"{name}-{time.time_ns()}.h5"
    moved = f"It was moved to {target.parent}"
    cache = tree_of_shard(path)
    try:
        cache.rename(path, target, make=True)
    except FileNotFoundError:
        moved = "Another process has moved it to quarantine"
    except LinkError as error_there:
        moved = f"It is left where it is, and not used: {error_there}"
    except OSError:
        moved = "It is left where it is, and not used"
    if isinstance(error, DamagedShard) and matches_name(target, name):
        with suppress(OSError):  # it was written again between the look and the move
            cache.rename(target, path)
            return None
    return f"{error}. {moved}; {remedy(folder)} computes its images again"
