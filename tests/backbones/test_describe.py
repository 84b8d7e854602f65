import resource

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from bottleneck.backbones.describe import Description, Module, compare, describe
from bottleneck.errors import ModelError, WeightsUnavailable
from tests.variants import each

LAYERS = {"layer4": (512, 7, 7), "layer4.1": (512, 7, 7), "layer1": (64, 56, 56), "fc": (1000,), "avgpool": (512, 1, 1)}


@pytest.fixture(scope="module")
def resnet18() -> Description:
    return describe("resnet18")


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return torchvision.models.resnet18(weights=None).state_dict()


def module(found: Description, name: str) -> Module:
    (one,) = [module for module in found.modules if module.name == name]
    return one


def official(name: str) -> tuple[int, float]:
    """Return the parameters and the multiply-adds, in 1e9, that torchvision publishes."""
    meta = torchvision.models.get_model_weights(name).DEFAULT.meta
    return meta["num_params"], meta["_ops"]


def test_resnet18_has_the_parameters_and_multiply_adds_that_torchvision_publishes(resnet18):
    assert resnet18.parameters == 11_689_512 == official("resnet18")[0]
    assert resnet18.macs == pytest.approx(1.814e9, rel=0.01)


@pytest.mark.slow
@each(
    "name, tolerance",
    [
        ("squeezenet1_1", 0.02),
        ("mobilenet_v3_small", 0.02),
        ("shufflenet_v2_x0_5", 0.02),
        ("mnasnet0_5", 0.02),
        ("densenet121", 0.02),
        ("regnet_x_400mf", 0.02),
        ("vit_b_16", 0),
        ("swin_t", 0),
        ("swin_v2_t", 0),
        ("convnext_tiny", 0),
        ("maxvit_t", 0),
    ],
)
def test_multiply_adds_are_those_that_torchvision_publishes(name, tolerance):
    found = describe(name)
    parameters, giga = official(name)

    assert found.macs / 1e9 == pytest.approx(giga, rel=tolerance, abs=6e-4)
    assert found.parameters == parameters


def test_inception_maps_its_input_and_parameters_of_its_auxiliary_classifier_do_not_count():
    with torch.device("meta"):
        whole = torchvision.models.inception_v3(weights=None, init_weights=False)
    auxiliary = sum(parameter.numel() for parameter in whole.AuxLogits.parameters())
    found = describe("inception_v3")
    parameters, giga = official("inception_v3")

    assert found.parameters == parameters - auxiliary
    assert found.macs == pytest.approx(giga * 1e9, rel=0.02)
    assert found.transform_input is True
    assert found.preprocessing.crop == 299
    assert module(found, "Mixed_7c").output == (2048, 8, 8)


@each("name", LAYERS)
def test_a_layer_has_the_shape_of_what_it_gives_for_one_image(resnet18, name):
    assert module(resnet18, name).output == LAYERS[name]


def test_modules_are_those_of_the_network_in_its_order(resnet18):
    with torch.device("meta"):
        whole = torchvision.models.resnet18()
    wanted = [(name, type(one).__name__) for name, one in whole.named_modules() if name]

    assert [(one.name, one.kind) for one in resnet18.modules] == wanted


def test_a_module_counts_what_is_inside_of_it(resnet18):
    layer = module(resnet18, "layer4")
    inside = [one for one in resnet18.modules if one.name.startswith("layer4.") and one.depth == 2]

    assert layer.depth == 1
    assert layer.parameters == sum(one.parameters for one in inside) == 8_393_728
    assert layer.macs == sum(one.macs for one in inside)
    assert module(resnet18, "layer4.0.conv1").macs == 512 * 256 * 3 * 3 * 7 * 7
    assert module(resnet18, "fc").macs == 512 * 1000
    assert module(resnet18, "maxpool").macs == 0


def test_stages_are_the_modules_at_the_top_that_have_parameters(resnet18):
    assert resnet18.stages == ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc")


def test_the_features_and_the_preprocessing_are_the_default_ones(resnet18):
    assert (resnet18.layer, resnet18.pooling, resnet18.dim) == ("fc:input", "none", 512)
    assert (resnet18.preprocessing.resize, resnet18.preprocessing.crop) == (256, 224)
    assert (resnet18.source, resnet18.transform_input) == ("torchvision", False)


@each(
    "model, weights",
    [
        ("resnet50", ["IMAGENET1K_V2", "IMAGENET1K_V1"]),
        ("efficientnet_lite0", ["DEFAULT"]),
        ("timm/test_vit", ["r160_in1k"]),
        ("timm/resnet18.tv_in1k", ["tv_in1k"]),
        ("timm/test_vit_relpos", []),
    ],
)
def test_the_published_weights_are_listed_the_default_first(model, weights):
    assert [entry.weights for entry in describe(model).weights] == weights


def test_a_vision_transformers_tokens_are_the_shape_of_its_layers():
    found = describe("timm/test_vit")

    assert module(found, "blocks").output == (101, 64)
    assert (found.source, found.layer, found.dim) == ("timm", "head:input", 64)


@each("model", ["timm/pit_ti_224", "timm/cait_xxs24_224"])
def test_a_network_whose_parameters_reach_modules_as_views_is_described(model):
    found = describe(model)

    assert found.macs > 1e8
    assert [module.output for module in found.modules if module.name in found.stages]


def test_a_models_tag_decides_its_preprocessing():
    assert describe("timm/resnet18.tv_in1k").preprocessing.interpolation == "bilinear"
    assert describe("timm/resnet18.a1_in1k").preprocessing.interpolation == "bicubic"


