"""Find the tensors of a checkpoint that belong to a classifier, which features do not need."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from bottleneck.backbones.weights import Tensors

# Prefixes of the names of classifiers and of heads that only training uses.
_HEADS = (
    "head", "fc", "classif", "cls", "logits", "linear", "last_linear", "last_layer", "output", "predict", "proj", "aux",
    "bottleneck_head", "mlp_head", "prototypes",
)  # fmt: skip


@dataclass(frozen=True)
class Replaced:
    """The modules that cutting a network removed, and those that remain.

    Parameters
    ----------
    modules : frozenset of str
        The outermost modules that were removed completely.
    remaining : frozenset of str
        All modules that remain, at least in part.
    """

    modules: frozenset[str]
    remaining: frozenset[str]

    @classmethod
    def of(cls, known: Iterable[str], wanted: Collection[str]) -> "Replaced":
        """Compare the names of the tensors before and after the cut."""
        remaining = frozenset(module for name in wanted for module in _modules(name))
        gone = (next((module for module in _modules(name) if module not in remaining), None) for name in known)
        return cls(frozenset(module for module in gone if module is not None), remaining)

    def holds(self, name: str) -> bool:
        """Return whether a tensor is inside a removed module, or follows one in the same classifier."""
        modules = list(_modules(name))
        return not self.modules.isdisjoint(modules) or any(self._is_behind(module) for module in modules)

    def _is_behind(self, module: str) -> bool:
        """Return whether a module is new in a classifier that is kept in part: ``head.mlp`` next to ``head.norm``."""
        parent, _, child = module.rpartition(".")
        if module in self.remaining or not called_as_classifier(parent):
            return False
        lost = [other.rpartition(".")[2] for other in self.modules if other.rpartition(".")[0] == parent]
        return any(not (child.isdecimal() and one.isdecimal() and int(child) < int(one)) for one in lost)


def called_as_classifier(module: str) -> bool:
    """Return whether a module is named like a classifier."""
    return module.lower().startswith(_HEADS)


def belonging_to_classifiers(left: Tensors, known: Collection[str], wanted: Collection[str]) -> set[str]:
    """Return the names of tensors that belong to a classifier.

    Parameters
    ----------
    left : dict of str to Tensor
        Tensors of a checkpoint that the network does not need.
    known : collection of str
        Names of the network's tensors before it was cut.
    wanted : collection of str
        Names of its tensors now.
    """
    replaced = Replaced.of(known, wanted)
    found = {name for name in left if name in known or replaced.holds(name)}
    return found | _named_like_classifiers(
        {name: value for name, value in left.items() if name not in found}, replaced.remaining
    )


def _named_like_classifiers(tensors: Tensors, remaining: frozenset[str]) -> set[str]:
    """Return the tensors of modules that are named like classifiers, are not in the network, and mix no positions.

    Auxiliary classifiers, which only training uses, may mix positions.
    """
    groups: dict[str, list[str]] = {}
    for name in tensors:
        groups.setdefault(name.partition(".")[0], []).append(name)
    found: set[str] = set()
    for top, names in groups.items():
        values = [tensors[name] for name in names]
        mixes = any(value.dim() > 2 and set(value.shape[2:]) != {1} for value in values)
        mixes &= not top.lower().startswith("aux")
        if (
            called_as_classifier(top)
            and top not in remaining
            and not mixes
            and any(value.dim() > 1 for value in values)
        ):
            found.update(names if all("." in name for name in names) else ())
    return found


def _modules(name: str) -> Iterator[str]:
    """Yield the modules that contain a tensor, outermost first."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        yield ".".join(parts[:end])
