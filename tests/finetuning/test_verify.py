from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from bottleneck.errors import TuningError
from bottleneck.finetuning.recipe import Recipe
from bottleneck.finetuning.verify import layer_probabilities, trunk_features, verify_start
from tests.finetuning.small import CLASSES, context_of, dataset, random_layer, small

RECIPE = Recipe(unfreeze=("last",), precision="fp32")


class Cached:
    """Stands for a store of features."""

    def __init__(self, features, precision):
        self.features, self.spec = features, SimpleNamespace(precision=precision)

    def read(self, digests):
        return self.features


class LayerHead:
    """A head whose probabilities are those of a linear layer."""

    def __init__(self, layer):
        self.layer = layer

    def probabilities(self, features):
        return layer_probabilities(self.layer, features)


@pytest.fixture
def verified(tmp_path):
    """Return a function that verifies a small network, on 6 images and cached features of them."""
    network, images = small(), dataset(tmp_path)
    features = trunk_features(network, images, "cpu")

    def verify(factor=1.0, precision="fp32", layer=None, has_run=True):
        initial = SimpleNamespace(
            run=SimpleNamespace(head=LayerHead(layer or network.layer())) if has_run else None,
            cached=SimpleNamespace(store=Cached(features * np.float32(factor), precision)),
            classes=CLASSES,
        )
        context = replace(context_of(network, RECIPE), initial=initial, partition=SimpleNamespace(heldout=images))
        return verify_start(context)

    return verify


def test_a_network_that_predicts_what_its_head_predicts_may_start(verified):
    start = verified()
    assert start.agreement.exact
    assert start.agreement.images == len(start.right) == 6
    assert start.accuracy == start.head_accuracy == start.right.mean()


def test_a_random_last_layer_has_no_head_to_agree_with(verified):
    start = verified(factor=9, has_run=False)
    assert (start.agreement, start.head_accuracy) == (None, None)
    assert start.accuracy == verified().accuracy


def test_cached_features_that_the_network_does_not_compute_are_refused(verified):
    with pytest.raises(TuningError, match=r"for 6 held-out images, found \d other labels.*lowest cosine.*1\.000000"):
        verified(factor=9)


def test_rounded_features_may_differ_but_not_the_head(verified):
    start = verified(factor=9, precision="bf16")
    assert (start.agreement.exact, start.precision) == (False, "bf16")
    with pytest.raises(TuningError, match="expected the network to predict what its head predicts"):
        verified(precision="bf16", layer=random_layer(6, seed=1))


def test_the_features_of_many_batches_are_in_the_order_of_the_images(tmp_path):
    network, images = small(), dataset(tmp_path, 83)
    features = trunk_features(network, images, "cpu")
    rows = [0, 9, 41, 82]
    assert np.array_equal(features[rows], trunk_features(network, images.subset(rows), "cpu"))
    assert len(np.unique(features[rows], axis=0)) == 4
