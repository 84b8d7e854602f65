"""The stores of a cache, and how a name is resolved to a store."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from bottleneck.backbones.request import full_name
from bottleneck.backbones.spec import Spec
from bottleneck.cache.kinds import ACTIVATIONS, FEATURES, kind_of
from bottleneck.cache.store import Store
from bottleneck.errors import CacheError
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.files import TEMPORARY
from bottleneck.utils.paths import expanded
from bottleneck.utils.text import one_line
from bottleneck.utils.tree import Tree
from bottleneck.utils.warn import warn


class FeatureCache:
    """A folder of features, ``<root>/features/<model>-<fingerprint>/``, with one subfolder per spec.

    Parameters
    ----------
    root : path
        Created when something is written.
    room : str
        Kind of the stores: ``"features"`` or ``"activations"``.

    Examples
    --------
    >>> cache = FeatureCache("cache")
    >>> [store.name for store in cache.stores()]
    []
    """

    def __init__(self, root: str | os.PathLike[str] = "cache", *, room: str = FEATURES) -> None:
        self.root = expanded(root)
        self.room = room

    def __repr__(self) -> str:
        return one_line(self, str(self.folder))

    @property
    def folder(self) -> Path:
        """Folder that contains the stores."""
        return self.root / self.room

    def activations(self) -> "FeatureCache":
        """Return the stores of activations, which fine-tuning writes; they never mix with features."""
        return FeatureCache(self.root, room=ACTIVATIONS)

    def rooms(self) -> tuple["FeatureCache", "FeatureCache"]:
        """Return the stores of features and those of activations."""
        return FeatureCache(self.root), self.activations()

    def store(self, spec: Spec) -> Store:
        """Return the store of `spec`, which may be empty."""
        return Store(self.folder / f"{_file_name(spec.backbone)}-{spec.fingerprint}", spec)

    def stores(self) -> list[Store]:
        """Return the stores of all specs, sorted by name; warn of those whose spec cannot be read."""
        found, problems = self.listed()
        if problems:
            more = f" (and {len(problems) - 1} more specs)" if len(problems) > 1 else ""
            warn(f"{problems[0]}{more}")
        return found

    def listed(self) -> tuple[list[Store], list[str]]:
        """Return the stores, and the problems of those that cannot be read; a link to a folder is not a store."""
        tree, ignored = Tree(self.root), f"its {self.room} are ignored"
        try:
            names, links = tree.folders(self.folder), tree.links(self.folder)
        except OSError as error:
            return [], [f"cannot list {self.folder}: {error}; {ignored}"]
        found, problems = [], [f"expected a folder at {path}, found a link; {ignored}" for path in links]
        for name in names:
            if name.startswith(TEMPORARY):
                continue  # being deleted
            try:
                found.append(self.open(name))
            except CacheError as error:
                if _looks_like_store(tree, self.folder / name):
                    problems.append(f"{error}; {ignored}")
        return found, problems

    def find(self, name: str) -> Store:
        """Return the store of a backbone: ``resnet50``, or ``resnet50-1f0c`` (any unique prefix) if there are several.

        A prefix of a fingerprint, of 4 digits or more, is accepted too.

        Raises
        ------
        CacheError
            If there is none, or more than one.
        """
        name = Arguments(CacheError).text("name", name)
        return only_match(self.stores(), name, f"{self.room} of {name!r} in {self.root}")

    def open(self, name: str) -> Store:
        """Return the store with the given full name.

        Raises
        ------
        CacheError
            If there is none, or its ``spec.json`` cannot be read.
        """
        folder = self.folder / name
        try:
            own = self.store(Spec.from_json(Tree(self.root).read_json(folder / "spec.json")))
            own.tree.names(folder / "shards")
        except (OSError, ValueError, TypeError) as error:
            raise CacheError(f"expected a spec in {folder / 'spec.json'}: {error}") from error
        if folder != own.folder:
            raise CacheError(f"expected the spec of {folder.name} in {folder / 'spec.json'}, found that of {own.name}")
        return own


def _looks_like_store(tree: Tree, folder: Path) -> bool:
    """Return whether a folder without a readable spec contains features."""
    try:
        return tree.exists(folder / "spec.json") or any(name.endswith(".h5") for name in tree.names(folder / "shards"))
    except OSError:
        return True


def only_match(stores: Sequence[Store], name: str, description: str) -> Store:
    """Return the store that `name` matches, as `bottleneck.cache.feature_cache.FeatureCache.find` describes.

    Raises
    ------
    CacheError
        If it matches none, or more than one; `description` completes the message.
    """
    found = matching(stores, name)
    if len(found) == 1:
        return found[0]
    known = ", ".join(names_of(found or stores)) or "none"
    advice = f"name one of {known}" if found else f"cached are: {known}. Run `bottleneck extract` first"
    raise CacheError(f"expected {description}, found {len(found)} specs; {advice}")


def matching(stores: Sequence[Store], name: str) -> list[Store]:
    """Return the stores that `name` matches: a model, a prefix of a spec's name or of its fingerprint."""
    name = full_name(name)
    found = [store for store in stores if store.spec.backbone == name]
    found = found or [store for store in stores if (request := store.asked()) and request.model == name]  # with a tag
    found = found or [store for store in stores if store.name.startswith(name) and "-" in name]
    return found or [store for store in stores if store.spec.fingerprint.startswith(name) and len(name) >= 4]


def find_anywhere(cache: FeatureCache, name: str) -> Store:
    """Return the store of features or activations that matches a name; ``activations/NAME`` selects the kind.

    Raises
    ------
    CacheError
        If there is none, or more than one.
    """
    prefix, _, rest = name.partition("/")
    for kind in cache.rooms():
        if prefix == kind.room and rest:
            return kind.find(rest)
    stores = [store for kind in cache.rooms() for store in kind.stores()]
    return only_match(stores, name, f"features or activations of {name!r} in {cache.root}")


def names_of(stores: Sequence[Store]) -> list[str]:
    """Return short names, with their kinds if there are both."""
    kinds = [kind_of(store.folder) for store in stores]
    return [
        f"{kind}/{store.short_name}" if len(set(kinds)) > 1 else store.short_name
        for kind, store in zip(kinds, stores, strict=True)
    ]


def _file_name(model: str) -> str:
    """Return a folder name for a model: ``timm_x.y`` for ``timm/x.y``."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", model)
