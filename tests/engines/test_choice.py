import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bottleneck.backbones.backbone import Backbone
from bottleneck.engines.choice import NO_OPENVINO, EngineChoice, NoEngine, choose, precisions
from bottleneck.engines.factory import EngineFactory
from bottleneck.engines.hardware import Machine
from bottleneck.engines.options import EngineOptions
from bottleneck.engines.parity import lowest_cosine
from bottleneck.engines.probe import PROBES, probe_images
from bottleneck.engines.records import EngineRecords
from bottleneck.engines.torch_engine import TorchEngine
from bottleneck.errors import ModelError, NoMemory
from tests.conftest import write
from tests.variants import each

try:
    from bottleneck.engines import openvino_engine
except ImportError:
    openvino_engine = None  # type: ignore[assignment]

needs_openvino = pytest.mark.skipif(openvino_engine is None, reason="OpenVINO is not installed")
ENGINES = ["torch", "openvino"] if openvino_engine else ["torch"]
Change = Callable[[np.ndarray], np.ndarray]


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28, 3), np.uint8)


class Changed:
    """An engine whose features are changed, by default not."""

    def __init__(self, engine: Any, change: Change | None = None) -> None:
        self.engine, self.change = engine, change or (lambda features: features)
        self.name, self.precision = engine.name, engine.precision
        self.batch_size, self.parallel = engine.batch_size, engine.parallel
        self.seen: list[int] = []
        self.close = engine.close

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.seen.append(len(images))
        return self.change(self.engine(images))


@dataclass(frozen=True)
class Factory(EngineFactory):
    """Makes engines that are changed on purpose, and lists what it makes."""

    changes: dict[str, Change] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    device: str = "cpu"
    made: list[str] = field(default_factory=list)
    engines: list[Changed] = field(default_factory=list)

    def torch_device(self, name: str | None) -> torch.device:
        return torch.device(self.device)

    def gpu_precision(self, device: torch.device) -> str:
        assert device.type == "cuda"
        return self.changes["gpu"](np.empty(0)) if "gpu" in self.changes else "fp16"  # type: ignore[return-value]

    def reference(self, *words: Any) -> Any:
        return self._made("reference", lambda: super(Factory, self).reference(*words))

    def torch(self, *words: Any) -> Any:
        return self._made("torch", lambda: super(Factory, self).torch(*words))

    def openvino(self, *words: Any) -> Any:
        return self._made("openvino", lambda: super(Factory, self).openvino(*words))

    def convert(self, *words: Any) -> Any:
        self._begun("convert")
        return super().convert(*words)

    def stored_model(self, path: Path) -> Any:
        self._begun("stored")
        return None if "stored" in self.changes else super().stored_model(path)

    def _begun(self, what: str) -> None:
        self.made.append(what)
        if what in self.errors:
            raise self.errors[what]

    def _made(self, what: str, make: Callable[[], Any]) -> Changed:
        self._begun(what)
        self.engines.append(Changed(make(), self.changes.get(what)))
        return self.engines[-1]


class Start:
    """Starts one program after another, with one folder of records.

    `factory` makes the engines of the next start.
    """

    def __init__(self, backbone: Backbone, folder: Path, machine: Machine) -> None:
        self.backbone = backbone
        self.folder = folder
        self.records = EngineRecords(folder)
        self.built = 0
        self.machine = machine
        self.factory = self.engines()
        self.made: list[Changed] = []

    def engines(self, machine: Machine | None = None, **options: Any) -> Factory:
        """Set the factory of the next starts."""
        self.factory = Factory(machine or self.machine, **options)
        return self.factory

    def __call__(self, precision: str = "fp32", sample: np.ndarray | None = None, **options: Any) -> EngineChoice:
        options = {"batch_size": 4, "device": "cpu", **options}
        spec = replace(self.backbone.spec, precision=precision)
        own = None if sample is None else lambda: sample
        try:
            return choose(EngineOptions(**options), spec, self.build, self.folder, own, self.factory)
        finally:
            self.made += self.factory.engines
            self.factory.engines.clear()

    def build(self) -> Backbone:
        self.built += 1
        return self.backbone

    def close(self) -> None:
        for engine in reversed(self.made):
            engine.close()
        self.made.clear()


