import json
import warnings

import pytest

from bottleneck.errors import BottleneckWarning
from bottleneck.finetuning.initial import default_head
from bottleneck.fitting.fit import fit
from bottleneck.runs.run import load_run
from tests.finetuning.conftest import change_card


def scored(run, accuracy, **values):
    """Return a run as if its cross-validation had given this accuracy."""
    card = json.loads((run.path / "card.json").read_text())
    change_card(run, search={**card["search"], "cv_accuracy": accuracy}, **values)
    return load_run(run.path)


@pytest.fixture
def others(home):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BottleneckWarning)
        return [fit(head=head, C=0.01 if head == "ridge" else None) for head in ("ridge", "centroid")]


def test_the_only_linear_head_is_the_default(run):
    assert default_head("runs").reason == f"the linear head of the latest fit, cross-validated {run.cv_accuracy:.1%}"


def test_the_best_linear_head_is_the_default(run, others):
    scored(run, 0.5), scored(others[0], 0.9), scored(others[1], 0.4)
    found = default_head("runs")
    assert found.run.name == others[0].name
    assert found.reason == "the best of 3 linear heads, cross-validated 90.0%"


def test_a_better_run_that_is_not_linear_is_named(run, others):
    card = (others[0].path / "card.json").read_bytes()
    for changes, kind in (
        ({"head": "svm", "params": {"C": 1.0, "kernel": "rbf"}}, "svm with rbf kernel"),
        ({"normalize": "l2"}, "ridge on l2-normalised features"),
        ({"head": "knn", "params": {"k": 5}}, "knn"),
    ):
        (others[0].path / "card.json").write_bytes(card)
        scored(run, 0.959), scored(others[0], 0.964, **changes), scored(others[1], 0.4)
        found = default_head("runs")
        assert found.run.name == run.name
        assert found.reason == (
            f"the best of 2 linear heads, cross-validated 95.9%; the best run, {others[0].name} ({kind}, "
            f"cross-validated 96.4%), cannot become a layer"
        )


def test_an_equal_run_that_is_not_linear_is_not_named(run, others):
    scored(run, 0.959), scored(others[0], 0.959, normalize="l2"), scored(others[1], 0.4)
    assert default_head("runs").reason == "the best of 2 linear heads, cross-validated 95.9%"
