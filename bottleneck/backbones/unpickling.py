"""Tensors of a checkpoint that holds other Python objects too; none of its code runs, whatever the file says.

A pickle is a program: it names classes and functions and calls them. Here its steps are only followed. A name stays a
name, an instance is what it was given, and the names with which ``torch.save`` describes a tensor mean a place in the
file. So settings, metrics and paths of any library and version do no harm, and nothing is registered with torch.
"""

import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pickletools import genops
from typing import IO, Any, NamedTuple

import torch

from bottleneck.errors import ModelError

Place = Callable[..., Any]  # gives the storage of what a pickle calls a persistent id

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

# What plain data of the standard library, which has many ways to run a program, calls.
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
    """A checkpoint calls something that is no class of plain data, and whose name is the message; it was not called."""


class Name(NamedTuple):
    """A class or a function that a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def dtype(self) -> torch.dtype | None:
        """The type of numbers that a class of storages, or a dtype, stands for."""
        if self.module.partition(".")[0] != "torch":
            return None
        found = _STORAGES.get(self.name) or (getattr(torch, self.name, None) if self.module == "torch" else None)
        return found if isinstance(found, torch.dtype) else None

    @property
    def is_plain(self) -> bool:
        """Whether plain data may call it: it is the class of something, by the habit of its first letter."""
        package = self.module.partition(".")[0]
        if self.module == "builtins":
            return self.name in _PLAIN_BUILTINS
        if self == ("_codecs", "encode"):  # how bytes are written in old protocols
            return True
        if "." in self.name:  # a method
            return False
        if package in sys.stdlib_module_names and package != "__main__":
            return package in _PLAIN_MODULES  # pathlib._local of Python 3.13 is pathlib
        return package in _PLAIN_PACKAGES or self.name[:1] != self.name[:1].lower()


class Inert(dict[Any, Any]):
    """Stands for an instance of a class that is not loaded: its items and its state.

    Parameters
    ----------
    kind : Name
        Of the class.
    items : mapping or pairs
        What a dictionary is made of; anything else is passed over.
    """

    def __init__(self, kind: Any, items: Any = ()) -> None:
        super().__init__()
        self.kind = kind
        self.state: Any = None
        with suppress(TypeError, ValueError):
            self.update(items)

    __hash__ = object.__hash__  # type: ignore[assignment]  # it may be a key
    __eq__ = object.__eq__


@dataclass(eq=False)
class Unread:
    """A tensor that has not been read yet.

    Parameters
    ----------
    storage : object
        What `Place` gave.
    dtype : torch.dtype
    offset : int
    shape, stride : tuple of int
        In numbers, as torch counts them.
    """

    storage: Any
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def follow(file: IO[bytes], place: Place | None = None) -> Any:
    """Return what a pickle describes: plain values, `Inert` for instances, `Name` for classes, `Unread` for tensors.

    Parameters
    ----------
    file : file
        Read up to the end of the pickle.
    place : callable, optional

    Raises
    ------
    HoldsCode
        If the pickle calls something that is no class of plain data.
    Exception
        ValueError, IndexError and their like of what is no pickle.
    """
    machine = _Machine(place)
    for operation, argument, _ in genops(file):
        machine.do(operation.name, argument)
    return machine.stack[-1]


class _Mark:
    """Where the arguments of an operation begin on the stack."""


_PASSED_OVER = {"PROTO", "FRAME", "STOP"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": _Mark,
}
_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip


class _Machine:
    """Follows the operations of one pickle; see `pickletools` for what they mean."""

    def __init__(self, place: Place | None) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._place = place

    def do(self, operation: str, argument: Any) -> None:
        """Follow one operation.

        Raises
        ------
        ValueError
            If checkpoints never have it.
        """
        if operation in _VALUES:
            self.stack.append(argument)
        elif operation in _CONSTANTS:
            self.stack.append(_CONSTANTS[operation]())
        elif operation not in _PASSED_OVER:
            method = getattr(self, f"_{operation.lower()}", None)
            if method is None:
                raise ValueError(f"expected a checkpoint, found {operation} in it")
            method(argument)

    def _to_mark(self) -> list[Any]:
        """Take what lies above the last mark, and the mark."""
        place = next(place for place in range(len(self.stack) - 1, -1, -1) if isinstance(self.stack[place], _Mark))
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def _pop(self, _: Any) -> None:
        self.stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._to_mark()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _put(self, key: int) -> None:
        self._memo[key] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    def _get(self, key: int) -> None:
        self.stack.append(self._memo[key])

    _binget = _long_binget = _get

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._to_mark()))

    def _tuple1(self, _: Any) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def _tuple2(self, _: Any) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def _tuple3(self, _: Any) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def _list(self, _: Any) -> None:
        self.stack.append(self._to_mark())

    def _dict(self, _: Any) -> None:
        self.stack.append(_pairs(self._to_mark()))

    def _frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(self._to_mark()))

    def _append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._to_mark())

    def _extend(self, values: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    def _additems(self, _: Any) -> None:
        values = self._to_mark()
        if isinstance(self.stack[-1], set):
            self.stack[-1].update(values)

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][key] = value

    def _setitems(self, _: Any) -> None:
        items = _pairs(self._to_mark())
        self.stack[-1].update(items)

    def _global(self, argument: str) -> None:
        self.stack.append(_named(*argument.split(" ", 1)))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_named(module, name))

    def _reduce(self, _: Any) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        self.stack.append(_called(called, arguments))

    def _inst(self, argument: str) -> None:
        self.stack.append(_called(_named(*argument.split(" ", 1)), self._to_mark()))

    def _obj(self, _: Any) -> None:
        kind, *arguments = self._to_mark()
        self.stack.append(_called(kind, arguments))

    def _newobj(self, _: Any) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        self.stack.append(Inert(kind, *arguments[:1]))  # of a class, whatever its name

    def _newobj_ex(self, _: Any) -> None:
        self.stack.pop()
        self._newobj(_)

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state

    def _persid(self, argument: Any) -> None:
        raise ValueError(f"expected a storage, found {argument!r}")

    def _binpersid(self, _: Any) -> None:
        kind, *rest = self.stack.pop()
        if kind == "module":  # a class, of an old file that has its source too
            self.stack.append(rest[0])
        elif kind == "storage" and self._place:
            self.stack.append(self._place(*rest))
        else:
            raise ValueError(f"expected a storage, found {kind!r}")


def _pairs(values: list[Any]) -> dict[Any, Any]:
    return dict(zip(values[::2], values[1::2], strict=True))


def _named(module: str, name: str) -> Name:
    """Return a name; of one of Python 2 today's."""
    return Name(*NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name)))


