import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bottleneck.backbones.backbone import Backbone
from bottleneck.engines import choice as module
from bottleneck.engines import hardware, torch_engine
from bottleneck.engines import parity as gate
from bottleneck.engines.choice import NO_OPENVINO, EngineChoice, NoEngine, choose, precisions
from bottleneck.engines.options import EngineOptions
from bottleneck.engines.parity import lowest_cosine
from bottleneck.engines.probe import PROBES, probe_images
from bottleneck.engines.records import EngineRecords
from bottleneck.engines.torch_engine import TorchEngine
from bottleneck.errors import ModelError, NoMemory
from bottleneck.utils.tree import Tree

try:
    from bottleneck.engines import openvino_engine
except ImportError:
    openvino_engine = None  # type: ignore[assignment]

needs_openvino = pytest.mark.skipif(openvino_engine is None, reason="OpenVINO is not installed")


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28, 3), np.uint8)


class Start:
    """Starts of one program after another, with one folder of kept things."""

    def __init__(self, backbone: Backbone, folder: Path) -> None:
        self.backbone = backbone
        self.folder = folder
        self.kept = EngineRecords(folder)
        self.built = 0

    def __call__(self, precision: str = "fp32", sample: np.ndarray | None = None, **wish: object) -> EngineChoice:
        wish = {"batch_size": 4, "device": "cpu", **wish}
        spec = replace(self.backbone.spec, precision=precision)
        own = None if sample is None else lambda: sample
        return choose(EngineOptions(**wish), spec, self.build, self.folder, own)  # type: ignore[arg-type]

    def build(self) -> Backbone:
        self.built += 1
        return self.backbone


@pytest.fixture
def start(tiny, tmp_path) -> Start:
    return Start(tiny, tmp_path / "engines")


@pytest.fixture(autouse=True)
def a_cpu(monkeypatch) -> None:
    monkeypatch.setattr(module, "gpu_possible", lambda: False)
    for switch in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(switch, raising=False)


def state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(network: torch.nn.Module, before: dict[str, torch.Tensor]) -> bool:
    after = network.state_dict()
    kept = before.keys() == after.keys() and all(torch.equal(value, after[name]) for name, value in before.items())
    return kept and not any("forward" in vars(each) for each in network.modules())


def shifted(features: np.ndarray) -> np.ndarray:
    """Return features of a cosine well below 0.999 and above 0.5."""
    return features + np.float32(0.3 * np.abs(features).max()) * (np.arange(features.shape[1]) % 2).astype(np.float32)


def not_finite(features: np.ndarray) -> np.ndarray:
    features[1, 5] = np.nan
    return features


def spoil_openvino(monkeypatch: pytest.MonkeyPatch, how: Callable[[np.ndarray], np.ndarray] = shifted) -> None:
    right = openvino_engine.OpenVinoEngine.__call__

    def call(self: object, images: np.ndarray) -> np.ndarray:
        features = right(self, images)
        return how(features) if len(images) > 1 else features

    monkeypatch.setattr(openvino_engine.OpenVinoEngine, "__call__", call)


def spoil_torch(monkeypatch: pytest.MonkeyPatch, how: Callable[[np.ndarray], np.ndarray] = shifted) -> None:
    """Spoil torch in bf16; in fp32 it is the reference."""
    right = TorchEngine.__call__

    def call(self: TorchEngine, images: np.ndarray) -> np.ndarray:
        features = right(self, images)
        return how(features) if self.precision == "bf16" else features

    monkeypatch.setattr(TorchEngine, "__call__", call)


def refuse(error: Exception) -> Callable[..., None]:
    def function(*args: object, **options: object) -> None:
        raise error

    return function


def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_openvino", lambda: False)


# The first that is near enough


@needs_openvino
def test_on_a_cpu_openvino_is_used(start):
    chosen = start()

    assert chosen.engine.name == f"openvino {openvino_engine.VERSION}, cpu"
    assert chosen.engine.precision == "fp32"
    assert chosen.engine.batch_size == 4
    assert chosen.check.engine == chosen.engine.name
    assert chosen.check.own_images == 0
    assert 0.99999 < chosen.check.cosine <= 1
    assert chosen.remarks == ()
    assert start.kept.checks() == [chosen.check]


