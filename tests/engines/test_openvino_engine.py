import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

openvino = pytest.importorskip("openvino")

from bottleneck.backbones.backbone import Backbone  # noqa: E402
from bottleneck.engines import openvino_engine as module  # noqa: E402
from bottleneck.engines.hardware import native_bf16  # noqa: E402
from bottleneck.engines.openvino_engine import OpenVinoEngine, convert, read  # noqa: E402
from bottleneck.engines.records import EngineRecords  # noqa: E402
from bottleneck.errors import ModelError  # noqa: E402
from tests.variants import each  # noqa: E402

needs_bf16 = pytest.mark.skipif(not native_bf16(), reason="this CPU has no bfloat16 of its own")
PRECISIONS = ["fp32", pytest.param("bf16", marks=needs_bf16)]


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28, 3), np.uint8)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    a, b = one.astype(np.float64), other.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture
def backbone(tiny) -> Backbone:
    return tiny


@pytest.fixture
def expected(backbone, make) -> np.ndarray:
    """Return the features of four images from torch in fp32."""
    return make(backbone, batch_size=4, plain=True)(pixels(4))


@pytest.fixture(params=PRECISIONS)
def engine(backbone, request) -> OpenVinoEngine:
    return OpenVinoEngine(convert(backbone, request.param, 4), request.param)


def test_features_in_fp32_are_those_of_torch(backbone, expected):
    features = OpenVinoEngine(convert(backbone, "fp32", 4), "fp32")(pixels(4))

    assert features.dtype == np.float32
    assert features.shape == (4, 16)
    assert cosines(features, expected).min() > 0.99999
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)


@needs_bf16
def test_features_in_bf16_are_near_those_of_torch(backbone, expected):
    features = OpenVinoEngine(convert(backbone, "bf16", 4), "bf16")(pixels(4))

    assert features.dtype == np.float32
    assert cosines(features, expected).min() > 0.999
    assert np.abs(features - expected).max() > 1e-4, "it was computed in fp32"


def test_the_engine_has_a_name_a_precision_and_a_batch_size(engine):
    assert engine.name == f"openvino {module.VERSION}, cpu"
    assert module.VERSION.replace(".", "").isdigit()
    assert engine.precision in ("fp32", "bf16")
    assert engine.batch_size == 4
    assert engine.parallel >= 1
    engine.close()
    assert engine(pixels(1)).shape == (1, 16), "closing gives nothing back"


def test_by_default_eight_images_pass_at_once(backbone):
    assert OpenVinoEngine(convert(backbone, "fp32"), "fp32").batch_size == 8


def test_features_do_not_depend_on_the_rest_of_the_batch(engine):
    batch, other = pixels(4), pixels(4, seed=1)
    alone = engine(batch[:1])[0].tobytes()

    for count in (1, 2, 3, 4):
        assert engine(np.concatenate([batch[:1], other[: count - 1]]))[0].tobytes() == alone, count
    assert len({row.tobytes() for row in engine(batch)}) == 4


@each("count", [0, 1, 3, 4])
def test_batches_up_to_the_engines_size_are_taken(engine, count):
    assert engine(pixels(count)).shape == (count, 16)


def test_features_are_the_callers_own(engine):
    first = engine(pixels(4))
    before = first.copy()
    for seed in range(2 * engine.parallel):
        engine(pixels(4, seed + 1))

    assert np.array_equal(first, before)
    assert first.flags.owndata
    assert first.flags.writeable


def test_pixels_may_be_a_read_only_view_and_stay_unchanged(engine):
    wide = np.random.default_rng(0).integers(0, 256, (4, 56, 56, 3), np.uint8)
    view = wide[:, ::2, ::2]
    view.flags.writeable = False
    before = view.copy()

    assert np.array_equal(engine(view), engine(np.ascontiguousarray(view)))
    assert np.array_equal(view, before)


def test_several_threads_at_once_give_what_one_gives(engine):
    batches = [pixels(1 + seed % 4, seed) for seed in range(60)]
    alone = [engine(batch).tobytes() for batch in batches]

    for threads in (2, engine.parallel + 3):
        with ThreadPoolExecutor(threads) as pool:
            assert [features.tobytes() for features in pool.map(engine, batches)] == alone, threads


def test_an_engine_works_on_after_a_batch_that_failed(engine):
    expected = engine(pixels(4)).tobytes()

    for _ in range(engine.parallel + 1):
        with pytest.raises(RuntimeError):
            engine(np.zeros((4, 29, 28, 3), np.uint8))

    assert engine(pixels(4)).tobytes() == expected


@each("precision", ["fp32", "bf16", "fp16"])
def test_converting_leaves_the_backbone_unchanged(backbone, precision):
    network = backbone.network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    features = network(torch.ones(1, 3, 28, 28))

    convert(backbone, precision, 2)

    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not any("forward" in vars(each) for each in network.modules())
    assert not any(each.training for each in network.modules())
    assert torch.equal(network(torch.ones(1, 3, 28, 28)), features)


