"""Restore a network from the tensors of a checkpoint, and report what does not fit."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import Any

from torch import Tensor, nn

from bottleneck.backbones.classifiers import belonging_to_classifiers, called_as_classifier
from bottleneck.backbones.names import did_you_mean, nearest
from bottleneck.backbones.weights import Checkpoint, Tensors, is_counter
from bottleneck.errors import ModelError, WeightsMismatch
from bottleneck.utils.text import counted

Rename = Callable[[Tensors], Tensors]
_ANCHORS = 8  # names of the network that are searched behind a prefix
_POSITIONS = ("pos", "relative")  # in the names of tensors that depend on the image size

_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class Restored:
    """How the tensors of a checkpoint match those of a network.

    Parameters
    ----------
    source : str
        The checkpoint's file.
    remarks : tuple of str
        Remarks on what was unwrapped or renamed.
    restored : tuple of str
        Tensors of the network that are restored.
    excluded : tuple of str
        Tensors of the network that were excluded.
    missing : tuple of str
        Tensors of the network that the checkpoint lacks.
    misshapen : dict
        Tensors of the network that have another shape in the checkpoint: name to (expected, found).
    unexpected : tuple of str
        Tensors of the checkpoint that the network does not have.
    unneeded : tuple of str
        Tensors of the checkpoint that no feature needs: those after the layer, a classifier with another name, those
        without the prefix.
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
        """Whether every tensor that was not excluded is restored, and none is left over."""
        return not (self.missing or self.misshapen or self.unexpected)

    @property
    def wanted(self) -> int:
        """Number of tensors that the network needs."""
        return len(self.restored) + len(self.excluded) + len(self.missing) + len(self.misshapen)

    def summary(self) -> str:
        """Return a summary of one line."""
        parts = [f"{len(self.restored)} of {counted(self.wanted, 'tensor')} restored", *self.remarks]
        counts = {
            "excluded": self.excluded,
            "missing": self.missing,
            "of another shape": self.misshapen,
            "unexpected": self.unexpected,
            "not needed": self.unneeded,
        }
        parts += [f"{len(names)} {word}{_named(list(names))}" for word, names in counts.items() if names]
        return f"{self.source}: {'; '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return dict(vars(self))


def match(
    network: nn.Module,
    checkpoint: Checkpoint,
    *,
    known: Iterable[str] = (),
    rename: Rename | None = None,
    exclude: Sequence[str] = (),
    resized: bool = False,
) -> tuple[Restored, dict[str, Tensor]]:
    """Match the tensors of a checkpoint with those of a network.

    A common prefix that a wrapper added to all names (``module.``, ``model.``, ``encoder.``) is dropped.

    Parameters
    ----------
    network : nn.Module
        Its parameters and buffers are matched, except for counters of batches.
    checkpoint : Checkpoint
    known : iterable of str
        Names of the network's tensors before it was cut.
    rename, resized
        See `bottleneck.backbones.restore.place`.
    exclude : sequence of str
        Tensors not to restore: names, prefixes of names (``fc`` for ``fc.weight``), or patterns with ``*``, ``?`` and
        ``[]``.

    Returns
    -------
    Restored, dict of str to Tensor
        The result, and the tensors to copy, by the network's names.

    Raises
    ------
    ModelError
        If a pattern of `exclude` matches nothing, or if tensors fit under two prefixes.
    """
    wanted = {name: value for name, value in network.state_dict().items() if not is_counter(name)}
    placed = place(checkpoint, wanted, rename, resized=resized)
    tensors, known = placed.tensors, set(known)
    exclude = [pattern.removeprefix(placed.prefix) for pattern in exclude]
    _check_patterns(exclude, [*wanted, *tensors, *placed.outside, *known])
    excluded = [name for name in wanted if fits(name, exclude)]
    requested = {name: value for name, value in wanted.items() if name not in set(excluded)}
    misshapen = {
        name: (tuple(value.shape), tuple(tensors[name].shape))
        for name, value in requested.items()
        if name in tensors and not _same_kind(value, tensors[name])
    }
    left = [name for name in tensors if name not in wanted and not is_counter(name) and not fits(name, exclude)]
    heads = belonging_to_classifiers({name: tensors[name] for name in left}, known, wanted)
    unneeded = [name for name in left if name in heads or not tensors[name].dim()]
    found = Restored(
        source=checkpoint.source,
        remarks=(*checkpoint.remarks, *placed.remarks),
        restored=tuple(name for name in requested if name in tensors and name not in misshapen),
        excluded=tuple(excluded),
        missing=tuple(name for name in requested if name not in tensors),
        misshapen=misshapen,
        unexpected=tuple(name for name in left if name not in set(unneeded)),
        unneeded=(*unneeded, *placed.outside),
    )
    return found, {name: tensors[name] for name in found.restored}


