"""The torch engine, the reference: on a CPU, a CUDA device or Apple's GPU."""

import queue
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bottleneck.backbones.backbone import Backbone
from bottleneck.engines.engine import padded
from bottleneck.engines.folding import ReversibleChanges, probe
from bottleneck.engines.hardware import cores
from bottleneck.engines.memory import keep_freed_memory
from bottleneck.errors import ModelError, NoMemory
from bottleneck.utils.process_settings import SharedContext, attribute_set
from bottleneck.utils.text import counted

_BATCH = {"cpu": 8, "cuda": 128}
_PARALLEL = 4  # batches at once on a CPU; each has its activations in memory
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def shares(cores: int) -> tuple[int, int]:
    """Return how many batches run at once on a CPU with so many cores, and the threads of each."""
    lanes = min(_PARALLEL, cores)
    return lanes, cores // lanes


@contextmanager
def _threads_per_lane() -> Iterator[None]:
    """Divide the cores among the lanes: each thread that calls torch afterwards uses one share."""
    threads = torch.get_num_threads()
    torch.set_num_threads(shares(cores())[1])
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_few_threads = SharedContext(_threads_per_lane)
# By default cuDNN rounds the inputs of a convolution to 10 bits (TF32), which is not fp32.
_without_tf32 = SharedContext(lambda: attribute_set(torch.backends.cudnn, "allow_tf32", False))


class TorchEngine:
    """Runs a backbone with PyTorch.

    On a CPU several batches run at once, each on a share of the cores: threads that share one batch wait for each other
    after every layer. On a GPU two batches run at once, so that one is copied while the other is computed.

    Parameters
    ----------
    backbone : Backbone
        Its network is changed until `close`: batch norm is folded in fp32, weights are converted in bf16.
    precision : str
        ``fp32``, or ``bf16`` or ``fp16`` by autocast.
    batch_size : int, optional
        By default 8 on a CPU and 128 on a GPU.
    device : str, optional
        As in ``torch.device``; by default ``cuda`` if available, then ``mps``, else ``cpu``.
    plain : bool
        Whether to leave the network unchanged and run one batch at a time: the reference for other engines.
    compile : bool
        Whether to compile the network with ``torch.compile``.

    Raises
    ------
    ModelError
        If torch has no such device, or cannot compile the network.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        precision: str = "fp32",
        batch_size: int | None = None,
        device: str | None = None,
        plain: bool = False,
        compile: bool = False,
    ) -> None:
        self.device = torch_device(device)
        self.precision = precision
        on_cpu = self.device.type == "cpu"
        self.batch_size = batch_size or _BATCH.get(self.device.type, 32)
        lanes = shares(cores())[0] if on_cpu else 2 if self.device.type == "cuda" else 1
        self.parallel = 1 if plain else lanes
        self.name = engine_name(self.device, compile)
        preprocessing = backbone.spec.preprocessing
        self._mean = torch.tensor(preprocessing.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=self.device).view(1, 3, 1, 1)
        network = backbone.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network: Callable[[Tensor], Tensor] = network
        self._lanes: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
        for _ in range(self.parallel):
            self._lanes.put(_Lane(self.device))
        self._prepared = ReversibleChanges(network)
        self._settings = ExitStack()  # of torch, until `close`
        self._settings.enter_context(_without_tf32)
        try:
            if not plain:
                self._prepare(preprocessing.crop_size)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)  # the lanes do not wait for the default stream
            if compile:
                self._compile(preprocessing.crop_size)
        except BaseException:
            self.close()
            raise

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features ``float32 (b, d)`` of ``uint8 (b, h, w, 3)``."""
        lane = self._lanes.get()
        try:
            with torch.inference_mode(), lane.stream():
                batch = lane.moved(padded(pixels, self.batch_size))
                images = batch.permute(0, 3, 1, 2).to(torch.float32).div_(255).sub_(self._mean).div_(self._std)
                with self._autocast():
                    rows = self._network(images)
                features: NDArray[np.float32] = rows[: len(pixels)].float().cpu().numpy()
            return features
        except torch.OutOfMemoryError as error:
            raise NoMemory(
                f"not enough memory on {self.device} for {counted(self.batch_size, 'image')} at once: add --batch-size "
                f"{max(1, self.batch_size // 4)}"
            ) from error
        finally:
            self._lanes.put(lane)

    def close(self) -> None:
        """Undo the changes to the network, and restore torch's settings."""
        self._prepared.undo()
        self._settings.close()

    def _prepare(self, crop_size: tuple[int, int]) -> None:
        if self.precision == "bf16":
            self._prepared.round_weights()
            self._prepared.narrow_weights()
        elif self.precision == "fp32":
            self._prepared.fold(probe(crop_size).to(self.device))
        if self.device.type == "cpu":
            keep_freed_memory()
            self._settings.enter_context(_few_threads)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, _DTYPES[self.precision])

    def _compile(self, crop_size: tuple[int, int]) -> None:
        """Compile the network now instead of during the first batch."""
        self._network = torch.compile(self._network)
        try:
            self(np.zeros((1, *crop_size, 3), np.uint8))
        except ModelError:
            raise
        except Exception as error:  # no compiler, or an operation that cannot be compiled
            raise ModelError(f"torch cannot compile the network: {str(error).strip().splitlines()[0][:200]}") from error


class _Lane:
    """Runs one batch at a time; on a CUDA device with its own stream, and pinned memory to copy from meanwhile."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._pinned: Tensor | None = None

    def stream(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()

    def moved(self, batch: NDArray[np.uint8]) -> Tensor:
        """Return the batch on the device."""
        pixels = torch.from_numpy(batch)
        if self._stream is None:
            return pixels.to(self._device)
        if self._pinned is None or self._pinned.shape != pixels.shape:
            self._pinned = torch.empty_like(pixels, pin_memory=True)
        self._pinned.copy_(pixels)  # the previous batch is complete: its features are on the CPU
        return self._pinned.to(self._device, non_blocking=True)


def engine_name(device: torch.device, compile: bool) -> str:
    """Return the name of the engine, with torch's version."""
    return f"torch {torch.__version__.partition('+')[0]}, {device}{', compiled' if compile else ''}"


def device_name(device: torch.device) -> str:
    """Return the name of a GPU; empty for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def torch_device(name: str | None = None) -> torch.device:
    """Return the device called `name` after allocating a tensor on it; by default a GPU if there is one.

    Raises
    ------
    ModelError
        If torch has no such device.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        number = torch.zeros(1, device=name)
        number.cpu()  # fails on the device "meta"
        return number.device
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).strip().splitlines()[0].partition(". ")[0][:150]
        raise ModelError(f"expected a device that torch can use here, such as cpu, got {name!r}: {reason}") from error


def cuda_devices() -> tuple[str, ...]:
    """Return the names of all CUDA devices available to this process."""
    return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))


def fastest_precision(device: torch.device) -> str:
    """Return the fastest precision that a GPU supports natively."""
    if device.type == "cuda":
        generation = torch.cuda.get_device_capability(device)[0]  # of NVIDIA; AMD reports 9 or more
        return "bf16" if generation >= 8 else "fp16" if generation >= 7 else "fp32"
    return "fp16" if device.type == "mps" else "fp32"
