"""What is said of a fine-tuning at its end, by its card."""

from pathlib import Path

import numpy as np

from bottleneck.cli.show_finetune import Watcher, ended
from bottleneck.finetuning.folds import Fold
from bottleneck.finetuning.head_comparison import compare_with_head
from bottleneck.runs.run import Run
from tests.variants import each

EPOCHS = [{"val_accuracy": 0.9, "val_loss": 0.3}, {"val_accuracy": 0.9, "val_loss": 0.2}]


def against(gained, lost, count):
    tuned, head = np.ones(count, bool), np.ones(count, bool)
    head[:gained] = tuned[gained : gained + lost] = False
    return compare_with_head(tuned, head)


def said(capsys, **values):
    """Return what is printed of a fine-tuning from a head, whose first epoch was kept."""
    card = {
        "best_epoch": 1, "curves": EPOCHS, "recipe": {"epochs": 1}, "diverged": False, "from": {"run": "a"},
        "validation": {"n": 24, "cut_from_train": True, "is_heldout": False,
                       "against_start": {"only_a": 3, "only_b": 1, "p_value": 0.625}},
        "n_train": 220, "n_heldout": 153, "heldout": "test", "start_accuracy": 0.95, "seconds": 1.0, "failures": [],
        "metrics": {"accuracy": 0.96, "accuracy_ci95": [0.9, 0.98]}, "heldout_test": None, "fold_test": None, **values,
    }  # fmt: skip
    ended(Run(Path("runs/tuned"), card))
    return capsys.readouterr()


def test_an_undecided_test_names_the_smallest_gain_it_could_show(capsys):
    out = said(capsys, heldout_test=against(5, 3, 153)).out.splitlines()
    assert out[2] == (
        "against the head on 153 held-out images: only the fine-tuned network classifies 5 correctly, only the "
        "head 3 (p = 0.73): these images do not show which is better; the smallest gain that they could show is "
        "3.9 points (6 images)"
    )
    assert out[3] == (
        "on 24 validation images, which selected the epoch and so favour fine-tuning: only the fine-tuned "
        "network classifies 3 correctly, only the head 1 (p = 0.62)"
    )
    assert out[4] == "--folds 5 would also compare fine-tuning with the head on 244 training images"


@each(
    "test, verdict",
    [
        (against(9, 1, 153), "the network is better"),
        (against(1, 9, 153), "the network is worse"),
        (against(5, 0, 5), "too few images to show which is better"),
    ],
)
def test_the_verdict_is_shown(capsys, test, verdict):
    line = said(capsys, heldout_test=test).out.splitlines()[2]
    assert line.endswith(f"): {verdict}")


def test_images_that_both_classify_correctly_do_not_count(capsys):
    line = said(capsys, heldout_test=against(0, 0, 153)).out.splitlines()[2]
    assert (
        "153 held-out images: both classify the same images correctly: these images do not show which is better" in line
    )


def test_nothing_is_compared_if_the_head_is_kept(capsys):
    out = said(capsys, best_epoch=0).out
    assert "the initial network is kept" in out
    assert "against the head" not in out
    assert "do not show" not in out


def test_images_that_selected_the_epoch_make_the_comparison_optimistic(capsys):
    validation = {"n": 153, "cut_from_train": False, "is_heldout": True, "against_start": None}
    found = said(capsys, heldout_test=against(5, 3, 153), validation=validation)
    assert "validation images, which" not in found.out
    assert "also selected the epoch, so the accuracy and the comparison with the head are optimistic" in found.err
    assert "also selected the epoch, so the accuracy is optimistic" in said(capsys, validation=validation).err


def test_folds_are_shown_with_both_accuracies(capsys):
    folds = {"folds": 5, "tuned_accuracy": 0.98, "head_accuracy": 0.95, **against(9, 1, 244)}
    out = said(capsys, heldout_test=against(5, 3, 153), fold_test=folds).out.splitlines()
    assert out[4] == (
        "by 5 folds of 244 training images, each classified by a network and a head that were not trained on it: "
        "fine-tuned 98.0%, head 95.0%; only the fine-tuned network classifies 9 correctly, only the head 1 "
        "(p = 0.021): fine-tuning is better"
    )
    assert "would also compare" not in "".join(out)


def test_accuracies_are_not_called_told_apart(capsys):
    found = said(capsys, heldout_test=against(5, 3, 153))
    assert "told apart" not in found.out + found.err


def test_a_fold_is_a_line(capsys):
    Watcher()(Fold(number=2, folds=5, tuned=np.ones(3, bool), head=np.zeros(3, bool), seconds=1.25))
    assert capsys.readouterr().err == (
        "fold 2 of 5: of 3 images, the fine-tuned network classifies 3 correctly, the head 0; 1.2 s\n"
    )
