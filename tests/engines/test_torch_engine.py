from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bottleneck.backbones.backbone import Backbone
from bottleneck.backbones.registry import load
from bottleneck.backbones.request import Request
from bottleneck.engines.torch_engine import TorchEngine
from bottleneck.errors import BottleneckWarning, ModelError

NETWORKS = ["resnet18", "efficientnet_lite0"]


def pixels(count: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.fixture(scope="module", params=NETWORKS)
def backbone(request) -> Backbone:
    with pytest.warns(BottleneckWarning):
        return load(Request(model=request.param, weights="none"))


@pytest.fixture
def flat(spec) -> Backbone:
    """A backbone whose features are its normalised input."""
    return Backbone(nn.Flatten(), spec, 3 * 28 * 28)


def test_uint8_pixels_become_float32_features(backbone):
    features = TorchEngine(backbone, batch_size=4, device="cpu")(pixels(3, 64))

    assert features.dtype == np.float32
    assert features.shape == (3, backbone.dim)
    assert features.flags.c_contiguous
    assert np.isfinite(features).all()


def test_pixels_are_normalised_by_the_specs_mean_and_std(flat):
    images = pixels(2, 28)
    preprocessing = flat.spec.preprocessing
    expected = (images.astype(np.float64) / 255 - preprocessing.mean) / preprocessing.std

    features = TorchEngine(flat, batch_size=2, device="cpu")(images)

    np.testing.assert_allclose(features.reshape(2, 3, 28, 28), expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_another_mean_gives_other_features(flat):
    images = pixels(2, 28)
    other = replace(flat.spec, preprocessing=replace(flat.spec.preprocessing, mean=(0.0, 0.0, 0.0)))

    one = TorchEngine(flat, batch_size=2, device="cpu")(images)
    shifted = TorchEngine(replace(flat, spec=other), batch_size=2, device="cpu")(images)

    assert (shifted > one).all()


def test_features_are_bit_for_bit_equal_in_whatever_company_and_place(backbone):
    engine = TorchEngine(backbone, batch_size=4, device="cpu")
    image, others = pixels(1, 64), pixels(3, 64, seed=1)
    alone = engine(image)[0].tobytes()

    for place in range(4):
        batch = np.concatenate([others[:place], image, others[place:]])
        assert engine(batch)[place].tobytes() == alone, f"at place {place} of a full batch"
        assert engine(batch[: place + 1])[place].tobytes() == alone, f"the last of {place + 1}"


def test_different_images_have_different_features(backbone):
    features = TorchEngine(backbone, batch_size=4, device="cpu")(pixels(4, 64))

    assert len({row.tobytes() for row in features}) == 4


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_batches_up_to_the_engines_size_are_taken(flat, count):
    assert TorchEngine(flat, batch_size=4, device="cpu")(pixels(count, 28)).shape == (count, flat.dim)


def test_the_padding_is_cut_off(flat):
    engine = TorchEngine(flat, batch_size=4, device="cpu")

    assert np.array_equal(engine(pixels(4, 28))[:2], engine(pixels(4, 28)[:2]))


def test_the_callers_pixels_are_left_as_they_were(flat):
    images = pixels(4, 28)
    TorchEngine(flat, batch_size=4, device="cpu")(images)

    assert np.array_equal(images, pixels(4, 28))


def test_pixels_may_be_a_read_only_view(flat):
    images = pixels(4, 56)[:, ::2, ::2]
    images.flags.writeable = False
    engine = TorchEngine(flat, batch_size=4, device="cpu")

    assert np.array_equal(engine(images), engine(np.ascontiguousarray(images)))


def test_the_network_runs_in_eval_mode(backbone):
    engine = TorchEngine(backbone, batch_size=2, device="cpu")
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}

    first, second = engine(pixels(2, 64)), engine(pixels(2, 64))

    assert not any(module.training for module in backbone.network.modules())
    assert first.tobytes() == second.tobytes()  # no dropout
    after = backbone.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)  # no running means are updated


def test_two_engines_of_one_backbone_agree_bit_for_bit(backbone):
    images = pixels(2, 64)
    one, other = (TorchEngine(backbone, batch_size=2, device="cpu")(images) for _ in range(2))

    assert one.tobytes() == other.tobytes()


def test_no_gradients_are_kept(spec):
    seen: list[torch.Tensor] = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(self.scale * images.mean(dim=(2, 3)))
            return seen[-1]

    TorchEngine(Backbone(Watched(), spec, 3), batch_size=2, device="cpu")(pixels(2, 28))

    assert not seen[0].requires_grad


def test_the_engine_says_what_it_is(flat):
    engine = TorchEngine(flat, device="cpu")

    assert engine.name == "torch cpu"
    assert engine.batch_size == 8
    assert TorchEngine(flat, batch_size=3, device="cpu").batch_size == 3


@pytest.mark.parametrize("device", ["no such thing", "cpu:x", "cuda:99", "hpu"])
def test_a_device_that_is_not_here_is_a_model_error(flat, device):
    with pytest.raises(ModelError, match="expected a device that torch has here"):
        TorchEngine(flat, device=device)


def test_convolutions_of_a_gpu_are_not_rounded_to_tf32(spec, monkeypatch):
    # On a CPU it shows only in the setting that a GPU would see.
    seen: list[bool] = []

    class Watched(nn.Flatten):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(torch.backends.cudnn.allow_tf32)
            return super().forward(images)

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    TorchEngine(Backbone(Watched(), spec, 3 * 28 * 28), batch_size=2, device="cpu")(pixels(2, 28))

    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32 is True, "the caller's setting is left as it was"
