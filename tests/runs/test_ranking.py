from pathlib import Path

import numpy as np

from bottleneck.images.keys import as_digests
from bottleneck.runs.images import Role, RunImages
from bottleneck.runs.ranking import choose, default_run
from bottleneck.runs.run import Run
from bottleneck.runs.save import save_run
from tests.runs.test_run import head
from tests.variants import each

IMAGES = 200


def digests(count=IMAGES, first=0):
    return as_digests([number.to_bytes(32, "big") for number in range(first, first + count)])


def judged(wrong=(), roles=Role.TRAINED, first=0):
    """Return what a run knows that is right about all its images but some."""
    right = np.ones(IMAGES, np.int8)
    right[list(wrong)] = 0
    return RunImages(digests=digests(first=first), roles=np.full(IMAGES, roles, np.uint8), right=right)


def run(name, cv=0.9, images=None, data="d1", **fields):
    """Return a run that is on no disk."""
    dataset = {"digest": data, "images_digest": "same", "source": "photos", "used": IMAGES, "labels": {"a": IMAGES}}
    card = {"search": {"cv_accuracy": cv}, "n_train": IMAGES, "dataset": dataset, **fields}
    found = Run(Path("runs") / name, card)
    found.__dict__["images"] = images
    return found


def final(name, tested="0" * 64, **options):
    """Return a run whose head was trained on all images, once the head with this hash was tested."""
    return run(name, **options, final={"n_train": IMAGES + 50, "agreement": 0.98, "tested_sha256": tested})


def tuned(name, before, gained, lost, count=60, score=0.95):
    from bottleneck.evaluation.stats import mcnemar

    right, start = np.ones(count, bool), np.ones(count, bool)
    start[:gained] = False
    right[count - lost :] = lost == 0
    validation = {"n": count, "against_start": mcnemar(right, start)}
    return run(name, kind="finetune", score=score, validation=validation, **{"from": {"run": before}})


def test_a_single_run_is_chosen_with_that_reason():
    only = run("a")
    assert choose([only]).run is only
    assert choose([only]).reason == "the only run"


def test_a_significantly_better_run_on_the_same_images_is_chosen():
    first, second = run("a", images=judged(range(20))), run("b", images=judged(range(4)))
    found = choose([first, second])
    assert found.run is second
    assert "significantly better than a" in found.reason
    assert "of 200 images that neither run was trained on, only this run classifies 16 correctly" in found.reason


@each("order", [1, -1])
def test_splits_may_differ_and_the_better_run_is_used_in_any_order(order):
    worse = run("worse", data="split 1", images=judged(range(30)))
    better = run("better", data="split 2", images=judged(range(2)))
    assert choose([worse, better][::order]).run is better


def test_an_insignificant_difference_keeps_the_first_run():
    first = run("a", cv=0.95, images=judged([0, 1, 2, 3, 4]))
    second = run("b", cv=0.97, images=judged([9, 10]))
    found = choose([first, second])
    assert found.run is first
    assert "no other is significantly better" in found.reason
    assert "--run b uses it" in found.reason


def test_small_insignificant_gains_do_not_add_up():
    runs = [run(str(wrong), images=judged(range(wrong))) for wrong in (12, 8, 4)]
    assert choose(runs).run is runs[2], "against the first it is more than chance"
    assert choose(runs[:2]).run is runs[0]


def test_only_images_that_both_runs_predicted_count():
    first, second = run("a", images=judged(range(150, 200))), run("b", images=judged(first=150))
    assert choose([first, second]).run is second
    assert "of 50 images" in choose([first, second]).reason
    apart = run("c", images=judged(first=IMAGES))
    assert choose([first, apart]).run is first, "nothing in common, and the scores are equal"


def test_runs_on_other_images_do_not_compete():
    other = run("other", cv=1.0, images=judged())
    other.card["dataset"]["images_digest"] = "others"
    other.card["dataset"]["digest"] = "d2"
    here = run("here", cv=0.5, images=judged(range(100)))
    found = choose([other, here])
    assert found.run is here
    assert found.reason == "the only run on the images of the latest run"


@each("gained, lost, wins", [(4, 0, False), (6, 0, True), (10, 6, False), (12, 1, True)])
def test_a_fine_tuning_replaces_its_head_if_better_on_the_validation_images(gained, lost, wins):
    first = run("head", images=judged())
    second = tuned("tuned", "head", gained, lost)
    assert choose([first, second]).run is (second if wins else first)
    if wins:
        assert "60 validation images" in choose([first, second]).reason


def test_a_fine_tuning_from_another_head_must_beat_the_default():
    default, own = run("default", cv=0.99), run("own", cv=0.80)
    assert choose([default, own, tuned("tuned", "own", 20, 0, score=0.97)]).run is default


@each("cv, wins", [(0.92, False), (0.945, False), (0.97, True), (1.0, True)])
def test_runs_of_earlier_versions_are_compared_by_their_scores(cv, wins):
    # Wilson's half widths at 0.90 and 0.97 of 200 images are 0.042 and 0.025: together 0.049.
    first, second = run("a", cv=0.90), run("b", cv=cv)
    assert choose([first, second]).run is (second if wins else first)


