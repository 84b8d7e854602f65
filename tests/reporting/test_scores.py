"""The accuracy in words."""

from bottleneck.reporting.scores import Headline, accuracies_figure, cautions, headline
from tests.variants import each


@each(
    "accuracy, low, high, sentence",
    [
        (
            0.948,
            0.900,
            0.973,
            "Of 100 new pictures like these, about 95 are classified correctly; with this many test images it could be "
            "90 to 97.",
        ),
        (
            0.9965,
            0.9912,
            0.9987,
            "Of 1,000 new pictures like these, about 996 are classified correctly; with this many test images it could "
            "be 991 to 999.",
        ),
        (
            1.0,
            0.839,
            1.0,
            "All 20 test pictures were classified correctly. Of 100 new pictures like these, expect 84 to 100.",
        ),
        (0.5, None, None, "Of 100 new pictures like these, about 50 are classified correctly."),
        (0.9, 0.899, 0.901, "Of 100 new pictures like these, about 90 are classified correctly."),
    ],
)
def test_the_accuracy_is_told_in_pictures(accuracy, low, high, sentence):
    assert Headline(accuracy=accuracy, low=low, high=high, n=20, by_folds=False).sentence == sentence


def test_the_headline_is_the_one_that_the_run_reports(other):
    assert headline(other(headline="held-out")).accuracy == other().metrics["accuracy"]
    assert "held-out" in headline(other(headline="held-out")).source
    found = headline(other(headline="cross-validation"))
    assert found.accuracy == other().card["search"]["cv_accuracy"]
    assert "cross-validation" in found.source


@each(
    "entries, words",
    [
        ({"validation": {"n": 3, "is_heldout": True}}, "also selected the epoch"),
        ({"final": {"n_train": 48, "agreement": 1.0, "tested_sha256": "0"}}, "trained again on all 48"),
        ({"headline": "cross-validation"}, "too few for a reliable accuracy"),
        ({"score": 0.5}, "fine-tuned on labels"),
        ({"leaks": {"counts": {"near_duplicates": 2}}}, "2 pairs of a training image"),
        ({"leaks": {"counts": {"groups_allowed": 1}}}, "1 group of several splits"),
    ],
)
def test_what_makes_an_accuracy_optimistic_is_said(entries, words, other):
    assert any(words in caution for caution in cautions(other(**entries)))


def test_a_fair_test_needs_no_caution(other):
    assert list(cautions(other(headline="held-out", leaks=None))) == []


@each(
    "counts, balanced, interval, words",
    [
        ({"a": 9, "b": 0}, 1.0, [0.7, 1.0], "does not show whether the classes are told apart"),
        ({"a": 90, "b": 10}, 0.5, [0.82, 0.94], "not significantly better than guessing"),
        ({"a": 90, "b": 10}, 0.9, [0.85, 0.97], "always answering “a” would be right for 90.0%"),
    ],
)
def test_unequal_classes_are_said(counts, balanced, interval, words, other):
    metrics = {
        "accuracy": sum(interval) / 2,
        "accuracy_ci95": interval,
        "balanced_accuracy": balanced,
        "per_class": {name: {"n": n} for name, n in counts.items()},
    }
    assert any(words in caution for caution in cautions(other(headline="held-out", metrics=metrics, leaks=None)))


def test_a_chart_compares_both_accuracies(run):
    found = accuracies_figure(run)
    assert f"{run.card['n_heldout']} held-out images" in found
    assert f"cross-validation of {run.card['n_train']} images" in found
