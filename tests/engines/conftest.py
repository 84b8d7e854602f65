"""A network of a few channels, and engines that leave nothing behind."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from bottleneck.backbones.backbone import Backbone
from bottleneck.backbones.spec import Spec
from bottleneck.engines import torch_engine
from bottleneck.engines.torch_engine import TorchEngine
from bottleneck.utils.process_settings import SharedContext, attribute_set


@pytest.fixture
def tiny(spec: Spec) -> Backbone:
    """Return a backbone of 16 features whose batch norms have statistics of their own."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    for norm in (network[1], network[4]):
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.5, 1.5)
    return Backbone(network.eval().requires_grad_(False), spec, 16)


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[TorchEngine]]:
    """Close every engine of torch that a test makes, and give torch its threads back; give the list of them."""
    engines: list[TorchEngine] = []
    begin, threads = TorchEngine.__init__, torch.get_num_threads()

    def watch(self: TorchEngine, *args: object, **options: object) -> None:
        begin(self, *args, **options)  # type: ignore[arg-type]
        engines.append(self)

    monkeypatch.setattr(TorchEngine, "__init__", watch)
    # Fresh ones: engines of other tests in this process may not have been closed.
    monkeypatch.setattr(torch_engine, "_few_threads", SharedContext(torch_engine._threads_per_lane))
    without_tf32 = SharedContext(lambda: attribute_set(torch.backends.cudnn, "allow_tf32", False))
    monkeypatch.setattr(torch_engine, "_without_tf32", without_tf32)
    yield engines
    for engine in reversed(engines):
        engine.close()
    torch.set_num_threads(threads)
