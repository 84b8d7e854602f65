"""One process, or several that torchrun has started and Lightning Fabric joins."""

import atexit
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from bottleneck.errors import Diverged, OtherFailed, TuningError

_BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
_SET_BY_TORCHRUN = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PATIENCE = timedelta(hours=6)  # while one process tests and writes, the others wait; one that ends is noticed at once


class Processes(Protocol):
    """The processes that train together.

    Attributes
    ----------
    rank, count : int
        Which this one is, from 0, and how many there are.
    here : int
        How many of them are on this machine.
    """

    rank: int
    count: int
    here: int

    @contextmanager
    def one_voice(self) -> Iterator[None]:
        """Let what all processes say be said by one."""
        yield

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Give tensors the numbers that they have in the first process."""

    def backward(self, loss: Tensor | None, parameters: Sequence[nn.Parameter]) -> None:
        """Compute the gradients of the sum of all losses; None from a process that has no images."""

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of what all processes give."""

    def told(self, text: str) -> str:
        """Return what the first process gives."""

    def shown(self, folder: str) -> Path:
        """Return the folder that the first process gives, which all must see."""

    def refuse_statistics(self) -> None:
        """Refuse batch norms that take new statistics, where each process would see those of its own images."""

    def wait(self) -> None:
        """Wait for the others."""


class Alone:
    """The one process, where there is no other."""

    rank, count, here = 0, 1, 1

    @contextmanager
    def one_voice(self) -> Iterator[None]:
        """Say what there is to say."""
        yield

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Leave them as they are."""

    def backward(self, loss: Tensor | None, parameters: Sequence[nn.Parameter]) -> None:
        """Compute the gradients."""
        assert loss is not None
        loss.backward()  # type: ignore[no-untyped-call]

    def total(self, value: Tensor) -> Tensor:
        """Return what this one gives."""
        return value

    def told(self, text: str) -> str:
        """Return the text."""
        return text

    def shown(self, folder: str) -> Path:
        """Return the folder."""
        return Path(folder)

    def refuse_statistics(self) -> None:
        """Let them."""

    def wait(self) -> None:
        """Go on."""


class Together:
    """The processes of a torchrun, joined by Lightning Fabric.

    Gradients are added up here, not by ``DistributedDataParallel``: a process that has no image of a small last batch
    then has nothing to run, and parameters that no process has used stay without a gradient, as they do in one process.

    Parameters
    ----------
    device : str
        ``cpu`` (gloo) or ``cuda`` (nccl, one process each device).

    Raises
    ------
    TuningError
        If they cannot be joined.
    """

    _joined = count()

    def __init__(self, device: str) -> None:
        if missing := [name for name in _SET_BY_TORCHRUN if name not in os.environ]:
            raise TuningError(
                f"expected processes that torchrun has started, found WORLD_SIZE={os.environ['WORLD_SIZE']} and no "
                f"{', '.join(missing)}: start them with torchrun, or unset WORLD_SIZE for one process"
            )
        self.rank, self.count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.here = int(os.environ["LOCAL_WORLD_SIZE"])
        self._store, _, _ = next(rendezvous("env://"))  # where torchrun lets processes meet
        self._number = next(self._joined)
        with self.one_voice():
            self._fabric = _fabric(device, self.here, self.count)

    @property
    def device(self) -> torch.device:
        """Of this process."""
        found: torch.device = self._fabric.device
        return found

    @contextmanager
    def one_voice(self) -> Iterator[None]:
        """Let the first process that has it say a warning, or raise an error.

        Raises
        ------
        OtherFailed
            If another has raised an error, which is perhaps the same.
        """
        with warnings.catch_warnings():
            show = warnings.showwarning

            def show_once(message: Warning | str, *rest: Any, **named: Any) -> None:
                if self._is_first("warning", str(message)):
                    show(message, *rest, **named)

            warnings.showwarning = show_once
            try:
                yield
            except Diverged:
                raise  # by all
            except Exception as error:
                if self._is_first("error"):
                    raise
                raise OtherFailed(f"another process has failed before, and says why; this one: {error}") from error

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Give tensors the numbers that they have in the first process."""
        for tensor in tensors:
            tensor.copy_(self.total(tensor if self.rank == 0 else torch.zeros_like(tensor)))

    def backward(self, loss: Tensor | None, parameters: Sequence[nn.Parameter]) -> None:
        """Compute the gradients of the sum of all losses."""
        if loss is not None:
            loss.backward()  # type: ignore[no-untyped-call]
        own = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        has = torch.tensor([float(one.grad is not None) for one in parameters], device=self.device)
        flat = self.total(torch.cat([has, *(one.reshape(-1) for one in own)]))
        has, *sums = torch.split(flat, [len(has), *(one.numel() for one in own)])
        for parameter, grad, count_of, found in zip(parameters, own, has.tolist(), sums, strict=True):
            parameter.grad = grad.copy_(found.view_as(grad)) if count_of else None

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over the processes."""
        found = value.detach().clone()
        with _asking_others():
            torch.distributed.all_reduce(found)  # Fabric's own has a barrier before each
        return found

    def told(self, text: str) -> str:
        """Return what the first process gives."""
        with _asking_others():
            return str(self._fabric.broadcast(text))

    def shown(self, folder: str) -> Path:
        """Return the folder that the first process gives.

        Raises
        ------
        TuningError
            If this process does not see it.
        """
        path = Path(self.told(folder))
        if not path.exists():
            raise TuningError(
                f"expected the folder {path}, which another process has made, found none: several machines need "
                f"--runs and --cache in folders that all of them see"
            )
        return path

    def refuse_statistics(self) -> None:
        """Refuse batch norms that take new statistics.

        Raises
        ------
        TuningError
        """
        raise TuningError(
            "expected batch norms that stay as they are, since on several processes each would see statistics of its "
            "own images alone: leave out --train-bn, or train in one process"
        )

    def wait(self) -> None:
        """Wait for the others."""
        with _asking_others():
            self._fabric.barrier()

    def _is_first(self, kind: str, text: str = "") -> bool:
        """Whether no other process has come with this before."""
        key = sha256(text.encode()).hexdigest()
        try:
            return bool(self._store.add(f"bottleneck {self._number} {kind} {key}", 1) == 1)
        except RuntimeError:  # the store has gone with the process that kept it
            return True


def processes(device: str | None) -> Processes:
    """Return the processes that torchrun has started, or this one alone.

    Raises
    ------
    TuningError
        If there are several, and Lightning Fabric is not installed.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) < 2:
        return Alone()
    return Together((device or ("cuda" if torch.cuda.is_available() else "cpu")).partition(":")[0])


