import numpy as np
import pytest

from bottleneck.engines.engine import padded
from bottleneck.engines.options import ENGINES, EngineOptions
from bottleneck.errors import ModelError
from tests.variants import each


def test_nothing_is_requested_by_default():
    assert EngineOptions() == EngineOptions(engine="auto", device=None, batch_size=None, compile=False)


@each("engine", ENGINES)
def test_every_listed_engine_may_be_requested(engine):
    assert EngineOptions(engine=engine).engine == engine


@each("engine", ["", "OpenVINO", "tensorflow"])
def test_another_engine_is_a_model_error(engine):
    with pytest.raises(ModelError, match=f"expected --engine auto, torch, openvino, got '{engine}'"):
        EngineOptions(engine=engine)


@each("device", ["cuda", "mps", "cpu:0", ""])
def test_openvino_runs_on_the_cpu_only(device):
    with pytest.raises(ModelError, match=f"expected --device cpu for the engine openvino, got '{device}'"):
        EngineOptions(engine="openvino", device=device)
    assert EngineOptions(engine="openvino", device="cpu").device == "cpu"
    assert EngineOptions(engine="torch", device=device).device == device


def test_compiling_is_torchs():
    with pytest.raises(ModelError, match="expected --engine torch with --compile"):
        EngineOptions(engine="openvino", compile=True)
    assert EngineOptions(engine="torch", compile=True).compile
    assert EngineOptions(compile=True).compile


@each("count", [0, 1, 3, 4])
def test_what_a_batch_lacks_is_black(count):
    pixels = np.random.default_rng(0).integers(1, 256, (count, 5, 6, 3), np.uint8)

    batch = padded(pixels, 4)

    assert batch.shape == (4, 5, 6, 3)
    assert batch.dtype == np.uint8
    assert batch.flags.c_contiguous
    assert np.array_equal(batch[:count], pixels)
    assert not batch[count:].any()


def test_a_full_batch_is_not_copied_unless_it_must_be():
    pixels = np.ones((4, 6, 6, 3), np.uint8)

    assert padded(pixels, 4) is pixels
    assert padded(pixels[:, ::2], 4).flags.c_contiguous
    assert np.array_equal(padded(pixels[:, ::2], 4), pixels[:, ::2])
