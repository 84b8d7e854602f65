"""The tensors of a checkpoint go to their places in a network, and what does not fit is said."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from bottleneck.backbones.classifiers import belonging_to_classifiers, called_as_classifier
from bottleneck.backbones.nearest import did_you_mean, nearest
from bottleneck.backbones.placing import Rename, place
from bottleneck.backbones.weights import Checkpoint, is_counter
from bottleneck.errors import ModelError, WeightsMismatch
from bottleneck.utils.text import counted

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
        See `bottleneck.backbones.placing.place`.
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
