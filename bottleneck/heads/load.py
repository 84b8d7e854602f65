"""Load a head from its file, with validation and without running code from it."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError

from bottleneck.errors import RunError
from bottleneck.heads.head import FORMAT_VERSION, LARGEST_FILE, Head
from bottleneck.heads.kernel import KernelHead
from bottleneck.heads.linear import LinearHead
from bottleneck.heads.neighbours import NeighbourHead
from bottleneck.utils.files import open_regular, parse_json, read_whole
from bottleneck.utils.tensors import parsed

_READABLE = ("1", "2")  # version 1 had only the linear form, without unit
_FORMS: dict[str, type[Head]] = {form.form: form for form in (LinearHead, KernelHead, NeighbourHead)}


def load_head(path: Path) -> Head:
    """Load a file written by `Head.save`. It contains only tensors and strings, so loading cannot run code.

    Raises
    ------
    RunError
        If the file is missing, not a regular file, damaged, too large or of a newer format.
    """
    return head_of(read_head(path), path)


def read_head(path: Path, opener: Callable[[str, int], int] = open_regular) -> bytes:
    """Return the bytes of a head's file; `opener` is that of `bottleneck.utils.files.read_whole`.

    Raises
    ------
    RunError
        If it is missing, not a regular file, or too large.
    """
    try:
        return read_whole(path, LARGEST_FILE, opener)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise RunError(f"expected a head of less than {LARGEST_FILE >> 30} GiB in {path}") from error
        raise _unreadable(path, error) from error


def head_of(data: bytes, path: Path) -> Head:
    """Return the head stored in these bytes; `path` is used in messages.

    Raises
    ------
    RunError
        If they are damaged, or of a newer format.
    """
    try:
        tensors, metadata = parsed(data)
        return _read(path, tensors, metadata)
    except RunError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RunError:
    return RunError(f"expected a head in {path}, cannot read it: {error}. Fit the head again")


def _read(path: Path, file: dict[str, NDArray[Any]], metadata: dict[str, str]) -> Head:
    version = metadata.get("format_version")
    if version not in _READABLE:
        raise RunError(
            f"expected a head of format version {FORMAT_VERSION} in {path}, found {version}: fit the head again, or "
            f"update bottleneck"
        )
    form = _FORMS.get(metadata.get("form", "linear") if version != "1" else "linear")
    if form is None:
        raise RunError(f"expected a head of a form among {', '.join(_FORMS)} in {path}, found {metadata.get('form')!r}")
    tensors = {name: file[name].astype(form.kinds.get(name, "float32")) for name in form.tensors}
    classes = parse_json(metadata["classes"])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise RunError(f"expected a list of class names in {path}, found {classes!r:.100}")
    if len(set(classes)) < len(classes):
        raise RunError(f"expected unique class names in {path}, found duplicates")
    unit = parse_json(metadata["unit"]) if version != "1" else False
    if not isinstance(unit, bool):
        raise RunError(f"expected unit to be true or false in {path}, found {unit!r:.100}")
    own: dict[str, Any] = {name: float(metadata[name]) for name in form.numbers}
    return form(
        family=metadata["family"],
        classes=tuple(classes),
        unit=unit,
        inverse_temperature=float(metadata["sharpness"]),
        fingerprint=metadata["fingerprint"],
        **own,
        **tensors,
    )
