import math

import torch

from bottleneck.finetuning.history import Epoch, History
from tests.variants import each


def epoch(number=1, accuracy=0.5, loss=1.0, **changes):
    values = {"train_loss": 1.0, "train_accuracy": 0.5, "lr": 0.1, "seconds": 1.0, **changes}
    return Epoch(number=number, val_loss=loss, val_accuracy=accuracy, **values)


def test_accuracy_comes_first_then_the_loss_and_a_tie_is_not_better():
    assert epoch(accuracy=0.6, loss=9).better_than(epoch(accuracy=0.5, loss=1))
    assert not epoch(accuracy=0.5, loss=0.1).better_than(epoch(accuracy=0.6, loss=9))
    assert epoch(loss=0.9).better_than(epoch(loss=1.0))
    assert not epoch(loss=1.0).better_than(epoch(loss=1.0))


def test_nan_is_never_better():
    assert not epoch(loss=math.nan).better_than(epoch(loss=1.0))


@each(
    "changes, finite",
    [({}, True), ({"train_loss": None}, True), ({"train_loss": math.inf}, False), ({"loss": math.nan}, False)],
)
def test_finite(changes, finite):
    assert epoch(**changes).finite == finite


def test_the_first_of_equals_is_kept_and_its_tensors_are_copies():
    history, tensors = History(), {"w": torch.zeros(2)}
    assert history.last == -1
    for number, accuracy in enumerate((0.5, 0.7, 0.7, 0.6)):
        history.add(epoch(number, accuracy), tensors)
        tensors["w"] += 1
    assert (history.best, history.last) == (1, 3)
    assert history.best_tensors["w"].tolist() == [1, 1]


def test_epoch_0_is_kept_if_nothing_is_better():
    history = History()
    for number in range(3):
        history.add(epoch(number), {"w": torch.full((1,), float(number))})
    assert history.best == 0
    assert history.best_tensors["w"].item() == 0


def test_json_has_all_except_the_tensors():
    history = History()
    history.add(epoch(0, train_loss=None), {"w": torch.zeros(1)})
    found = history.to_json()
    assert set(found) == {"epochs", "best"}
    assert Epoch(**found["epochs"][0]) == history.epochs[0]