def restore(
    network: nn.Module,
    checkpoint: Checkpoint,
    *,
    known: Iterable[str] = (),
    rename: Rename | None = None,
    exclude: Sequence[str] = (),
    resized: bool = False,
    allow_partial: bool = False,
    model: str = "the network",
) -> Restored:
    """Copy the tensors of a checkpoint into a network; errors call it `model`. For other parameters see `match`.

    Raises
    ------
    WeightsMismatch
        If a tensor that was not excluded is not restored, or one is left over, unless `allow_partial`. The network is
        then unchanged.
    """
    found, tensors = match(network, checkpoint, known=known, rename=rename, exclude=exclude, resized=resized)
    if not (found.complete or allow_partial):
        advice = f"`bottleneck inspect {found.source} --against {model}` shows them all"
        raise WeightsMismatch(f"{misfit(found, model)}; {advice}", found)
    if not found.restored:
        raise WeightsMismatch(f"the weights {found.source} do not fit: they contain no tensor of {model}", found)
    network.load_state_dict(tensors, strict=False)
    return found


def _same_kind(value: Tensor, other: Tensor) -> bool:
    return value.shape == other.shape and (value.is_floating_point() == other.is_floating_point())


def _check_patterns(patterns: Sequence[str], names: Sequence[str]) -> None:
    for pattern in patterns:
        if not any(fits(name, [pattern]) for name in names):
            parts = [name.split(".") for name in names]
            modules = {".".join(words[:end]) for words in parts for end in range(1, len(words))}
            hint = did_you_mean(nearest(pattern, [*sorted(modules), *names]))
            hint = f"; {hint}" if hint else ""
            raise ModelError(f"expected tensors that match --restore-exclude {pattern!r}, found none{hint}")


