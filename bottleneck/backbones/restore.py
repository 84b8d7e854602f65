"""The tensors of a checkpoint go to their places in a network, and what does not fit is said."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import takewhile

from torch import Tensor, nn

from bottleneck.backbones.classifiers import belonging_to_classifiers, called_as_classifier
from bottleneck.backbones.names import did_you_mean, nearest
from bottleneck.backbones.weights import Checkpoint, Tensors, is_counter
from bottleneck.errors import ModelError, WeightsMismatch
from bottleneck.utils.text import counted

Rename = Callable[[Tensors], Tensors]
_ANCHORS = 8  # names of the network that are looked for behind a prefix
_POSITIONS = ("pos", "relative")  # what is in the names of tensors that depend on the size of the images

_SHOWN = 4


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


def match(
    network: nn.Module,
    checkpoint: Checkpoint,
    *,
    known: Iterable[str] = (),
    rename: Rename | None = None,
    exclude: Sequence[str] = (),
    resized: bool = False,
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
    rename, resized
        See `bottleneck.backbones.restore.place`.
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
    placed = place(checkpoint, wanted, rename, resized=resized)
    tensors, known = placed.tensors, set(known)
    exclude = [pattern.removeprefix(placed.prefix) for pattern in exclude]
    _check_patterns(exclude, [*wanted, *tensors, *placed.outside, *known])
    excluded = [name for name in wanted if fits(name, exclude)]
    asked = {name: value for name, value in wanted.items() if name not in set(excluded)}
    misshapen = {
        name: (tuple(value.shape), tuple(tensors[name].shape))
        for name, value in asked.items()
        if name in tensors and not _same_kind(value, tensors[name])
    }
    left = [name for name in tensors if name not in wanted and not is_counter(name) and not fits(name, exclude)]
    heads = belonging_to_classifiers({name: tensors[name] for name in left}, known, wanted)
    unneeded = [name for name in left if name in heads or not tensors[name].dim()]
    found = Restored(
        source=checkpoint.source,
        remarks=(*checkpoint.remarks, *placed.remarks),
        restored=tuple(name for name in asked if name in tensors and name not in misshapen),
        excluded=tuple(excluded),
        missing=tuple(name for name in asked if name not in tensors),
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
    """Copy the tensors of a checkpoint into a network, which errors call `model`; other parameters as for `match`.

    Raises
    ------
    WeightsMismatch
        Unless every tensor that is not excluded is restored and none is left over, or `allow_partial`. The network is
        left as it was.
    """
    found, tensors = match(network, checkpoint, known=known, rename=rename, exclude=exclude, resized=resized)
    if not (found.complete or allow_partial):
        look = f"`bottleneck inspect {found.source} --against {model}` shows them all"
        raise WeightsMismatch(f"{misfit(found, model)}; {look}", found)
    if not found.restored:
        raise WeightsMismatch(f"the weights {found.source} do not fit: no tensor of {model} is among them", found)
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
            raise ModelError(f"expected tensors that --restore-exclude {pattern!r} fits, found none{hint}")


def fits(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name is one of some patterns, stands inside of a module that is, or fits one with ``*``."""
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
    size = any("pos" in name for name in found.misshapen)
    hint = " Position embeddings of another length are those of images of another size: see --crop." if size else ""
    tops = {name.partition(".")[0] for name in (*found.missing, *found.misshapen, *found.unexpected)}
    if len(tops) == 1 and called_as_classifier(top := tops.pop()):
        hint = (
            f" All are of {top}, in whose place another classifier seems to be: --layer NAME takes features before it "
            f"(`bottleneck inspect {model}` lists the names)."
        )
    return (
        f"the weights {found.source} do not fit {model}, which needs {found.wanted} tensors: {problems}.{hint} Are "
        f"they of this model? If so, leave tensors out with --restore-exclude NAME, or take what fits with "
        f"--allow-partial"
    )


def _named(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f": {', '.join(names[:_SHOWN])}{more}"


@dataclass(frozen=True)
class Placed:
    """The tensors of a checkpoint by the names of a network.

    Parameters
    ----------
    tensors : dict of str to Tensor
    remarks : tuple of str
        What was done to their names and shapes, in words.
    prefix : str
        What was taken off before the names.
    outside : tuple of str
        The tensors without that prefix.
    """

    tensors: Tensors
    remarks: tuple[str, ...] = ()
    prefix: str = ""
    outside: tuple[str, ...] = ()


def place(checkpoint: Checkpoint, wanted: Tensors, rename: Rename | None = None, *, resized: bool = False) -> Placed:
    """Find the names that a network has for the tensors of a checkpoint.

    Parameters
    ----------
    checkpoint : Checkpoint
    wanted : dict of str to Tensor
        The network's.
    rename : callable, optional
        Gives tensors in other forms the names, and shapes, of this network.
    resized : bool
        Whether the network was built for images of another size than usual. Only then may `rename` interpolate what
        depends on that size, position embeddings; other values are never interpolated, since they would be those of
        another network.

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
    """Yield what may stand before the names: nothing, what stands before the network's own, what all have."""
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
    enough = max(bare + 1, len(names) / 2)  # blocks of another network share some names with blocks of this one
    best = [prefix for prefix, score in scores.items() if score == max(scores.values()) >= enough]
    if len(best) > 1:
        raise ModelError(
            f"the weights hold several networks that fit, under the prefixes {' and '.join(best)}: save the one that "
            f"is meant in a file of its own"
        )
    return best[0] if best else ""


def _renamed(
    tensors: Tensors, wanted: Tensors, rename: Rename | None, resized: bool
) -> tuple[Tensors, tuple[str, ...]]:
    """Return the tensors by other names, where that helps, and remarks on it."""
    if rename is None or all(name in tensors and tensors[name].shape == value.shape for name, value in wanted.items()):
        return tensors, ()
    found = dict(rename(tensors))
    interpolated = [name for name in found if _has_other_numbers(name, tensors, found)]
    allowed = [name for name in interpolated if resized and any(word in name for word in _POSITIONS)]
    for name in set(interpolated) - set(allowed):
        del found[name]
        if name in tensors:
            found[name] = tensors[name]  # with the shape that it has, to be told
    count = len(found.keys() - tensors.keys())
    remarks = [f"{counted(count, 'tensor')} renamed"] if count else []
    if allowed:
        remarks.append(f"{', '.join(allowed[:2])}{' and others' if allowed[2:] else ''} interpolated")
    return found, tuple(remarks)


def _has_other_numbers(name: str, before: Tensors, after: Tensors) -> bool:
    """Whether a tensor was computed from those of the file, and not only taken, reshaped or joined of two or three."""
    count = after[name].numel()
    if name in before and before[name].numel() != count:
        return True
    return not any(count == value.numel() * parts for value in before.values() for parts in (1, 2, 3))
