"""A checkpoint of a network whose classifier was replaced gives the features of that network."""

from functools import cache

import torch
from torch import Tensor, nn

from bottleneck.backbones.registry import build_without_numbers
from bottleneck.backbones.request import Request
from bottleneck.backbones.restore import Restored, match, misfit
from bottleneck.backbones.weights import Checkpoint
from tests.variants import each

Tensors = dict[str, Tensor]


def mlp(width: int) -> nn.Module:
    """Return what tutorials put in the place of a classifier."""
    return nn.Sequential(
        nn.BatchNorm1d(width), nn.Linear(width, 8), nn.ReLU(), nn.Dropout(0.4), nn.utils.weight_norm(nn.Linear(8, 3))
    )


def residual(width: int) -> nn.Module:
    """Return a classifier with parts of its own."""
    head = nn.Module()
    head.mlp = nn.Sequential(nn.Linear(width, 8), nn.LayerNorm(8))
    head.scale = nn.Parameter(torch.ones(8))
    head.last_layer = nn.Linear(8, 3, bias=False)
    return head


@cache
def _whole(model: str) -> Tensors:
    return dict(build_without_numbers(Request(model=model, weights="none")).network.state_dict())


def fitted(model: str, tensors: Tensors) -> Restored:
    """Return what a network without its classifier takes of a checkpoint."""
    whole = build_without_numbers(Request(model=model, weights="none"))
    whole.remove_classifier()
    return match(whole.network, Checkpoint("w.pth", tensors), known=whole.known, rename=whole.rename)[0]


def with_module(model: str, name: str, module: nn.Module) -> Tensors:
    """Return the tensors of a network in which a module was replaced."""
    kept = {key: value for key, value in _whole(model).items() if not key.startswith(f"{name}.")}
    return {**kept, **{f"{name}.{key}": value for key, value in module.state_dict().items()}}


REPLACED = [
    ("resnet18", "fc", 512),
    ("densenet121", "classifier", 1024),
    ("mobilenet_v2", "classifier.1", 1280),
    ("mobilenet_v2", "classifier", 1280),
    ("mobilenet_v3_small", "classifier.3", 1024),
    ("efficientnet_b0", "classifier", 1280),
    ("vgg11", "classifier.6", 4096),
    ("alexnet", "classifier.6", 4096),
    ("squeezenet1_1", "classifier", 512),
    ("vit_b_16", "heads", 768),
    ("vit_b_16", "heads.head", 768),
    ("swin_t", "head", 768),
    ("convnext_tiny", "classifier.2", 768),
    ("efficientnet_lite0", "classifier", 1280),
    ("timm/resnet18", "fc", 512),
    ("timm/vit_tiny_patch16_224", "head", 192),
    ("timm/convnext_atto", "head.fc", 320),
    ("timm/efficientnet_lite0", "classifier", 1280),
    ("timm/mobilenetv3_small_050", "classifier", 1024),
    ("timm/deit_tiny_distilled_patch16_224", "head_dist", 192),
]


@each(
    "model, place, width, head",
    [*((*one, mlp) for one in REPLACED), *((*one, residual) for one in (REPLACED[0], REPLACED[6], REPLACED[16]))],
)
def test_a_replaced_classifier_of_any_kind_is_not_needed(model, place, width, head):
    found = fitted(model, with_module(model, place, head(width)))

    assert found.complete, misfit(found, model)
    assert {name for name in found.unneeded if name.startswith(f"{place}.")}


@each("prefix", ["module.", "backbone.", "model.", "module.backbone."])
@each("model, place, width", [REPLACED[0], REPLACED[6], REPLACED[-3]])
def test_a_replaced_classifier_behind_a_prefix_is_not_needed(model, place, width, prefix):
    tensors = with_module(model, place, mlp(width))

    found = fitted(model, {f"{prefix}{name}": value for name, value in tensors.items()})

    assert found.complete
    assert found.remarks == (f"prefix {prefix!r} dropped",)


@each("place", ["AuxLogits", "AuxLogits.fc"])
def test_a_replaced_auxiliary_classifier_is_not_needed(place):
    model = "inception_v3"
    changed = {name: value for name, value in _whole(model).items() if not name.startswith(f"{place}.")}
    changed |= {f"{place}.{name}": value for name, value in mlp(768).state_dict().items()}

    assert fitted(model, changed).complete


def test_replaced_auxiliary_classifiers_of_googlenet_are_not_needed():
    changed = dict(_whole("googlenet"))
    for aux in ("aux1.fc2", "aux2.fc2"):
        changed |= {f"{aux}.{name}": value for name, value in residual(1024).state_dict().items()}

    assert fitted("googlenet", changed).complete


