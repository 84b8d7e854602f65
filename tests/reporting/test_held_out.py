"""Held-out images and their predictions."""

import numpy as np
import pytest

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.evaluation.confusion import cells_of
from bottleneck.images.keys import as_digests
from bottleneck.reporting.held_out import TOP, HeldOutImage, HeldOutImages, held_out_images
from bottleneck.runs.backbone_request import spec_of


def image(digest, label, predicted, probability):
    return HeldOutImage(digest=digest, label=label, predicted=predicted, probability=probability, top=())


IMAGES = HeldOutImages(
    (image("1", "a", "b", 0.6), image("2", "a", "b", 0.9), image("3", "a", "a", 0.7), image("4", "b", "b", 0.51))
)


def test_mistakes_are_the_most_confident_first_and_right_ones_the_least():
    assert [one.digest for one in IMAGES.mistakes()] == ["2", "1"]
    assert [one.digest for one in IMAGES.uncertain()] == ["4", "3"]
    assert [one.digest for one in IMAGES.cells["a", "b"]] == ["2", "1"]
    assert IMAGES.unfamiliar() == []


def test_probabilities_of_all_classes_are_those_of_the_head(run):
    store = FeatureCache("cache").store(spec_of(run.card))
    found = held_out_images(run, store)
    assert len(found) == run.card["n_heldout"]
    one = found[3]
    shares = run.head.probabilities(store.read(as_digests([bytes.fromhex(one.digest)])))[0]
    order = np.argsort(-shares)[:TOP]
    assert [name for name, _ in one.top] == [run.head.classes[code] for code in order]
    assert [share for _, share in one.top] == pytest.approx(shares[order].tolist())
    assert one.familiarity == run.uncertainty.familiarity.p_values(store.read(as_digests([bytes.fromhex(one.digest)])))


def test_accuracy_and_cells_are_those_of_the_card(run):
    found = held_out_images(run, None)
    assert found.right.mean() == run.metrics["accuracy"]
    classes = run.metrics["classes"]
    cells = {(classes[a], classes[b]): n for a, b, n in cells_of(run.metrics["confusion"])}
    assert {cell: len(images) for cell, images in found.cells.items()} == cells


def test_without_features_the_recorded_probability_is_left(run):
    found = held_out_images(run, None)
    assert "not in the cache" in found.remark
    assert [len(one.top) for one in found] == [1] * len(found)
    assert {one.familiarity for one in found} == {None}


def test_a_final_head_does_not_classify_the_images_that_it_was_trained_on(other):
    final = other(final={"n_train": 48, "agreement": 1.0, "tested_sha256": "0"})
    found = held_out_images(final, FeatureCache("cache").store(spec_of(final.card)))
    assert "trained on the held-out images after its test" in found.remark
    assert [len(one.top) for one in found] == [1] * len(found)