def test_runs_of_earlier_versions_on_the_same_images_are_known_by_their_source_and_labels():
    first, second = run("a", cv=0.99, data="split 1"), run("b", cv=0.8, data="split 2")
    for one in (first, second):
        del one.card["dataset"]["images_digest"]
    assert choose([first, second]).run is first
    second.card["dataset"]["labels"] = {"a": 1}
    assert choose([first, second]).run is second


def test_a_final_head_replaces_a_default_that_is_not_significantly_better():
    first, worse = run("a", images=judged([0, 1])), final("b", images=judged([5, 6, 7, 8]))
    found = choose([first, worse])
    assert found.run is worse
    assert found.reason == "a final head, and a is not significantly better"
    assert str(found) == f"runs/b, trained on photos ({IMAGES + 50} images, including held-out ones): {found.reason}"


def test_a_significantly_worse_final_head_is_not_chosen():
    first, worse = run("a", images=judged([0, 1])), final("b", images=judged(range(5, 30)))
    found = choose([first, worse])
    assert found.run is first
    assert "no other is significantly better" in found.reason


@each("wrong, wins", [(range(2), False), (range(0), True)])
def test_a_run_after_a_final_head_must_be_significantly_better(wrong, wins):
    first, kept = run("a", images=judged(range(9))), final("b", images=judged(range(7)))
    later, last = run("c", images=judged(wrong)), final("d", images=judged(range(6)))
    found = choose([first, kept, later])
    assert found.run is (later if wins else kept)
    assert ("significantly better than b" if wins else "a final head, and a is not") in found.reason
    assert choose([first, kept, last]).run is kept, "one final head gives way to another as any run does"


def test_a_final_head_of_which_only_the_score_is_known_is_chosen():
    first, second = run("a", cv=0.92), final("b", cv=0.90)
    assert choose([first, second]).run is second
    assert choose([run("c", cv=0.99), second]).run.name == "c"


@each("gained, wins", [(4, False), (6, True)])
@each("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2)])
def test_a_fine_tuning_from_the_tested_head_is_compared_with_the_final_head(gained, wins, order):
    runs = [run("head", head_sha256="1" * 64), final("final", tested="1" * 64), tuned("tuned", "head", gained, 0)]
    assert choose([runs[place] for place in order]).run is runs[2 if wins else 1]


def test_a_fine_tuning_from_another_head_than_the_tested_one_must_beat_the_final_head_by_its_score():
    runs = [run("head", head_sha256="1" * 64), final("final", tested="2" * 64), tuned("tuned", "head", 6, 0)]
    assert choose(runs).run is runs[1]


def test_the_held_out_images_never_decide():
    held = judged(roles=Role.HELD_OUT)
    from bottleneck.runs.images import with_correctness

    better = with_correctness(held, digests(), np.ones(IMAGES, bool))
    assert (better.right == -1).all()


def test_the_default_of_a_folder_is_that_of_its_runs():
    card = {
        "classes": ["a", "b"], "search": {"cv_accuracy": 0.9}, "metrics": {"accuracy": 0.8}, "spec": {}, "request": {},
        "dataset": {"digest": "d", "images_digest": "i"}, "fingerprint": "f", "n_train": IMAGES,
    }  # fmt: skip
    save_run("runs", "first", head(), card, ["path"], [], judged(range(40)))
    better = save_run("runs", "second", head(), card, ["path"], [], judged())
    assert default_run("runs").run.path == better.path
    (better.path / "images.safetensors").write_bytes(b"damaged")  # then the scores, which are equal, are left
    assert default_run("runs").run.path != better.path


@each("only_tuned, only_head, winner", [(12, 1, "b"), (3, 2, "a"), (1, 12, "a")])
def test_folds_decide_instead_of_the_images_that_selected_the_epoch(only_tuned, only_head, winner):
    from bottleneck.evaluation.stats import mcnemar

    right = np.arange(13) < only_tuned
    test = mcnemar(right[: only_tuned + only_head], ~right[: only_tuned + only_head])
    folds = {"n": IMAGES, "only_tuned": test["only_a"], "only_head": test["only_b"], "p_value": test["p_value"]}
    first, second = run("a"), tuned("b", "a", gained=9, lost=0)
    assert choose([first, second]).run is second
    second.card.update(fold_test=folds, heldout_test={"n": 10})
    found = choose([first, second])
    assert found.run.name == winner
    assert (
        "of 200 training images, by folds, only this run classifies 12 correctly, only the other 1" in found.reason
    ) is (winner == "b")


def test_folds_do_not_decide_for_a_network_that_is_the_head_itself():
    first, second = run("a"), tuned("b", "a", gained=0, lost=0)
    second.card.update(fold_test={"n": 9, "only_tuned": 9, "only_head": 0, "p_value": 0.004}, heldout_test=None)
    assert choose([first, second]).run is first
