"""The reference engine: PyTorch in fp32, on a CUDA device where there is one, else on the CPU."""

import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck.backbones.backbone import Backbone
from bottleneck.engines.memory import keep_freed_memory
from bottleneck.errors import ModelError

_BATCH = {"cpu": 8, "cuda": 128}


class TorchEngine:
    """Runs a backbone with PyTorch.

    Each batch is padded to `batch_size`, so that an image's features do not depend, in the last bit, on how many
    others came along.

    Parameters
    ----------
    backbone : Backbone
    batch_size : int, optional
        By default 8 on a CPU and 128 on a GPU.
    device : str, optional
        As in ``torch.device``; by default ``cuda`` where there is one, else ``cpu``.
    """

    def __init__(self, backbone: Backbone, *, batch_size: int | None = None, device: str | None = None) -> None:
        self.device = _device(device)
        self.batch_size = batch_size or _BATCH.get(self.device.type, 32)
        self.name = f"torch {self.device}"
        if self.device.type == "cpu":
            keep_freed_memory()
        self._network = backbone.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        preprocessing = backbone.spec.preprocessing
        self._mean = torch.tensor(preprocessing.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=self.device).view(1, 3, 1, 1)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features ``float32 (b, d)`` of ``uint8 (b, h, w, 3)``."""
        count = len(pixels)
        padding = np.zeros((self.batch_size - count, *pixels.shape[1:]), np.uint8)
        batch = torch.from_numpy(np.concatenate([pixels, padding])).to(self.device)
        # By default cuDNN rounds the inputs of a convolution to 10 bits (TF32), which is not fp32.
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            images = batch.permute(0, 3, 1, 2).to(torch.float32).div_(255).sub_(self._mean).div_(self._std)
            features: NDArray[np.float32] = self._network(images)[:count].float().cpu().numpy()
        return features


def _device(name: str | None) -> torch.device:
    """Return the device called `name`, once a number has been put on it."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"expected a device that torch has here, such as cpu, got {name!r}: {reason}") from error