@needs_openvino
def test_its_features_are_those_of_torch_in_fp32(start):
    expected = TorchEngine(start.backbone, batch_size=4, device="cpu", plain=True)(pixels(4, 1))

    np.testing.assert_allclose(start().engine(pixels(4, 1)), expected, rtol=1e-3, atol=1e-4)


def test_every_probe_is_compared_and_every_image_of_the_users(start, monkeypatch):
    seen: list[np.ndarray] = []
    right = gate.lowest_cosine

    def watch(features: np.ndarray, reference: np.ndarray) -> float | None:
        seen.append(features.copy())
        np.testing.assert_allclose(features, reference, rtol=1e-3, atol=1e-4)
        return right(features, reference)

    monkeypatch.setattr(gate, "lowest_cosine", watch)
    chosen = start(sample=pixels(7))

    assert [len(features) for features in seen] == [PROBES, 7], "with a batch of 4, in two parts each"
    assert (chosen.check.own_images, chosen.check.passed, chosen.check.suits) == (7, True, True)


@pytest.mark.parametrize("engine", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_the_same_images_of_the_users_are_compared_once(start, engine):
    found = []
    for sample in (None, pixels(8, 1), pixels(8, 1), pixels(8, 2)):
        found.append(start(engine=engine, sample=sample))
        found[-1].engine.close()
    checks = [chosen.check for chosen in found]

    assert (checks[0].own_images, checks[0].own_cosine) == (0, None)
    assert len({check.cosine for check in checks}) == 1
    assert checks[1].own_images == 8
    assert checks[2] == checks[1]
    assert checks[3].own_digest != checks[1].own_digest, "what was found of others says nothing of these"
    assert start.kept.checks() == [checks[3]]


def test_images_of_the_users_that_the_network_makes_nothing_of_say_nothing(start, monkeypatch):
    right = TorchEngine.__call__

    def call(self: TorchEngine, images: np.ndarray) -> np.ndarray:
        features = right(self, images)
        return features if len(images) == PROBES else np.full_like(features, np.nan)

    monkeypatch.setattr(TorchEngine, "__call__", call)
    chosen = start(engine="torch", sample=pixels(3))

    assert (chosen.check.passed, chosen.check.own_images) == (True, 0)
    assert start.kept.checks() == [chosen.check]


def test_a_sample_for_which_there_is_no_memory_is_not_the_engines_fault(start):
    def sample() -> np.ndarray:
        raise MemoryError

    with pytest.raises(NoMemory, match="not enough memory for a few images"):
        choose(EngineOptions(device="cpu"), start.backbone.spec, start.build, start.folder, sample)


def test_the_reference_keeps_to_the_batch_size(start, monkeypatch):
    sizes: list[int | None] = []
    right = TorchEngine.__init__

    def watch(self: TorchEngine, *args: object, **options: object) -> None:
        sizes.append(options["batch_size"])  # type: ignore[arg-type]
        right(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(TorchEngine, "__init__", watch)
    start(engine="torch", batch_size=2).engine.close()

    assert sizes == [2, 2]


def test_torch_that_failed_once_has_another_chance(start, monkeypatch):
    with monkeypatch.context() as spoilt:
        spoil_torch(spoilt)
        with pytest.raises(NoEngine):
            start("bf16", engine="torch")

    assert start("bf16", engine="torch").check.passed
    assert [check.passed for check in start.kept.checks()] == [True]


@pytest.mark.parametrize("engine", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_images_of_the_users_decide_nothing_here(start, monkeypatch, engine):
    monkeypatch.setattr(gate, "lowest_cosine", lambda features, reference: 1.0 if len(features) == PROBES else 0.5)
    chosen = start(engine=engine, sample=pixels(3))

    assert chosen.engine.name.startswith(engine)
    assert (chosen.check.passed, chosen.check.suits, chosen.check.own_cosine) == (True, False, 0.5)
    assert chosen.remarks == ()


def test_a_known_verdict_needs_no_reference(start, monkeypatch):
    start(engine="torch").engine.close()
    plain: list[bool] = []
    right = TorchEngine.__init__

    def watch(self: TorchEngine, *args: object, **options: object) -> None:
        plain.append(bool(options.get("plain")))
        right(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(TorchEngine, "__init__", watch)
    start(engine="torch").engine.close()

    assert plain == [False]


def test_a_network_without_finite_features_gives_no_verdict(start, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(TorchEngine, "__call__", lambda self, images: np.full((len(images), 4), np.nan, np.float32))
        start(engine="torch").engine.close()

    assert start.kept.checks() == []


@pytest.mark.parametrize("wish", [{"engine": "torch"}, {"compile": True}], ids=str)
def test_where_torch_is_requested_it_is_used_without_a_remark(start, monkeypatch, wish):
    monkeypatch.setattr(torch, "compile", lambda network: network)  # which would take a minute

    chosen = start(**wish)

    assert chosen.engine.name.startswith("torch ")
    assert chosen.remarks == ()
    assert chosen.check.cosine > 0.99999
    assert start.kept.checks() == [chosen.check]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_torch_is_compared_with_the_unchanged_network(start, precision):
    probes = probe_images(28, 28)
    reference = TorchEngine(start.backbone, batch_size=8, device="cpu", plain=True)(probes)

    chosen = start(precision, engine="torch", batch_size=8)

    assert chosen.engine.precision == precision
    assert chosen.check.cosine == lowest_cosine(chosen.engine(probes), reference)
    assert (chosen.check.cosine > 0.999999) == (precision == "fp32")


def test_the_backbone_is_built_once_whatever_is_tried(start, monkeypatch):
    if openvino_engine:
        spoil_openvino(monkeypatch)
    start()

    assert start.built == 1


# The gate


@needs_openvino
@pytest.mark.parametrize(
    ("how", "words"), [(shifted, r"lowest cosine 0\.\d{5}"), (not_finite, "some features are not finite")]
)
def test_an_engine_that_is_too_far_off_is_not_used(start, monkeypatch, how, words):
    spoil_openvino(monkeypatch, how)

    chosen = start()

    assert chosen.engine.name.startswith("torch ")
    assert chosen.check.passed
    (remark,) = chosen.remarks
    name = re.escape(f"openvino {openvino_engine.VERSION}, cpu")
    assert re.fullmatch(
        rf"{name} in fp32 is not used: {words}, expected 0\.999 or more against torch in fp32 on synthetic images",
        remark,
    )
    assert [check.passed for check in start.kept.checks()] == [False, True]


@needs_openvino
def test_a_failed_check_is_remembered_and_nothing_is_converted_again(start, monkeypatch):
    spoil_openvino(monkeypatch)
    first = start()
    first.engine.close()
    monkeypatch.setattr(openvino_engine, "convert", refuse(AssertionError("it was converted again")))
    monkeypatch.setattr(openvino_engine, "read", refuse(AssertionError("it was read")))

    second = start()

    assert second.remarks == first.remarks != ()
    assert second.engine.name == first.engine.name


@needs_openvino
def test_a_failed_check_does_not_count_on_another_cpu(start, monkeypatch):
    with monkeypatch.context() as spoilt:
        spoil_openvino(spoilt)
        start().engine.close()
    monkeypatch.setattr(module, "cpu_id", lambda: "another")

    assert start().engine.name.startswith("openvino ")


@needs_openvino
def test_where_no_engine_is_near_enough_there_is_none(start, monkeypatch):
    before = state(start.backbone.network)
    spoil_torch(monkeypatch, not_finite)
    monkeypatch.setattr(openvino_engine, "convert", refuse(ModelError("OpenVINO cannot convert the network: odd")))

    with pytest.raises(NoEngine) as error:
        start("bf16")

    converting, torchs = error.value.remarks
    assert converting == "OpenVINO cannot convert the network: odd"
    assert torchs.startswith(f"torch {torch.__version__.partition('+')[0]}, cpu in bf16 is not used: some features are")
    assert str(error.value) == (
        f"expected an engine for bf16, found none: {converting}; {torchs}. Extract with --precision fp32"
    )
    assert same(start.backbone.network, before), "the next attempt is another precision of the same network"


def test_torch_alone_too_is_checked(start, monkeypatch):
    spoil_torch(monkeypatch)

    with pytest.raises(
        NoEngine, match=r"torch .*, cpu in bf16 is not used: lowest cosine 0\.\d{5}, expected 0\.999 or"
    ):
        start("bf16", engine="torch")


@needs_openvino
def test_an_engine_requested_by_name_is_not_replaced(start, monkeypatch, closed):
    spoil_openvino(monkeypatch)

    for _ in range(2):  # the second time it is remembered
        with pytest.raises(ModelError, match=r"openvino .* in fp32 is not used: lowest cosine 0\."):
            start(engine="openvino")

    assert all(engine.parallel == 1 for engine in closed), "none but the reference"


@needs_openvino
def test_an_engine_requested_by_name_that_cannot_be_made_says_why(start, monkeypatch):
    monkeypatch.setattr(openvino_engine, "convert", refuse(ModelError("OpenVINO cannot convert the network: odd")))

    with pytest.raises(ModelError, match=r"^OpenVINO cannot convert the network: odd$"):
        start(engine="openvino")


@needs_openvino
def test_a_network_that_openvino_cannot_convert_is_torchs(start, monkeypatch):
    monkeypatch.setattr(openvino_engine, "convert", refuse(ModelError("OpenVINO cannot convert the network: odd")))

    chosen = start()

    assert chosen.engine.name.startswith("torch ")
    assert chosen.remarks == ("OpenVINO cannot convert the network: odd",)


def test_without_openvino_torch_is_used_with_a_remark(start, monkeypatch):
    without_openvino(monkeypatch)

    chosen = start()

    assert chosen.engine.name.startswith("torch ")
    assert chosen.remarks == (NO_OPENVINO,)
    assert "pip install" in NO_OPENVINO


def test_without_openvino_it_cannot_be_requested(start, monkeypatch):
    without_openvino(monkeypatch)

    with pytest.raises(ModelError, match=r"expected OpenVINO for --engine openvino: .*pip install"):
        start(engine="openvino")
    assert start.built == 0


# What was kept


@needs_openvino
def test_the_second_start_reads_the_conversion_and_builds_nothing(start, monkeypatch):
    first = start()
    features = first.engine(pixels(4, 1))
    monkeypatch.setattr(start, "build", refuse(AssertionError("it was built")))
    monkeypatch.setattr(openvino_engine, "convert", refuse(AssertionError("it was converted")))
    monkeypatch.setattr(torch_engine, "TorchEngine", refuse(AssertionError("torch was asked")))

    second = start()

    assert second.check == first.check
    assert second.remarks == ()
    np.testing.assert_allclose(second.engine(pixels(4, 1)), features, rtol=1e-4, atol=1e-6)


@needs_openvino
def test_a_conversion_that_was_damaged_is_made_again(start):
    start()
    (path,) = start.folder.rglob("model.bin")
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")

    assert start().check.cosine > 0.99999
    assert start.built == 2

    start()
    assert start.built == 2, "it was repaired"


@needs_openvino
def test_a_conversion_that_cannot_be_read_is_made_again(start, monkeypatch):
    start()
    monkeypatch.setattr(openvino_engine, "read", lambda path: None)  # another process has just deleted it, say

    assert start().check.cosine > 0.99999
    assert start.built == 2


@needs_openvino
def test_a_check_that_was_lost_is_made_again(start):
    start()
    (path,) = start.folder.glob("*.json")
    path.write_text("{")

    start()
    start()

    assert start.built == 2


@needs_openvino
def test_another_cpu_and_another_batch_size_are_checked_on_their_own(start, monkeypatch):
    start()
    start(batch_size=2)
    assert start.built == 2
    monkeypatch.setattr(module, "cpu_id", lambda: "another")
    start()
    assert start.built == 3

    start()
    start(batch_size=4)
    assert start.built == 3
    assert start(batch_size=2).engine.batch_size == 2


@needs_openvino
def test_a_folder_that_cannot_be_written_does_no_harm(start, monkeypatch):
    for name in ("at", "write_json"):
        monkeypatch.setattr(Tree, name, refuse(PermissionError(13, "Permission denied")))

    for _ in range(2):
        assert start().engine.name.startswith("openvino ")
    assert start.built == 2
    assert start.kept.checks() == []


# Precisions


def flags(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(hardware, "_cpu_flags", lambda: frozenset(names))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_requested_precision_is_the_only_one(monkeypatch, precision):
    for native in (True, False):
        monkeypatch.setattr(module, "native_bf16", lambda native=native: native)
        assert precisions(EngineOptions(), precision) == (precision,)


@pytest.mark.parametrize(
    "wish",
    [EngineOptions(), EngineOptions(device="cpu"), EngineOptions(engine="torch"), EngineOptions(engine="openvino")],
    ids=str,
)
def test_on_a_cpu_bf16_is_first_where_it_is_native(monkeypatch, wish):
    monkeypatch.setattr(module, "native_bf16", lambda: True)
    assert precisions(wish, "auto") == ("bf16", "fp32")

    monkeypatch.setattr(module, "native_bf16", lambda: False)
    assert precisions(wish, "auto") == ("fp32",)


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        (None, ("bf16", "fp32")),
        ("AVX512_CORE", ("fp32",)),
        ("AVX512_CORE_VNNI", ("fp32",)),
        ("AVX512_CORE_AMX", ("bf16", "fp32")),
    ],
)
def test_a_limit_of_onednn_decides_too(monkeypatch, limit, found):
    flags(monkeypatch, "avx512f", "avx512_bf16", "amx_bf16")
    if limit:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)

    assert precisions(EngineOptions(), "auto") == found


@pytest.mark.parametrize(
    ("fastest", "found"), [("bf16", ("bf16", "fp32")), ("fp16", ("fp16", "fp32")), ("fp32", ("fp32",))]
)
def test_on_a_gpu_the_fastest_that_it_has_is_first(monkeypatch, fastest, found):
    monkeypatch.setattr(module, "gpu_possible", lambda: True)
    monkeypatch.setattr(module, "native_bf16", refuse(AssertionError("the CPU was asked")))
    monkeypatch.setattr(torch_engine, "torch_device", lambda name=None: torch.device("cuda", 0))
    monkeypatch.setattr(torch_engine, "fastest_precision", lambda device: fastest)

    for wish in (EngineOptions(), EngineOptions(device="cuda"), EngineOptions(engine="torch", device="cuda:0")):
        assert precisions(wish, "auto") == found


def test_where_a_gpu_is_possible_and_torch_finds_none_it_is_a_cpu(monkeypatch):
    monkeypatch.setattr(module, "gpu_possible", lambda: True)
    monkeypatch.setattr(module, "native_bf16", lambda: True)
    monkeypatch.setattr(torch_engine, "torch_device", lambda name=None: torch.device("cpu"))

    assert precisions(EngineOptions(), "auto") == ("bf16", "fp32")


def test_a_device_that_is_not_here_is_a_model_error():
    with pytest.raises(ModelError, match="expected a device that torch can use here"):
        precisions(EngineOptions(device="no such thing"), "auto")


@needs_openvino
def test_openvino_is_not_tried_on_a_gpu(start, monkeypatch):
    monkeypatch.setattr(torch_engine, "torch_device", lambda name=None: torch.device("cpu"))  # to compute it
    monkeypatch.setattr(module, "_on_cpu", lambda wish: False)

    chosen = start(device=None)

    assert chosen.engine.name.startswith("torch ")
    assert chosen.remarks == ()


def test_neither_torch_nor_openvino_is_imported_to_plan_on_a_cpu():
    script = """
import sys
from bottleneck.engines import choice
from bottleneck.engines.options import EngineOptions

choice.gpu_possible = lambda: False
choice.precisions(EngineOptions(), "auto")
print([name for name in ("torch", "openvino") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)

    assert done.stdout == "[]\n", done.stderr
