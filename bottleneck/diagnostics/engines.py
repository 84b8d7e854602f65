"""The engines, and one measured speed of each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bottleneck.diagnostics.diagnosis import Symptom
from bottleneck.diagnostics.probe import Probe

if TYPE_CHECKING:
    from bottleneck.engines.speed import EngineSpeed

_REPAIR_TORCH = "Repair what cannot be imported first; else try another --device."
_REPAIR_OPENVINO = (
    "Repair what cannot be imported first; else run: pip install --force-reinstall --no-cache-dir openvino. "
    "`--engine torch` does without it."
)
_SECONDS = 0.5  # of each measurement

Measure = Callable[[float], "EngineSpeed"]


def _torch(seconds: float) -> "EngineSpeed":
    from bottleneck.engines.speed import torch_speed

    return torch_speed(seconds)


def _openvino(seconds: float) -> "EngineSpeed":
    from bottleneck.engines.speed import openvino_speed

    return openvino_speed(seconds)


@dataclass(frozen=True)
class Engines:
    """The engines that can run a backbone here.

    Parameters
    ----------
    has_openvino : bool
    torch, openvino : callable
        Measure an engine for a number of seconds.
    seconds : float
        How long to measure each.
    """

    has_openvino: bool
    torch: Measure = _torch
    openvino: Measure = _openvino
    seconds: float = _SECONDS

    def probes(self) -> list[Probe]:
        """Return what measures each engine."""
        found = [Probe("torch engine", partial(self._speed, "torch engine", self.torch), _REPAIR_TORCH)]
        if self.has_openvino:
            look = partial(self._speed, "openvino engine", self.openvino)
            found.append(Probe("openvino engine", look, _REPAIR_OPENVINO))
        return found

    def _speed(self, name: str, measure: Measure) -> Iterator[Symptom]:
        found = measure(self.seconds)
        yield Symptom(name, f"{found.images_per_second:,.0f} images/s in {found.precision} ({found.name})")
