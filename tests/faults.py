"""Faults of the operating system, which no argument can bring about; use them with the fixture `wrap`."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

Wrap = Callable[[object, str, Callable[..., object]], None]


@dataclass
class Fault:
    """A wrapper that raises an error as long as it is active."""

    error: BaseException
    active: bool = True

    def __call__(self, call: Callable[..., object], *args: object, **options: object) -> object:
        if self.active:
            raise self.error
        return call(*args, **options)


def before_first(act: Callable[..., object], *, path: Path | None = None) -> Callable[..., object]:
    """Return a wrapper that does something before the first call, or the first call for a path."""
    todo = [act]

    def wrapper(call: Callable[..., object], *args: object, **options: object) -> object:
        if todo and (path is None or path in args):
            todo.pop()()
        return call(*args, **options)

    return wrapper


def system_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@contextmanager
def file_sizes_limited(size: int = 1000) -> Iterator[None]:
    """Let no file of this process grow beyond some bytes: a write of more fails in the middle, as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