def _fabric(device: str, here: int, everywhere: int) -> Any:
    """Join this process with the others.

    Raises
    ------
    TuningError
        If Lightning Fabric is not installed, or there are fewer devices than processes.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise TuningError(
            "expected Lightning Fabric for several processes, which is not installed: "
            "pip install 'bottleneck-vision[distributed]'"
        ) from error
    if device not in _BACKENDS:
        raise TuningError(f"expected one of {', '.join(_BACKENDS)} for several processes, got {device!r}")
    if device == "cuda" and torch.cuda.device_count() < here:
        raise TuningError(
            f"expected a GPU for each of {here} processes on this machine, found {torch.cuda.device_count()}: start "
            f"as many with torchrun --nproc-per-node, or add --device cpu"
        )
    if everywhere % here:
        raise TuningError(f"expected as many processes on each machine, got {here} of {everywhere} on this one")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # or it says how processes meet
    fabric = Fabric(
        accelerator=device,
        devices=here,
        num_nodes=everywhere // here,
        strategy=DDPStrategy(process_group_backend=_BACKENDS[device], timeout=_PATIENCE),
        plugins=[TorchElasticEnvironment()],
    )
    with _asking_others():
        fabric.launch()
    atexit.register(_leave)
    return fabric


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def _asking_others() -> Iterator[None]:
    """Say in words that others have gone."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0].partition(". ")[0][:200]
        raise TuningError(
            f"another process has ended without a word, was it killed? ({reason}): --resume goes on after the last "
            f"epoch that was done"
        ) from error