def fits(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a name equals a pattern, is inside a module that does, or matches a pattern with ``*``."""
    return any(
        name == pattern or name.startswith(f"{pattern.removesuffix('.')}.") or fnmatchcase(name, pattern)
        for pattern in patterns
    )


def misfit(found: Restored, model: str) -> str:
    """Return the message on why a checkpoint is refused, and what to do."""
    shapes = [
        f"{name} (expected {want}, found {'integers' if want == have else have})"
        for name, (want, have) in found.misshapen.items()
    ]
    groups: dict[str, Sequence[str]] = {
        "missing": found.missing,
        "of another shape": shapes,
        "unexpected": found.unexpected,
    }
    problems = ", ".join(f"{len(names)} {word}{_named(names)}" for word, names in groups.items() if names)
    size = any("pos" in name for name in found.misshapen)
    hint = " Position embeddings of another length are those of images of another size: see --crop." if size else ""
    tops = {name.partition(".")[0] for name in (*found.missing, *found.misshapen, *found.unexpected)}
    if len(tops) == 1 and called_as_classifier(top := tops.pop()):
        hint = (
            f" All belong to {top}, which seems to be a different classifier: --layer NAME takes features before it "
            f"(`bottleneck inspect {model}` lists the names)."
        )
    return (
        f"the weights {found.source} do not fit {model}, which needs {found.wanted} tensors: {problems}.{hint} If "
        f"they belong to this model, exclude tensors with --restore-exclude NAME, or restore only what fits with "
        f"--allow-partial"
    )


def _named(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f": {', '.join(names[:_SHOWN])}{more}"


@dataclass(frozen=True)
class Placed:
    """The tensors of a checkpoint, renamed to those of a network.

    Parameters
    ----------
    tensors : dict of str to Tensor
    remarks : tuple of str
        Remarks on changed names and shapes.
    prefix : str
        The prefix dropped from the names.
    outside : tuple of str
        Tensors without that prefix.
    """

    tensors: Tensors
    remarks: tuple[str, ...] = ()
    prefix: str = ""
    outside: tuple[str, ...] = ()


def place(checkpoint: Checkpoint, wanted: Tensors, rename: Rename | None = None, *, resized: bool = False) -> Placed:
    """Rename the tensors of a checkpoint to those of a network.

    Parameters
    ----------
    checkpoint : Checkpoint
    wanted : dict of str to Tensor
        Tensors of the network.
    rename : callable, optional
        Converts tensors in other formats to the names and shapes of this network.
    resized : bool
        Whether the network was built for a different image size. Only then may `rename` interpolate what depends on
        it, the position embeddings. Nothing else is interpolated: another shape elsewhere means another network.

    Raises
    ------
    ModelError
        If tensors fit under two prefixes.
    """
    best, most = Placed(checkpoint.tensors), -1
    for prefix in _prefixes(checkpoint.tensors, wanted):
        inside = {name[len(prefix) :]: value for name, value in checkpoint.tensors.items() if name.startswith(prefix)}
        tensors, remarks = _renamed(inside, wanted, rename, resized)
        fitting = sum(name in tensors and tensors[name].shape == value.shape for name, value in wanted.items())
        if fitting > most:
            outside = tuple(name for name in checkpoint.tensors if not name.startswith(prefix))
            dropped = (f"prefix {prefix!r} dropped",) if prefix else ()
            best, most = Placed(tensors, (*dropped, *remarks), prefix, outside), fitting
        if most == len(wanted):
            break
    return best


def _prefixes(tensors: Tensors, wanted: Tensors) -> Iterator[str]:
    """Yield possible prefixes: none, that before the network's own names, and that common to all names."""
    yield ""
    own = _before_own_names(tensors, wanted)
    if own:
        yield own
    first, last = min(tensors).split("."), max(tensors).split(".")
    common = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))]
    if common and len(tensors) > 1:
        yield f"{'.'.join(common)}."


def _before_own_names(tensors: Tensors, wanted: Tensors) -> str:
    names = list(wanted)
    anchors = names[:: max(1, len(names) // _ANCHORS)]
    candidates = {name[: -len(anchor)] for name in tensors for anchor in anchors if name.endswith(f".{anchor}")}
    scores = Counter({prefix: sum(f"{prefix}{name}" in tensors for name in names) for prefix in sorted(candidates)})
    bare = sum(name in tensors for name in names)
    enough = max(bare + 1, len(names) / 2)  # different networks have some names in common
    best = [prefix for prefix, score in scores.items() if score == max(scores.values()) >= enough]
    if len(best) > 1:
        raise ModelError(
            f"the weights contain several networks that fit, under the prefixes {' and '.join(best)}: save the one "
            f"to use in a separate file"
        )
    return best[0] if best else ""


def _renamed(
    tensors: Tensors, wanted: Tensors, rename: Rename | None, resized: bool
) -> tuple[Tensors, tuple[str, ...]]:
    """Rename tensors if necessary; return them with remarks."""
    if rename is None or all(name in tensors and tensors[name].shape == value.shape for name, value in wanted.items()):
        return tensors, ()
    found = dict(rename(tensors))
    interpolated = [name for name in found if _has_computed_values(name, tensors, found)]
    allowed = [name for name in interpolated if resized and any(word in name for word in _POSITIONS)]
    for name in set(interpolated) - set(allowed):
        del found[name]
        if name in tensors:
            found[name] = tensors[name]  # with its own shape, which is reported
    count = len(found.keys() - tensors.keys())
    remarks = [f"{counted(count, 'tensor')} renamed"] if count else []
    if allowed:
        remarks.append(f"{', '.join(allowed[:2])}{' and others' if allowed[2:] else ''} interpolated")
    return found, tuple(remarks)


def _has_computed_values(name: str, before: Tensors, after: Tensors) -> bool:
    """Return whether a tensor was computed from those of the file, not only copied, reshaped or concatenated."""
    count = after[name].numel()
    if name in before and before[name].numel() != count:
        return True
    return not any(count == value.numel() * parts for value in before.values() for parts in (1, 2, 3))
