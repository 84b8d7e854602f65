"""torchvision and timm come without torch's compiler, and with it as soon as it is wanted."""

import subprocess
import sys

import pytest


def said(code: str) -> list[str]:
    """Return the lines that a fresh process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_network_is_built_and_converted_without_the_compiler():
    pytest.importorskip("openvino")
    code = """
import sys
import torch.utils.checkpoint  # which timm needs; SymPy comes with it in older versions of torch
before = set(sys.modules)
from bottleneck.backbones.registry import load
from bottleneck.backbones.request import Request
from bottleneck.engines.openvino_engine import convert
for model in ("efficientnet_lite0", "resnet18"):
    backbone = load(Request(model=model, weights="DEFAULT" if model == "efficientnet_lite0" else "none"))
convert(backbone, "bf16")
new = set(sys.modules) - before
print([name for name in new if name.startswith(("torch._dynamo", "torch._inductor", "sympy"))])
print("torch._dynamo" in before)
"""
    assert said(code) == ["[]", "False"]


def test_afterwards_the_compiler_is_itself():
    code = """
import inspect, sys
import torch
from bottleneck.backbones import packages
from bottleneck.backbones.packages import timm, torchvision
print("torch._dynamo" in sys.modules)
with packages._without_compiler():
    import torch._dynamo
    print(isinstance(sys.modules["torch._dynamo"], packages._StandIn), torch._dynamo.is_compiling())
    print(isinstance(sys.modules["torch._dynamo"], packages._StandIn))
rois = torch.tensor([[0.0, 1.0, 1.0, 5.0, 5.0]])
print(tuple(torchvision.ops.roi_align(torch.rand(1, 3, 8, 8), rois, 2).shape))
import torch._dynamo
print(inspect.ismodule(torch._dynamo) and torch._dynamo.__file__ is not None)
doubled = torch.compile(lambda x: x * 2, backend="eager")
print(doubled(torch.ones(1)).item())
"""
    before, stands_in, answer, found, *rest = said(code)

    assert (before, stands_in) == ("False", "True")
    assert (answer, found) == ("False", "False"), "what no stand-in has is asked of the compiler, which takes its place"
    assert rest == ["(1,", "3,", "2,", "2)", "True", "2.0"]


def test_what_was_marked_to_be_left_alone_by_the_compiler_is():
    code = """
import torch
from bottleneck.backbones import packages
seen = []

@packages._disable
def odd(x):
    seen.append(torch.compiler.is_compiling())
    return x + len(seen)

@packages._disable(reason="a test")
def plain(x):
    "What it says."
    return x

print(odd(1), seen, plain.__name__, plain(3))
print(torch.compile(lambda x: odd(x) * 2, backend="eager")(torch.zeros(1)).item(), seen)
"""
    assert said(code) == ["2", "[False]", "plain", "3", "4.0", "[False,", "False]"]


def test_a_module_below_the_compiler_can_be_imported_meanwhile():
    code = """
import sys
from bottleneck.backbones import packages
with packages._without_compiler():
    import torch._dynamo.config as config
    from torch._dynamo.eval_frame import optimize
    print(isinstance(sys.modules["torch._dynamo"], packages._StandIn))
import torch
print(torch._dynamo.config is config, config.__spec__.name, torch._dynamo.eval_frame.optimize is optimize)
print(type(config.__spec__.loader).__name__ != "_There")
print(torch.compile(lambda x: x * 2, backend="eager")(torch.ones(1)).item())
"""
    assert said(code) == ["False", "True", "torch._dynamo.config", "True", "True", "2.0"]
