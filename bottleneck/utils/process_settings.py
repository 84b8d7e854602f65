"""Settings of the whole process, changed only while they are needed and then restored, even if threads overlap."""

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType


class SharedContext:
    """A context manager for several threads at once: the first one enters `make()`, and the last one exits it.

    If each thread saved, changed and restored the setting by itself, one would restore it while another still needs
    the change, and the last would restore the change.

    Parameters
    ----------
    make : callable
        Returns a context manager that changes a setting and restores it.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._count = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._count:
                self._context = self._make()
                self._context.__enter__()
            self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._count -= 1
            if not self._count:
                self._context.__exit__(None, None, None)


@contextmanager
def attribute_set(owner: object, name: str, value: object) -> Iterator[None]:
    """Set an attribute of a module or object, and restore it on exit."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable, and restore it on exit."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def ignored_warnings(message: str = "", category: type[Warning] = Warning) -> AbstractContextManager[None]:
    """Ignore warnings of a category whose text starts with a match of the regular expression `message`.

    `warnings.catch_warnings` saves and restores all filters, and so loses changes that other threads make in between.
    This adds one filter, and removes it.
    """
    with _filters_lock:
        return _ignored.setdefault((message, category), SharedContext(lambda: _filter_added(message, category)))


_filters_lock = threading.Lock()
_ignored: dict[tuple[str, type[Warning]], SharedContext] = {}


@contextmanager
def _filter_added(message: str, category: type[Warning]) -> Iterator[None]:
    with _filters_lock:
        # The comment makes the filter differ from the caller's own, which must stay.
        warnings.filterwarnings("ignore", message=f"(?#bottleneck){message}", category=category)
        added = warnings.filters[0]
    try:
        yield
    finally:
        with suppress(ValueError):  # the caller has restored older filters meanwhile
            warnings.filters.remove(added)  # type: ignore[attr-defined]
