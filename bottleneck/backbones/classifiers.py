"""Which tensors of a checkpoint belong to a classifier, and so to no feature, however deep it is."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from bottleneck.backbones.weights import Tensors

# How classifiers, and heads that only training uses, begin to be called.
_HEADS = (
    "head", "fc", "classif", "cls", "logits", "linear", "last_linear", "last_layer", "output", "predict", "proj", "aux",
    "bottleneck_head", "mlp_head", "prototypes",
)  # fmt: skip


@dataclass(frozen=True)
class Replaced:
    """The modules that a network lost when it was cut, and the names that it still has.

    Parameters
    ----------
    modules : frozenset of str
        The outermost modules of which nothing is left.
    kept : frozenset of str
        All modules of which something is left.
    """

    modules: frozenset[str]
    kept: frozenset[str]

    @classmethod
    def of(cls, known: Iterable[str], wanted: Collection[str]) -> "Replaced":
        """Compare the tensors that a network had with those that it has."""
        kept = frozenset(module for name in wanted for module in _modules(name))
        gone = (next((module for module in _modules(name) if module not in kept), None) for name in known)
        return cls(frozenset(module for module in gone if module is not None), kept)

    def holds(self, name: str) -> bool:
        """Whether a tensor stands in such a module, whatever now is in its place, or behind it in one classifier."""
        modules = list(_modules(name))
        return not self.modules.isdisjoint(modules) or any(self._is_behind(module) for module in modules)

    def _is_behind(self, module: str) -> bool:
        """Whether a module is new in a classifier of which a part is kept: ``head.mlp`` beside ``head.norm``."""
        parent, _, child = module.rpartition(".")
        if module in self.kept or not called_as_classifier(parent):
            return False
        lost = [other.rpartition(".")[2] for other in self.modules if other.rpartition(".")[0] == parent]
        return any(not (child.isdecimal() and one.isdecimal() and int(child) < int(one)) for one in lost)


def called_as_classifier(module: str) -> bool:
    """Whether a module has a name as classifiers have."""
    return module.lower().startswith(_HEADS)


def belonging_to_classifiers(left: Tensors, known: Collection[str], wanted: Collection[str]) -> set[str]:
    """Return the names of tensors that belong to a classifier.

    Parameters
    ----------
    left : dict of str to Tensor
        Those of a checkpoint that the network does not need.
    known : collection of str
        What the network had before it was cut.
    wanted : collection of str
        What it has.
    """
    replaced = Replaced.of(known, wanted)
    found = {name for name in left if name in known or replaced.holds(name)}
    return found | _called_so({name: value for name, value in left.items() if name not in found}, replaced.kept)


def _called_so(tensors: Tensors, kept: frozenset[str]) -> set[str]:
    """Return the tensors of modules that are called as classifiers, are no part of the network, and mix no positions.

    Auxiliary classifiers, which only training uses, may.
    """
    groups: dict[str, list[str]] = {}
    for name in tensors:
        groups.setdefault(name.partition(".")[0], []).append(name)
    found: set[str] = set()
    for top, names in groups.items():
        values = [tensors[name] for name in names]
        mixes = any(value.dim() > 2 and set(value.shape[2:]) != {1} for value in values)
        mixes &= not top.lower().startswith("aux")
        if called_as_classifier(top) and top not in kept and not mixes and any(value.dim() > 1 for value in values):
            found.update(names if all("." in name for name in names) else ())
    return found


def _modules(name: str) -> Iterator[str]:
    """Yield the modules that a tensor stands in, the outermost first."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        yield ".".join(parts[:end])
