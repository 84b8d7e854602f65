import timm
import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode

from bottleneck.backbones.timm_models import exists, names
from bottleneck.backbones.uninitialised import Uninitialised


class Recorded(TorchFunctionMode):
    """Records the functions that are called."""

    def __init__(self) -> None:
        self.called: set[str] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.called.add(func.__name__)
        return func(*args, **(kwargs or {}))


DRAWS = {"normal_", "uniform_", "kaiming_uniform_", "erfinv_", "clamp_"}


def test_no_initialiser_of_a_network_on_the_meta_device_is_called():
    for create in (torchvision.models.resnet18, torchvision.models.vit_b_16, lambda: timm.create_model("test_vit")):
        with Recorded() as recorded, torch.device("meta"):
            create()
        assert recorded.called & DRAWS
        with Recorded() as recorded, Uninitialised(), torch.device("meta"):
            network = create()
        assert not recorded.called & DRAWS
        assert all(value.is_meta for value in network.state_dict().values())


def initialised() -> list[torch.Tensor]:
    torch.manual_seed(0)
    tensors = [torch.zeros(3, 4) for _ in range(5)]
    nn.init.trunc_normal_(tensors[0], a=-0.5, b=0.5)
    nn.init.kaiming_uniform_(tensors[1])
    nn.init.xavier_uniform_(tensors[2])
    nn.init.normal_(tensor=tensors[3])
    tensors[4].uniform_()
    return tensors


def test_tensors_with_values_are_initialised():
    with torch.random.fork_rng():
        wanted = initialised()
        with Uninitialised():
            found = initialised()
    assert all(value.count_nonzero() for value in wanted)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_the_models_of_timm_that_exist_are_those_that_are_listed():
    assert all(exists(name.removeprefix("timm/")) for name in names()[::100])
    assert not any(exists(name) for name in ("", "*", "resnet*", "resnet", "resnet18.a1_in1k", "vit_tiny_patch16_22"))
