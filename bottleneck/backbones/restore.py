"""The tensors of a checkpoint go to their places in a network, and what does not fit is said."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from bottleneck.backbones.nearest import did_you_mean, nearest
from bottleneck.backbones.weights import Checkpoint, Tensors, is_counter
from bottleneck.errors import ModelError, WeightsMismatch

Rename = Callable[[Tensors], Tensors]

_SHOWN = 4
_HEADS = ("head", "fc", "classifier", "logits", "aux")
_ANCHORS = 8  # names of the network that are looked for behind a prefix


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What of a checkpoint goes where.

    Parameters
    ----------
    source : str
        The checkpoint's file.
    remarks : tuple of str
        What was taken off, or renamed, to make it fit, in words.
    restored : tuple of str
        Tensors of the network that the checkpoint has.
    excluded : tuple of str
        Those that were not to be restored.
    missing : tuple of str
        Those that the checkpoint lacks.
    misshapen : dict
        Those that have another shape in the checkpoint: name to (expected, found).
    unexpected : tuple of str
        Tensors of the checkpoint that the network does not have.
    unneeded : tuple of str
        Tensors of the checkpoint that no feature needs: what comes after the layer, a classifier under another name,
        what stands outside of a prefix.
    """

    source: str
    remarks: tuple[str, ...]
    restored: tuple[str, ...]
    excluded: tuple[str, ...]
    missing: tuple[str, ...]
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    unexpected: tuple[str, ...]
    unneeded: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every tensor that was to be restored is, and none is left over."""
        return not (self.missing or self.misshapen or self.unexpected)

    @property
    def wanted(self) -> int:
        """How many tensors the network needs."""
        return len(self.restored) + len(self.excluded) + len(self.missing) + len(self.misshapen)

    def summary(self) -> str:
        """Return one line."""
        parts = [f"{len(self.restored)} of {self.wanted} tensors restored", *self.remarks]
        counts = {
            "excluded": self.excluded,
            "missing": self.missing,
            "of another shape": self.misshapen,
            "unexpected": self.unexpected,
            "not needed": self.unneeded,
        }
        parts += [f"{len(names)} {word}{_named(list(names))}" for word, names in counts.items() if names]
        return f"{self.source}: {'; '.join(parts)}"


def match(
    network: nn.Module,
    checkpoint: Checkpoint,
    *,
    known: Iterable[str] = (),
    rename: Rename | None = None,
    exclude: Sequence[str] = (),
) -> tuple[Restored, dict[str, Tensor]]:
    """Find the place of each tensor of a checkpoint.

    A prefix before all names (``module.``, ``model.``, ``encoder.``), as wrappers leave it, is dropped.

    Parameters
    ----------
    network : nn.Module
        Its parameters and buffers, but for counters of batches, are wanted.
    checkpoint : Checkpoint
    known : iterable of str
        Tensors that the network had before it was cut.
    rename : callable, optional
        Gives the tensors of files in other forms the names, and shapes, of this network.
    exclude : sequence of str
        Tensors that are not to be restored: names, beginnings of names (``fc`` for ``fc.weight``), or patterns with
        ``*``, ``?`` and ``[]``.

    Returns
    -------
    Restored, dict of str to Tensor
        What goes where, and the tensors to copy, by the network's names.

    Raises
    ------
    ModelError
        If a pattern of `exclude` fits nothing, or if tensors fit under two prefixes.
    """
    wanted = {name: value for name, value in network.state_dict().items() if not is_counter(name)}
    tensors, remarks, outside = _placed(checkpoint, wanted, rename)
    known = set(known)
    _check_patterns(exclude, [*wanted, *tensors, *outside, *known])
    excluded = [name for name in wanted if _fits(name, exclude)]
    asked = {name: value for name, value in wanted.items() if name not in set(excluded)}
    misshapen = {
        name: (tuple(value.shape), tuple(tensors[name].shape))
        for name, value in asked.items()
        if name in tensors and not _alike(value, tensors[name])
    }
    left = [name for name in tensors if name not in wanted and not is_counter(name) and not _fits(name, exclude)]
    heads = _classifiers({name: tensors[name] for name in left if name not in known})
    unneeded = [name for name in left if name in known or name in heads or not tensors[name].dim()]
    found = Restored(
        source=checkpoint.source,
        remarks=remarks,
        restored=tuple(name for name in asked if name in tensors and name not in misshapen),
        excluded=tuple(excluded),
        missing=tuple(name for name in asked if name not in tensors),
        misshapen=misshapen,
        unexpected=tuple(name for name in left if name not in set(unneeded)),
        unneeded=(*unneeded, *outside),
    )
    return found, {name: tensors[name] for name in found.restored}


def restore(
    network: nn.Module,
    checkpoint: Checkpoint,
    *,
    known: Iterable[str] = (),
    rename: Rename | None = None,
    exclude: Sequence[str] = (),
    allow_partial: bool = False,
    model: str = "the network",
) -> Restored:
    """Copy the tensors of a checkpoint into a network, which errors call `model`; other parameters as for `match`.

    Raises
    ------
    WeightsMismatch
        Unless every tensor that is not excluded is restored and none is left over, or `allow_partial`. The network is
        left as it was.
    """
    found, tensors = match(network, checkpoint, known=known, rename=rename, exclude=exclude)
    if not (found.complete or allow_partial):
        look = f"`bottleneck inspect {found.source} --against {model}` shows them all"
        raise WeightsMismatch(f"{misfit(found, model)}; {look}", found)
    if not found.restored:
        raise WeightsMismatch(f"the weights {found.source} do not fit: no tensor of {model} is among them", found)
    network.load_state_dict(tensors, strict=False)
    return found


def _placed(
    checkpoint: Checkpoint, wanted: Tensors, rename: Rename | None
) -> tuple[Tensors, tuple[str, ...], tuple[str, ...]]:
    """Return the tensors under the network's names, remarks on how, and the names that stand outside of a prefix."""
    tensors: Tensors = checkpoint.tensors
    if rename and not _all_fit(tensors, wanted):
        tensors = rename(tensors)
    prefix = "" if _all_fit(tensors, wanted) else _prefix(tensors, wanted)
    if not prefix:
        return tensors, checkpoint.remarks, ()
    inside = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    if rename and not _all_fit(inside, wanted):
        inside = dict(rename(inside))
    outside = tuple(name for name in tensors if not name.startswith(prefix))
    return inside, (*checkpoint.remarks, f"prefix {prefix!r} dropped"), outside


