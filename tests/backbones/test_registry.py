import warnings

import pytest
import torch

from bottleneck.backbones.registry import load, names
from bottleneck.backbones.request import Request
from bottleneck.errors import BottleneckWarning, ModelError
from tests.variants import each


@each("name", ["efficientnet_lite0", "inception_v3", "resnet50", "vit_b_16"])
def test_names_of_all_sources_are_listed(name):
    assert name in names()


def test_names_are_sorted_and_different():
    assert names() == sorted(set(names()))


@each("name", ["resnet50_quantized", "fcn_resnet50", "r3d_18", "fasterrcnn_resnet50_fpn", "raft_large"])
def test_names_holds_only_classifiers_of_images(name):
    assert name not in names()


@each(
    "misspelt, meant",
    [
        ("resnet5O", "resnet50"),
        ("ResNet50", "resnet50"),
        ("inceptionv3", "inception_v3"),
        ("efficientnet-lite0", "efficientnet_lite0"),
    ],
)
def test_a_misspelt_name_names_the_nearest(misspelt, meant):
    with pytest.raises(ModelError, match=rf"{misspelt}.*did you mean .*\b{meant}\b"):
        load(Request(model=misspelt))


@each("name", ["", "zzzzqqqq", "../../etc/passwd"])
def test_a_name_without_similar_names_gets_examples(name):
    with pytest.raises(ModelError, match="some are alexnet"):
        load(Request(model=name))


def test_random_weights_warn_with_their_seed():
    with pytest.warns(BottleneckWarning, match=r"resnet18 has random weights \(seed 7\)"):
        seven = load(Request(model="resnet18", weights="none", seed=7)).spec
    with pytest.warns(BottleneckWarning, match=r"resnet18 has random weights \(seed 8\)"):
        eight = load(Request(model="resnet18", weights="none", seed=8)).spec
    assert seven.weights != eight.weights


def test_trained_weights_do_not_warn():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        load(Request(model="efficientnet_lite0"))
    assert [str(one.message) for one in told if issubclass(one.category, BottleneckWarning)] == []


@each("model", ["resnet18", "efficientnet_lite0"])
def test_a_backbone_is_frozen_and_in_eval_mode(model):
    with pytest.warns(BottleneckWarning):
        backbone = load(Request(model=model, weights="none"))

    assert not any(module.training for module in backbone.network.modules())
    assert not any(parameter.requires_grad for parameter in backbone.network.parameters())
    assert {parameter.dtype for parameter in backbone.network.parameters()} == {torch.float32}


def test_the_spec_has_the_requested_name():
    with pytest.warns(BottleneckWarning):
        assert load(Request(model="resnet18", weights="none")).spec.backbone == "resnet18"


@pytest.mark.filterwarnings("ignore::bottleneck.errors.BottleneckWarning")
def test_sizes_that_are_the_usual_ones_change_nothing():
    usual = load(Request(model="resnet18", weights="none")).spec
    for sizes in ({"resize": 256}, {"crop": 224}, {"resize": 256, "crop": 224}):
        assert load(Request(model="resnet18", weights="none", **sizes)).spec == usual, sizes


@each("sizes, advice", [({"resize": 128}, "--crop 112"), ({"crop": 320}, "--resize 366")])
def test_a_crop_that_does_not_fit_gets_advice_on_what_was_not_requested(sizes, advice):
    with pytest.raises(ModelError, match=f"add {advice}$"):
        load(Request(model="resnet18", weights="none", **sizes))
