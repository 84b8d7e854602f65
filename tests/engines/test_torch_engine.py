import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bottleneck.backbones.backbone import Backbone
from bottleneck.backbones.registry import load
from bottleneck.backbones.request import Request
from bottleneck.engines.hardware import cores
from bottleneck.engines.torch_engine import fastest_precision, shares, torch_device
from bottleneck.errors import BottleneckWarning, ModelError
from tests.variants import each

NETWORKS = ["resnet18", "efficientnet_lite0"]


def pixels(count: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.fixture(scope="module", params=NETWORKS)
def backbone(request) -> Backbone:
    with pytest.warns(BottleneckWarning):
        return load(Request(model=request.param, weights="none"))


@pytest.fixture
def five_threads() -> Iterator[int]:
    """Let torch use 5 threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    yield 5
    torch.set_num_threads(before)


@pytest.fixture
def flat(spec) -> Backbone:
    """A backbone whose features are its normalised input."""
    return Backbone(nn.Flatten(), spec, 3 * 28 * 28)


def test_uint8_pixels_become_float32_features(backbone, make):
    features = make(backbone, batch_size=4)(pixels(3, 64))

    assert features.dtype == np.float32
    assert features.shape == (3, backbone.dim)
    assert features.flags.c_contiguous
    assert np.isfinite(features).all()


def test_pixels_are_normalised_by_the_specs_mean_and_std(flat, make):
    images = pixels(2, 28)
    preprocessing = flat.spec.preprocessing
    expected = (images.astype(np.float64) / 255 - preprocessing.mean) / preprocessing.std

    features = make(flat, batch_size=2)(images)

    np.testing.assert_allclose(features.reshape(2, 3, 28, 28), expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_another_mean_gives_other_features(flat, make):
    images = pixels(2, 28)
    other = replace(flat.spec, preprocessing=replace(flat.spec.preprocessing, mean=(0.0, 0.0, 0.0)))

    one = make(flat, batch_size=2)(images)
    shifted = make(replace(flat, spec=other), batch_size=2)(images)

    assert (shifted > one).all()


def test_features_do_not_depend_on_the_rest_of_the_batch_nor_on_the_position(backbone, make):
    engine = make(backbone, batch_size=4)
    image, others = pixels(1, 64), pixels(3, 64, seed=1)
    alone = engine(image)[0].tobytes()

    for place in range(4):
        batch = np.concatenate([others[:place], image, others[place:]])
        assert engine(batch)[place].tobytes() == alone, f"at place {place} of a full batch"
        assert engine(batch[: place + 1])[place].tobytes() == alone, f"the last of {place + 1}"


def test_different_images_have_different_features(backbone, make):
    features = make(backbone, batch_size=4)(pixels(4, 64))

    assert len({row.tobytes() for row in features}) == 4


@each("count", [0, 1, 3, 4])
def test_batches_up_to_the_engines_size_are_taken(flat, count, make):
    assert make(flat, batch_size=4)(pixels(count, 28)).shape == (count, flat.dim)


def test_the_padding_is_cut_off(flat, make):
    engine = make(flat, batch_size=4)

    assert np.array_equal(engine(pixels(4, 28))[:2], engine(pixels(4, 28)[:2]))


def test_the_callers_pixels_are_left_unchanged(flat, make):
    images = pixels(4, 28)
    make(flat, batch_size=4)(images)

    assert np.array_equal(images, pixels(4, 28))


def test_pixels_may_be_a_read_only_view(flat, make):
    images = pixels(4, 56)[:, ::2, ::2]
    images.flags.writeable = False
    engine = make(flat, batch_size=4)

    assert np.array_equal(engine(images), engine(np.ascontiguousarray(images)))


def test_the_network_runs_in_eval_mode(backbone, make):
    engine = make(backbone, batch_size=2)
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}

    first, second = engine(pixels(2, 64)), engine(pixels(2, 64))

    assert not any(module.training for module in backbone.network.modules())
    assert first.tobytes() == second.tobytes()  # no dropout
    after = backbone.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)  # no running means are updated


def test_two_engines_of_one_backbone_agree_bit_for_bit(backbone, make):
    images, found = pixels(2, 64), []
    for _ in range(2):
        engine = make(backbone, batch_size=2)
        found.append(engine(images).tobytes())
        engine.close()

    assert found[0] == found[1]


def test_no_gradients_are_recorded(spec, make):
    seen: list[torch.Tensor] = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(self.scale * images.mean(dim=(2, 3)))
            return seen[-1]

    make(Backbone(Watched(), spec, 3), batch_size=2)(pixels(2, 28))

    assert not seen[0].requires_grad


def test_the_engine_has_a_name_a_precision_and_a_batch_size(flat, make):
    engine = make(flat)

    assert engine.name == f"torch {torch.__version__.partition('+')[0]}, cpu"
    assert engine.precision == "fp32"
    assert engine.batch_size == 8
    assert make(flat, batch_size=3).batch_size == 3


@each("device", ["no such thing", "cpu:x", "cuda:99", "hpu", ""])
def test_a_device_that_is_not_here_is_a_model_error(flat, device, make):
    with pytest.raises(ModelError, match="expected a device that torch can use here") as error:
        make(flat, device=device)

    assert repr(device) in str(error.value)
    assert "\n" not in str(error.value)


def test_convolutions_of_a_gpu_are_not_rounded_to_tf32(spec, make):
    # On a CPU it shows only in the setting that a GPU would see.
    seen: list[bool] = []

    class Watched(nn.Flatten):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(torch.backends.cudnn.allow_tf32)
            return super().forward(images)

    with torch.backends.cudnn.flags(allow_tf32=True):
        engine = make(Backbone(Watched(), spec, 3 * 28 * 28), batch_size=2, plain=True)
        engine(pixels(2, 28))
        engine.close()

        assert set(seen) == {False}
        assert torch.backends.cudnn.allow_tf32 is True, "the setting of the caller is restored"


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
    return kept and not any("forward" in vars(module) for module in network.modules())


def test_folded_features_are_those_of_the_plain_network(tiny, backbone, make):
    for one, side in ((tiny, 28), (backbone, 64)):
        plain = make(one, batch_size=3, plain=True)(pixels(3, side))
        before = state(one.network)

        folded = make(one, batch_size=3)(pixels(3, side))

        assert not same(one.network, before), "nothing was folded"
        np.testing.assert_allclose(folded, plain, rtol=1e-3, atol=1e-4 * np.abs(plain).max())


def test_features_in_bf16_are_near_those_in_fp32(tiny, make):
    plain = make(tiny, batch_size=3, plain=True)(pixels(3, 28))

    engine = make(tiny, precision="bf16", batch_size=3)
    features = engine(pixels(3, 28))

    assert engine.precision == "bf16"
    assert features.dtype == np.float32
    assert 0.999 < cosine(features, plain) < 1
    assert not np.array_equal(features, plain)


def test_a_plain_engine_leaves_the_network_and_torchs_threads_unchanged(tiny, make):
    before, threads = state(tiny.network), torch.get_num_threads()

    engine = make(tiny, batch_size=2, plain=True)
    engine(pixels(2, 28))

    assert same(tiny.network, before)
    assert torch.get_num_threads() == threads
    assert engine.parallel == 1


@each("precision", ["fp32", "bf16", "fp16"])
def test_closing_restores_the_network_and_torchs_threads(tiny, five_threads, precision, make):
    tiny.network.to(memory_format=torch.channels_last)  # how weights lie in memory shows in a feature's last bit
    before, features = state(tiny.network), tiny.network(torch.ones(1, 3, 28, 28))

    engine = make(tiny, precision=precision, batch_size=2)
    assert torch.get_num_threads() == shares(cores())[1]
    assert same(tiny.network, before) == (precision == "fp16")
    engine(pixels(2, 28))
    engine.close()

    assert same(tiny.network, before)
    assert torch.equal(tiny.network(torch.ones(1, 3, 28, 28)), features)
    assert torch.get_num_threads() == five_threads


def test_engines_that_overlap_restore_torchs_settings_when_the_last_is_closed(tiny, five_threads, make):
    with torch.backends.cudnn.flags(allow_tf32=True):
        first, second = (make(tiny, precision="fp16") for _ in range(2))
        first.close()
        assert (torch.get_num_threads(), torch.backends.cudnn.allow_tf32) == (shares(cores())[1], False)
        second.close()

        assert (torch.get_num_threads(), torch.backends.cudnn.allow_tf32) == (five_threads, True)


def test_the_cores_are_shared_among_the_batches_that_run_at_once(flat, make):
    assert [shares(cores) for cores in (1, 2, 3, 4, 12, 64)] == [(1, 1), (2, 1), (3, 1), (4, 1), (4, 3), (4, 16)]

    engine = make(flat)
    assert (engine.parallel, torch.get_num_threads()) == shares(cores())


class WithoutOperations(nn.Module):
    """A network that torch.compile traces in no time: all that it does is done outside of the graph."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.compiled: list[bool] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.features(images, torch.compiler.is_compiling())

    @torch.compiler.disable
    def features(self, images: torch.Tensor, compiled: bool) -> torch.Tensor:
        self.compiled.append(compiled)
        if self.error:
            raise self.error
        return images.flatten(1)


def test_a_network_is_compiled_before_the_first_batch(flat, make):
    expected = make(flat, batch_size=2)(pixels(2, 28))
    network = WithoutOperations()

    engine = make(replace(flat, network=network), batch_size=2, plain=True, compile=True)

    assert network.compiled == [True]
    assert engine.name.endswith(", cpu, compiled")
    assert np.array_equal(engine(pixels(2, 28)), expected)


def test_torchs_threads_are_restored_if_a_network_cannot_be_compiled(flat, five_threads, make):
    for error, message in (
        (RuntimeError("no working compiler\nfound"), "^torch cannot compile the network: no working compiler$"),
        (torch.OutOfMemoryError("2 GiB"), "^not enough memory on cpu for 8 images at once: add --batch-size 2$"),
    ):
        with pytest.raises(ModelError, match=message):
            make(replace(flat, network=WithoutOperations(error)), precision="fp16", compile=True)

        assert torch.get_num_threads() == five_threads, error


# Several threads


def at_once(engine: Callable[[np.ndarray], np.ndarray], batches: list[np.ndarray], threads: int) -> list[bytes]:
    with ThreadPoolExecutor(threads) as pool:
        return [features.tobytes() for features in pool.map(engine, batches)]


@each("precision", ["fp32", "bf16"])
def test_several_threads_at_once_compute_the_same_features_as_one(tiny, precision, make):
    engine = make(tiny, precision=precision, batch_size=4)
    batches = [pixels(1 + seed % 4, 28, seed) for seed in range(40)]
    alone = [engine(batch).tobytes() for batch in batches]

    for threads in (2, 4, 9):  # of 9, some wait
        assert at_once(engine, batches, threads) == alone, threads


def test_the_number_of_batches_that_run_at_once_is_that_of_the_engine(spec, make):
    parallel = shares(cores())[0]
    inside, most, lock, meeting = 0, 0, threading.Lock(), threading.Barrier(parallel)

    class Watched(nn.Flatten):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            meeting.wait(20)  # until as many batches run at once
            with lock:
                inside -= 1
            return super().forward(images)

    engine = make(Backbone(Watched(), spec, 3 * 28 * 28), precision="bf16", batch_size=2)
    at_once(engine, [pixels(2, 28, seed) for seed in range(3 * parallel)], threads=9)

    assert most == engine.parallel == parallel


def test_an_engine_works_on_after_a_batch_that_failed(flat, make):
    engine = make(flat, batch_size=2)
    expected = engine(pixels(2, 28)).tobytes()

    for _ in range(engine.parallel + 1):
        with pytest.raises(RuntimeError):
            engine(np.zeros((2, 28, 28, 5), np.uint8))

    assert engine(pixels(2, 28)).tobytes() == expected


@each("batch_size, advice", [(128, 32), (3, 1), (1, 1)])
def test_a_batch_without_memory_for_it_is_a_model_error(spec, batch_size, advice, make):
    class Greedy(nn.Flatten):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    backbone = Backbone(Greedy(), spec, 3 * 28 * 28)
    engine = make(backbone, precision="bf16", batch_size=batch_size)

    with pytest.raises(ModelError, match=rf"for {batch_size} images? at once: add --batch-size {advice}$"):
        engine(pixels(1, 28))


# Devices


def test_the_device_is_the_one_on_which_torch_allocates():
    assert torch_device("cpu") == torch.device("cpu")
    assert torch_device().type == ("cuda" if torch.cuda.is_available() else torch_device().type)


def test_a_gpu_that_torch_finds_but_cannot_use_is_a_model_error(monkeypatch):
    def zeros(*_: object, device: str) -> torch.Tensor:
        raise RuntimeError(f"{device}: out of memory\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", zeros)
    with pytest.raises(ModelError, match=r"such as cpu, got 'cuda': cuda: out of memory$"):
        torch_device()


def test_the_fastest_precision_of_a_gpu_is_one_that_it_computes_natively(monkeypatch):
    for capability, precision in [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((6, 1), "fp32")]:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)

        assert fastest_precision(torch.device("cuda", 0)) == precision


def test_the_fastest_precision_without_cuda():
    assert fastest_precision(torch.device("mps")) == "fp16"
    assert fastest_precision(torch.device("cpu")) == "fp32"
