import numpy as np
import pytest

from bottleneck.errors import RunError
from bottleneck.evaluation.stats import mcnemar
from bottleneck.images.keys import as_digests
from bottleneck.runs.card import COLUMNS
from bottleneck.runs.images import Role, RunImages
from bottleneck.runs.pairs import side_by_side
from bottleneck.runs.save import save_run
from tests.runs.test_run import card, head


def key(number):
    return number.to_bytes(32, "big")


def evaluated(name, numbers, wrong=(), labels=None, roles=None, **fields):
    """Return a run that was tested on the images with these numbers, all labelled a, and misclassified some."""
    rows = [
        (f"{number}.jpg", key(number).hex(), "test", (labels or {}).get(number, "a"), "ab"[number in wrong], "0.9")
        for number in numbers
    ]
    images = RunImages(
        digests=as_digests([key(number) for number in numbers]),
        roles=np.array([(roles or {}).get(number, Role.HELD_OUT) for number in numbers], np.uint8),
        right=np.full(len(rows), -1, np.int8),
    )
    return save_run("runs", name, head(), {**card(), **fields}, COLUMNS, rows, images)


def test_runs_on_the_same_images_are_compared_by_mcnemars_test():
    first = evaluated("a", range(50), wrong=range(12))
    second = evaluated("b", range(50), wrong=[0, 20])
    (pair,) = side_by_side([first, second]).pairs
    assert (pair.n, pair.same_images, pair.only_run, pair.only_against) == (50, True, 11, 1)
    assert (pair.accuracy, pair.accuracy_against) == (0.96, 0.76)
    expected = mcnemar([number not in (0, 20) for number in range(50)], [number >= 12 for number in range(50)])
    assert pair.p_value == expected["p_value"] < 0.05
    assert pair.verdict == "better"
    assert side_by_side([second, first]).pairs[0].verdict == "worse"


def test_only_shared_images_count_in_any_order():
    first, second = evaluated("a", range(40), wrong=[35, 36]), evaluated("b", range(79, 29, -1), wrong=[36, 60])
    (pair,) = side_by_side([first, second]).pairs
    assert (pair.n, pair.n_run, pair.n_against, pair.same_images) == (10, 50, 40, False)
    assert (pair.only_run, pair.only_against, pair.verdict) == (1, 0, "not told apart")


def test_runs_without_a_common_image_are_not_compared():
    (pair,) = side_by_side([evaluated("a", range(5)), evaluated("b", range(5, 9))]).pairs
    assert (pair.n, pair.p_value, pair.accuracy, pair.verdict) == (0, None, None, "not compared")


def test_images_with_another_label_are_left_out_and_counted():
    (pair,) = side_by_side([evaluated("a", range(9)), evaluated("b", range(9), labels={3: "b"})]).pairs
    assert (pair.n, pair.relabelled) == (8, 1)


def test_images_that_one_was_trained_on_are_left_out_and_those_that_selected_it_are_counted():
    roles = {0: Role.TRAINED, 1: Role.SELECTED, 2: Role.SELECTED}
    (pair,) = side_by_side([evaluated("a", range(9)), evaluated("b", range(9), roles=roles)]).pairs
    assert (pair.n, pair.n_run, pair.selected) == (8, 8, 2)


def test_a_final_run_is_compared_by_its_tested_head():
    final = {"n_train": 9, "agreement": 1.0, "tested_sha256": "0" * 64}
    roles = dict.fromkeys(range(9), Role.TRAINED)
    (pair,) = side_by_side([evaluated("a", range(9)), evaluated("b", range(9), roles=roles, final=final)]).pairs
    assert pair.n == 9


def test_p_values_of_several_runs_are_adjusted():
    first, second = evaluated("a", range(50), wrong=range(12)), evaluated("b", range(50))
    alone = side_by_side([first, second]).pairs[0].p_value
    both = side_by_side([first, second, evaluated("c", range(50), wrong=range(11))]).pairs
    assert both[0].p_value == pytest.approx(2 * alone)
    apart = side_by_side([first, second, evaluated("d", range(60, 70))]).pairs
    assert [pair.p_value for pair in apart] == [alone, None], "a run that is not compared costs nothing"


def test_settings_that_differ_are_listed():
    found = side_by_side([evaluated("a", range(9), seed=0), evaluated("b", range(9), seed=7, params={"C": 0.1})])
    assert found.differences == {"seed": ("0", "7"), "parameters": ("", "C 0.1")}
    assert [run.name for run in found.runs] == [pair for pair in (found.pairs[0].against, found.pairs[0].run)]
    assert found.to_json()["pairs"][0]["verdict"] == "not told apart"


def test_one_run_is_not_enough_and_none_is_compared_with_itself():
    run = evaluated("a", range(9))
    with pytest.raises(RunError, match="at least two runs to compare, got 1"):
        side_by_side([run])
    with pytest.raises(RunError, match=f"got {run.name} twice"):
        side_by_side([run, run])


def test_predictions_without_digests_are_a_run_error():
    run = save_run("runs", "x", head(), card(), ["path"], [["p"]])
    with pytest.raises(RunError, match=r"expected digests, labels and predictions in .*predictions\.csv"):
        side_by_side([run, evaluated("a", range(9))])