def machine(folder: Path, *flags: str, has_openvino: bool = openvino_engine is not None, **environment: str) -> Machine:
    """Return a Linux machine without a GPU."""
    write(folder / "proc/cpuinfo", f"flags : {' '.join(flags)}\n".encode())
    return Machine("linux", environment, folder, has_openvino)


@pytest.fixture
def start(tiny, tmp_path) -> Iterator[Start]:
    made = Start(tiny, tmp_path / "engines", machine(tmp_path / "machine"))
    yield made
    made.close()


def state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def unchanged(network: torch.nn.Module, before: dict[str, torch.Tensor]) -> bool:
    after = network.state_dict()
    equal = before.keys() == after.keys() and all(torch.equal(value, after[name]) for name, value in before.items())
    return equal and not any("forward" in vars(each) for each in network.modules())


def shifted(features: np.ndarray) -> np.ndarray:
    """Return features with a cosine well below 0.999 and above 0.5."""
    return features + np.float32(0.3 * np.abs(features).max()) * (np.arange(features.shape[1]) % 2).astype(np.float32)


def not_finite(features: np.ndarray) -> np.ndarray:
    features[1, 5] = np.nan
    return features


def nothing(features: np.ndarray) -> np.ndarray:
    return np.full_like(features, np.nan)


def after_the_probes(change: Change) -> Change:
    """Return a change of all features but those of the probe images, which come first."""
    seen = 0

    def function(features: np.ndarray) -> np.ndarray:
        nonlocal seen
        seen += len(features)
        return features if seen <= PROBES else change(features)

    return function


CANNOT_CONVERT = {"convert": ModelError("OpenVINO cannot convert the network: odd")}


# The first engine that is close enough


@needs_openvino
def test_openvino_is_used_on_a_cpu(start):
    chosen = start()

    assert chosen.engine.name == f"openvino {openvino_engine.VERSION}, cpu"
    assert chosen.engine.precision == "fp32"
    assert chosen.engine.batch_size == 4
    assert chosen.check.engine == chosen.engine.name
    assert chosen.check.own_images == 0
    assert 0.99999 < chosen.check.cosine <= 1
    assert chosen.remarks == ()
    assert start.records.checks() == [chosen.check]
    assert start.built == 1
    expected = TorchEngine(start.backbone, batch_size=4, device="cpu", plain=True)
    np.testing.assert_allclose(chosen.engine(pixels(4, 1)), expected(pixels(4, 1)), rtol=1e-3, atol=1e-4)
    expected.close()


def test_every_probe_and_every_image_of_the_user_is_compared(start):
    chosen = start(sample=pixels(7))

    (reference, engine) = start.made
    assert reference.seen == engine.seen == [PROBES, 4, 3], "in batches of at most 4"
    assert (chosen.check.own_images, chosen.check.passed, chosen.check.suits) == (7, True, True)


@each("engine", ENGINES)
def test_the_same_images_of_the_user_are_compared_once(start, engine):
    start.folder = start.folder / engine
    start.records = EngineRecords(start.folder)
    found = []
    for sample in (None, pixels(8, 1), pixels(8, 1), pixels(8, 2)):
        found.append(start(engine=engine, sample=sample))
        start.close()
    checks = [chosen.check for chosen in found]

    assert (checks[0].own_images, checks[0].own_cosine) == (0, None)
    assert len({check.cosine for check in checks}) == 1
    assert checks[1].own_images == 8
    assert checks[2] == checks[1]
    assert checks[3].own_digest != checks[1].own_digest, "the check of other images does not apply to these"
    assert start.records.checks() == [checks[3]]


def test_images_of_the_user_without_finite_features_are_not_recorded(start):
    start.engines(changes={"reference": after_the_probes(nothing), "torch": after_the_probes(nothing)})
    chosen = start(engine="torch", sample=pixels(3))

    assert (chosen.check.passed, chosen.check.own_images) == (True, 0)
    assert start.records.checks() == [chosen.check]


