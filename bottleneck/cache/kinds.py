"""The two kinds of stores, features and activations, which differ in folder and in how lost rows are recomputed."""

from pathlib import Path

from bottleneck.utils.tree import Tree

FEATURES = "features"
ACTIVATIONS = (
    "activations"  # at the boundary between the frozen and the trained part of a network; only for fine-tuning
)


def kind_of(store: Path) -> str:
    """Return the kind of a store, given its folder."""
    return store.parent.name


def tree_of(store: Path) -> Tree:
    """Return the tree of the cache that contains a store, given its folder."""
    return Tree.above(store, 2)


def tree_of_shard(shard: Path) -> Tree:
    """Return the tree of the cache that contains a shard."""
    return Tree.above(shard, 4)


def remedy(store: Path) -> str:
    """Return the command or step that recomputes lost rows of a store."""
    return "fine-tuning" if kind_of(store) == ACTIVATIONS else "`bottleneck extract`"
