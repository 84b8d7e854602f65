"""What a user asks for: a network, its weights, a layer, and how images reach it."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bottleneck.errors import ModelError, PathError
from bottleneck.images.bounds import LARGEST_SIDE
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.names import RUN, is_path, written
from bottleneck.utils.paths import expanded

_CHECK = Arguments(ModelError)
_SEEDS = 2**63 - 1  # what torch takes
DEFAULT_MODEL = "efficientnet_lite0"
TIMM = "timm/"  # how the names of its models begin
POOLS = ("avg", "max", "gem", "none", "cls")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")

_SHORT = {f"lite{size}": f"efficientnet_lite{size}" for size in (0, 1, 2)}
_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A backbone as the user names it.

    Parameters
    ----------
    model : str
        ``efficientnet_lite0``, the name of a torchvision classifier, or ``timm/NAME`` or ``timm/NAME.TAG``.
    weights : str
        ``DEFAULT``, a name such as ``IMAGENET1K_V2`` or timm's ``a1_in1k``, ``none`` for random weights, or the path of
        a file, which has a separator (``./weights``) or one of the endings of weights files.
    seed : int
        Of the random weights.
    layer : tuple of str
        Modules whose output is the feature, or ``NAME:input`` for what a module receives; several are joined. By
        default the input of the classifier.
    pool : str, optional
        One of `POOLS`: how the positions of a layer become one row. By default ``avg`` where there are any.
    flip : bool
        Whether the features of an image and of its mirror image are averaged.
    resize, crop : int, optional
        In pixels, instead of those that the weights were trained with.
    restore_exclude : tuple of str
        Tensors that are not taken from the weights file: names, the beginnings of names, or patterns with ``*``.
    allow_partial : bool
        Whether a weights file may lack tensors, or have some of another shape; these stay random, by `seed`.
    precision : str
        One of `PRECISIONS`: of the computation. ``auto`` is the one in which most of the images
        have features; else the fastest that the hardware has natively and that is exact enough for them.
    fast_jpeg : bool
        Whether large JPEGs are decoded at a fraction of their size; see `Preprocessing`.

    Raises
    ------
    ModelError
        If a value makes no sense, whatever the network.
    """

    model: str = DEFAULT_MODEL
    weights: str = "DEFAULT"
    seed: int = 0
    layer: tuple[str, ...] = ()
    pool: str | None = None
    flip: bool = False
    resize: int | None = None
    crop: int | None = None
    restore_exclude: tuple[str, ...] = ()
    allow_partial: bool = False
    precision: str = "auto"
    fast_jpeg: bool = False

    def __post_init__(self) -> None:
        for name, value in _plain(self).items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "model", full_name(self.model))
        if self.weights.upper() == "DEFAULT":
            object.__setattr__(self, "weights", "DEFAULT")
        if self.pool not in (None, *POOLS):
            raise ModelError(f"expected --pool {', '.join(POOLS)}, got {self.pool!r}")
        if self.precision not in PRECISIONS:
            raise ModelError(f"expected --precision {', '.join(PRECISIONS)}, got {self.precision!r}")
        if len(set(self.layer)) < len(self.layer):
            raise ModelError(f"expected different layers to join, got {', '.join(self.layer)}")
        if any(size is not None and not 1 <= size <= LARGEST_SIDE for size in (self.resize, self.crop)):
            raise ModelError(
                f"expected --resize and --crop in pixels, got {self.resize} and {self.crop}: 1 to {LARGEST_SIDE:,}"
            )
        if (self.restore_exclude or self.allow_partial) and not self.file:
            raise ModelError(
                f"--restore-exclude and --allow-partial are about a weights file, expected --weights PATH, got "
                f"{self.weights!r}"
            )

    @property
    def random(self) -> bool:
        """Whether all weights are random."""
        return self.weights.lower() == "none"

    @property
    def file(self) -> Path | None:
        """The file the weights come from, if the user named one."""
        return expanded(self.weights) if looks_like_file(self.weights) else None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object from which the request can be made again; a path is absolute."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        changed = {name: value for name, (value, default) in values.items() if value != default}
        weights = str(self.file.absolute()) if self.file else self.weights
        return {**changed, "model": self.model, "weights": weights, "seed": self.seed}

    def options(self) -> dict[str, Any]:
        """Return the fields as keyword arguments of `bottleneck.extract`."""
        return asdict(self)

    def command(self) -> str:
        """Return the options of ``bottleneck extract`` that ask for the same, as a user types them."""
        return f"--model {shlex.quote(self.model)} {self.unusual()}".rstrip()

    def unusual(self) -> str:
        """Return those of these options that ask for other than the usual features of the model."""
        words: list[str] = []
        for name, value in self.to_json().items():
            option = f"--{name.replace('_', '-')}"
            if name == "model" or (name == "seed" and not value) or (name == "weights" and value == "DEFAULT"):
                continue
            for one in value if isinstance(value, tuple) else [value]:
                words += [option] if one is True else [option, str(one)]
        return shlex.join(words)

    def warning(self) -> str:
        """Return what a user should know of random weights; nothing where they are not."""
        if not self.random:
            return ""
        return f"{self.model} has random weights (seed {self.seed}): its features tell little about images"


def _plain(request: Request) -> dict[str, Any]:
    """Return the values of a request as plain Python.

    Raises
    ------
    ModelError
        If one is of another kind, or out of its range.
    """
    check, given = _CHECK, {field.name: getattr(request, field.name) for field in fields(request)}
    return {
        "model": check.text("--model", given["model"]),
        "weights": _weights(given["weights"]),
        "seed": check.whole("--seed", given["seed"], most=_SEEDS),
        **{name: check.texts(f"--{name.replace('_', '-')}", given[name]) for name in ("layer", "restore_exclude")},
        "pool": check.optional(check.text, "--pool", given["pool"]),
        "precision": check.text("--precision", given["precision"]),
        **{name: check.optional(check.whole, f"--{name}", given[name], least=None) for name in ("resize", "crop")},
        **{name: check.flag(name, given[name]) for name in ("flip", "allow_partial", "fast_jpeg")},
    }


def _weights(given: Any) -> str:
    """Return the weights as text.

    Raises
    ------
    ModelError
        If they are a path that no file can have.
    """
    _CHECK.path("--weights", given)
    text = written(given)
    try:
        if looks_like_file(text):
            expanded(text)
    except PathError as error:
        raise ModelError(f"--weights: {error}") from error
    return text


def listed(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return one name, or several, as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)


def full_name(model: str) -> str:
    """Return the name of a model for a short form of it: ``lite0`` is ``efficientnet_lite0``."""
    return _SHORT.get(model, model)


def looks_like_file(text: str) -> bool:
    """Return whether `text` is written as the path of a weights file: with one of the endings, or with a separator."""
    return is_path(text) or text.lower().endswith(_SUFFIXES)


def no_such_weights(request: Request, known: Sequence[str]) -> str:
    """Return what to say of weights that a model does not have; `known` are those that it has."""
    return (
        f"expected weights of {request.model}: {', '.join(known)}, none, {other_ways(request.weights)}, got "
        f"{request.weights!r}"
    )


def other_ways(name: str) -> str:
    """Return how a file or a fine-tuned run is written that a word was perhaps to name."""
    return f"a file (./{name}, or one that ends in {', '.join(_SUFFIXES)}) or a fine-tuned run ({RUN}{name})"
