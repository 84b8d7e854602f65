"""The options of a fine-tuning."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, TypedDict

from bottleneck.errors import TuningError
from bottleneck.utils.arguments import Arguments, abbreviated

CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("cosine", "step", "constant"),
    "precision": ("auto", "fp32", "bf16"),
    "augment": ("none", "light", "standard", "strong"),
    "class_weight": ("balanced",),
}
LEARNING_RATES = {"sgd": 3e-4, "adamw": 1e-5}  # small, since training starts from a fitted head
_CHECK = Arguments(TuningError)


class WholeBounds(TypedDict, total=False):
    """Inclusive bounds of a whole number."""

    least: int
    most: int


class RealBounds(TypedDict, total=False):
    """Exclusive bounds of a real number."""

    above: float
    below: float


# The ranges of numbers. Real numbers are at least 0, unless a bound is given.
WHOLE: dict[str, WholeBounds] = {
    "last": {"least": 0},
    "epochs": {"least": 1},
    "batch_size": {"least": 1},
    "step_epochs": {"least": 1},
    "patience": {"least": 1},
    "views": {"least": 0},
    "seed": {"least": 0, "most": 2**32 - 1},
}
REAL: dict[str, RealBounds] = {
    "lr": {"above": 0},
    "momentum": {"below": 1},
    "weight_decay": {},
    "layer_decay": {"above": 0},
    "warmup": {},
    "label_smoothing": {"below": 1},
    "clip": {"above": 0},
    "ema": {"above": 0, "below": 1},
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is fine-tuned.

    Parameters
    ----------
    unfreeze : tuple of str
        Modules to train in addition to the head: names, patterns with ``*``, or ``all``.
    last : int, optional
        Train the last N stages and the head; 0 trains only the head. By default 1 if `unfreeze` is empty.
    train_bn : bool
        Whether batch norms of these parts are trained and update their statistics; by default they stay frozen.
    epochs, batch_size : int
    optimizer : str
        ``sgd``, with `momentum`, or ``adamw``.
    lr : float, optional
        The maximum learning rate; by default 3e-4 for sgd, 1e-5 for adamw.
    momentum, weight_decay : float
        `weight_decay` applies to weights, not to norms and biases.
    lr_mult : tuple of (str, float)
        Factors of the learning rate of some modules, like Caffe's ``lr_mult``, or a dict of them. If several match a
        module, they are multiplied.
    layer_decay : float
        The learning rate of each stage is this multiple of the learning rate of the next stage.
    schedule : str
        ``cosine`` to zero, ``step`` (divided by 10 every `step_epochs` epochs), or ``constant``.
    step_epochs : int
    warmup : float
        Epochs during which the learning rate rises from zero.
    label_smoothing : float
        The share of a label's probability that is spread over all classes (Szegedy et al. 2016).
    class_weight : str, optional
        ``balanced``: each class has the same total weight, whatever its number of images.
    clip : float, optional
        The maximum norm of the gradient of all parameters together; None for no limit. If features vary little, folding
        their scaling into the head gives it large weights, and the network large gradients: without a limit, the first
        steps would destroy the head.
    precision : str
        ``auto``, ``fp32``, or ``bf16`` by autocast. ``auto`` is bf16 if the hardware multiplies bfloat16 natively.
    ema : float, optional
        Decay of the exponential moving average of the weights; the averages are then evaluated and saved.
    patience : int, optional
        Stop after this many epochs without improvement.
    augment : str
        ``none``, ``light``, ``standard`` or ``strong``; see `bottleneck.images.augment`.
    views : int
        The number of augmented views of each image that are cached at the freeze boundary. 0: each epoch draws new
        views and runs the whole network.
    seed : int

    Raises
    ------
    TuningError
        If a value is invalid.
    """

    unfreeze: tuple[str, ...] = ()
    last: int | None = None
    train_bn: bool = False
    epochs: int = 10
    batch_size: int = 16
    optimizer: str = "sgd"
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-4
    lr_mult: tuple[tuple[str, float], ...] = ()
    layer_decay: float = 1.0
    schedule: str = "cosine"
    step_epochs: int = 7
    warmup: float = 0.0
    label_smoothing: float = 0.0
    class_weight: str | None = None
    clip: float | None = 1.0
    precision: str = "auto"
    ema: float | None = None
    patience: int | None = None
    augment: str = "light"
    views: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in _plain(self).items():
            object.__setattr__(self, name, value)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in (*choices, DEFAULTS[name]):
                known = ", ".join(choices)
                raise TuningError(f"expected {name} to be one of {known}, got {getattr(self, name)!r}")
        object.__setattr__(self, "lr", LEARNING_RATES[self.optimizer] if self.lr is None else self.lr)
        if self.unfreeze and self.last is not None:
            raise TuningError("expected either unfreeze or last, got both")
        if self.train_bn and self.batch_size < 2:
            raise TuningError(f"expected batch_size to be 2 or more with train_bn, got {self.batch_size}")
        if self.layer_decay > 1:
            raise TuningError(f"expected layer_decay to be above 0, at most 1, got {self.layer_decay}")

    def __repr__(self) -> str:
        usual = DEFAULTS | {"lr": LEARNING_RATES[self.optimizer]}
        changed = {name: value for name, value in vars(self).items() if value != usual[name]}
        return f"Recipe({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    @property
    def largest_lr(self) -> float:
        """The learning rate at the peak of the schedule."""
        assert self.lr is not None  # set on creation
        return self.lr

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as a JSON object; ``Recipe(**object)`` restores it."""
        return asdict(self)


DEFAULTS = {field.name: field.default for field in fields(Recipe)}
_OPTIONAL = {name for name, default in DEFAULTS.items() if default is None} | {"clip"}


def _plain(recipe: Recipe) -> dict[str, Any]:
    """Return the values of a recipe as plain Python.

    Raises
    ------
    TuningError
        If one has the wrong type, or is out of range.
    """
    checks: dict[str, Callable[[str, object], object]] = {
        **dict.fromkeys(CHOICES, _CHECK.text),
        **{name: partial(_CHECK.whole, **bounds) for name, bounds in WHOLE.items()},
        **{name: partial(_CHECK.number, **bounds) for name, bounds in REAL.items()},
        "unfreeze": _CHECK.texts,
        "train_bn": _CHECK.flag,
        "lr_mult": lambda _, value: _factors(value),
    }
    return {
        name: None if name in _OPTIONAL and value is None else checks[name](name, value)
        for name, value in ((name, getattr(recipe, name)) for name in checks)
    }


def _factors(given: Any) -> tuple[tuple[str, float], ...]:
    """Return the pairs of a module and a factor, from a mapping or from pairs."""
    try:
        pairs = [(name, factor) for name, factor in (given.items() if isinstance(given, Mapping) else given)]
    except (TypeError, ValueError):
        raise TuningError(f"expected lr_mult to be pairs of a module and a factor, got {abbreviated(given)}") from None
    names = [_CHECK.text("a module of lr_mult", name) for name, _ in pairs]
    return tuple((name, _CHECK.number(f"lr_mult of {name}", pair[1])) for name, pair in zip(names, pairs, strict=True))
