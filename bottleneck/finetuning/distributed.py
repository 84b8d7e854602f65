"""Data-parallel training: one process, or several that torchrun started."""

import atexit
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from bottleneck.engines.torch_engine import torch_device
from bottleneck.errors import Diverged, OtherFailed, TuningError
from bottleneck.finetuning.rank import is_rank_zero

_BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
_SET_BY_TORCHRUN = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_TIMEOUT = timedelta(hours=6)  # all ranks wait while rank 0 tests and saves; a process that dies is noticed at once


class Processes:
    """The processes that train together; this class is the case of one process, whose collectives do nothing.

    Attributes
    ----------
    rank, world_size : int
        The number of this process, from 0, and how many processes there are.
    local_world_size : int
        How many of them run on this machine.
    device : torch.device
        The device of this process.
    """

    rank, world_size, local_world_size = 0, 1, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def sync(self, tensors: Iterable[Tensor]) -> None:
        """Copy the values of rank 0 into the tensors of all ranks."""

    def backward(self, loss: Tensor | None, parameters: Sequence[nn.Parameter]) -> None:
        """Compute the gradients of the sum of all losses; a rank without images passes None."""
        assert loss is not None
        loss.backward()  # type: ignore[no-untyped-call]

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all ranks."""
        return value

    def broadcast(self, text: str) -> str:
        """Return the text of rank 0."""
        return text

    def rank_zero_path(self, folder: str) -> Path:
        """Return the folder of rank 0, which all ranks must be able to see."""
        return Path(folder)

    def barrier(self) -> None:
        """Wait until all ranks have reached this point."""


class TorchrunProcesses(Processes):
    """The processes of one torchrun, in the default process group of `torch.distributed`.

    Gradients are summed here, not by ``DistributedDataParallel``: so a rank that has no image of a small last batch
    runs nothing, and parameters that no rank has used keep no gradient, as in a single process.

    Parameters
    ----------
    device : torch.device
        ``cpu`` (gloo) or ``cuda:n`` (nccl, one device for each process).
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.rank, self.world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.local_world_size = int(os.environ["LOCAL_WORLD_SIZE"])

    def sync(self, tensors: Iterable[Tensor]) -> None:
        """Copy the values of rank 0 into the tensors of all ranks."""
        for tensor in tensors:
            tensor.copy_(self.sum(tensor if self.rank == 0 else torch.zeros_like(tensor)))

    def backward(self, loss: Tensor | None, parameters: Sequence[nn.Parameter]) -> None:
        """Compute the gradients of the sum of all losses."""
        if loss is not None:
            loss.backward()  # type: ignore[no-untyped-call]
        own = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        used = torch.tensor([float(one.grad is not None) for one in parameters], device=self.device)
        flat = self.sum(torch.cat([used, *(one.reshape(-1) for one in own)]))
        used, *sums = torch.split(flat, [len(used), *(one.numel() for one in own)])
        for parameter, grad, users, total in zip(parameters, own, used.tolist(), sums, strict=True):
            parameter.grad = grad.copy_(total.view_as(grad)) if users else None

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all ranks."""
        total = value.detach().clone()
        with _dead_process_reported():
            dist.all_reduce(total)
        return total

    def broadcast(self, text: str) -> str:
        """Return the text of rank 0."""
        texts = [text]
        with _dead_process_reported():
            dist.broadcast_object_list(texts, src=0)
        return texts[0]

    def rank_zero_path(self, folder: str) -> Path:
        """Return the folder of rank 0.

        Raises
        ------
        TuningError
            If this process does not see it.
        """
        path = Path(self.broadcast(folder))
        if not path.exists():
            raise TuningError(
                f"expected the folder {path} that rank 0 created, rank {self.rank} does not see it: on several "
                f"machines, keep --runs and --cache in folders that all of them share"
            )
        return path

    def barrier(self) -> None:
        """Wait until all ranks have reached this point."""
        with _dead_process_reported():
            dist.barrier(device_ids=[self.device.index] if self.device.type == "cuda" else None)


@contextmanager
def joined(device: str | None) -> Iterator[Processes]:
    """Yield the processes that torchrun started, joined until exit, or this process alone.

    A warning, or an error, that several processes raise is reported by the first of them only.

    Parameters
    ----------
    device : str, optional
        As for `torch_device`; several processes use a GPU each by default, if there are any.

    Raises
    ------
    TuningError
        If torchrun's environment is incomplete, or the processes cannot be joined on this device.
    OtherFailed
        In place of an error, if another process has reported one before.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) < 2:
        yield Processes(torch_device(device))
        return
    if missing := [name for name in _SET_BY_TORCHRUN if name not in os.environ]:
        raise TuningError(
            f"expected processes that torchrun started, found WORLD_SIZE={os.environ['WORLD_SIZE']} and no "
            f"{', '.join(missing)}: start them with torchrun, or unset WORLD_SIZE for one process"
        )
    meeting, _, _ = next(rendezvous("env://"))
    number = meeting.add(f"rank {os.environ['RANK']} joins", 1)  # equal on all ranks, each of which counts its own
    store = PrefixStore(f"bottleneck {number}", meeting)
    kind = (device or ("cuda" if torch.cuda.is_available() else "cpu")).partition(":")[0]
    with reported_once(store), ExitStack() as stack:
        processes = TorchrunProcesses(local_device(kind))
        if processes.device.type == "cuda":
            stack.enter_context(torch.cuda.device(processes.device))
        if not dist.is_initialized():
            stack.enter_context(_process_group(store, processes))
        yield processes


