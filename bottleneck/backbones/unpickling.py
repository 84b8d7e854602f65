"""Interpret a checkpoint's pickle without running its code, to find tensors next to any other Python objects.

A pickle is a program that names classes and functions and calls them. Here its operations are only interpreted: a name
stays a name, an instance holds its arguments, and the calls with which ``torch.save`` describes a tensor yield its
position in the file. Settings, metrics and paths of any library and version are harmless, and nothing is registered
with torch.

Memory and time are limited by the size of the pickle: copies and new containers count against a budget, and keys must
be cheap to hash.
"""

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from pickletools import genops
from typing import IO, Any

from bottleneck.backbones.inert import HoldsCode, Inert, Name, Unread

__all__ = ["HoldsCode", "Inert", "Name", "Place", "Unread", "interpret"]

Place = Callable[..., Any]  # returns the storage of a persistent id

LARGEST = 64 << 20  # bytes of a pickle; the largest published networks have 2 MB
_STEP, _CONTAINER, _ITEM = 128, 512, 64  # bytes of memory counted for an operation, a container and an item
_BUDGET, _FOR_EACH_BYTE = 768 << 20, 1024  # bytes of memory: in total, and per byte of the pickle
_FREE = 1 << 20
_DEEPEST = 64  # dimensions of a tensor


def interpret(file: IO[bytes], place: Place | None = None, *, size: int = LARGEST) -> Any:
    """Return the content of a pickle: plain values, `Inert` for instances, `Name` for classes, `Unread` for tensors.

    Parameters
    ----------
    file : file
        Read up to the end of the pickle.
    place : callable, optional
    size : int
        Largest size of the pickle in bytes.

    Raises
    ------
    HoldsCode
        If the pickle calls something that is not a class of plain data.
    Exception
        ValueError, IndexError and others, if it is not a pickle, or one made to exhaust memory or time.
    """
    machine = _PickleMachine(place, min(_BUDGET, _FREE + size * _FOR_EACH_BYTE))
    for operation, argument, _ in genops(file):
        machine.do(operation.name, argument)
    return machine.stack[-1]


class _Mark:
    """Marks where the arguments of an operation begin on the stack."""


_IGNORED = {"PROTO", "FRAME", "STOP"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "MARK": _Mark,
}
_CONTAINERS: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip


class _PickleMachine:
    """Interprets the operations of one pickle; see `pickletools` for their meaning."""

    def __init__(self, place: Place | None, budget: int) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._place = place
        self._left = budget

    def do(self, operation: str, argument: Any) -> None:
        """Interpret one operation.

        Raises
        ------
        ValueError
            If it never occurs in checkpoints.
        """
        self._spend(_STEP)
        if operation in _VALUES:
            self.stack.append(argument)
        elif operation in _CONSTANTS:
            self.stack.append(_CONSTANTS[operation]())
        elif operation in _CONTAINERS:
            self._spend(_CONTAINER)
            self.stack.append(_CONTAINERS[operation]())
        elif operation not in _IGNORED:
            method = getattr(self, f"_{operation.lower()}", None)
            if method is None:
                raise ValueError(f"expected a checkpoint, found {operation} in it")
            method(argument)

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ValueError("expected a checkpoint, found a pickle made to exhaust memory")

    def _to_mark(self) -> list[Any]:
        """Pop everything above the last mark, and the mark."""
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
        self.stack.append(frozenset(map(_key, self._to_mark())))

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
            self.stack[-1].update(map(_key, values))

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update({_key(key): value})

    def _setitems(self, _: Any) -> None:
        self._update(_pairs(self._to_mark()))

    def _update(self, items: dict[Any, Any]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise ValueError("expected a dictionary that takes items")
        self.stack[-1].update(items)

    def _global(self, argument: str) -> None:
        self.stack.append(_named(*argument.split(" ", 1)))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_named(module, name))

    def _reduce(self, _: Any) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        self.stack.append(self._called(called, arguments))

    def _inst(self, argument: str) -> None:
        self.stack.append(self._called(_named(*argument.split(" ", 1)), self._to_mark()))

    def _obj(self, _: Any) -> None:
        kind, *arguments = self._to_mark()
        self.stack.append(self._called(kind, arguments))

    def _newobj(self, _: Any) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        self.stack.append(self._instance(kind, arguments))  # of any class

    def _newobj_ex(self, _: Any) -> None:
        self.stack.pop()
        self._newobj(_)

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state

    def _persid(self, argument: Any) -> None:
        raise ValueError(f"expected a storage, found {argument:.80}")

    def _binpersid(self, _: Any) -> None:
        kind, *rest = self.stack.pop()
        if isinstance(kind, str) and kind == "module":  # a class, in old files with its source
            self.stack.append(rest[0])
        elif isinstance(kind, str) and kind == "storage" and self._place:
            self.stack.append(self._place(*rest))
        else:
            raise ValueError("expected a storage, found another persistent id")

    def _called(self, called: Any, arguments: Any) -> Any:
        """Return the result of calling a name: the description of a tensor, or an instance of a class.

        Raises
        ------
        HoldsCode
            If it is not a class of plain data.
        """
        if not isinstance(called, Name):
            raise HoldsCode("something that has no name is called")
        if not isinstance(arguments, tuple | list):
            raise ValueError("expected the arguments of a call, found something else")
        if called.module in ("torch._utils", "torch._tensor") and called.name in _REBUILDERS:
            self._spend(_CONTAINER)
            return _REBUILDERS[called.name](self, *arguments)
        if not called.is_plain:
            raise HoldsCode(str(called)[:200])
        if called == ("builtins", "getattr"):  # a method, or a member of an enumeration
            owner, attribute = arguments
            kind = owner.kind if isinstance(owner, Inert) else owner
            self._spend(len(kind.name) + len(attribute))
            return _named(kind.module, f"{kind.name}.{attribute:s}")
        if called in (("builtins", "set"), ("builtins", "frozenset")):
            (values,) = arguments or ((),)
            self._spend(_CONTAINER + _ITEM * len(values))
            return set(map(_key, values))
        return self._instance(called, arguments)

    def _instance(self, kind: Any, arguments: Any) -> Inert:
        """Return an instance with the items of a dictionary subclass; other arguments are ignored."""
        if not isinstance(kind, Name):
            raise ValueError("expected the class of an instance, found something else")
        self._spend(_CONTAINER)
        items = arguments[0] if isinstance(arguments, tuple | list) and arguments else ()
        if not isinstance(items, dict | list | tuple):
            return Inert(kind)
        self._spend(_ITEM * len(items))
        if isinstance(items, dict):
            return Inert(kind, items)
        if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in items):
            return Inert(kind)
        return Inert(kind, {_key(name): value for name, value in items})


