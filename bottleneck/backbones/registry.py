"""Build the backbone of a request. This module imports torch."""

import threading
from dataclasses import replace

import torch
from torch import nn

from bottleneck.backbones import bundled, timm_models, torchvision_models
from bottleneck.backbones.backbone import Backbone, Mirrored, PretrainedModel
from bottleneck.backbones.cut import cut
from bottleneck.backbones.names import unknown
from bottleneck.backbones.request import TIMM, Request
from bottleneck.backbones.restore import Restored, restore
from bottleneck.backbones.spec import Spec
from bottleneck.backbones.tracing import run
from bottleneck.backbones.uninitialised import Uninitialised
from bottleneck.backbones.weights import read_checkpoint, tensors_digest
from bottleneck.errors import ModelError
from bottleneck.images.decode import DECODER_VERSION
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.utils.warn import warn

_seeding = threading.RLock()


def names() -> list[str]:
    """Return the names of all backbones, timm's without tags, sorted."""
    return sorted([*bundled.NAMES, *torchvision_models.names(), *timm_models.names()])


def load(request: Request) -> Backbone:
    """Build the requested backbone.

    Returns
    -------
    Backbone
        Frozen, in eval mode, on the CPU.

    Raises
    ------
    ModelError
        If there is no such backbone or layer (the message suggests similar names), its weights do not fit, or it does
        not accept images of the requested size.
    WeightsUnavailable
        If its weights are not on this machine and cannot be downloaded.

    Warns
    -----
    BottleneckWarning
        If weights are random.
    """
    pretrained = build(request)
    preprocessing = _overridden(pretrained.preprocessing, request)
    network, layer, pooling, dim = _cut(pretrained, request, preprocessing.crop_size)
    restored = _restored(pretrained, request) if request.file else None
    _warn_of_random(request, restored)
    network.eval().requires_grad_(False)
    spec = Spec(
        backbone=request.model.partition(".")[0],
        weights=tensors_digest(pretrained.network),
        layer=layer,
        pooling=pooling,
        preprocessing=preprocessing,
        transform_input=pretrained.transform_input,
        precision="fp32" if request.precision == "auto" else request.precision,
        decoder=DECODER_VERSION,
        flip=request.flip,
    )
    return Backbone(Mirrored(network) if request.flip else network, spec, dim, restored, pretrained)


def build(request: Request) -> PretrainedModel:
    """Build the requested network with its classifier; with random weights if a file will provide them.

    Raises
    ------
    ModelError, WeightsUnavailable
        As `load`.
    """
    model = request.model
    if model in bundled.NAMES:
        builder = bundled.build
    elif model in torchvision_models.names():
        builder = torchvision_models.build
    elif model.startswith(TIMM) and timm_models.exists(model.removeprefix(TIMM).partition(".")[0]):
        builder = timm_models.build
    else:
        raise ModelError(unknown(model, names()))
    with _seeding, torch.random.fork_rng(devices=[]):  # torch has one generator for all threads
        torch.default_generator.manual_seed(request.seed)  # and not those of GPUs
        return builder(request)


def build_without_numbers(request: Request) -> PretrainedModel:
    """Build the requested network on the ``meta`` device: modules and shapes without weights in memory."""
    with Uninitialised():
        try:
            with torch.device("meta"):
                return build(request)
        except NotImplementedError:  # RegNets compute their widths with tensors
            pretrained = build(request)
            pretrained.network.to("meta")
            return pretrained


def _cut(pretrained: PretrainedModel, request: Request, image: tuple[int, int]) -> tuple[nn.Module, str, str, int]:
    """Cut the network; return it with the layer, the pooling and the number of features."""
    layers = request.layer or (pretrained.layer,)
    if layers == (pretrained.layer,) and request.pool in (None, pretrained.pooling):
        features = pretrained.remove_classifier()
        if request.crop:
            with torch.no_grad():
                run(features, torch.zeros(1, 3, *image))
        return features, pretrained.layer, pretrained.pooling, pretrained.dim
    network, pooling, dim = cut(pretrained.network, layers, request.pool, image)
    return network, network.layer, pooling, dim


def _overridden(preprocessing: Preprocessing, request: Request) -> Preprocessing:
    resize, crop = request.resize or preprocessing.resize, request.crop or preprocessing.crop
    preprocessing = replace(preprocessing, fast_jpeg=request.fast_jpeg)
    changed = replace(preprocessing, resize=resize, crop=crop)
    if changed == preprocessing:
        return preprocessing
    if any(small < large for small, large in zip(changed.resize_size, changed.crop_size, strict=True)):
        proportion = max(1.0, max(preprocessing.resize_size) / max(preprocessing.crop_size))
        advice = f"--resize {round(max(changed.crop_size) * proportion)}"
        if not request.crop:
            advice = f"--crop {round(min(changed.resize_size) / proportion)}"
        raise ModelError(
            f"expected a crop that fits into the resized image, got crop {crop} and resize {resize}: add {advice}"
        )
    return changed


def _restored(pretrained: PretrainedModel, request: Request) -> Restored:
    assert request.file is not None
    checkpoint = read_checkpoint(request.file)
    found = restore(
        pretrained.network,
        checkpoint,
        known=pretrained.known,
        rename=pretrained.rename,
        exclude=request.restore_exclude,
        resized=request.crop is not None,
        allow_partial=request.allow_partial,
        model=request.model,
    )
    return replace(found, remarks=(*found.remarks, *pretrained.remarks))


def _warn_of_random(request: Request, restored: Restored | None) -> None:
    if request.random:
        what = request.warning()
    elif restored and len(restored.restored) < restored.wanted:
        left = restored.wanted - len(restored.restored)
        what = f"{left} of {restored.wanted} tensors of {request.model} are random (seed {request.seed})"
    else:
        return
    warn(what)
