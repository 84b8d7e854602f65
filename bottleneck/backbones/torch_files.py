"""Read files of ``torch.save``, zip archives and the older format, without running code.

The sizes in a file are compared with the size of the file before memory is allocated: the numbers of all tensors never
have more bytes than the file.
"""

import io
import os
import struct
import sys
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from bottleneck.backbones.inert import Inert, Unread
from bottleneck.backbones.unpickling import LARGEST, interpret
from bottleneck.errors import ModelError
from bottleneck.utils.files import open_regular

_ZIP = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<26x2H")  # of a zip member; the lengths of its name and its extra field
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # at the beginning of the older format
_COUNT = struct.Struct("<q")
_DIRECTORY = 8 << 20  # bytes of an archive's directory; that of 20,000 tensors has 2 MB
_OTHER_ORDER = f"expected the byte order of this machine, {sys.byteorder}, found the opposite one"
_SHORT = 64  # bytes
_NOT_TORCHS = "it was not written by torch.save"
_PARTS = 200_000  # of a pickled network


@dataclass
class _Region:
    """A range of bytes of a file."""

    path: Path
    size: int
    offset: int

    @cached_property
    def bytes(self) -> Tensor:
        """The bytes, ``uint8 (size,)``."""
        with open(self.path, "rb", opener=open_regular) as file:
            self.check(os.fstat(file.fileno()).st_size)
            found = torch.empty(self.size, dtype=torch.uint8)
            file.seek(self.offset)
            if file.readinto(found.numpy().data) != self.size:
                raise self._too_short()
        return found

    def check(self, file_size: int) -> None:
        """Refuse a region that is not inside a file of that size."""
        if not 0 <= self.offset <= self.offset + self.size <= file_size:
            raise self._too_short()

    def _too_short(self) -> EOFError:
        return EOFError(f"expected {self.size:,} bytes at {self.offset:,}, the file is too short")


@dataclass
class _Storage:
    """The numbers of one dtype in a region, beginning with that at index `start`."""

    region: _Region
    dtype: torch.dtype
    start: int = 0


def read_plain(path: Path) -> Any:
    """Read a file of ``torch.save`` without running code from it; tensors are returned as `Unread`.

    Raises
    ------
    HoldsCode
        If the file calls something that is not a class of plain data; it is not called.
    ModelError
        If it was not written by ``torch.save``, or on a machine with another byte order.
    Exception
        Any error of the standard library, if the file is damaged.
    """
    with open(path, "rb", opener=open_regular) as file:
        head = file.read(len(_ZIP))
        file.seek(0)
        return _Archive(path, file).content() if head == _ZIP else _from_stream(path, file)


def read_tensor(tensor: Unread) -> Tensor:
    """Read the numbers of a tensor."""
    storage: _Storage = tensor.storage
    values = storage.region.bytes.view(tensor.dtype)
    return values.as_strided(tensor.shape, tensor.stride, storage.start + tensor.offset)


def module_tensors(found: object) -> dict[str, Unread]:
    """Return the tensors of a pickled network by their names in its state_dict; none of other objects.

    Raises
    ------
    ValueError
        If its modules are nested endlessly.
    """
    tensors: dict[str, Unread] = {}
    left, count = [("", found)], 0
    while left:
        prefix, module = left.pop()
        parts = _parts(module)
        if parts is None:
            continue
        parameters, buffers, inside, omitted = parts
        count += sum(map(len, parts))
        if count > _PARTS:
            raise ValueError("expected a network, found modules that contain each other")
        tensors.update(
            (f"{prefix}{name}", value)
            for name, value in (*parameters.items(), *buffers.items())
            if isinstance(value, Unread) and name not in omitted
        )
        left += reversed([(f"{prefix}{name}.", one) for name, one in inside.items()])
    return tensors


def _parts(module: object) -> tuple[dict[Any, Any], dict[Any, Any], dict[Any, Any], set[Any]] | None:
    """Return the parameters, buffers and submodules of a module, and the names of its non-persistent buffers."""
    state = module.state if isinstance(module, Inert) and isinstance(module.state, dict) else {}
    parameters, buffers, modules = (state.get(name) for name in ("_parameters", "_buffers", "_modules"))
    if not (isinstance(parameters, dict) and isinstance(buffers, dict) and isinstance(modules, dict)):
        return None
    omitted = state.get("_non_persistent_buffers_set")
    return parameters, buffers, modules, omitted if isinstance(omitted, set) else set()