def test_a_sample_without_enough_memory_is_not_a_fault_of_the_engine(start):
    def sample() -> np.ndarray:
        raise MemoryError

    with pytest.raises(NoMemory, match="not enough memory for a few images"):
        choose(EngineOptions(device="cpu"), start.backbone.spec, start.build, start.folder, sample, start.factory)


def test_the_reference_respects_the_batch_size(start):
    start(engine="torch", batch_size=2)

    assert [engine.batch_size for engine in start.made] == [2, 2]


def test_torch_is_checked_again_after_a_failure(start):
    start.engines(changes={"torch": shifted})
    with pytest.raises(
        NoEngine, match=r"torch .*, cpu in bf16 is not used: lowest cosine 0\.\d{5}, expected 0\.999 or"
    ):
        start("bf16", engine="torch")

    start.engines()
    assert start("bf16", engine="torch").check.passed
    assert [check.passed for check in start.records.checks()] == [True]


@each("engine", ENGINES)
def test_images_of_the_user_do_not_affect_the_choice(start, engine):
    start.engines(changes={engine: after_the_probes(shifted)})
    chosen = start(engine=engine, sample=pixels(3))

    assert chosen.engine.name.startswith(engine)
    assert (chosen.check.passed, chosen.check.suits) == (True, False)
    assert 0.5 < chosen.check.own_cosine < 0.999 < chosen.check.cosine
    assert chosen.remarks == ()


def test_a_recorded_check_needs_no_reference(start):
    start(engine="torch")
    start.close()
    start(engine="torch")

    assert start.factory.made == ["reference", "torch", "torch"]


def test_a_network_without_finite_features_leaves_no_record(start):
    start.engines(changes={"reference": nothing, "torch": nothing})
    start(engine="torch")

    assert start.records.checks() == []


@each("options", [{"engine": "torch"}, {"compile": True}])
def test_torch_is_used_without_a_remark_if_it_is_requested(start, options):
    class Uncompiled(Factory):
        def torch(self, backbone: Backbone, precision: str, options: EngineOptions) -> Any:
            return super().torch(backbone, precision, replace(options, compile=False))  # compiling takes a minute

    start.factory = Uncompiled(start.machine)
    chosen = start(**options)

    assert chosen.engine.name.startswith("torch ")
    assert chosen.remarks == ()
    assert chosen.check.cosine > 0.99999
    assert chosen.check in start.records.checks()
    start.close()


@each("precision", ["fp32", "bf16"])
def test_torch_is_compared_with_the_unchanged_network(start, precision):
    probes = probe_images(28, 28)
    plain = TorchEngine(start.backbone, batch_size=8, device="cpu", plain=True)
    reference = plain(probes)
    plain.close()

    start.folder = start.folder / precision
    chosen = start(precision, engine="torch", batch_size=8)

    assert chosen.engine.precision == precision
    assert chosen.check.cosine == lowest_cosine(chosen.engine(probes), reference)
    assert (chosen.check.cosine > 0.999999) == (precision == "fp32")
    start.close()


# The parity check


@needs_openvino
@each("change, words", [(shifted, r"lowest cosine 0\.\d{5}"), (not_finite, "some features are not finite")])
def test_an_engine_that_is_not_close_enough_is_not_used(start, change, words):
    start.folder = start.folder / change.__name__
    start.records, start.built = EngineRecords(start.folder), 0
    start.engines(changes={"openvino": change})

    chosen = start()

    assert chosen.engine.name.startswith("torch ")
    assert chosen.check.passed
    (remark,) = chosen.remarks
    name = re.escape(f"openvino {openvino_engine.VERSION}, cpu")
    assert re.fullmatch(
        rf"{name} in fp32 is not used: {words}, expected 0\.999 or more against torch in fp32 on synthetic images",
        remark,
    )
    assert [check.passed for check in start.records.checks()] == [False, True]
    assert start.built == 1
    start.close()


@needs_openvino
def test_after_a_failed_check_nothing_is_converted_again(start):
    start.engines(changes={"openvino": shifted})
    first = start()
    start.close()
    start.engines()

    second = start()

    assert second.remarks == first.remarks != ()
    assert second.engine.name == first.engine.name
    assert start.factory.made == ["torch"]


