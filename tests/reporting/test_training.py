"""Charts of how a model was trained."""

from bottleneck.reporting.training import epochs_view, search_view
from tests.variants import each

SEARCH = {
    "points": [{"C": 0.01}, {"C": 1.0}, {"C": 100.0}],
    "fold_accuracy": [[0.5, 0.7], [0.8, 0.9], [0.7, 0.8]],
    "log_losses": [0.6, 0.3, 0.4],
    "folds": 2,
    "divisions": 1,
    "rule": "the best balanced accuracy",
    "scalings": {"standard": 0.8, "shrunk": 0.85},
}
CARD = {"search": SEARCH, "params": {"C": 1.0, "kernel": "linear"}, "normalize": "shrunk"}


def test_the_curve_of_c_marks_what_was_chosen():
    found = search_view(CARD)
    assert (found.parameter, found.points, found.chosen) == ("C", 3, "C 1")
    assert found.scalings == (("shrunk", 0.85), ("standard", 0.8))
    assert "chosen" in found.accuracy
    assert "accuracy" in found.accuracy
    assert "0.3" in found.log_loss


def test_other_parameters_are_lines_of_the_chart():
    points = [{"C": c, "gamma": g} for g in (0.1, 1.0) for c in (1, 10)]
    search = {**SEARCH, "points": points, "fold_accuracy": [[0.5, 0.6]] * 4, "log_losses": [0.5] * 4}
    found = search_view({**CARD, "search": search, "params": {"C": 10, "gamma": 1.0}})
    assert "gamma 0.1" in found.accuracy
    assert "gamma 1" in found.accuracy


@each(
    "search",
    [
        None,
        {},
        {**SEARCH, "points": [{"C": 1.0}], "fold_accuracy": [[0.5]], "log_losses": [0.5]},
        {**SEARCH, "points": [{}]},
        {**SEARCH, "log_losses": []},
        {**SEARCH, "fold_accuracy": []},
    ],
)
def test_without_several_points_there_is_no_chart(search):
    assert search_view({**CARD, "search": search}) is None


EPOCHS = [
    {"number": 0, "train_loss": None, "train_accuracy": None, "val_loss": 0.4, "val_accuracy": 0.90},
    {"number": 1, "train_loss": 0.5, "train_accuracy": 0.8, "val_loss": 0.3, "val_accuracy": 0.95},
]


@each("start, words", [({"run": "first"}, "the head of first"), ({"run": None}, "a random last layer")])
def test_the_epochs_of_a_fine_tuning(start, words):
    found = epochs_view({"curves": EPOCHS, "best_epoch": 1, "from": start, "trained": ["layer4"]})
    assert (found.count, found.best, found.start, found.trained) == (1, 1, words, ("layer4",))
    assert "kept" in found.accuracy
    assert "validation" in found.loss


def test_a_head_has_no_epochs():
    assert epochs_view(CARD) is None
