"""How a network is fine-tuned, as a user says it."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from bottleneck.backbones.request import listed
from bottleneck.errors import TuningError
from bottleneck.images.view import AUGMENTATIONS

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "step", "constant")
PRECISIONS = ("auto", "fp32", "bf16")
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
        Factors of the learning rate of some modules, as Caffe's ``lr_mult``; where several fit, all count.
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
        object.__setattr__(self, "unfreeze", listed(self.unfreeze))
        object.__setattr__(self, "lr_mult", tuple((str(name), float(factor)) for name, factor in self.lr_mult))
        object.__setattr__(self, "lr", LEARNING_RATES[self.optimizer] if self.lr is None else self.lr)
        if self.unfreeze and self.last is not None:
            raise TuningError("expected either unfreeze or last, got both: they say what is trained in two ways")
        _check("epochs", self.epochs, self.epochs >= 1, "1 or more")
        _check("batch_size", self.batch_size, self.batch_size >= 1, "1 or more")
        _check("batch_size", self.batch_size, self.batch_size > 1 or not self.train_bn, "2 or more with train_bn")
        _check("lr", self.lr, 0 < _number(self.lr) < math.inf, "above 0")
        _check("momentum", self.momentum, 0 <= self.momentum < 1, "from 0 to below 1")
        _check("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more")
        _check("layer_decay", self.layer_decay, 0 < self.layer_decay <= 1, "above 0, at most 1")
        _check("step_epochs", self.step_epochs, self.step_epochs >= 1, "1 or more")
        _check("warmup", self.warmup, 0 <= self.warmup < math.inf, "0 or more")
        _check("label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "from 0 to below 1")
        _check("clip", self.clip, self.clip is None or 0 < self.clip < math.inf, "above 0")
        _check("ema", self.ema, self.ema is None or 0 < self.ema < 1, "between 0 and 1")
        _check("patience", self.patience, self.patience is None or self.patience >= 1, "1 or more")
        _check("views", self.views, self.views >= 0, "0 or more")
        _check("last", self.last, self.last is None or self.last >= 0, "0 or more")
        _check("seed", self.seed, 0 <= self.seed < 2**32, "from 0 to 2^32 - 1")
        for name, factor in self.lr_mult:
            _check(f"lr_mult of {name}", factor, 0 <= factor < math.inf, "0 or more")

    @property
    def largest_lr(self) -> float:
        """The learning rate at its largest."""
        return _number(self.lr)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object from which the recipe can be made again."""
        return asdict(self)


def _check(name: str, value: object, good: bool, expected: str) -> None:
    if not good:
        raise TuningError(f"expected {name} to be {expected}, got {value!r}")


def _number(value: float | None) -> float:
    assert value is not None
    return value
