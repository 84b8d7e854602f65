"""Choose the fastest engine whose features match those of torch in fp32."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bottleneck.engines.engine import Engine
from bottleneck.engines.factory import EngineFactory
from bottleneck.engines.options import EngineOptions
from bottleneck.engines.parity import ParityChecker, Sample, shortfall
from bottleneck.engines.records import Check, EngineRecords
from bottleneck.errors import ModelError, NoMemory, WeightsUnavailable
from bottleneck.utils.gc_paused import no_collection

if TYPE_CHECKING:
    from bottleneck.backbones.backbone import Backbone
    from bottleneck.backbones.spec import Spec

_BATCH = 8  # largest batch of the reference

NO_OPENVINO = (
    "OpenVINO is not installed; on CPUs it is faster than torch, and starts in a second: "
    "pip install 'bottleneck-vision[openvino]'"
)


class NoEngine(ModelError):
    """No engine in the requested precision matches torch in fp32.

    Parameters
    ----------
    precision : str
    remarks : tuple of str
        Why each engine was rejected.
    """

    def __init__(self, precision: str, remarks: tuple[str, ...]) -> None:
        self.remarks = remarks
        advice = ". Extract with --precision fp32" if precision != "fp32" else ""
        super().__init__(f"expected an engine for {precision}, found none: {'; '.join(remarks)}{advice}")


@dataclass(frozen=True)
class EngineChoice:
    """An engine, its check, and remarks for the user."""

    engine: Engine
    check: Check
    remarks: tuple[str, ...]


def precisions(options: EngineOptions, precision: str, factory: EngineFactory | None = None) -> tuple[str, ...]:
    """Return the precisions to try, the fastest first, for `precision`, which may be ``auto``.

    Parameters
    ----------
    options : EngineOptions
    precision : str
    factory : EngineFactory, optional
        By default that of this machine.

    Raises
    ------
    ModelError
        If there is no such device.
    """
    if precision != "auto":
        return (precision,)
    factory = factory or EngineFactory()
    if _on_cpu(options, factory):
        return ("bf16", "fp32") if factory.machine.native_bf16() else ("fp32",)
    return tuple(dict.fromkeys((factory.gpu_precision(factory.torch_device(options.device)), "fp32")))


def choose(
    options: EngineOptions,
    spec: "Spec",
    build: "Callable[[], Backbone]",
    folder: Path,
    sample: Sample | None = None,
    factory: EngineFactory | None = None,
) -> EngineChoice:
    """Return the fastest engine for a spec that the options allow.

    An engine that has passed its check on the same type of CPU is trusted. OpenVINO then starts without torch if its
    conversion is stored too. Other engines are first compared with torch in fp32 on `probe_images`.

    Parameters
    ----------
    options : EngineOptions
    spec : Spec
        Its precision is used.
    build : callable
        Returns the backbone.
    folder : path
        Folder of conversions and checks.
    sample : callable, optional
        Returns images of the user, on which the engine is also compared, unless it has been before. The result is in
        the check; it does not affect the choice.
    factory : EngineFactory, optional
        Makes the engines; by default those of this machine.

    Raises
    ------
    NoEngine
        If no engine in this precision matches torch in fp32.
    ModelError, WeightsUnavailable
        If an engine requested by name is not available, there is no memory for it, or the weights are missing.
    """
    return _Chooser(options, spec, build, EngineRecords(folder), sample, factory or EngineFactory()).made()


class _Chooser:
    def __init__(
        self,
        options: EngineOptions,
        spec: "Spec",
        build: "Callable[[], Backbone]",
        records: EngineRecords,
        sample: Sample | None,
        factory: EngineFactory,
    ) -> None:
        self._options = options
        self._spec = spec
        self._build = build
        self._records = records
        self._factory = factory
        self._parity = ParityChecker(spec, self._plain, records, sample)
        self._backbone: Backbone | None = None
        self._remarks: list[str] = []

    def made(self) -> EngineChoice:
        for attempt in self._attempts():
            try:
                engine, check = attempt()
            except (NoMemory, WeightsUnavailable):  # another engine would not help
                raise
            except (ModelError, RuntimeError, MemoryError) as error:
                if self._options.engine != "auto" and isinstance(error, ModelError):
                    raise
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                if self._options.batch_size and not isinstance(error, ModelError):
                    reason += f" (with --batch-size {self._options.batch_size})"
                if self._options.engine != "auto":
                    raise ModelError(f"{attempt.__name__.strip('_')} cannot run the network: {reason}") from error
                self._remarks.append(reason)
                continue
            if engine and check.passed:
                return EngineChoice(engine, check, tuple(self._remarks))
            if engine:
                engine.close()
            self._remarks.append(_distant(check))
        raise NoEngine(self._spec.precision, tuple(self._remarks))

    def _attempts(self) -> list[Callable[[], tuple[Engine | None, Check]]]:
        options = self._options
        attempts: list[Callable[[], tuple[Engine | None, Check]]] = []
        has_openvino = self._factory.machine.has_openvino
        if options.engine == "openvino" and not has_openvino:
            raise ModelError(f"expected OpenVINO for --engine openvino: {NO_OPENVINO}")
        if options.engine != "torch" and not options.compile and _on_cpu(options, self._factory):
            if has_openvino:
                attempts.append(self._openvino)
            else:
                self._remarks.append(NO_OPENVINO)
        if options.engine != "openvino":
            attempts.append(self._torch)
        return attempts

    def _openvino(self) -> tuple[Engine | None, Check]:
        """Return the engine and its check; no engine if the check is known to have failed."""
        with no_collection():
            from bottleneck.engines.openvino_engine import BATCH, CONVERSION, VERSION

        factory, precision = self._factory, self._spec.precision
        batch = self._options.batch_size or BATCH
        conversion = f"openvino-{VERSION}-{CONVERSION}-batch{batch}"
        name = f"{conversion}-{factory.machine.cpu_id()}"
        known = self._records.check(name)
        if known and not known.passed:
            return None, known
        model = factory.stored_model(kept) if known and (kept := self._records.conversion(conversion)) else None
        if model is None:
            self._built()  # first, since the spec from the memo may be wrong
        references = self._parity.references(known)
        if model is None:
            model = factory.convert(self._built(), precision, batch)
            if kept := self._records.keep_conversion(conversion, model):
                model = factory.stored_model(kept) or model  # as later starts do: it differs in the last bit
        engine = factory.openvino(model, precision)
        check = self._parity.checked(name, engine, known, references)
        if not check.passed:
            self._records.drop_conversion(conversion)
        return engine, check

    def _torch(self) -> tuple[Engine, Check]:
        from bottleneck.engines.torch_engine import device_name, engine_name

        options, backbone = self._options, self._built()
        device = self._factory.torch_device(options.device)
        title = f"{engine_name(device, options.compile)} {device_name(device)}"
        name = f"{re.sub('[^A-Za-z0-9.]+', '-', title)}-{self._factory.machine.cpu_id()}"
        known = self._records.check(name)
        if known and not known.passed:
            known = None  # the last possible engine is tried again
        references = self._parity.references(known)  # before the network is changed
        engine = self._factory.torch(backbone, self._spec.precision, options)
        return engine, self._parity.checked(name, engine, known, references)

    def _built(self) -> "Backbone":
        if self._backbone is None:
            self._backbone = self._build()
        return self._backbone

    def _plain(self) -> Engine:
        """Return torch in fp32 with the unchanged network."""
        device = "cpu" if _on_cpu(self._options, self._factory) else self._options.device
        batch = min(_BATCH, self._options.batch_size or _BATCH)
        return self._factory.reference(self._built(), batch, device)


def _on_cpu(options: EngineOptions, factory: EngineFactory) -> bool:
    """Return whether the engine runs on a CPU; torch is imported only if there may be a GPU."""
    if options.engine == "openvino" or options.device == "cpu":
        return True
    if options.device is None and not factory.machine.gpu_possible():
        return True
    return factory.torch_device(options.device).type == "cpu"


def _distant(check: Check) -> str:
    return f"{check.engine} in {check.precision} is not used: {shortfall(check.cosine)} on synthetic images"
