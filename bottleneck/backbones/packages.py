"""torchvision and timm, imported without torch's compiler.

Both ask for it while they are imported: to mark functions that it should leave alone, and to find out whether it works
here. With all that it brings (SymPy, for one) it takes 1.5 s, longer than the two packages together, and few commands
compile. So it is imported when it is first used.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

_COMPILER, _HELPERS = "torch._dynamo", "torch._dynamo.utils"


class _StandIn(ModuleType):
    """Stands where a module would be; whatever else than was given to it is asked of the module itself."""

    __file__ = None
    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Let stand-ins be found where the compiler is not imported yet."""
    if _COMPILER in sys.modules:
        yield
        return
    compiler, helpers = _StandIn(_COMPILER), _StandIn(_HELPERS)
    vars(compiler)["disable"] = _disable
    vars(helpers)["is_compile_supported"] = _is_compile_supported
    sys.modules.update({_COMPILER: compiler, _HELPERS: helpers})
    try:
        yield
    finally:
        _forget_stand_ins()


def _forget_stand_ins() -> None:
    for name in (_COMPILER, _HELPERS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _real(name: str) -> ModuleType:
    _forget_stand_ins()
    return import_module(name)


def _disable(function: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """Do what `torch.compiler.disable` does, when something is compiled."""
    if function is None:
        return functools.partial(_disable, recursive=recursive, reason=reason)
    if not inspect.isfunction(function):
        return _real(_COMPILER).disable(function, recursive, reason=reason)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function, recursive, reason=reason)(*args, **options)  # type: ignore[no-untyped-call]
        return function(*args, **options)

    return call


def _is_compile_supported(device: Any) -> bool:
    supported: Callable[[Any], bool] = _real(_HELPERS).is_compile_supported
    return supported(device)


with _without_compiler():
    import timm
    import torchvision

__all__ = ["timm", "torchvision"]
