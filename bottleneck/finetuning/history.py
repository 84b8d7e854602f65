"""How far a fine-tuning has come: the epochs that were done, the best of them, and all that the next one needs."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What came of one epoch.

    Parameters
    ----------
    number : int
        From 1; 0 is the network before the first step.
    train_loss, train_accuracy : float or None
        Of the training images as they were seen, while the network was changing; None for epoch 0.
    val_loss, val_accuracy : float
        Of the validation images, after the epoch: mean of -log p, and share of the images that are right.
    lr : float
        The learning rate at its end.
    seconds : float
    """

    number: int
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float
    val_accuracy: float
    lr: float
    seconds: float

    @property
    def finite(self) -> bool:
        """Whether its losses are numbers."""
        return math.isfinite(self.val_loss) and (self.train_loss is None or math.isfinite(self.train_loss))

    def better_than(self, other: "Epoch") -> bool:
        """Whether it has more validation images right, or as many at a smaller loss."""
        return (self.val_accuracy, -self.val_loss) > (other.val_accuracy, -other.val_loss)


@dataclass
class Progress:
    """What is known after some epochs.

    Parameters
    ----------
    epochs : list of Epoch
        Epoch 0 first.
    best : int
        The number of the best one.
    best_tensors : dict of str to Tensor
        All that training changes, as it was after that.
    average : dict of str to Tensor or None
        The moving averages, where a recipe asks for them.
    """

    epochs: list[Epoch] = field(default_factory=list)
    best: int = 0
    best_tensors: Tensors = field(default_factory=dict)
    average: Tensors | None = None

    @property
    def last(self) -> int:
        """The number of the last epoch that was done; -1 where none was."""
        return self.epochs[-1].number if self.epochs else -1

    def take(self, epoch: Epoch, tensors: Tensors) -> None:
        """Add an epoch, after which training had come to these tensors."""
        if not self.epochs or epoch.better_than(self.epochs[self.best]):
            self.best = epoch.number
            self.best_tensors = {name: value.detach().clone() for name, value in tensors.items()}
        self.epochs.append(epoch)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object of all but the tensors."""
        return {"epochs": [asdict(epoch) for epoch in self.epochs], "best": self.best}
