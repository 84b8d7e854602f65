"""One process, or several that torchrun has started and Lightning Fabric joins."""

import os
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bottleneck.errors import TuningError


class Processes(Protocol):
    """The processes that train together.

    Attributes
    ----------
    rank, count : int
        Which this one is, from 0, and how many there are.
    """

    rank: int
    count: int

    def wrap(self, module: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return the module as it is called in training: gradients then are means over the processes."""

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients."""

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of what all processes give."""

    def told(self, text: str) -> str:
        """Return what the first process gives."""

    def wait(self) -> None:
        """Wait for the others."""


class Alone:
    """The one process, where there is no other."""

    rank, count = 0, 1

    def wrap(self, module: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return the module."""
        return module

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients."""
        loss.backward()  # type: ignore[no-untyped-call]

    def total(self, value: Tensor) -> Tensor:
        """Return what this one gives."""
        return value

    def told(self, text: str) -> str:
        """Return the text."""
        return text

    def wait(self) -> None:
        """Go on."""


class Together:
    """The processes of a torchrun, joined by Lightning Fabric's data parallel strategy.

    Parameters
    ----------
    device : str
        ``cpu`` (gloo) or ``cuda`` (nccl, one process each device).
    """

    def __init__(self, device: str) -> None:
        try:
            from lightning_fabric import Fabric
            from lightning_fabric.strategies.ddp import DDPStrategy
        except ImportError as error:
            raise TuningError(
                "expected Lightning Fabric for several processes, which is not installed: "
                "pip install 'bottleneck-vision[distributed]'"
            ) from error
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        backend = "gloo" if device == "cpu" else "nccl"
        self._fabric: Any = Fabric(
            accelerator=device,
            devices=here,
            num_nodes=int(os.environ["WORLD_SIZE"]) // here,
            strategy=DDPStrategy(process_group_backend=backend),
        )
        self._fabric.launch()
        self.rank, self.count = int(self._fabric.global_rank), int(self._fabric.world_size)

    @property
    def device(self) -> torch.device:
        """Of this process."""
        found: torch.device = self._fabric.device
        return found

    def wrap(self, module: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return the module as it is called in training."""
        wrapped: Callable[[Tensor], Tensor] = self._fabric.setup_module(module)
        return wrapped

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients, and their means."""
        self._fabric.backward(loss)

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over the processes."""
        found: Tensor = self._fabric.all_reduce(value, reduce_op="sum")
        return found

    def told(self, text: str) -> str:
        """Return what the first process gives."""
        return str(self._fabric.broadcast(text))

    def wait(self) -> None:
        """Wait for the others."""
        self._fabric.barrier()


def processes(device: str | None) -> Processes:
    """Return the processes that torchrun has started, or this one alone.

    Raises
    ------
    TuningError
        If there are several, and Lightning Fabric is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Alone()
    kind = (device or ("cuda" if torch.cuda.is_available() else "cpu")).partition(":")[0]
    return Together(kind)
