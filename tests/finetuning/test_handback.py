from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import TuningError
from bottleneck.finetuning.handback import agreement, fold_head, handback_obstacle
from bottleneck.heads.family import NAMES
from bottleneck.heads.head import Head, softmax
from bottleneck.heads.linear import LinearHead
from bottleneck.heads.options import HeadOptions
from bottleneck.runs.run import Run
from tests.variants import each

CARD = {"spec": {}, "head": "logistic", "params": {"C": 1.0}, "normalize": "standard"}


def features(count=90, dim=12, seed=0):
    random = np.random.default_rng(seed)
    found = random.normal(size=(count, dim)) * 10.0 ** random.uniform(-3, 3, dim) + random.normal(size=dim) * 5
    found[:, 3] = 2.5  # a constant feature
    found[:, 7] = 0.0
    return found.astype(np.float32)


def fitted(family, **options):
    x = features()
    labels = ["abc"[row % 3] for row in range(len(x))]
    x[:, 0] += 3 * x[:, 0].std() * (np.arange(len(x)) % 3)
    return x, HeadOptions(C=None if family in ("knn", "centroid") else (0.1,), **options).search_head(
        family, x, labels, [None] * len(x), "f" * 64
    ).head


def logits(layer, x):
    return x.astype(np.float64) @ layer.weight.T.astype(np.float64) + layer.bias


@each("family", ["logistic", "softmax", "svm", "ridge", "centroid"])
@each("normalize", ["shrunk", "global", "standard", "none"])
def test_the_layer_predicts_what_the_head_predicts(family, normalize):
    x, head = fitted(family, normalize=normalize)
    layer = fold_head(head)
    assert (layer.weight.dtype, layer.bias.dtype) == (np.float32, np.float32)
    wanted = head.inverse_temperature * head.scores(x)
    rounding = 1e-6 * (np.abs(x) @ np.abs(layer.weight).T + np.abs(layer.bias)).max()
    np.testing.assert_allclose(logits(layer, x), wanted, rtol=0, atol=rounding)
    np.testing.assert_allclose(softmax(logits(layer, x)), head.probabilities(x), atol=1e-4)


def test_temperature_scales_and_means_are_folded_in():
    random = np.random.default_rng(1)
    dim = 40
    head = LinearHead(
        family="logistic",
        classes=("a", "b", "c"),
        mean=random.normal(size=dim).astype(np.float32) * 30,
        scale=(10.0 ** random.uniform(-2, 2, dim)).astype(np.float32),
        inverse_temperature=3.7,
        weight=random.normal(size=(3, dim)).astype(np.float32),
        bias=random.normal(size=3).astype(np.float32),
    )
    x = (head.mean + head.scale * random.normal(size=(50, dim))).astype(np.float32)
    layer = fold_head(head)
    exact = 3.7 * (((x.astype(np.float64) - head.mean) / head.scale) @ head.weight.T.astype(np.float64) + head.bias)
    rounding = 1e-6 * (np.abs(x) @ np.abs(layer.weight).T + np.abs(layer.bias)).max()
    np.testing.assert_allclose(logits(layer, x), exact, rtol=0, atol=rounding)


def test_a_negative_scale_is_folded_in():
    head = LinearHead(
        family="ridge", classes=("a", "b"), mean=np.ones(2, np.float32), scale=np.array([-2, 4], np.float32),
        weight=np.eye(2, dtype=np.float32), bias=np.zeros(2, np.float32),
    )  # fmt: skip
    np.testing.assert_array_equal(fold_head(head).weight, [[-0.5, 0], [0, 0.25]])
    np.testing.assert_array_equal(fold_head(head).bias, [0.5, -0.25])


def test_heads_that_are_not_linear_in_the_features_are_refused():
    linear = fitted("logistic")[1]
    with pytest.raises(TuningError, match=r"got a logistic head \(linear\)"):
        fold_head(replace(linear, unit=True))
    for family, options in (("knn", {}), ("svm", {"kernel": "rbf"})):
        head = fitted(family, **options)[1]
        assert not isinstance(head, LinearHead)
        with pytest.raises(TuningError, match=f"expected a linear head on unnormalised features, got a {family} head"):
            fold_head(head)


def test_every_family_is_linear_or_refused():
    for family in NAMES:
        head: Head = fitted(family)[1]
        if isinstance(head, LinearHead):
            assert fold_head(head).weight.shape == (3, 12)
        else:
            with pytest.raises(TuningError):
                fold_head(head)


def test_agreement_counts_labels_and_takes_the_largest_difference():
    one = np.array([[0.6, 0.4], [0.2, 0.8], [0.5, 0.5]])
    assert agreement(one, one).exact
    near = one + np.array([[1e-4, -1e-4]] * 3) * 0.9
    found = agreement(one, near)
    assert (found.images, found.other_labels) == (3, 0)
    assert found.largest == pytest.approx(9e-5)
    assert found.exact
    assert not agreement(one, one + np.array([1.1e-4, -1.1e-4])).exact
    swapped = agreement(one, one[:, ::-1])
    assert swapped.other_labels == 2  # a tie is the first class in both
    assert swapped.largest == pytest.approx(0.6)
    assert not swapped.exact


def test_a_different_label_is_never_exact():
    one, other = np.array([[0.5, 0.5]]), np.array([[0.5, 0.5 + 1e-9]])
    assert agreement(one, other).other_labels == 1
    assert not agreement(one, other).exact


def test_zero_images_agree():
    found = agreement(np.empty((0, 3)), np.empty((0, 3)))
    assert (found.images, found.exact) == (0, True)


@each(
    "changes, reason",
    [
        ({}, None),
        ({"head": "svm", "params": {"kernel": "linear"}}, None),
        ({"normalize": "none"}, None),
        ({"kind": "finetune"}, "fine-tuned already: extract with --weights"),
        ({"head": "svm", "params": {"kernel": "rbf"}}, "a head with an rbf kernel is not a linear layer: fit another"),
        ({"head": "knn", "params": {"k": 3}}, "a knn head is not a linear layer: fit another one with --head logistic"),
        ({"normalize": "l2"}, "fit with --normalize auto"),
        ({"final": {"n_train": 9}}, "fitted with --final on all images"),
        ({"spec": {"flip": True}}, "extract without --flip"),
    ],
)
def test_why_a_head_cannot_be_handed_back(changes, reason):
    found = handback_obstacle(Run(Path("runs/one"), {**CARD, **changes}))
    assert found is None if reason is None else reason in found
