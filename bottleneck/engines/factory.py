"""What makes engines; torch and OpenVINO are imported when an engine is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bottleneck.engines.engine import Engine
from bottleneck.engines.hardware import Machine
from bottleneck.engines.options import EngineOptions
from bottleneck.utils.gc_paused import no_collection

if TYPE_CHECKING:
    import openvino
    import torch

    from bottleneck.backbones.backbone import Backbone


@dataclass(frozen=True)
class EngineFactory:
    """Makes the engines of a machine.

    Parameters
    ----------
    machine : Machine
    """

    machine: Machine = field(default_factory=Machine)

    def torch_device(self, name: str | None) -> torch.device:
        """Return a device of torch; see `bottleneck.engines.torch_engine.torch_device`."""
        from bottleneck.engines.torch_engine import torch_device

        return torch_device(name)

    def gpu_precision(self, device: torch.device) -> str:
        """Return the fastest precision of a GPU; see `bottleneck.engines.torch_engine.fastest_precision`."""
        from bottleneck.engines.torch_engine import fastest_precision

        return fastest_precision(device)

    def reference(self, backbone: Backbone, batch_size: int, device: str | None) -> Engine:
        """Return torch in fp32 with the unchanged network."""
        from bottleneck.engines.torch_engine import TorchEngine

        return TorchEngine(backbone, batch_size=batch_size, device=device, plain=True)

    def torch(self, backbone: Backbone, precision: str, options: EngineOptions) -> Engine:
        """Return the torch engine."""
        from bottleneck.engines.torch_engine import TorchEngine

        return TorchEngine(
            backbone,
            precision=precision,
            batch_size=options.batch_size,
            device=options.device,
            compile=options.compile,
        )

    def convert(self, backbone: Backbone, precision: str, batch_size: int) -> openvino.Model:
        """Convert a backbone to a graph of OpenVINO; see `bottleneck.engines.openvino_engine.convert`."""
        from bottleneck.engines.openvino_engine import convert

        return convert(backbone, precision, batch_size)

    def stored_model(self, path: Path) -> openvino.Model | None:
        """Return a stored conversion; see `bottleneck.engines.openvino_engine.read`."""
        with no_collection():
            from bottleneck.engines.openvino_engine import read

        return read(path)

    def openvino(self, model: openvino.Model, precision: str) -> Engine:
        """Return the OpenVINO engine."""
        from bottleneck.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(model, precision)