def _prefix(tensors: Tensors, wanted: Tensors) -> str:
    """Return what stands before the names of the network in a checkpoint: mostly nothing."""
    names = list(wanted)
    anchors = names[:: max(1, len(names) // _ANCHORS)]
    candidates = {name[: -len(anchor)] for name in tensors for anchor in anchors if name.endswith(f".{anchor}")}
    scores = Counter({prefix: sum(f"{prefix}{name}" in tensors for name in names) for prefix in sorted(candidates)})
    bare = sum(name in tensors for name in names)
    enough = max(bare + 1, len(names) / 2)  # blocks of another network share some names with blocks of this one
    best = [prefix for prefix, score in scores.items() if score == max(scores.values()) >= enough]
    if len(best) > 1:
        raise ModelError(
            f"the weights hold several networks that fit, under the prefixes {' and '.join(best)}: save the one that "
            f"is meant in a file of its own"
        )
    return best[0] if best else ""


def _all_fit(tensors: Tensors, wanted: Tensors) -> bool:
    return all(name in tensors and tensors[name].shape == value.shape for name, value in wanted.items())


def _alike(value: Tensor, other: Tensor) -> bool:
    return value.shape == other.shape and (value.is_floating_point() == other.is_floating_point())


def _classifiers(tensors: Tensors) -> set[str]:
    """Return the names of tensors that are a linear layer, and nothing else below their top-level name.

    There is one such layer, or all are called as classifiers are: several others are those of a deeper network.
    """
    groups: dict[str, list[str]] = {}
    for name in tensors:
        groups.setdefault(name.partition(".")[0], []).append(name)
    found = []
    for names in groups.values():
        weights = [name for name in names if name.endswith(".weight") and tensors[name].dim() == 2]
        if weights and set(names) <= {weights[0], f"{weights[0].removesuffix('weight')}bias"}:
            found.append(set(names))
    if len(found) > 1:
        found = [group for group in found if min(group).startswith(_HEADS)]
    return set().union(*found)


def _check_patterns(patterns: Sequence[str], names: Sequence[str]) -> None:
    for pattern in patterns:
        if not any(_fits(name, [pattern]) for name in names):
            parts = [name.split(".") for name in names]
            modules = {".".join(words[:end]) for words in parts for end in range(1, len(words))}
            hint = did_you_mean(nearest(pattern, [*sorted(modules), *names]))
            hint = f"; {hint}" if hint else ""
            raise ModelError(f"expected tensors that --restore-exclude {pattern!r} fits, found none{hint}")


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(
        name == pattern or name.startswith(f"{pattern.removesuffix('.')}.") or fnmatchcase(name, pattern)
        for pattern in patterns
    )


def misfit(found: Restored, model: str) -> str:
    """Say why a checkpoint is refused, and what can be done."""
    shapes = [
        f"{name} (expected {want}, found {'whole numbers' if want == have else have})"
        for name, (want, have) in found.misshapen.items()
    ]
    groups: dict[str, Sequence[str]] = {
        "missing": found.missing,
        "of another shape": shapes,
        "unexpected": found.unexpected,
    }
    problems = ", ".join(f"{len(names)} {word}{_named(names)}" for word, names in groups.items() if names)
    return (
        f"the weights {found.source} do not fit {model}, which needs {found.wanted} tensors: {problems}. Are they of "
        f"this model? If so, leave tensors out with --restore-exclude NAME, or take what fits with --allow-partial"
    )


def _named(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f": {', '.join(names[:_SHOWN])}{more}"