@needs_openvino
def test_a_failed_check_does_not_count_on_another_cpu(start, tmp_path):
    start.engines(changes={"openvino": shifted})
    start()
    start.close()
    start.engines(machine(tmp_path / "another", "avx2"))

    assert start().engine.name.startswith("openvino ")


@needs_openvino
def test_if_no_engine_is_close_enough_there_is_an_error_with_all_reasons(start):
    before = state(start.backbone.network)
    start.engines(changes={"torch": not_finite}, errors=CANNOT_CONVERT)

    with pytest.raises(NoEngine) as error:
        start("bf16")

    converting, torchs = error.value.remarks
    assert converting == "OpenVINO cannot convert the network: odd"
    assert torchs.startswith(f"torch {torch.__version__.partition('+')[0]}, cpu in bf16 is not used: some features are")
    assert str(error.value) == (
        f"expected an engine for bf16, found none: {converting}; {torchs}. Extract with --precision fp32"
    )
    assert unchanged(start.backbone.network, before), "the next attempt is another precision of the same network"


@needs_openvino
def test_an_engine_requested_by_name_is_not_replaced(start):
    start.engines(changes={"openvino": shifted})

    for _ in range(2):  # the second time, from the record
        with pytest.raises(ModelError, match=r"openvino .* in fp32 is not used: lowest cosine 0\."):
            start(engine="openvino")

    assert "torch" not in start.factory.made


@needs_openvino
def test_a_network_that_openvino_cannot_convert_runs_with_torch_unless_openvino_is_requested(start):
    start.engines(errors=CANNOT_CONVERT)

    with pytest.raises(ModelError, match=r"^OpenVINO cannot convert the network: odd$"):
        start(engine="openvino")
    chosen = start()

    assert chosen.engine.name.startswith("torch ")
    assert chosen.remarks == ("OpenVINO cannot convert the network: odd",)


def test_an_engine_that_fails_at_the_first_batch_is_closed_and_the_error_names_the_batch_size(start):
    def fails(features: np.ndarray) -> np.ndarray:
        raise RuntimeError("a layer cannot run\nat line 3")

    before = state(start.backbone.network)
    start.engines(changes={"torch": fails}, errors=CANNOT_CONVERT)

    with pytest.raises(ModelError, match=r"^torch cannot run the network: a layer cannot run \(with --batch-size 4\)$"):
        start(engine="torch")

    assert unchanged(start.backbone.network, before)


def test_without_openvino_torch_is_used_with_a_remark_and_openvino_cannot_be_requested(start, tmp_path):
    start.engines(machine(tmp_path / "without", has_openvino=False))

    with pytest.raises(ModelError, match=r"expected OpenVINO for --engine openvino: .*pip install"):
        start(engine="openvino")
    assert start.built == 0
    chosen = start()

    assert chosen.engine.name.startswith("torch ")
    assert chosen.remarks == (NO_OPENVINO,)


# Records


@needs_openvino
def test_the_second_start_reads_the_conversion_and_builds_nothing(start):
    first = start()
    features = first.engine(pixels(4, 1))
    start.engines()

    second = start()

    assert start.factory.made == ["stored", "openvino"]
    assert start.built == 1
    assert second.check == first.check
    assert second.remarks == ()
    np.testing.assert_allclose(second.engine(pixels(4, 1)), features, rtol=1e-4, atol=1e-6)


@needs_openvino
def test_a_damaged_conversion_is_repaired(start):
    start()
    (path,) = start.folder.rglob("model.bin")
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")

    assert start().check.cosine > 0.99999
    assert start.built == 2

    start()
    assert start.built == 2, "it was repaired"


@needs_openvino
def test_a_conversion_that_cannot_be_read_is_converted_again(start):
    start()
    start.engines(changes={"stored": shifted})  # as if another process had deleted it

    assert start().check.cosine > 0.99999
    assert start.built == 2


@needs_openvino
def test_a_lost_check_is_repeated(start):
    start()
    (path,) = start.folder.glob("*.json")
    path.write_text("{")

    start()
    start()

    assert start.built == 2


