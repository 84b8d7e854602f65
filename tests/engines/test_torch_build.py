import torch

from bottleneck.engines.torch_build import TorchBuild, torch_build


def test_the_build_names_its_platform_and_the_gpus_that_work():
    found = torch_build()

    assert found.for_gpu == bool(torch.version.cuda or torch.version.hip)
    assert bool(found.gpus) == (torch.cuda.is_available() or torch.backends.mps.is_available())


def test_a_build_for_cpus():
    assert not TorchBuild("CPU", ()).for_gpu
