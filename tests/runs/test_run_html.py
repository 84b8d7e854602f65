"""A run in a notebook."""

from dataclasses import replace

from bottleneck.runs.run_html import run_html
from tests.markup import text_in
from tests.runs.test_run import save

METRICS = {
    "n": 153,
    "accuracy": 0.951,
    "accuracy_ci95": [0.9, 0.973],
    "classes": ["<ants>", "bees"],
    "confusion": [[66, 4], [4, 79]],
}
CARD = {
    "head": "logistic",
    "params": {"C": 0.01},
    "model": "small",
    "n_train": 244,
    "search": {"cv_accuracy": 0.96, "cv_ci95": [0.93, 0.98]},
    "metrics": METRICS,
    "headline": "held-out",
}


def made(**changes):
    return replace(save(), card={**CARD, **changes})


def test_it_is_the_accuracy_the_training_and_the_confusions():
    text = text_in(made()._repr_html_())

    assert text.partition("-x ")[2].startswith(
        "95.1% of 153 held-out images classified correctly (95 % interval 90.0 to 97.3) logistic (C 0.01) on small, "
        "trained on 244 images "
    )
    assert "cross-validated 96.0% (93.0 to 98.0) held-out 95.1% (90.0 to 97.3)" in text
    assert "<ants> bees" in text


def test_the_headline_is_the_bold_row():
    for headline, bold in (("held-out", "held-out"), ("cross-validation", "cross-validated")):
        assert f'font-weight="600">{bold}</text>' in run_html(made(headline=headline))


def test_a_card_of_an_earlier_version_lacks_parts():
    assert "-x 80.0% classified correctly logistic 80%" in text_in(save()._repr_html_())


def test_a_part_that_has_been_removed_is_a_sentence():
    missing = {**METRICS, "confusion": {"file": "confusion.csv", "sha256": "0" * 64}}

    assert "confusion.csv" in text_in(made(metrics=missing)._repr_html_())


def test_a_fine_tuned_network_is_called_so():
    assert "fine-tuned network, from logistic" in text_in(run_html(made(kind="finetune")))
