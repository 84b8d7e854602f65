"""Cached features against those of torchvision and timm themselves, on photographs, through the whole of `extract`.

A quick subset by default; ``make parity`` (BOTTLENECK_PARITY=1) takes every classifier of torchvision, and 45 models of
timm of 42 families.
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import create_transform, resolve_model_data_config
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import bottleneck
from bottleneck.backbones import torchvision_models
from bottleneck.backbones.catalogue import models
from bottleneck.backbones.registry import build_without_numbers
from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.errors import BottleneckWarning
from tests.conftest import SHARED
from tests.variants import each

ALL = bool(os.environ.get("BOTTLENECK_PARITY"))
PHOTOGRAPHS = 8 if ALL else 2

# How the names of torchvision's models begin: the layer whose input is their feature.
CLASSIFIERS = {
    "alexnet": "classifier.6",
    "convnext": "classifier.2",
    "densenet": "classifier",
    "efficientnet": "classifier.1",
    "googlenet": "fc",
    "inception": "fc",
    "maxvit": "classifier.5",
    "mnasnet": "classifier.1",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3": "classifier.3",
    "regnet": "fc",
    "resne": "fc",
    "shufflenet": "fc",
    "squeezenet": "classifier.0",
    "swin": "head",
    "vgg": "classifier.6",
    "vit": "heads.head",
    "wide_resnet": "fc",
}
QUICK = {"googlenet", "inception_v3", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "squeezenet1_1", "swin_t"}
CUT = {  # one of each other family
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "maxvit_t", "mnasnet0_5"),
    *("mobilenet_v2", "regnet_x_400mf", "resnext50_32x4d", "shufflenet_v2_x0_5", "swin_v2_t", "vgg11", "vit_b_16"),
    "wide_resnet50_2",
}

TIMM = [
    "caformer_s18",
    "cait_xxs24_224",
    "coat_lite_tiny",
    "convit_tiny",
    "convmixer_768_32",
    "convnextv2_atto",
    "crossvit_tiny_240",
    "cspresnet50",
    "davit_tiny",
    "deit_tiny_distilled_patch16_224",
    "dla34",
    "dpn48b",
    "edgenext_xx_small",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "eva02_tiny_patch14_224",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "gcvit_xxtiny",
    "ghostnet_100",
    "hrnet_w18_small",
    "inception_v4",
    "levit_128s",
    "maxvit_tiny_tf_384",
    "mixer_s32_224",
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small",
    "mobilevit_xxs",
    "nfnet_l0",
    "pit_ti_224",
    "pvt_v2_b0",
    "regnety_002",
    "repvgg_a0",
    "resnet26d",
    "resnetv2_50",
    "swinv2_cr_tiny_ns_224",
    "tf_efficientnetv2_b3",
    "tnt_s_legacy_patch16_224",
    "twins_svt_small",
    "vgg11_bn",
    "vit_base_patch16_sapiens2",
    "vit_base_patch32_clip_224",
    "vit_small_patch14_reg4_dinov2",
    "volo_d1_224",
    "xcit_nano_12_p16_224",
]
QUICK_TIMM = [
    "deit_tiny_distilled_patch16_224",
    "levit_128s",
    "mobilenetv3_small_100",
    "test_vit3",
    "tf_efficientnetv2_b3",
]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> list[Path]:
    """Real photographs of different sizes: of ants and bees, or cut out of those of scikit-learn."""
    sizes: dict[tuple[int, int], Path] = {}
    for path in sorted(SHARED.glob("val/*/*.jpg")):
        sizes.setdefault(Image.open(path).size, path)
    if len(sizes) >= PHOTOGRAPHS:
        return list(sizes.values())[:PHOTOGRAPHS]
    folder, found = tmp_path_factory.mktemp("photographs"), []
    for number, pixels in enumerate((load_sample_images().images * PHOTOGRAPHS)[:PHOTOGRAPHS]):
        height, width = pixels.shape[0] - 23 * number, pixels.shape[1] - 61 * number
        found.append(folder / f"{number}.png")
        Image.fromarray(pixels[:height, :width]).save(found[-1])
    return found


def cached(photographs: Sequence[Path], model: str, cache: Path) -> tuple[np.ndarray, Spec]:
    table = cache.parent / "photographs.csv"
    table.write_text("path\n" + "".join(f"{path}\n" for path in photographs))
    with pytest.warns(BottleneckWarning, match="random weights"):
        done = bottleneck.extract(
            table,
            model=model,
            weights="none",
            precision="fp32",
            engine="torch",
            labels=False,
            cache=cache,
            batch_size=None if ALL else 1,
        )
    rows = {Path(path).name: row for row, path in enumerate(done.dataset.paths)}
    order = [rows[path.name] for path in photographs]
    return done.store.read(done.dataset.digests[order]), done.store.spec


def assert_equal(found: np.ndarray, wanted: np.ndarray) -> None:
    """Each image's cosine is above 0.9999, and it lies far nearer to itself than to any other image."""
    assert found.shape == wanted.shape
    cosine = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosine.min() > 0.9999
    # Random networks see all images alike: cosines would be as high with another preprocessing.
    between = np.linalg.norm(wanted[:, None] - wanted[None], axis=2)
    np.fill_diagonal(between, np.inf)
    noise = 1e-6 * np.linalg.norm(wanted, axis=1).max()  # some see no difference at all
    assert np.linalg.norm(found - wanted, axis=1).max() < 0.02 * between.min() + noise