def test_the_largest_network_is_described_in_little_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    found = describe("vit_h_14")  # 2.5 GB of weights

    assert found.parameters == official("vit_h_14")[0]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


@each("model", ["rsnet18", "timm/tset_vit", ""])
def test_an_unknown_model_is_a_model_error(model):
    with pytest.raises(ModelError, match=rf"expected the name of a model.*got '{model}'"):
        describe(model)


# --- checkpoints ---------------------------------------------------------------------------------------------------


def test_the_checkpoint_of_a_model_fits_except_for_the_classifier(tensors, tmp_path):
    torch.save(tensors, tmp_path / "w.pth")
    checkpoint, found = compare(tmp_path / "w.pth", "resnet18")

    assert found.complete
    assert found.unneeded == ("fc.weight", "fc.bias")
    assert set(found.restored) == {name for name in tensors if not name.startswith("fc.")} - {
        name for name in tensors if name.endswith("num_batches_tracked")
    }
    assert set(checkpoint.tensors) == set(tensors)


def test_a_checkpoint_with_a_renamed_classifier_of_other_classes_fits(tensors, tmp_path):
    renamed = {name: value for name, value in tensors.items() if not name.startswith("fc.")}
    renamed |= {"head.weight": torch.zeros(7, 512), "head.bias": torch.zeros(7)}
    save_file(renamed, tmp_path / "w.safetensors")
    _, found = compare(tmp_path / "w.safetensors", "resnet18")

    assert found.complete
    assert set(found.unneeded) == {"head.weight", "head.bias"}


def test_a_tensor_of_another_shape_is_reported_with_both_shapes(tensors, tmp_path):
    torch.save({**tensors, "layer1.0.conv1.weight": torch.zeros(64, 32, 3, 3)}, tmp_path / "w.pth")
    _, found = compare(tmp_path / "w.pth", "resnet18")

    assert not found.complete
    assert found.misshapen == {"layer1.0.conv1.weight": ((64, 64, 3, 3), (64, 32, 3, 3))}


def test_missing_and_unexpected_tensors_are_distinguished(tensors, tmp_path):
    changed = {name.replace("layer4.1.conv1", "layer4.1.konv1"): value for name, value in tensors.items()}
    torch.save(changed, tmp_path / "w.pth")
    _, found = compare(tmp_path / "w.pth", "resnet18")

    assert (found.missing, found.unexpected) == (("layer4.1.conv1.weight",), ("layer4.1.konv1.weight",))
    assert not found.complete


@each(
    "wrap, remarks",
    [
        (lambda tensors: {"state_dict": tensors, "epoch": 3}, ("taken from 'state_dict'",)),
        (lambda tensors: {"model": {"state_dict": tensors}}, ("taken from 'model'", "taken from 'state_dict'")),
        (lambda tensors: {f"module.{name}": value for name, value in tensors.items()}, ("prefix 'module.' dropped",)),
        (
            lambda tensors: {"state_dict": {f"net.backbone.{name}": value for name, value in tensors.items()}},
            ("taken from 'state_dict'", "prefix 'net.backbone.' dropped"),
        ),
    ],
)
def test_wrappers_are_removed_and_reported(tensors, tmp_path, wrap, remarks):
    torch.save(wrap(tensors), tmp_path / "w.pth")
    _, found = compare(tmp_path / "w.pth", "resnet18")

    assert found.complete
    assert found.remarks == remarks


def test_excluded_tensors_are_reported(tensors, tmp_path):
    torch.save(tensors, tmp_path / "w.pth")
    _, found = compare(tmp_path / "w.pth", "resnet18", ["layer4.1.conv1", "bn1.*"])

    assert set(found.excluded) == {
        "layer4.1.conv1.weight",
        "bn1.weight",
        "bn1.bias",
        "bn1.running_mean",
        "bn1.running_var",
    }


def test_a_pattern_that_fits_nothing_is_a_model_error(tensors, tmp_path):
    torch.save(tensors, tmp_path / "w.pth")

    with pytest.raises(ModelError, match=r"match --restore-exclude 'layer5', found none; did you mean .*layer4"):
        compare(tmp_path / "w.pth", "resnet18", ["layer5"])


def test_the_checkpoint_of_another_network_fits_nowhere(tmp_path):
    save_file({"w": torch.zeros(3)}, tmp_path / "w.safetensors")
    _, found = compare(tmp_path / "w.safetensors", "resnet18")

    assert (found.restored, found.unexpected) == ((), ("w",))
    assert len(found.missing) == 100


def test_a_missing_file_is_weights_unavailable(tmp_path):
    with pytest.raises(WeightsUnavailable, match=r"expected a weights file at .*w\.pth, found none"):
        compare(tmp_path / "w.pth", "resnet18")


def test_an_unknown_model_to_compare_with_is_a_model_error(tensors, tmp_path):
    torch.save(tensors, tmp_path / "w.pth")

    with pytest.raises(ModelError, match="did you mean resnet18"):
        compare(tmp_path / "w.pth", "rsnet18")


def test_tensors_that_a_checkpoint_has_are_read_unchanged(tensors, tmp_path):
    save_file(tensors, tmp_path / "w.safetensors")
    checkpoint, _ = compare(tmp_path / "w.safetensors", "resnet18")

    np.testing.assert_array_equal(checkpoint.tensors["conv1.weight"], tensors["conv1.weight"])
