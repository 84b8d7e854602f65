"""The health of the cache and the runs: a quick look, without verifying checksums."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from bottleneck.diagnostics.diagnosis import NOTE, OK, WRONG, Symptom
from bottleneck.diagnostics.probe import Probe
from bottleneck.utils.files import TEMPORARY
from bottleneck.utils.memory import shown_size
from bottleneck.utils.paths import expanded
from bottleneck.utils.text import counted
from bottleneck.utils.tree import Tree

_MOST_CHECKED = 64  # shards of a store; each takes about a millisecond
_MOST_LISTED = 20  # stores of a kind
_REPAIR = "Repair what cannot be imported first; else check the permissions of this folder."
_VERIFY = "Run `bottleneck cache verify`, then the same `bottleneck extract` again."


@dataclass(frozen=True)
class Stored:
    """What bottleneck has stored in this folder.

    Parameters
    ----------
    cache, runs : str
        Folders of the feature cache and of the runs.
    """

    cache: str
    runs: str

    def probes(self) -> list[Probe]:
        """Return what looks at the cache and at the runs."""
        looks: dict[str, Callable[[], Iterator[Symptom]]] = {
            "cache": self._root,
            "features": partial(self._room, "features"),
            "activations": partial(self._room, "activations"),
            "runs": self._runs,
        }
        return [Probe(name, look, _REPAIR) for name, look in looks.items()]

    def _root(self) -> Iterator[Symptom]:
        from bottleneck.cache.health import unfinished

        root = expanded(self.cache)
        if not root.exists():
            yield Symptom("cache", "there is none yet: `bottleneck extract` makes it")
            return
        if not root.is_dir():
            return  # `bottleneck.diagnostics.places` says so
        tree = Tree(root)
        leftovers = unfinished(tree, [root, *(root / name for name in ("datasets", "specs", "last"))])
        empty = not any((root / room).is_dir() for room in ("features", "activations"))
        if empty or leftovers:
            yield _with_leftovers("cache", "without features" if empty else "with features", leftovers)

    def _room(self, kind: str) -> Iterator[Symptom]:
        from bottleneck.cache.feature_cache import FeatureCache
        from bottleneck.cache.health import look_at

        room = FeatureCache(self.cache, room=kind)
        stores, problems = room.listed() if room.root.is_dir() else ([], [])
        for problem in problems:
            yield Symptom(kind, problem, WRONG, "Move this folder away, and extract its images again.")
        for store in stores[:_MOST_LISTED]:
            found = look_at(store, _MOST_CHECKED)
            size = f"{counted(found.shards, 'shard')}, {shown_size(found.bytes)}"
            checked = f"the structure of {'all' if found.checked == found.shards else found.checked} was checked"
            yield _with_leftovers(f"{kind}/{found.name}", f"{size}; {checked}", found.leftovers)
            for damage in found.damage:
                yield Symptom(f"{kind}/{found.name}", damage, WRONG, _VERIFY)
            if found.quarantined:
                text = f"{counted(found.quarantined, 'shard')} in quarantine"
                remedy = "Run the same `bottleneck extract` again, then `bottleneck cache gc`; check this disk."
                yield Symptom(f"{kind}/{found.name}", text, NOTE, remedy)
        if len(stores) > _MOST_LISTED:
            yield Symptom(kind, f"{len(stores) - _MOST_LISTED} more specs were not checked")

    def _runs(self) -> Iterator[Symptom]:
        from bottleneck.errors import RunError
        from bottleneck.runs.listing import size_of
        from bottleneck.runs.run import load_run

        home = expanded(self.runs)
        if not home.exists():
            yield Symptom("runs", "there are none yet: `bottleneck fit` makes one")
            return
        if not home.is_dir():
            return
        tree, problems, count = Tree(home), [], 0
        for name in (name for name in tree.folders(home) if not name.startswith(TEMPORARY)):
            try:
                if tree.exists(home / name / "card.json"):
                    load_run(home / name)
                    count += 1
            except RunError as error:
                problems.append(str(error))
        yield Symptom("runs", f"{counted(count, 'run')}, {shown_size(size_of(home))}")
        for problem in problems:
            yield Symptom("runs", problem, NOTE, "This run is ignored: fit it again, or delete it.")


def _with_leftovers(name: str, found: str, leftovers: int) -> Symptom:
    if not leftovers:
        return Symptom(name, found, OK)
    text = f"{found}; {counted(leftovers, 'unfinished file')} of processes that were killed"
    return Symptom(name, text, NOTE, "`bottleneck cache gc` deletes them.")