def test_the_mean_and_std_are_part_of_the_graph(spec):
    flat = Backbone(nn.Flatten(), spec, 3 * 28 * 28)
    preprocessing = spec.preprocessing
    expected = (pixels(2).astype(np.float64) / 255 - preprocessing.mean) / preprocessing.std

    features = OpenVinoEngine(convert(flat, "fp32", 2), "fp32")(pixels(2))

    np.testing.assert_allclose(features.reshape(2, 3, 28, 28), expected.transpose(0, 3, 1, 2), atol=1e-5)


# What cannot be had


class Compiled:
    """A compiled model that computes in another precision than the requested one."""

    def __init__(self, precision: object) -> None:
        self._precision = precision

    def get_property(self, name: str) -> object:
        assert name == "INFERENCE_PRECISION_HINT"
        return self._precision


@each(
    "requested, reported, words",
    [
        ("bf16", "f32", "no bf16 on this CPU; it would compute in f32"),
        ("fp16", "f32", "no fp16"),
        ("fp32", "bf16", "no fp32"),
    ],
)
def test_another_precision_than_the_requested_one_is_a_model_error(requested, reported, words):
    class Core:
        def compile_model(self, model: object, device: str, settings: dict[str, object]) -> Compiled:
            assert device == "CPU"
            name = settings["INFERENCE_PRECISION_HINT"].get_type_name()
            assert name == {"fp32": "f32", "fp16": "f16"}.get(requested, requested)
            return Compiled(getattr(openvino.Type, reported))

    with pytest.raises(ModelError, match=f"^OpenVINO has {words}"):
        OpenVinoEngine(graph(), requested, Core())


def test_a_model_that_openvino_cannot_compile_is_a_model_error():
    class Core:
        def compile_model(self, *_: object) -> None:
            raise RuntimeError("Exception from src/inference:\n\nout of memory\n\n")

    with pytest.raises(ModelError, match=r"^OpenVINO cannot run the network on this CPU: out of memory$"):
        OpenVinoEngine(graph(), "fp32", Core())


def graph():
    """Return a graph of two images."""
    given = openvino.op.Parameter(openvino.Type.u8, openvino.PartialShape([2, 28, 28, 3]))
    return openvino.Model([given], [given], "tiny")


class Odd(nn.Module):
    """Features by an operation that OpenVINO has no counterpart of."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(images.mean(1))


class Failing(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise ValueError("of no use\nat all")


@each("network, words", [(Odd(), "aten::linalg_svdvals"), (Failing(), "at all")])
def test_a_network_that_cannot_be_converted_is_a_model_error(spec, network, words):
    with pytest.raises(ModelError, match=r"^OpenVINO cannot convert the network: ") as error:
        convert(Backbone(network.eval(), spec, 28), "fp32", 2)

    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@each("data", [b"", b"\x89PNG\r\n\x1a\n", b"<xml/>"])
def test_a_damaged_conversion_is_none(tmp_path, data):
    path = tmp_path / "model.xml"
    path.write_bytes(data)

    assert read(path) is None


def test_a_conversion_that_is_not_there_is_none(tmp_path):
    assert read(tmp_path / "none.xml") is None


# A conversion that was kept

FRESH = """
import json, sys, threading
from pathlib import Path

import numpy as np

from bottleneck.engines.openvino_engine import OpenVinoEngine, read

engine = OpenVinoEngine(read(Path(sys.argv[1])), "fp32")
images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), np.uint8)
start, found = threading.Barrier(4), {}

def run(number):
    start.wait()
    found[number] = engine(images).tolist()

threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert "torch" not in sys.modules
print(json.dumps([found[number] for number in range(4)]))
"""


@pytest.fixture
def kept(backbone, tmp_path) -> Path:
    """The file of a conversion in fp32 for four images."""
    folder = EngineRecords(tmp_path / "engines")
    folder.keep_conversion("conversion", convert(backbone, "fp32", 4))
    path = folder.conversion("conversion")
    assert path
    return path


def test_a_stored_conversion_computes_the_same_features(backbone, kept):
    made = OpenVinoEngine(convert(backbone, "fp32", 4), "fp32")
    again, once_more = (OpenVinoEngine(read(kept), "fp32") for _ in range(2))

    assert again.batch_size == 4
    np.testing.assert_allclose(again(pixels(4)), made(pixels(4)), rtol=1e-4, atol=1e-6)
    assert again(pixels(4)).tobytes() == once_more(pixels(4)).tobytes()


def test_several_threads_can_make_the_first_call_in_a_process_without_torch(kept, expected):
    for _ in range(2):  # where they waited for each other, they did not always
        done = subprocess.run(
            [sys.executable, "-c", FRESH, str(kept)], capture_output=True, text=True, check=False, timeout=60
        )

        assert done.returncode == 0, done.stderr
        for features in json.loads(done.stdout):
            assert cosines(np.array(features), expected).min() > 0.99999
