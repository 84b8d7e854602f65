"""What torch was built for, and the GPUs that it can use."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TorchBuild:
    """The build of torch.

    Parameters
    ----------
    platform : str
        ``CUDA 12.8``, ``ROCm 6.2`` or ``CPU``.
    gpus : tuple of str
        Names and memory of the GPUs that torch can use.
    """

    platform: str
    gpus: tuple[str, ...]

    @property
    def for_gpu(self) -> bool:
        """Whether it was built for NVIDIA's or AMD's GPUs."""
        return self.platform != "CPU"


def torch_build() -> TorchBuild:
    """Return the build of the installed torch. Nothing is allocated on a GPU."""
    gpus = [_cuda(number) for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        gpus.append("Apple GPU (MPS)")
    if torch.version.hip:
        return TorchBuild(f"ROCm {torch.version.hip}", tuple(gpus))
    return TorchBuild(f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU", tuple(gpus))


def _cuda(number: int) -> str:
    found = torch.cuda.get_device_properties(number)
    return f"{found.name}, {found.total_memory / 1e9:.0f} GB, capability {found.major}.{found.minor}"
