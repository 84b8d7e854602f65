"""Caches of the hub and of torch in the temporary folder; nothing outside this machine is reachable."""

import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from torchvision.models import WeightsEnum

from bottleneck.backbones.backbone import Backbone
from bottleneck.engines.torch_engine import TorchEngine

ChangeHub = Callable[..., None]
MoveWeights = Callable[[WeightsEnum, str], None]


@pytest.fixture
def change_hub(monkeypatch: pytest.MonkeyPatch) -> ChangeHub:
    """Return a function that sets constants of the hub's client, which reads its environment only when imported."""

    def change(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)

    return change


@pytest.fixture
def move_hub(change_hub: ChangeHub) -> Callable[[str], None]:
    """Return a function that moves the hub to another address."""
    template = "/{repo_id}/resolve/{revision}/{filename}"
    return lambda url: change_hub(ENDPOINT=url, HUGGINGFACE_CO_URL_TEMPLATE=url + template)


@pytest.fixture
def move_weights(monkeypatch: pytest.MonkeyPatch) -> MoveWeights:
    """Return a function that moves weights of torchvision to another address."""
    return lambda entry, url: monkeypatch.setattr(entry.value, "url", url)


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of torch's downloads, which does not exist yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def hub_cache(tmp_path: Path, torch_home: Path, change_hub: ChangeHub, move_hub: Callable[[str], None]) -> Path:
    """Return the folder of an empty hub cache; the hub is not reachable."""
    change_hub(HF_HUB_CACHE=str(tmp_path / "hub"))
    move_hub(closed_address())
    return tmp_path / "hub"


def closed_address() -> str:
    """Return an address at which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


def torch_features(backbone: Backbone, pixels: np.ndarray) -> np.ndarray:
    """Return the features of up to 8 images from torch in fp32."""
    with closing(TorchEngine(backbone, device="cpu", plain=True)) as engine:
        return engine(pixels)