@each(
    "names",
    [
        ("projection_head.0.weight", "projection_head.1.running_mean", "projection_head.3.weight"),
        ("head.mlp.0.weight", "head.mlp.2.bias", "head.last_layer.weight_g"),
        ("prototypes.weight", "projector.net.0.weight"),
        ("classifier.0.weight", "classifier.3.weight", "classifier.3.bias"),
    ],
)
def test_a_deep_classifier_of_another_name_is_not_needed(names):
    heads = {name: torch.ones(4, 4) if name.endswith(("weight", "_g")) else torch.ones(4) for name in names}

    found = fitted("resnet18", {**_whole("resnet18"), **heads})

    assert found.complete
    assert set(names) <= set(found.unneeded)


def test_a_part_behind_the_norm_of_a_classifier_is_not_needed():
    model = "timm/convnext_atto"
    heads = {"head.mlp.0.weight": torch.ones(8, 320), "head.mlp.2.weight": torch.ones(3, 8)}
    tensors = {name: value for name, value in _whole(model).items() if not name.startswith("head.fc")}

    assert fitted(model, {**tensors, **heads}).complete


@each("model, place, width", [REPLACED[0], REPLACED[2], REPLACED[6]])
@each("where", [0, -1])
def test_a_missing_tensor_of_the_backbone_is_refused_for_any_classifier(model, place, width, where):
    tensors = with_module(model, place, mlp(width))
    lacking = fitted(model, tensors).restored[where]
    del tensors[lacking]

    found = fitted(model, tensors)

    assert found.missing == (lacking,)
    assert not found.complete


@each("model, place, width", REPLACED[:1])
def test_a_tensor_of_the_backbone_of_another_shape_is_refused_too(model, place, width):
    tensors = with_module(model, place, mlp(width))
    wrong = next(name for name, value in tensors.items() if value.dim() == 4)

    found = fitted(model, {**tensors, wrong: torch.ones(2, 2, 2, 2)})

    assert list(found.misshapen) == [wrong]


@each(
    "extra",
    [
        {"classifier.1.weight": 4096, "classifier.1.bias": 4096, "classifier.1.running_mean": 4096},
        {"classifier.4.0.weight": 4096},
    ],
)
def test_what_is_before_the_features_in_the_module_of_the_classifier_is_unexpected(extra):
    tensors = {**_whole("vgg11"), **{name: torch.ones(width) for name, width in extra.items()}}

    assert fitted("vgg11", tensors).unexpected == tuple(extra)


def test_layers_behind_the_last_one_of_the_network_are_not_needed():
    tensors = {**_whole("vgg11"), "classifier.9.weight": torch.ones(3, 1000), "classifier.9.bias": torch.ones(3)}

    assert fitted("vgg11", tensors).complete


@each("deeper, model", [("resnet34", "resnet18"), ("vgg13", "vgg11"), ("swin_s", "swin_t")])
def test_the_checkpoint_of_a_deeper_network_is_refused_with_any_classifier(deeper, model):
    place = {"resnet34": "fc", "vgg13": "classifier.6", "swin_s": "head"}[deeper]

    assert not fitted(model, with_module(deeper, place, mlp(16))).complete


@each("model, width", [("mobilenet_v3_small", 576), ("vgg11", 25088), ("convnext_tiny", 768)])
def test_where_features_come_from_inside_of_what_was_replaced_an_earlier_layer_is_named(model, width):
    found = fitted(model, with_module(model, "classifier", mlp(width)))

    assert not found.complete
    assert "All belong to classifier, which seems to be a different classifier: --layer NAME" in misfit(found, model)


def test_an_auxiliary_classifier_that_the_network_never_had_is_not_needed():
    tensors = {
        "AuxLogits.conv0.conv.weight": torch.ones(4, 8, 1, 1),
        "AuxLogits.conv1.conv.weight": torch.ones(4, 4, 5, 5),
    }

    assert fitted("timm/resnet18", {**_whole("timm/resnet18"), **tensors}).complete


@each("layer", ["avgpool", "layer2"])
def test_at_an_earlier_layer_the_classifier_is_not_needed_either(tmp_path, layer):
    from bottleneck.backbones.registry import load

    network = build_without_numbers(Request(model="resnet18", weights="none")).network
    network.fc = mlp(512)
    torch.save(network.to_empty(device="cpu").state_dict(), tmp_path / "w.pth")

    found = load(Request(model="resnet18", weights=str(tmp_path / "w.pth"), layer=(layer,), resize=64, crop=64))

    assert found.restored.complete
    assert found.spec.layer == layer