@needs_openvino
def test_each_cpu_and_each_batch_size_has_its_check(start, tmp_path):
    start()
    start(batch_size=2)
    assert start.built == 2
    start.engines(machine(tmp_path / "another", "avx2"))
    start()
    assert start.built == 3

    start.engines()
    start()
    start(batch_size=4)
    assert start.built == 3
    assert start(batch_size=2).engine.batch_size == 2


@needs_openvino
def test_engines_are_chosen_even_if_nothing_can_be_recorded(start):
    write(start.folder, b"a file in place of the folder")

    for _ in range(2):
        assert start().engine.name.startswith("openvino ")
    assert start.built == 2
    assert start.records.checks() == []


# Precisions

BF16 = ("avx512f", "avx512_bf16", "amx_bf16")


def test_a_requested_precision_is_the_only_one(tmp_path):
    for flags in (BF16, ()):
        factory = EngineFactory(machine(tmp_path / str(len(flags)), *flags))
        for precision in ("fp32", "bf16", "fp16"):
            assert precisions(EngineOptions(), precision, factory) == (precision,)


@each(
    "options",
    [EngineOptions(), EngineOptions(device="cpu"), EngineOptions(engine="torch"), EngineOptions(engine="openvino")],
)
def test_on_a_cpu_with_native_bf16_it_is_tried_first(tmp_path, options):
    native = EngineFactory(machine(tmp_path / "native", *BF16))
    limited = EngineFactory(machine(tmp_path / "limited", *BF16, ONEDNN_MAX_CPU_ISA="AVX512_CORE"))

    assert precisions(options, "auto", native) == ("bf16", "fp32")
    assert precisions(options, "auto", limited) == ("fp32",)


@each("fastest, expected", [("bf16", ("bf16", "fp32")), ("fp16", ("fp16", "fp32")), ("fp32", ("fp32",))])
def test_on_a_gpu_its_fastest_precision_is_tried_first(tmp_path, fastest, expected):
    write(tmp_path / "dev/nvidia0", b"")
    factory = Factory(Machine("linux", {}, tmp_path), device="cuda", changes={"gpu": lambda _: fastest})

    for options in (EngineOptions(), EngineOptions(device="cuda"), EngineOptions(engine="torch", device="cuda:0")):
        assert precisions(options, "auto", factory) == expected


def test_a_machine_whose_gpu_torch_cannot_use_counts_as_a_cpu(tmp_path):
    write(tmp_path / "dev/nvidia0", b"")

    assert precisions(EngineOptions(), "auto", Factory(machine(tmp_path, *BF16))) == ("bf16", "fp32")


def test_a_missing_device_is_a_model_error():
    with pytest.raises(ModelError, match="expected a device that torch can use here"):
        precisions(EngineOptions(device="no such thing"), "auto")


def test_openvino_is_not_tried_on_a_gpu(start):
    class WithGPU(Factory):
        def torch_device(self, name: str | None) -> torch.device:
            return torch.device("meta")  # not a CPU

        def torch(self, backbone: Backbone, precision: str, options: EngineOptions) -> Any:
            return super().torch(backbone, precision, replace(options, device="cpu"))

        def reference(self, backbone: Backbone, batch_size: int, device: str | None) -> Any:
            return super().reference(backbone, batch_size, "cpu")

    start.factory = WithGPU(start.machine)
    chosen = start(device="meta")

    assert chosen.engine.name.startswith("torch ")
    assert chosen.remarks == ()
    assert start.factory.made == ["reference", "torch"]


def test_neither_torch_nor_openvino_is_imported_to_plan_on_a_cpu(tmp_path):
    script = """
import sys
from pathlib import Path
from bottleneck.engines.choice import precisions
from bottleneck.engines.factory import EngineFactory
from bottleneck.engines.hardware import Machine
from bottleneck.engines.options import EngineOptions

precisions(EngineOptions(), "auto", EngineFactory(Machine("linux", {}, Path(sys.argv[1]))))
print([name for name in ("torch", "openvino") if name in sys.modules])
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60)

    assert done.stdout == "[]\n", done.stderr
