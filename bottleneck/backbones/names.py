"""Close matches and error messages for unknown names of models and weights."""

import difflib
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from bottleneck.backbones.request import TIMM, other_ways
from bottleneck.utils.names import written


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known names that are most similar to `name`."""
    return difflib.get_close_matches(name, list(known), n=most, cutoff=0.5)


def did_you_mean(names: Sequence[str]) -> str:
    """Return ``did you mean a, b or c?``; empty without names."""
    if not names:
        return ""
    *others, last = names
    return f"did you mean {', '.join(others)} or {last}?" if others else f"did you mean {last}?"


def unknown(model: str, known: Collection[str]) -> str:
    """Return the error message for an unknown model."""
    if model and os.path.exists(model):
        hint = f"that is a file or a folder; use a checkpoint with --model NAME --weights {written(Path(model))}."
    else:
        hint = did_you_mean(nearest_names(model, known)) or f"some are {', '.join(sorted(known)[:5])}."
    return (
        f"expected the name of a model (efficientnet_lite0, one of torchvision's classifiers or timm/NAME), got "
        f"{model!r}; {hint} `bottleneck models` lists all"
    )


def no_such_tag(name: str, tag: str, known: Sequence[str]) -> str:
    """Return the error message for an unknown tag of a timm model; `known` are its tags with weights."""
    hint = did_you_mean(nearest(tag, known)) or f"there are {', '.join(known) or 'none'}"
    return f"expected weights of {name} in timm, got {tag!r}; {hint}; or name {other_ways(tag)}"


def _without_tag(model: str) -> str:
    return model.partition(".")[0]


def nearest_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the known model names that are most similar to `name`, ignoring the prefix and the tag."""
    bare = {one.removeprefix(TIMM): one for one in sorted(known, reverse=True)}  # torchvision's name before timm's
    requested = _without_tag(name.lower().removeprefix(TIMM))
    if requested in bare:
        return [bare[requested]]
    near = nearest(requested, bare, most=6)
    return [bare[one] for one in sorted(near, key=lambda one: one.startswith("test_"))[:3]]  # timm's tiny ones last