@pytest.mark.slow
@each("name", [name for name in torchvision_models.names() if ALL or name in QUICK])
def test_features_are_those_of_torchvision(photographs, tmp_path, name):
    features, spec = cached(photographs, name, tmp_path / "cache")
    entry = torchvision.models.get_model_weights(name).DEFAULT
    network = torchvisions(name, entry)
    transforms = entry.transforms()

    with torch.inference_mode():
        wanted = [network(transforms(Image.open(path).convert("RGB"))[None]) for path in photographs]

    assert_equal(features, torch.cat(wanted).numpy())
    assert {entry.dim for entry in models(name) if entry.name == name} == {features.shape[1]}
    assert_layer(name, spec.layer, spec.pooling)


@pytest.mark.slow
@each("name", [name for name in torchvision_models.names() if ALL or name in CUT])
def test_a_classifier_of_torchvision_is_cut_and_fed(name):
    # On the device "meta" tensors have shapes and no values: the largest network takes no memory and little time.
    whole = build_without_numbers(Request(model=name, weights="none"))
    with torch.inference_mode():
        features = whole.remove_classifier()(torch.empty(2, 3, *whole.preprocessing.crop_size, device="meta"))

    assert tuple(features.shape) == (2, whole.dim)
    assert {entry.dim for entry in models(name) if entry.name == name} == {whole.dim}
    assert_layer(name, whole.layer, whole.pooling)


def assert_layer(name: str, layer: str, pooling: str) -> None:
    assert layer.endswith(":input")
    assert classifier_of(name).startswith(layer.removesuffix(":input"))
    assert pooling == ("avg" if name.startswith("squeezenet") else "none")


def classifier_of(name: str) -> str:
    (classifier,) = [layer for beginning, layer in CLASSIFIERS.items() if name.startswith(beginning)]
    return classifier


def torchvisions(name: str, entry: object) -> nn.Module:
    """Torchvision's own network up to the input of its classifier."""
    sized = {"image_size": entry.transforms().crop_size[0]} if name.startswith("vit") else {}
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        network = torchvision.models.get_model(name, weights=None, **sized).eval()
    if hasattr(network, "transform_input"):
        network.transform_input = True  # as with trained weights
    nodes = get_graph_node_names(network)[1]
    before = nodes[nodes.index(classifier_of(name)) - 1]
    extractor = create_feature_extractor(network, {before: "features"})

    class Reference(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features = extractor(images)["features"]
            return features.mean((2, 3)) if features.dim() == 4 else features  # of SqueezeNet

    return Reference()


@pytest.mark.slow
@each("name", TIMM if ALL else QUICK_TIMM)
def test_features_are_those_of_timm(photographs, tmp_path, name):
    features, _ = cached(photographs, f"timm/{name}", tmp_path / "cache")
    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    transform = create_transform(**resolve_model_data_config(network), is_training=False)

    with torch.inference_mode():
        pixels = (transform(Image.open(path).convert("RGB"))[None] for path in photographs)
        wanted = [network.forward_head(network.forward_features(image), pre_logits=True) for image in pixels]

    assert_equal(features, torch.cat(wanted).numpy())
    assert [entry.dim for entry in models(f"timm/{name}") if entry.name == f"timm/{name}"] == [features.shape[1]]


def test_each_family_of_torchvision_is_compared_or_cut():
    assert {
        classifier for classifier in CLASSIFIERS if not any(name.startswith(classifier) for name in QUICK | CUT)
    } == set()


def test_the_timm_models_are_40_of_20_families():
    families = {
        family for family in timm.list_modules() for name in TIMM if timm.models.is_model_in_modules(name, [family])
    }

    assert len(TIMM) >= 40
    assert len(families) >= 20
