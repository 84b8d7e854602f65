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
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

_COMPILER, _HELPERS = "torch._dynamo", "torch._dynamo.utils"


class _StandIn(ModuleType):
    """Stands where a module would be; whatever else than was given to it is asked of the module itself."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__file__ = None
        self.__path__: list[str] = []
        self.__spec__ = find_spec(name) if name == _COMPILER else None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


class _Below:
    """Finds modules below the compiler's package: by importing the compiler itself, which takes its place."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return how to load a module; one that has come with the compiler is there already."""
        if not name.startswith(f"{_COMPILER}.") or not isinstance(sys.modules.get(_COMPILER), _StandIn):
            return None
        package = _real(_COMPILER)
        if name in sys.modules:
            return ModuleSpec(name, _There(sys.modules[name]))
        return PathFinder.find_spec(name, package.__path__)


class _There(Loader):
    """Loads a module that is there already."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Leave it as it was."""
        module.__spec__ = self._spec


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Let stand-ins be found where the compiler is not imported yet."""
    if _COMPILER in sys.modules:
        yield
        return
    compiler, helpers = _StandIn(_COMPILER), _StandIn(_HELPERS)
    vars(compiler)["disable"] = _disable
    vars(helpers)["is_compile_supported"] = _is_compile_supported
    below = _Below()
    sys.modules.update({_COMPILER: compiler, _HELPERS: helpers})
    sys.meta_path.insert(0, below)
    try:
        yield
    finally:
        sys.meta_path.remove(below)
        _forget_stand_ins()


def _forget_stand_ins() -> None:
    for name in (_COMPILER, _HELPERS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _real(name: str) -> ModuleType:
    _forget_stand_ins()
    return import_module(name)


def _disable(function: Any = None, *how: Any, **named: Any) -> Any:
    """Do what `torch.compiler.disable` does, when something is compiled."""
    if function is None:
        return lambda function: _disable(function, *how, **named)
    if not inspect.isfunction(function):
        return _real(_COMPILER).disable(function, *how, **named)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function, *how, **named)(*args, **options)  # type: ignore[no-untyped-call]
        return function(*args, **options)

    return call


def _is_compile_supported(device: Any) -> bool:
    supported: Callable[[Any], bool] = _real(_HELPERS).is_compile_supported
    return supported(device)


with _without_compiler():
    import timm
    import torchvision

__all__ = ["timm", "torchvision"]