def _called(called: Any, arguments: Iterable[Any]) -> Any:
    """Return what comes of calling a name: for a tensor its description, for a class an instance.

    Raises
    ------
    HoldsCode
        If it is no class of plain data.
    """
    if isinstance(called, Name) and called.module in ("torch._utils", "torch._tensor") and called.name in _REBUILDERS:
        return _REBUILDERS[called.name](*arguments)
    if not (isinstance(called, Name) and called.is_plain):
        raise HoldsCode(str(called))
    if called == ("builtins", "getattr"):  # a method, or a member of an enumeration
        owner, attribute = arguments
        kind = owner.kind if isinstance(owner, Inert) else owner
        return Name(kind.module, f"{kind.name}.{attribute}")
    if called in (("builtins", "set"), ("builtins", "frozenset")):
        return set(*arguments)
    return Inert(called, *list(arguments)[:1])


def _tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any = None, _hooks: Any = None, metadata: Any = None
) -> Any:
    return _tensor_of_type(storage, offset, shape, stride, None, None, None, metadata)


def _tensor_of_type(
    storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, metadata: Any = None
) -> Any:
    if metadata:  # conjugated or negated in passing, which weights are not
        return Inert(Name("torch", "Tensor"))
    return Unread(storage, dtype.dtype if dtype else storage.dtype, offset, tuple(shape), tuple(stride))


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _of_subclass(rebuild: Any, _class: Any, arguments: Any, _state: Any) -> Any:
    return _called(rebuild, arguments)


_REBUILDERS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_tensor_v3": _tensor_of_type,
    "_rebuild_parameter": _parameter,
    "_rebuild_parameter_with_state": _parameter,
    "_rebuild_from_type_v2": _of_subclass,
}
