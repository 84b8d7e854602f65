"""What an extraction works with, in one place, so that a part of it can be replaced."""

from collections.abc import Callable
from dataclasses import dataclass

from bottleneck.extraction.claims import REFRESH_SECONDS
from bottleneck.extraction.commits import CommitPace
from bottleneck.extraction.memory import MemoryBudget
from bottleneck.extraction.plan import Plan, StartEngine, plan_features, start_engine
from bottleneck.images.decode import Decoded, decode
from bottleneck.images.digest import Signature, read_file


@dataclass(frozen=True, kw_only=True)
class Collaborators:
    """How features are planned and computed, how files are read and decoded, and how often features are committed.

    Parameters
    ----------
    plan_features, start_engine : callable
        Those of `bottleneck.extraction.plan`, or others in their place.
    read_file : callable
        `bottleneck.images.digest.read_file`, or one in its place.
    decode : callable
        `bottleneck.images.decode.decode`, or one in its place.
    budget : callable
        Returns the memory budget for a number of bytes.
    pace : CommitPace, optional
        How often features are committed.
    readers : int
        Threads that read files. They wait for a disk or a network, not for a core.
    refresh_seconds : float
        Least time between two refreshes of the index.
    """

    plan_features: Callable[..., Plan] = plan_features
    start_engine: StartEngine = start_engine
    read_file: Callable[..., tuple[bytes, Signature]] = read_file
    decode: Callable[..., Decoded] = decode
    budget: Callable[[int], MemoryBudget] = MemoryBudget
    pace: CommitPace | None = None
    readers: int = 8
    refresh_seconds: float = REFRESH_SECONDS
