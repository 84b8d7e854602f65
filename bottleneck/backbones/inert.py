"""Values that represent the classes, instances and tensors of a pickle, and run no code."""

import sys
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from bottleneck.errors import ModelError

_STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexDouble": torch.complex128,
        "ComplexFloat": torch.complex64,
        "Untyped": torch.uint8,
    }.items()
}

# Modules of the standard library that plain data uses; other modules can run programs.
_PLAIN_MODULES = {
    "argparse", "collections", "copyreg", "datetime", "decimal", "enum", "fractions", "functools", "numbers", "pathlib",
    "types", "typing", "uuid", "zoneinfo",
}  # fmt: skip
_PLAIN_BUILTINS = {
    "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "getattr", "int", "list", "object", "range",
    "set", "slice", "str", "tuple", "type",
}  # fmt: skip
_PLAIN_PACKAGES = {"numpy", "pandas", "torch"}


class HoldsCode(ModelError):
    """A checkpoint calls something that is not a class of plain data; the message is its name. It was not called."""


class Name(NamedTuple):
    """A class or a function that a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of a storage class, or of the name of a dtype; None for other names."""
        if self.module.partition(".")[0] != "torch":
            return None
        found = _STORAGES.get(self.name) or (getattr(torch, self.name, None) if self.module == "torch" else None)
        return found if isinstance(found, torch.dtype) else None

    @property
    def is_plain(self) -> bool:
        """Whether plain data may call it: its module is allowed, or its name is capitalised like that of a class."""
        package = self.module.partition(".")[0]
        if self.module == "builtins":
            return self.name in _PLAIN_BUILTINS
        if self == ("_codecs", "encode"):  # how old protocols store bytes
            return True
        if "." in self.name:  # a method
            return False
        if package in sys.stdlib_module_names and package != "__main__":
            return package in _PLAIN_MODULES  # pathlib._local of Python 3.13 is pathlib
        return package in _PLAIN_PACKAGES or self.name[:1] != self.name[:1].lower()


class Inert(dict[Any, Any]):
    """Represents an instance of a class that is not loaded, with its items and its state.

    Parameters
    ----------
    kind : Name
        Name of the class.
    items : mapping
    """

    def __init__(self, kind: Any, items: Any = ()) -> None:
        super().__init__(items)
        self.kind = kind
        self.state: Any = None

    def __repr__(self) -> str:
        return f"<{self.kind}>"

    __hash__ = object.__hash__  # type: ignore[assignment]  # it may be a key
    __eq__ = object.__eq__


@dataclass(eq=False)
class Unread:
    """A tensor that has not been read yet.

    Parameters
    ----------
    storage : object
        What the `Place` callable returned.
    dtype : torch.dtype
    offset : int
    shape, stride : tuple of int
        In elements, as in torch.
    """

    storage: Any
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
