"""The OpenVINO engine for CPUs: normalisation and network as one graph, from uint8 to float32."""

import logging
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.engines.engine import padded
from bottleneck.errors import ModelError
from bottleneck.utils.process_settings import SharedContext, environment_variable, ignored_warnings

with environment_variable("CI", "true"):
    # Importing OpenVINO reports to Google Analytics and makes ~/intel if the package `openvino_telemetry` is installed,
    # except in continuous integration. Its other switch, `opt_in_out --opt_out`, writes to the home folder too.
    import openvino

if TYPE_CHECKING:
    from bottleneck.backbones.backbone import Backbone

VERSION = openvino.__version__.partition("-")[0]
CONVERSION = 1  # increase it if the same backbone gives a different graph
BATCH = 8

_TYPES = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16, "fp16": openvino.Type.f16}


class OpenVinoEngine:
    """Runs a converted backbone on the CPU.

    Each core, or group of cores, runs a separate batch (OpenVINO's streams).

    Parameters
    ----------
    model : openvino.Model
        Result of `convert`.
    precision : str
        ``fp32``, ``bf16`` or ``fp16``.
    core : openvino.Core, optional
        Compiles the model; by default a new one.

    Raises
    ------
    ModelError
        If OpenVINO cannot run it on this CPU, or not in this precision.
    """

    def __init__(self, model: openvino.Model, precision: str, core: openvino.Core | None = None) -> None:
        self.precision = precision
        self.name = f"openvino {VERSION}, cpu"
        self.batch_size = int(model.inputs[0].shape[0])
        wanted = _TYPES[precision]
        try:
            # Compiling gives the calling thread a signal stack that is freed with the model. If that were the main
            # thread, the next Ctrl-C would be a segmentation fault.
            with ThreadPoolExecutor(1) as short_lived:
                settings = {"INFERENCE_PRECISION_HINT": wanted, "PERFORMANCE_HINT": "THROUGHPUT"}
                self._compiled = short_lived.submit(
                    (core or openvino.Core()).compile_model, model, "CPU", settings
                ).result()
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot run the network on this CPU: {_reason(error)}") from error
        found = self._compiled.get_property("INFERENCE_PRECISION_HINT")
        if found != wanted:
            raise ModelError(f"OpenVINO has no {precision} on this CPU; it would compute in {found.get_type_name()}")
        self.parallel = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.parallel):
            self._requests.put(self._compiled.create_infer_request())
        # Two threads that each pass their first array can deadlock: one holds the GIL and waits for the initialisation
        # of the bindings, which the other runs while it waits for the GIL.
        self(np.zeros((1, *model.inputs[0].shape[1:]), np.uint8))

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features ``float32 (b, d)`` of ``uint8 (b, h, w, 3)``."""
        request = self._requests.get()
        try:
            request.infer([padded(pixels, self.batch_size)], share_inputs=True)
            features: NDArray[np.float32] = request.get_output_tensor(0).data[: len(pixels)].copy()
            return features
        finally:
            self._requests.put(request)

    def close(self) -> None:
        """Do nothing; OpenVINO changes no settings of the process."""


def convert(backbone: "Backbone", precision: str, batch_size: int | None = None) -> openvino.Model:
    """Convert a backbone to an OpenVINO graph.

    For bf16, batch norm is folded first and weights are rounded as in `bottleneck.engines.folding`.

    Parameters
    ----------
    backbone : Backbone
        On the CPU; it is unchanged afterwards.
    precision : str
    batch_size : int, optional
        Images per batch, 8 by default; the graph has fixed shapes.

    Returns
    -------
    openvino.Model
        ``uint8 (b, h, w, 3)`` to ``float32 (b, d)``.

    Raises
    ------
    ModelError
        If OpenVINO does not support one of its operations.
    """
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    from bottleneck.engines.folding import prepared, probe

    preprocessing = backbone.spec.preprocessing
    height, width = preprocessing.crop_size

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = backbone.network
            self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1) * 255)
            self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1) * 255)

        def forward(self, pixels: Any) -> Any:
            return self.network((pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std)

    with prepared(backbone.network) as changes, torch.no_grad(), _quiet:
        if precision == "bf16":
            changes.fold(probe(preprocessing.crop_size))
            changes.round_weights()
            changes.add_biases_in_fp32()
        example = torch.zeros(batch_size or BATCH, height, width, 3, dtype=torch.uint8)
        try:
            traced = torch.jit.trace(Graph().eval(), example, check_trace=False)  # type: ignore[no-untyped-call]
            # As in `openvino.convert_model`, but without its optimisation passes, which compiling runs again.
            frontend = FrontEndManager().load_by_framework("pytorch")
            decoder = TorchScriptPythonDecoder(traced)  # the frontend keeps no reference to it
            model: openvino.Model = frontend.convert(frontend.load(decoder))
            model.reshape(list(example.shape))
        except Exception as error:  # the frontend's own errors have no common class
            raise ModelError(f"OpenVINO cannot convert the network: {_reason(error)}") from error
    return model


def read(path: Path) -> openvino.Model | None:
    """Read a stored conversion; None if it cannot be read: another process may have just deleted it."""
    try:
        return openvino.Core().read_model(path)
    except RuntimeError:
        return None


@contextmanager
def _silenced() -> Iterator[None]:
    """Silence the warnings of torch and OpenVINO about tracing: the conversion is compared with the network later."""
    from torch.jit import TracerWarning  # type: ignore[attr-defined]

    logger = logging.getLogger("openvino.frontend.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with ExitStack() as ignored:
            for category in (TracerWarning, FutureWarning, DeprecationWarning):
                ignored.enter_context(ignored_warnings(category=category))
            yield
    finally:
        logger.setLevel(level)


_quiet = SharedContext(_silenced)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    relevant = [line for line in lines if "No conversion rule" in line] or lines[-1:] or [type(error).__name__]
    return relevant[0].removeprefix("-- ")[:200]
