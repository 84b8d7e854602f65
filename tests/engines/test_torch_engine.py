import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bottleneck.backbones.backbone import Backbone
from bottleneck.backbones.registry import load
from bottleneck.backbones.request import Request
from bottleneck.engines import torch_engine as module
from bottleneck.engines.torch_engine import TorchEngine, fastest_precision, torch_device
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


def test_the_callers_pixels_are_left_unchanged(flat):
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
    images, found = pixels(2, 64), []
    for _ in range(2):
        engine = TorchEngine(backbone, batch_size=2, device="cpu")
        found.append(engine(images).tobytes())
        engine.close()

    assert found[0] == found[1]


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

    assert engine.name == f"torch {torch.__version__.partition('+')[0]}, cpu"
    assert engine.precision == "fp32"
    assert engine.batch_size == 8
    assert TorchEngine(flat, batch_size=3, device="cpu").batch_size == 3


@pytest.mark.parametrize("device", ["no such thing", "cpu:x", "cuda:99", "hpu", ""])
def test_a_device_that_is_not_here_is_a_model_error(flat, device):
    with pytest.raises(ModelError, match="expected a device that torch can use here") as error:
        TorchEngine(flat, device=device)

    assert repr(device) in str(error.value)
    assert "\n" not in str(error.value)


def test_convolutions_of_a_gpu_are_not_rounded_to_tf32(spec, monkeypatch):
    # On a CPU it shows only in the setting that a GPU would see.
    seen: list[bool] = []

    class Watched(nn.Flatten):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(torch.backends.cudnn.allow_tf32)
            return super().forward(images)

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    engine = TorchEngine(Backbone(Watched(), spec, 3 * 28 * 28), batch_size=2, device="cpu", plain=True)
    engine(pixels(2, 28))
    engine.close()

    assert set(seen) == {False}
    assert torch.backends.cudnn.allow_tf32 is True, "the caller's setting is left as it was"


# What is changed, and given back


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(network: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    after = network.state_dict()
    kept = before.keys() == after.keys() and all(
        value.dtype == after[name].dtype and torch.equal(value, after[name]) for name, value in before.items()
    )
    return kept and not any("forward" in vars(each) for each in network.modules())


def test_folded_features_are_those_of_the_plain_network(tiny, backbone):
    for each, side in ((tiny, 28), (backbone, 64)):
        plain = TorchEngine(each, batch_size=3, device="cpu", plain=True)(pixels(3, side))
        before = state(each.network)

        folded = TorchEngine(each, batch_size=3, device="cpu")(pixels(3, side))

        assert not same(each.network, before), "nothing was folded"
        np.testing.assert_allclose(folded, plain, rtol=1e-3, atol=1e-4 * np.abs(plain).max())


def test_features_in_bf16_are_near_those_in_fp32(tiny):
    plain = TorchEngine(tiny, batch_size=3, device="cpu", plain=True)(pixels(3, 28))

    engine = TorchEngine(tiny, precision="bf16", batch_size=3, device="cpu")
    features = engine(pixels(3, 28))

    assert engine.precision == "bf16"
    assert features.dtype == np.float32
    assert 0.999 < cosine(features, plain) < 1
    assert not np.array_equal(features, plain)


def test_a_plain_engine_leaves_the_network_and_torchs_threads_unchanged(tiny):
    before, threads = state(tiny.network), torch.get_num_threads()

    engine = TorchEngine(tiny, batch_size=2, device="cpu", plain=True)
    engine(pixels(2, 28))

    assert same(tiny.network, before)
    assert torch.get_num_threads() == threads
    assert engine.parallel == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_closing_gives_back_the_network_and_torchs_threads(tiny, monkeypatch, precision):
    monkeypatch.setattr(module, "cores", lambda: 12)
    torch.set_num_threads(5)
    tiny.network.to(memory_format=torch.channels_last)  # how weights lie in memory shows in a feature's last bit
    before, features = state(tiny.network), tiny.network(torch.ones(1, 3, 28, 28))

    engine = TorchEngine(tiny, precision=precision, batch_size=2, device="cpu")
    assert torch.get_num_threads() == 3  # 12 cores, 4 batches at once
    assert same(tiny.network, before) == (precision == "fp16")
    engine(pixels(2, 28))
    engine.close()

    assert same(tiny.network, before)
    assert torch.equal(tiny.network(torch.ones(1, 3, 28, 28)), features)
    assert torch.get_num_threads() == 5


def test_engines_that_overlap_restore_torchs_settings_when_the_last_is_closed(tiny, monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 12)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_num_threads(5)

    first, second = (TorchEngine(tiny, precision="fp16", device="cpu") for _ in range(2))
    first.close()
    assert (torch.get_num_threads(), torch.backends.cudnn.allow_tf32) == (3, False)
    second.close()

    assert (torch.get_num_threads(), torch.backends.cudnn.allow_tf32) == (5, True)


@pytest.mark.parametrize(("cores", "parallel", "threads"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 4, 1), (64, 4, 16)])
def test_the_cores_are_shared_among_batches_at_once(flat, monkeypatch, cores, parallel, threads):
    monkeypatch.setattr(module, "cores", lambda: cores)

    assert TorchEngine(flat, device="cpu").parallel == parallel
    assert torch.get_num_threads() == threads


