"""Where what ``torch.save`` wrote has its pickle and its numbers, in its zip archives and in its older format."""

import io
import struct
import sys
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from bottleneck.backbones.unpickling import Inert, Unread, follow
from bottleneck.errors import ModelError

_ZIP = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<26x2H")  # of a member of a zip archive; the lengths of its name and its extra field
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # how the older format begins
_COUNT = struct.Struct("<q")
_OTHER_ORDER = f"expected the byte order of this machine, {sys.byteorder}, found the other"


@dataclass
class _Region:
    """Bytes of a file."""

    path: Path
    size: int
    offset: int

    @cached_property
    def bytes(self) -> Tensor:
        """Their values, ``uint8 (size,)``."""
        found = torch.empty(self.size, dtype=torch.uint8)
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            if file.readinto(found.numpy().data) != self.size:
                raise EOFError(f"expected {self.size:,} bytes at {self.offset:,}, the file is too short")
        return found


@dataclass
class _Storage:
    """Numbers of one type in a region, from the one at `start` on."""

    region: _Region
    dtype: torch.dtype
    start: int = 0


def read_plain(path: Path) -> Any:
    """Read what ``torch.save`` wrote without running any of it; tensors come as `Unread`.

    Raises
    ------
    HoldsCode
        If the file calls something that is no class of plain data; it is not called.
    ModelError
        If ``torch.save`` has not written it, or on a machine of another byte order.
    Exception
        Whatever the standard library says of a damaged file.
    """
    with open(path, "rb") as file:
        head = file.read(len(_ZIP))
        file.seek(0)
        return _from_zip(path, file) if head == _ZIP else _from_stream(path, file)


def read_tensor(tensor: Unread) -> Tensor:
    """Read the numbers of a tensor."""
    storage: _Storage = tensor.storage
    values = storage.region.bytes.view(tensor.dtype)
    return values.as_strided(tensor.shape, tensor.stride, storage.start + tensor.offset)


def module_tensors(found: object, prefix: str = "") -> dict[str, Unread]:
    """Return the tensors of a network that was saved whole, by the names of its state_dict; none of anything else."""
    state = found.state if isinstance(found, Inert) and isinstance(found.state, dict) else {}
    parameters, buffers, modules = (state.get(name) for name in ("_parameters", "_buffers", "_modules"))
    if not (isinstance(parameters, dict) and isinstance(buffers, dict) and isinstance(modules, dict)):
        return {}
    omitted = state.get("_non_persistent_buffers_set") or ()
    own = {
        f"{prefix}{name}": value
        for name, value in (*parameters.items(), *buffers.items())
        if isinstance(value, Unread) and name not in omitted
    }
    for name, module in modules.items():
        own.update(module_tensors(module, f"{prefix}{name}."))
    return own


def _from_zip(path: Path, file: IO[bytes]) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ModelError(f"expected one data.pkl in it, found {len(names)}")
        root = names[0].partition("/")[0]
        order = f"{root}/byteorder"
        if order in archive.namelist() and _content(path, file, archive.getinfo(order)) != sys.byteorder.encode():
            raise ModelError(_OTHER_ORDER)
        regions: dict[str, _Region] = {}

        def place(kind: Any, key: str, _location: Any, _count: Any) -> _Storage:
            if key not in regions:
                regions[key] = _member(path, file, archive.getinfo(f"{root}/data/{key}"))
            return _Storage(regions[key], kind.dtype)

        return follow(io.BytesIO(_content(path, file, archive.getinfo(names[0]))), place)


def _content(path: Path, file: IO[bytes], info: zipfile.ZipInfo) -> bytes:
    """Read a member of an archive; zipfile would insist on its checksum, which torch may leave out."""
    return _member(path, file, info).bytes.numpy().tobytes()


def _member(path: Path, file: IO[bytes], info: zipfile.ZipInfo) -> _Region:
    """Return where a member of an archive lies."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise ModelError(f"expected {info.filename} as torch.save stores it, found it compressed")
    file.seek(info.header_offset)
    lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return _Region(path, info.file_size, info.header_offset + _LOCAL_HEADER.size + sum(lengths))


@dataclass
class _Keyed:
    """The storages of a file of the older format, whose places come after the pickle."""

    path: Path
    regions: dict[Any, _Region] = field(default_factory=dict)
    widths: dict[Any, int] = field(default_factory=dict)

    def place(self, kind: Any, key: Any, _location: Any, count: Any, view: Any = None) -> _Storage:
        """Return the storage of a key, or of a view of it."""
        self.widths.setdefault(key, kind.dtype.itemsize)
        region = self.regions.setdefault(key, _Region(self.path, int(count) * self.widths[key], -1))
        return _Storage(region, kind.dtype, int(view[1]) if view else 0)


def _from_stream(path: Path, file: IO[bytes]) -> Any:
    if follow(file) != _MAGIC or follow(file) != _PROTOCOL:
        raise ModelError("it is no file that torch.save has written")
    system = follow(file)
    if isinstance(system, dict) and system.get("little_endian", True) != (sys.byteorder == "little"):
        raise ModelError(_OTHER_ORDER)
    keyed = _Keyed(path)
    found = follow(file, keyed.place)
    for key in follow(file):
        (count,) = _COUNT.unpack(file.read(_COUNT.size))
        region = keyed.regions[key]
        if count * keyed.widths[key] != region.size:
            raise EOFError(f"expected {region.size:,} bytes of storage {key}, found {count * keyed.widths[key]:,}")
        region.offset = file.tell()
        file.seek(region.size, 1)
    return found
