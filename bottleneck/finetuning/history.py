"""The history of a training: its finished epochs, the best of them, and the tensors that the next one needs."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The metrics of one epoch.

    Parameters
    ----------
    number : int
        From 1; 0 is the network before the first step.
    train_loss, train_accuracy : float or None
        On the augmented training images, while the weights were changing; None for epoch 0.
    val_loss, val_accuracy : float
        On the validation images, after the epoch: mean negative log-likelihood, and fraction of correct labels.
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
        """Whether its losses are finite."""
        return math.isfinite(self.val_loss) and (self.train_loss is None or math.isfinite(self.train_loss))

    def better_than(self, other: "Epoch") -> bool:
        """Return whether its validation accuracy is higher, or equal with a smaller loss."""
        return (self.val_accuracy, -self.val_loss) > (other.val_accuracy, -other.val_loss)


@dataclass
class History:
    """The finished epochs of a training.

    Parameters
    ----------
    epochs : list of Epoch
        Epoch 0 first.
    best : int
        The number of the best epoch.
    best_tensors : dict of str to Tensor
        The trained tensors after the best epoch.
    average : dict of str to Tensor or None
        The moving averages of the trained tensors, if the recipe uses them.
    """

    epochs: list[Epoch] = field(default_factory=list)
    best: int = 0
    best_tensors: Tensors = field(default_factory=dict)
    average: Tensors | None = None

    @property
    def last(self) -> int:
        """The number of the last finished epoch; -1 if there is none."""
        return self.epochs[-1].number if self.epochs else -1

    def add(self, epoch: Epoch, tensors: Tensors) -> None:
        """Append an epoch; copy the trained tensors if it is the best so far."""
        if not self.epochs or epoch.better_than(self.epochs[self.best]):
            self.best = epoch.number
            self.best_tensors = {name: value.detach().clone() for name, value in tensors.items()}
        self.epochs.append(epoch)

    def to_json(self) -> dict[str, Any]:
        """Return all except the tensors as a JSON object."""
        return {"epochs": [asdict(epoch) for epoch in self.epochs], "best": self.best}