def local_device(kind: str) -> torch.device:
    """Return the device of this process.

    Raises
    ------
    TuningError
        If there are fewer devices than processes, or processes cannot be joined on such a device.
    """
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if kind not in _BACKENDS:
        raise TuningError(f"expected one of {', '.join(_BACKENDS)} for several processes, got {kind!r}")
    if kind == "cuda" and torch.cuda.device_count() < here:
        raise TuningError(
            f"expected a GPU for each of the {here} processes on this machine, found {torch.cuda.device_count()}: "
            f"start that many with torchrun --nproc-per-node, or add --device cpu"
        )
    if everywhere % here:
        raise TuningError(
            f"expected the same number of processes on each machine, got {here} of {everywhere} on this one"
        )
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if kind == "cuda" else torch.device("cpu")


@contextmanager
def _process_group(store: Store, processes: TorchrunProcesses) -> Iterator[None]:
    """Create the default process group, and destroy it on exit."""
    with _dead_process_reported():
        dist.init_process_group(
            _BACKENDS[processes.device.type],
            store=store,
            rank=processes.rank,
            world_size=processes.world_size,
            timeout=_TIMEOUT,
        )
    try:
        yield
    except Diverged:  # raised by all ranks
        _destroy()
        raise
    except BaseException:  # destroying the group fails all other ranks: they must not be the first to report an error
        atexit.register(_destroy)
        raise
    _destroy()


def _destroy() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def reported_once(store: Store) -> Iterator[None]:
    """Let only the first process that raises an error, or warns of something, report it.

    Raises
    ------
    OtherFailed
        In place of an error, if another process has raised one before, perhaps the same.
    """

    def is_first(kind: str, text: str = "") -> bool:
        try:
            return bool(store.add(f"{kind} {sha256(text.encode()).hexdigest()}", 1) == 1)
        except RuntimeError:  # the process that kept the store has ended
            return True

    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_once(message: Warning | str, *args: Any, **kwargs: Any) -> None:
            if is_first("warning", str(message)):
                show(message, *args, **kwargs)

        warnings.showwarning = show_once
        try:
            yield
        except Diverged:
            raise  # raised by all ranks, each with the run
        except (Exception, KeyboardInterrupt) as error:
            first = is_first("error")
            if is_rank_zero() if isinstance(error, KeyboardInterrupt) else first:
                raise
            raise OtherFailed(f"another process reported an error first; the error of this process: {error}") from error


@contextmanager
def _dead_process_reported() -> Iterator[None]:
    """Convert an error of a collective to one that reports the cause: another process has died."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0].partition(". ")[0][:200]
        raise TuningError(
            f"another process ended without an error message, it may have been killed ({reason}): --resume continues "
            f"after the last finished epoch"
        ) from error
