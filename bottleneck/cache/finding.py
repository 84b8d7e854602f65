"""Which store a user means by a name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bottleneck.backbones.request import full_name
from bottleneck.cache.kinds import room_of
from bottleneck.errors import CacheError
from bottleneck.utils.files import TEMPORARY
from bottleneck.utils.tree import Tree

if TYPE_CHECKING:
    from bottleneck.cache.store import FeatureCache, Store


def listed(cache: FeatureCache) -> tuple[list[Store], list[str]]:
    """Return the stores of a room, and what is wrong with those that cannot be read; a link to a folder is none."""
    tree, folder = Tree(cache.root), cache.folder
    left = f"its {cache.room} are left alone"
    try:
        names, links = tree.folders(folder), tree.links(folder)
    except OSError as error:
        return [], [f"cannot list {folder}: {error}; {left}"]
    found, problems = [], [f"expected a folder at {path}, found a link; {left}" for path in links]
    for name in names:
        if name.startswith(TEMPORARY):
            continue  # being removed
        try:
            found.append(cache.open(name))
        except CacheError as error:
            if _has_something(tree, folder / name):
                problems.append(f"{error}; {left}")
    return found, problems


def _has_something(tree: Tree, folder: Path) -> bool:
    """Whether a folder that is no store looks like one."""
    try:
        return tree.exists(folder / "spec.json") or any(name.endswith(".h5") for name in tree.names(folder / "shards"))
    except OSError:
        return True


def the_one(stores: Sequence[Store], name: str, wanted: str) -> Store:
    """Return the store that `name` means, as `bottleneck.cache.store.FeatureCache.find` describes.

    Raises
    ------
    CacheError
        If it means none, or more than one; `wanted` says of what.
    """
    found = matching(stores, name)
    if len(found) == 1:
        return found[0]
    known = ", ".join(names_of(found or stores)) or "none"
    advice = f"name one of {known}" if found else f"cached are: {known}. Run `bottleneck extract` first"
    raise CacheError(f"expected {wanted}, found {len(found)} specs; {advice}")


def matching(stores: Sequence[Store], name: str) -> list[Store]:
    """Return the stores that `name` may mean: a model, the beginning of a spec's name or of its fingerprint."""
    name = full_name(name)
    found = [store for store in stores if store.spec.backbone == name]
    found = found or [store for store in stores if (asked := store.asked()) and asked.model == name]  # with a tag
    found = found or [store for store in stores if store.name.startswith(name) and "-" in name]
    return found or [store for store in stores if store.spec.fingerprint.startswith(name) and len(name) >= 4]


def find_anywhere(cache: FeatureCache, name: str) -> Store:
    """Return the store of that name, of features or of activations; ``activations/NAME`` says of which.

    Raises
    ------
    CacheError
        If there is none, or more than one.
    """
    room, _, rest = name.partition("/")
    for home in cache.rooms():
        if room == home.room and rest:
            return home.find(rest)
    stores = [store for home in cache.rooms() for store in home.stores()]
    return the_one(stores, name, f"features or activations of {name!r} in {cache.root}")


def names_of(stores: Sequence[Store]) -> list[str]:
    """Return short names; with their rooms where there are two."""
    rooms = [room_of(store.folder) for store in stores]
    return [
        f"{room}/{store.short_name}" if len(set(rooms)) > 1 else store.short_name
        for room, store in zip(rooms, stores, strict=True)
    ]