def _key(value: Any) -> Any:
    """Return a key that is cheap to hash; replace any other key with a new object."""
    if value is None or isinstance(value, str | bytes | float | Name | Inert):
        return value
    if isinstance(value, int) and abs(value) < 1 << 60:  # larger ones can be chosen to have equal hashes
        return value
    return Inert(Name("builtins", type(value).__name__))


def _pairs(values: list[Any]) -> dict[Any, Any]:
    return dict(zip(map(_key, values[::2]), values[1::2], strict=True))


def _named(module: Any, name: Any) -> Name:
    """Return a name; convert names of Python 2."""
    if not (isinstance(module, str) and isinstance(name, str)):
        raise ValueError("expected the name of a class, found something else")
    return Name(*NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name)))


def _tensor(
    machine: _PickleMachine,
    storage: Any,
    offset: Any,
    shape: Any,
    stride: Any,
    _grad: Any = None,
    _hooks: Any = None,
    metadata: Any = None,
) -> Any:
    return _tensor_of_type(machine, storage, offset, shape, stride, None, None, None, metadata)


def _tensor_of_type(
    _machine: _PickleMachine,
    storage: Any,
    offset: Any,
    shape: Any,
    stride: Any,
    _grad: Any,
    _hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> Any:
    if metadata:  # lazily conjugated or negated, which weights never are
        return Inert(Name("torch", "Tensor"))
    (start,) = _sizes([offset])
    return Unread(storage, dtype.dtype if dtype else storage.dtype, start, _sizes(shape), _sizes(stride))


def _sizes(numbers: Any) -> tuple[int, ...]:
    """Return a shape or a stride."""
    if not isinstance(numbers, tuple | list) or len(numbers) > _DEEPEST:
        raise ValueError("expected the shape of a tensor, found something else")
    if not all(type(number) is int and 0 <= number < 1 << 60 for number in numbers):
        raise ValueError("expected the shape of a tensor, found other values")
    return tuple(numbers)


def _parameter(_machine: _PickleMachine, data: Any, *_: Any) -> Any:
    return data


def _of_subclass(machine: _PickleMachine, rebuild: Any, _class: Any, arguments: Any, _state: Any) -> Any:
    return machine._called(rebuild, arguments)


_REBUILDERS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_tensor_v3": _tensor_of_type,
    "_rebuild_parameter": _parameter,
    "_rebuild_parameter_with_state": _parameter,
    "_rebuild_from_type_v2": _of_subclass,
}
