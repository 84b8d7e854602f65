"""Where the tensors of a checkpoint belong in a network: prefixes are taken off, and other forms renamed."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile

from bottleneck.backbones.weights import Checkpoint, Tensors
from bottleneck.errors import ModelError
from bottleneck.utils.text import counted

Rename = Callable[[Tensors], Tensors]

_ANCHORS = 8  # names of the network that are looked for behind a prefix
_POSITIONS = ("pos", "relative")  # what is in the names of tensors that depend on the size of the images


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
