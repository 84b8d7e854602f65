import json

import pytest

from bottleneck.errors import RunError
from bottleneck.reporting.run_description import describe_run
from bottleneck.runs.save import save_run
from tests.runs.test_run import card, head
from tests.variants import each


def described(**fields):
    """Return the description of a run with these entries in its card."""
    return describe_run(save_run("runs", "x", head(), {**card(), **fields}, ["path"], [["p"]]))


DATASET = {"digest": "d", "source": "my/photos", "used": 9, "labels": {"bees": 4, "ants": 5}, "splits": {"train": 6}}


def test_a_fit_is_described_in_words_with_its_interval():
    found = described(
        model="resnet18",
        request={"model": "resnet18", "crop": 32},
        params={"C": 0.5},
        dataset=DATASET,
        metrics={"accuracy": 0.8, "accuracy_ci95": [0.7, 0.9]},
        n_train=6,
        n_heldout=3,
        heldout="test",
    )
    assert found.trained == "a head, logistic (C 0.5), on the features of resnet18 (--crop 32), which is frozen"
    assert found.images == "my/photos: ants 5, bees 4; 6 to train, 3 held out (test)"
    assert found.scores[0] == (
        "accuracy on 3 held-out images: 80.0%; the accuracy on new images like these is between 70.0% and 90.0% (95 % "
        "interval)"
    )
    assert found.scores[1] == "cross-validated accuracy: 90.0%"
    assert [file.name for file in found.files] == ["card.json", "head.safetensors", "predictions.csv"]


def test_a_fine_tuning_is_described_with_its_start_and_its_caution():
    found = described(
        kind="finetune",
        score=0.9,
        model="resnet18",
        request={"model": "resnet18"},
        trained=["layer4"],
        best_epoch=2,
        curves=[{"seconds": 1.0}] * 4,
        start_accuracy=0.75,
        validation={"n": 3, "is_heldout": True},
        **{"from": {"run": "earlier"}},
    )
    assert found.trained == (
        "the network resnet18, fine-tuned from the head of earlier: layer4 and the head; epoch 2 of 3 is kept"
    )
    assert found.scores[-2] == "before fine-tuning, on the same images: 75.0%"
    assert found.scores[-1] == "the held-out images also selected the epoch, so their accuracy is optimistic"
    assert not [score for score in found.scores if score.startswith("cross-validated")]


def test_a_fine_tuning_of_the_head_alone_says_so():
    found = described(kind="finetune", score=0.9, trained=[], best_epoch=0, curves=[{}])
    assert "fine-tuned from a random last layer: the head; epoch 0 of 0 is kept" in found.trained


def test_a_final_head_has_the_scores_of_the_tested_one():
    found = described(final={"n_train": 9, "agreement": 1.0, "tested_sha256": "0" * 64})
    assert found.scores[0].startswith("accuracy of the head before it was trained on all images, on the held-out")
    assert found.scores[-1] == "the final head is trained on all 9 labelled images; no image is left to test it"


def test_a_card_of_an_earlier_version_is_described_as_far_as_it_goes():
    found = described()
    assert (
        found.trained == "a head, logistic, on the features of a network that the card does not name, which is frozen"
    )
    assert found.images == "images that the card does not name (held out)"
    assert json.loads(json.dumps(found.to_json()))["accuracy"] == 0.8


@each("fields", [{"trained": [1]}, {"curves": 7}, {"from": {"run": 5}, "versions": 3}, {"start_accuracy": "x"}])
def test_a_card_with_unexpected_values_is_a_run_error(fields):
    with pytest.raises(RunError, match=r"its card has an unexpected value|cannot read its card"):
        described(kind="finetune", score=0.9, **fields)


def test_many_classes_are_counted():
    labels = {f"class {number:02}": 1 for number in range(20)}
    assert "class 07 1 and 12 more classes" in described(dataset={**DATASET, "labels": labels}).images