# Several threads


def at_once(engine: Callable[[np.ndarray], np.ndarray], batches: list[np.ndarray], threads: int) -> list[bytes]:
    with ThreadPoolExecutor(threads) as pool:
        return [features.tobytes() for features in pool.map(engine, batches)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_several_threads_at_once_give_what_one_gives(tiny, monkeypatch, precision):
    monkeypatch.setattr(module, "cores", lambda: 4)
    engine = TorchEngine(tiny, precision=precision, batch_size=4, device="cpu")
    batches = [pixels(1 + seed % 4, 28, seed) for seed in range(40)]
    alone = [engine(batch).tobytes() for batch in batches]

    for threads in (2, 4, 9):  # of 9, some wait
        assert at_once(engine, batches, threads) == alone, threads


def test_no_more_batches_are_computed_at_once_than_the_engine_says(spec, monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 3)
    inside, most, lock, meeting = 0, 0, threading.Lock(), threading.Barrier(3)

    class Watched(nn.Flatten):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            meeting.wait(20)  # for three at once
            with lock:
                inside -= 1
            return super().forward(images)

    engine = TorchEngine(Backbone(Watched(), spec, 3 * 28 * 28), precision="bf16", batch_size=2, device="cpu")
    at_once(engine, [pixels(2, 28, seed) for seed in range(9)], threads=9)

    assert most == engine.parallel == 3


def test_an_engine_works_on_after_a_batch_that_failed(flat):
    engine = TorchEngine(flat, batch_size=2, device="cpu")
    expected = engine(pixels(2, 28)).tobytes()

    for _ in range(engine.parallel + 1):
        with pytest.raises(RuntimeError):
            engine(np.zeros((2, 28, 28, 5), np.uint8))

    assert engine(pixels(2, 28)).tobytes() == expected


@pytest.mark.parametrize(("batch_size", "advice"), [(128, 32), (3, 1), (1, 1)])
def test_a_batch_without_memory_for_it_is_a_model_error(spec, batch_size, advice):
    class Greedy(nn.Flatten):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    backbone = Backbone(Greedy(), spec, 3 * 28 * 28)
    engine = TorchEngine(backbone, precision="bf16", batch_size=batch_size, device="cpu")

    with pytest.raises(ModelError, match=rf"for {batch_size} images? at once: add --batch-size {advice}$"):
        engine(pixels(1, 28))


# Devices


def test_a_device_is_what_torch_put_a_number_on(monkeypatch):
    assert torch_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert torch_device() == torch.device("cpu")


def test_a_gpu_that_torch_finds_and_cannot_use_is_a_model_error(monkeypatch):
    def zeros(*_: object, device: str) -> torch.Tensor:
        raise RuntimeError(f"{device}: out of memory\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", zeros)
    with pytest.raises(ModelError, match=r"such as cpu, got 'cuda': cuda: out of memory$"):
        torch_device()


@pytest.mark.parametrize(
    ("bf16", "capability", "precision"),
    [(True, (9, 0), "bf16"), (True, (8, 0), "bf16"), (False, (7, 5), "fp16"), (False, (6, 1), "fp32")],
)
def test_the_fastest_precision_of_a_gpu_is_one_that_it_has(monkeypatch, bf16, capability, precision):
    def supported(including_emulation: bool = True) -> bool:
        return bf16 or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)

    assert fastest_precision(torch.device("cuda", 0)) == precision


def test_the_fastest_precision_without_cuda():
    assert fastest_precision(torch.device("mps")) == "fp16"
    assert fastest_precision(torch.device("cpu")) == "fp32"
