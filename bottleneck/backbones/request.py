"""What a user requests: a network, its weights, a layer, and the preprocessing of images."""

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
_SEEDS = 2**63 - 1  # the largest seed that torch accepts
DEFAULT_MODEL = "efficientnet_lite0"
TIMM = "timm/"  # prefix of the names of its models
POOLS = ("avg", "max", "gem", "none", "cls")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")

_SHORT = {f"lite{size}": f"efficientnet_lite{size}" for size in (0, 1, 2)}
_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A backbone as requested by the user.

    Parameters
    ----------
    model : str
        ``efficientnet_lite0``, the name of a torchvision classifier, or ``timm/NAME`` or ``timm/NAME.TAG``.
    weights : str
        ``DEFAULT``, a name such as ``IMAGENET1K_V2`` or timm's ``a1_in1k``, ``none`` for random weights, or the path of
        a file, which has a separator (``./weights``) or one of the endings of weights files.
    seed : int
        Seed of random weights.
    layer : tuple of str
        Modules whose outputs are the features, or ``NAME:input`` for a module's input; several are concatenated. By
        default the input of the classifier.
    pool : str, optional
        One of `POOLS`: how to pool the positions of a layer. By default ``avg`` if there are any.
    flip : bool
        Whether to average the features of an image and of its mirror image.
    resize, crop : int, optional
        Sizes in pixels, instead of those that the weights were trained with.
    restore_exclude : tuple of str
        Tensors not to restore from the weights file: names, prefixes of names, or patterns with ``*``.
    allow_partial : bool
        Whether a weights file may lack tensors, or have some of another shape; these stay random, see `seed`.
    precision : str
        One of `PRECISIONS`. ``auto`` is the precision in which most of the images already have features; else the
        fastest one that the hardware supports natively and that is accurate enough.
    fast_jpeg : bool
        Whether to decode large JPEGs at a fraction of their size; see `Preprocessing`.

    Raises
    ------
    ModelError
        If a value is invalid for every network.
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
            raise ModelError(f"expected different layers to concatenate, got {', '.join(self.layer)}")
        if any(size is not None and not 1 <= size <= LARGEST_SIDE for size in (self.resize, self.crop)):
            raise ModelError(
                f"expected --resize and --crop in pixels, got {self.resize} and {self.crop}: 1 to {LARGEST_SIDE:,}"
            )
        if (self.restore_exclude or self.allow_partial) and not self.file:
            raise ModelError(
                f"--restore-exclude and --allow-partial need a weights file: expected --weights PATH, got "
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
        """Return a JSON object from which the request can be rebuilt; a path is absolute."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        changed = {name: value for name, (value, default) in values.items() if value != default}
        weights = str(self.file.absolute()) if self.file else self.weights
        return {**changed, "model": self.model, "weights": weights, "seed": self.seed}

    def options(self) -> dict[str, Any]:
        """Return the fields as keyword arguments of `bottleneck.extract`."""
        return asdict(self)

    def command(self) -> str:
        """Return the options of ``bottleneck extract`` for the same request, as a user types them."""
        return f"--model {shlex.quote(self.model)} {self.unusual()}".rstrip()

    def unusual(self) -> str:
        """Return those options that differ from their defaults, without ``--model``."""
        words: list[str] = []
        for name, value in self.to_json().items():
            option = f"--{name.replace('_', '-')}"
            if name == "model" or (name == "seed" and not value) or (name == "weights" and value == "DEFAULT"):
                continue
            for each in value if isinstance(value, tuple) else [value]:
                words += [option] if each is True else [option, str(each)]
        return shlex.join(words)

    def warning(self) -> str:
        """Return the warning about random weights; empty if they are not random."""
        if not self.random:
            return ""
        return (
            f"{self.model} has random weights (seed {self.seed}): its features contain little information about images"
        )


def _plain(request: Request) -> dict[str, Any]:
    """Return the fields of a request as Python values.

    Raises
    ------
    ModelError
        If one has another type, or is out of range.
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
        If they are an invalid path.
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
    """Return one name or several as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)


def full_name(model: str) -> str:
    """Return the full name of a model: ``lite0`` is short for ``efficientnet_lite0``."""
    return _SHORT.get(model, model)


def looks_like_file(text: str) -> bool:
    """Return whether `text` is the path of a weights file: it has a known file extension or a separator."""
    return is_path(text) or text.lower().endswith(_SUFFIXES)


def no_such_weights(request: Request, known: Sequence[str]) -> str:
    """Return the error message for unknown weights of a model; `known` are its weights."""
    return (
        f"expected weights of {request.model}: {', '.join(known)}, none, {other_ways(request.weights)}, got "
        f"{request.weights!r}"
    )


def other_ways(name: str) -> str:
    """Return the hint on how to write the path of a file, or a fine-tuned run."""
    return f"a file (./{name}, or one that ends in {', '.join(_SUFFIXES)}) or a fine-tuned run ({RUN}{name})"
