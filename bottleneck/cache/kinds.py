"""The two rooms of a cache. They differ in their folder, and in who computes again what was lost."""

from pathlib import Path

from bottleneck.utils.tree import Tree

FEATURES = "features"
ACTIVATIONS = "activations"  # at the boundary between the frozen and the trained part of a network; fine-tuning's alone


def room_of(store: Path) -> str:
    """Return in which room the folder of a store lies."""
    return store.parent.name


def tree_of(store: Path) -> Tree:
    """Return the tree of the cache that the folder of a store lies in."""
    return Tree.above(store, 2)


def tree_of_shard(shard: Path) -> Tree:
    """Return the tree of the cache that a shard lies in."""
    return Tree.above(shard, 4)


def remedy(store: Path) -> str:
    """Return what computes again what a store has lost."""
    return "fine-tuning" if room_of(store) == ACTIVATIONS else "`bottleneck extract`"
