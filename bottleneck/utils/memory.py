"""Free memory of the machine, of the process's control group and of its address space; sizes as text."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_SHARE = 0.5  # of the free memory

_ROOT = Path("/")
_MOST = 1 << 60  # bytes; a larger limit of a version 1 control group means none
_UNITS = {"": 10**9, **{unit: 1000**power for power, unit in enumerate("kmgt", 1)}}
_UNITS |= {f"{unit}b": 1000**power for power, unit in enumerate("kmgt", 1)}
_UNITS |= {f"{unit}i{end}": 1024**power for power, unit in enumerate("kmgt", 1) for end in ("", "b")}
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*", re.ASCII | re.IGNORECASE)


def _machine_memory() -> int:
    """Return how many bytes the machine can provide without swapping."""
    import psutil  # takes 50 ms

    return int(psutil.virtual_memory().available)


def free_memory(root: Path = _ROOT, machine: Callable[[], int] = _machine_memory) -> int:
    """Return how many bytes this process can still allocate: the smallest amount that any limit on it leaves.

    The limits are the memory that the machine can provide without swapping, those of the process's control group and of
    all groups above it (versions 1 and 2; a container is one), and that of its address space (``ulimit -v``). Pages of
    files that a group has read and that are not in use count as free.

    Parameters
    ----------
    root : Path
        Root of the file system that has ``proc`` and ``sys``.
    machine : callable
        Returns the memory of the machine.
    """
    return max(0, min([machine(), *_of_groups(root), *_of_address_space(root)]))


def parse_size(text: str) -> int:
    """Parse a size such as ``2G``, ``500M``, ``1.5GiB`` or ``4`` (gigabytes) into bytes.

    Raises
    ------
    ValueError
        If it is not a size above 0, or more than any machine has.
    """
    found = _SIZE.fullmatch(text)
    unit = _UNITS.get(found[2].lower()) if found else None
    size = int(float(found[1]) * unit) if found and unit and len(found[1]) < 32 else 0
    if not 0 < size < _MOST:
        raise ValueError(f"expected a size such as 2G, 500M or 1.5GiB (a number alone is gigabytes), got {text!r}")
    return size


def shown_size(size: float) -> str:
    """Format a number of bytes for people: ``1.5 GB``, ``512 MB``."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:,.0f} {name}" if size >= 100 * unit else f"{size / unit:.3g} {name}"
    return f"{size:.0f} bytes"


def _of_address_space(root: Path) -> Iterator[int]:
    if sys.platform == "win32":
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    pages = "".join(_lines(root / "proc/self/statm")).split()
    taken = _number(pages[0]) if pages else None
    yield limit - (taken or 0) * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class _ControlGroupFiles:
    """File names of a version of control groups."""

    limits: tuple[str, ...]
    usage: str
    unused: str  # in memory.stat: bytes of files in the page cache that are not in use


_VERSION_1 = _ControlGroupFiles(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = _ControlGroupFiles(("memory.max", "memory.high"), "memory.current", "inactive_file")


def _of_groups(root: Path) -> Iterator[int]:
    """Yield the free memory of each limited control group, from that of the process up to that of the mount."""
    own = dict(_own_groups(root))
    for files, mounted, place in _mounts(root):
        if files not in own:
            continue
        for folder in _upwards(place, own[files], mounted):
            if (free := _of_group(root / str(folder).lstrip("/"), files)) is not None:
                yield free


def _own_groups(root: Path) -> Iterator[tuple[_ControlGroupFiles, str]]:
    """Yield the path of the process's group in each hierarchy that can limit memory."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            yield _VERSION_1, path
        elif number == "0" and not controllers:
            yield _VERSION_2, path


def _mounts(root: Path) -> Iterator[tuple[_ControlGroupFiles, str, PurePosixPath]]:
    """Yield the mounts of hierarchies that can limit memory: version, mounted group, mount point."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or not kind:
            continue
        if kind[0] == "cgroup2":
            yield _VERSION_2, _plain(fields[3]), PurePosixPath(_plain(fields[4]))
        elif kind[0] == "cgroup" and "memory" in kind[-1].split(","):
            yield _VERSION_1, _plain(fields[3]), PurePosixPath(_plain(fields[4]))


def _upwards(place: PurePosixPath, group: str, mounted: str) -> list[PurePosixPath]:
    """Return the folders of a group and of its parents, as far as they are mounted.

    In a container, the mounted group may be that of the container, or the group's path may lead outside the visible
    hierarchy; only the root of the mount is then known.
    """
    path, top = PurePosixPath(group), PurePosixPath(mounted)
    if ".." in path.parts or ".." in top.parts or not path.is_relative_to(top):
        return [place]
    own = path.relative_to(top)
    return [place / folder for folder in (own, *own.parents)] if own.parts else [place]


def _of_group(folder: Path, files: _ControlGroupFiles) -> int | None:
    """Return the free memory of a group; None if it has no limit."""
    limits = [_number("".join(_lines(folder / name))) for name in files.limits]
    limit = min((each for each in limits if each is not None and each < _MOST), default=None)
    usage = _number("".join(_lines(folder / files.usage)))
    if limit is None or usage is None:
        return limit
    unused = 0
    for line in _lines(folder / "memory.stat"):
        name, _, value = line.partition(" ")
        if name == files.unused:
            unused = _number(value) or 0
    return limit - max(0, usage - unused)


def _lines(path: Path) -> list[str]:
    """Return the lines of a kernel file; none if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except (OSError, ValueError):
        return []


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 32 else None


def _plain(field: str) -> str:
    """Return a path of ``mountinfo`` with its escapes, for example of spaces, decoded."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def allowed(memory: int | None) -> float:
    """Return the bytes that features may use: `memory`, by default half of the free memory."""
    return free_memory() * _SHARE if memory is None else memory
