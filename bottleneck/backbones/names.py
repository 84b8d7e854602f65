"""Close matches and error messages for unknown names of models and weights."""

import difflib
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from bottleneck.backbones.request import TIMM, other_ways
from bottleneck.utils.names import written


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known names that are nearest to a misspelt one."""
    return difflib.get_close_matches(name, list(known), n=most, cutoff=0.5)


def did_you_mean(names: Sequence[str]) -> str:
    """Return ``did you mean a, b or c?``, or nothing."""
    if not names:
        return ""
    *others, last = names
    return f"did you mean {', '.join(others)} or {last}?" if others else f"did you mean {last}?"


def unknown(model: str, known: Collection[str]) -> str:
    """Return what to say of a name that no model has."""
    if model and os.path.exists(model):
        hint = f"that is a file or a folder; a checkpoint goes with --model NAME --weights {written(Path(model))}."
    else:
        hint = did_you_mean(nearest_names(model, known)) or f"some are {', '.join(sorted(known)[:5])}."
    return (
        f"expected the name of a model (efficientnet_lite0, one of torchvision's classifiers or timm/NAME), got "
        f"{model!r}; {hint} `bottleneck models` lists all"
    )


def no_such_tag(name: str, tag: str, known: Sequence[str]) -> str:
    """Return what to say of a tag that a model of timm does not have; `known` are those under which it has weights."""
    hint = did_you_mean(nearest(tag, known)) or f"there are {', '.join(known) or 'none'}"
    return f"expected weights of {name} in timm, got {tag!r}; {hint}; or name {other_ways(tag)}"


def _without_tag(model: str) -> str:
    return model.partition(".")[0]


def nearest_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names of models that are nearest to a misspelt one; the prefix and the tag do not count."""
    bare = {one.removeprefix(TIMM): one for one in sorted(known, reverse=True)}  # torchvision's name before timm's
    asked = _without_tag(name.lower().removeprefix(TIMM))
    if asked in bare:
        return [bare[asked]]
    near = nearest(asked, bare, most=6)
    return [bare[one] for one in sorted(near, key=lambda one: one.startswith("test_"))[:3]]  # timm's tiny ones last