class _Archive:
    """A zip archive of ``torch.save``: a folder with a pickle, and a file for each storage."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._left = self._size  # bytes that belong to no member found so far
        self._regions: dict[str, _Region] = {}
        with zipfile.ZipFile(_LimitedFile(file, _DIRECTORY)) as archive:
            self._members = {info.filename: info for info in archive.infolist()}

    def content(self) -> Any:
        """Return the saved object; tensors are `Unread`."""
        names = [name for name in self._members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ModelError(f"expected one data.pkl in it, found {len(names)}")
        root = names[0].partition("/")[0]
        if f"{root}/constants.pkl" in self._members:
            raise ModelError("it is a TorchScript program, not tensors")
        order = f"{root}/byteorder"
        if order in self._members and self._bytes(order, 16) != sys.byteorder.encode():
            raise ModelError(_OTHER_ORDER)

        def place(kind: Any, key: Any, _location: Any, _count: Any) -> _Storage:
            if not isinstance(key, str):
                raise ValueError("expected the name of a storage, found something else")
            return _Storage(self._region(f"{root}/data/{key}"), kind.dtype)

        pickle = self._bytes(names[0], LARGEST)
        return interpret(io.BytesIO(pickle), place, size=len(pickle))

    def _bytes(self, name: str, most: int) -> bytes:
        """Read a member. `zipfile` would require a checksum, which torch may omit."""
        region = self._region(name)
        if region.size > most:
            raise ModelError(f"expected at most {most:,} bytes of {name}, found {region.size:,}")
        return region.bytes.numpy().tobytes()

    def _region(self, name: str) -> _Region:
        """Return the region of a member; members may not overlap, or a small file could claim many numbers."""
        if name not in self._regions:
            info = self._members[name]
            if info.compress_type != zipfile.ZIP_STORED:
                raise ModelError(f"expected {name:.80} as torch.save stores it, found it compressed")
            self._file.seek(info.header_offset)
            lengths = _LOCAL_HEADER.unpack(self._file.read(_LOCAL_HEADER.size))
            region = _Region(self._path, info.file_size, info.header_offset + _LOCAL_HEADER.size + sum(lengths))
            region.check(self._left + region.offset)
            region.check(self._size)
            self._left -= region.size
            self._regions[name] = region
        return self._regions[name]


class _LimitedFile:
    """A file of which at most `most` bytes are read.

    Parameters
    ----------
    file : file
    most : int
    """

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file = file
        self._left = most
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, or the rest."""
        return self._taken(self._file.read(self._left + 1 if size < 0 or size > self._left else size))

    def readline(self) -> bytes:
        """Read a line."""
        return self._taken(self._file.readline(self._left + 1))

    def _taken(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("expected a checkpoint, found too many bytes besides its tensors")
        return data


@dataclass
class _Keyed:
    """The storages of a file in the older format, whose positions follow the pickle."""

    path: Path
    size: int
    regions: dict[str, _Region] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)

    def place(self, kind: Any, key: Any, _location: Any, count: Any, view: Any = None) -> _Storage:
        """Return the storage of a key, or a view of it."""
        if not (isinstance(key, str) and isinstance(count, int)):
            raise ValueError("expected the name of a storage, found something else")
        self.widths.setdefault(key, kind.dtype.itemsize)
        region = self.regions.setdefault(key, _Region(self.path, count * self.widths[key], -1))
        return _Storage(region, kind.dtype, int(view[1]) if view else 0)


def _from_stream(path: Path, file: IO[bytes]) -> Any:
    file_size = os.fstat(file.fileno()).st_size
    size = min(file_size, LARGEST)
    pickles: Any = _LimitedFile(file, size)
    if not _has_magic_number(pickles):
        raise ModelError(_NOT_TORCHS)
    system = interpret(pickles, size=size)
    if isinstance(system, dict) and system.get("little_endian", True) != (sys.byteorder == "little"):
        raise ModelError(_OTHER_ORDER)
    keyed = _Keyed(path, size)
    found = interpret(pickles, keyed.place, size=size)
    keys = interpret(pickles, size=size)
    for key in dict.fromkeys(key for key in keys if isinstance(key, str)):
        (count,) = _COUNT.unpack(file.read(_COUNT.size))
        region = keyed.regions[key]
        if count * keyed.widths[key] != region.size:
            raise EOFError(f"expected {region.size:,} bytes of storage {key}, found {count * keyed.widths[key]:,}")
        region.offset = file.tell()
        region.check(file_size)
        file.seek(region.size, 1)
    return found


def _has_magic_number(pickles: Any) -> bool:
    """Return whether a file begins like the older format."""
    try:
        return bool(interpret(pickles, size=_SHORT) == _MAGIC and interpret(pickles, size=_SHORT) == _PROTOCOL)
    except Exception:  # it need not be a pickle
        return False
