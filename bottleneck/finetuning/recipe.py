"""How a network is fine-tuned, as a user says it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from bottleneck.errors import TuningError
from bottleneck.images.view import AUGMENTATIONS
from bottleneck.utils.arguments import Arguments, abbreviated

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "step", "constant")
PRECISIONS = ("auto", "fp32", "bf16")
_CHECK = Arguments(TuningError)
LEARNING_RATES = {"sgd": 3e-4, "adamw": 1e-5}  # small: the head has been at its best already


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained on.

    Parameters
    ----------
    unfreeze : tuple of str
        Modules that are trained beside the head: names, patterns with ``*``, or ``all``.
    last : int, optional
        How many of the last stages are; 0 trains the head alone. By default 1, where `unfreeze` is empty.
    train_bn : bool
        Whether batch norms of these parts are trained and take new statistics; by default they stay as they are.
    epochs, batch_size : int
    optimizer : str
        ``sgd``, with `momentum`, or ``adamw``.
    lr : float, optional
        The largest learning rate; by default 3e-4 for sgd, 1e-5 for adamw.
    momentum, weight_decay : float
        Weights decay, norms and biases do not.
    lr_mult : tuple of (str, float)
        Factors of the learning rate of some modules, as Caffe's ``lr_mult``, or a dict of them; where several fit, all
        count.
    layer_decay : float
        Each stage has the learning rate of the one after it times this.
    schedule : str
        ``cosine`` to zero, ``step`` (a tenth every `step_epochs`), or ``constant``.
    step_epochs : int
    warmup : float
        Epochs in which the learning rate rises from zero.
    label_smoothing : float
        What of a label's probability is shared among all classes (Szegedy et al. 2016).
    class_weight : str, optional
        ``balanced``: each class weighs as much, however few its images.
    clip : float, optional
        The largest norm of the gradient of all parameters together; None for any. A head on features that vary little
        has large weights once their scaling is folded into them, and so has what it hands down to the network: without
        a limit the first steps on such features undo it.
    precision : str
        ``auto``, ``fp32``, or ``bf16`` by autocast. ``auto`` is bf16 where the hardware multiplies bfloat16 itself.
    ema : float, optional
        Decay of the exponential moving average of the weights, which is then what is tested and kept.
    patience : int, optional
        Training ends when so many epochs have brought no better one.
    augment : str
        ``none``, ``light``, ``standard`` or ``strong``; see `bottleneck.images.augment`.
    views : int
        How many augmented views of each image are cached, at the boundary of what is trained. 0: each epoch has its own
        views, and runs the whole network.
    seed : int

    Raises
    ------
    TuningError
        If a value makes no sense.
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
        for name, possible in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("augment", AUGMENTATIONS),
            ("class_weight", (None, "balanced")),
        ):
            if getattr(self, name) not in possible:
                known = ", ".join(map(str, possible))
                raise TuningError(f"expected {name} to be one of {known}, got {getattr(self, name)!r}")
        object.__setattr__(self, "lr", LEARNING_RATES[self.optimizer] if self.lr is None else self.lr)
        if self.unfreeze and self.last is not None:
            raise TuningError("expected either unfreeze or last, got both: they say what is trained in two ways")
        if self.train_bn and self.batch_size < 2:
            raise TuningError(f"expected batch_size to be 2 or more with train_bn, got {self.batch_size}")
        if self.layer_decay > 1:
            raise TuningError(f"expected layer_decay to be above 0, at most 1, got {self.layer_decay}")

    def __repr__(self) -> str:
        usual = {field.name: field.default for field in fields(self)} | {"lr": LEARNING_RATES[self.optimizer]}
        changed = {name: value for name, value in vars(self).items() if value != usual[name]}
        return f"Recipe({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    @property
    def largest_lr(self) -> float:
        """The learning rate at its largest."""
        return _number(self.lr)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object from which the recipe can be made again."""
        return asdict(self)


def _plain(recipe: Recipe) -> dict[str, Any]:
    """Return the values of a recipe as plain Python.

    Raises
    ------
    TuningError
        If one is of another kind, or out of its range.
    """
    check, given = _CHECK, {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    texts = ("optimizer", "schedule", "precision", "augment")
    least = {"epochs": 1, "batch_size": 1, "step_epochs": 1, "views": 0}
    return {
        **{name: check.text(name, given[name]) for name in texts},
        **{name: check.whole(name, given[name], least=bound) for name, bound in least.items()},
        "unfreeze": check.texts("unfreeze", given["unfreeze"]),
        "last": check.optional(check.whole, "last", given["last"]),
        "train_bn": check.flag("train_bn", given["train_bn"]),
        "lr": check.optional(check.number, "lr", given["lr"], above=0),
        "momentum": check.number("momentum", given["momentum"], below=1),
        "weight_decay": check.number("weight_decay", given["weight_decay"]),
        "lr_mult": _factors(given["lr_mult"]),
        "layer_decay": check.number("layer_decay", given["layer_decay"], above=0),
        "warmup": check.number("warmup", given["warmup"]),
        "label_smoothing": check.number("label_smoothing", given["label_smoothing"], below=1),
        "class_weight": check.optional(check.text, "class_weight", given["class_weight"]),
        "clip": check.optional(check.number, "clip", given["clip"], above=0),
        "ema": check.optional(check.number, "ema", given["ema"], above=0, below=1),
        "patience": check.optional(check.whole, "patience", given["patience"], least=1),
        "seed": check.whole("seed", given["seed"], most=2**32 - 1),
    }


def _factors(given: Any) -> tuple[tuple[str, float], ...]:
    """Return pairs of a module and a factor, of a mapping or of pairs."""
    try:
        pairs = [(name, factor) for name, factor in (given.items() if isinstance(given, Mapping) else given)]
    except (TypeError, ValueError):
        raise TuningError(f"expected lr_mult to be pairs of a module and a factor, got {abbreviated(given)}") from None
    names = [_CHECK.text("a module of lr_mult", name) for name, _ in pairs]
    return tuple((name, _CHECK.number(f"lr_mult of {name}", pair[1])) for name, pair in zip(names, pairs, strict=True))


def _number(value: float | None) -> float:
    assert value is not None
    return value
