"""The processor, memory and GPUs, and the limits that containers put on them."""

import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from bottleneck.diagnostics.diagnosis import NOTE, OK, Symptom
from bottleneck.diagnostics.probe import Probe
from bottleneck.engines.hardware import Machine, cores
from bottleneck.utils.memory import free_memory, shown_size

_LITTLE = 2 * 10**9  # bytes; torch, a network and a few batches fit in this
_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX512-BF16",
    "amx_bf16": "AMX-BF16",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "bf16",
}


def _gpus() -> list[str]:
    from bottleneck.engines.torch_build import torch_build

    build = torch_build()
    return [f"torch for {build.platform}", *build.gpus]


def _load() -> float:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _total_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


@dataclass(frozen=True)
class Devices:
    """What this machine computes with.

    Parameters
    ----------
    machine : Machine
    usable : callable
        Returns the number of cores that this process may use.
    total, free : callable
        Return the bytes of memory of the machine, and those that this process can still allocate.
    gpus : callable
        Returns the build of torch and the GPUs that it can use.
    load : callable
        Returns how many processes of the machine want to compute, on average over the last minute.
    """

    machine: Machine = field(default_factory=Machine)
    usable: Callable[[], int] = cores
    total: Callable[[], int] = _total_memory
    free: Callable[[], int] = free_memory
    gpus: Callable[[], list[str]] = _gpus
    load: Callable[[], float] = _load

    def probes(self) -> list[Probe]:
        """Return what looks at each device."""
        return [
            Probe("cpu", self._cpu),
            Probe("cores", self._cores),
            Probe("load", self._load, state=NOTE),
            Probe("memory", self._memory),
            Probe("gpu", self._gpu, "Repair torch first."),
        ]

    def _cpu(self) -> Iterator[Symptom]:
        flags = self.machine.cpu_flags()
        known = [name for flag, name in _FEATURES.items() if flag in flags]
        bf16 = "native bf16" if self.machine.native_bf16() else "no native bf16"
        yield Symptom("cpu", ", ".join([cpu_model(self.machine.root), *known, bf16]))

    def _cores(self) -> Iterator[Symptom]:
        usable, quota = self.usable(), cpu_quota(self.machine.root)
        found = f"{usable} usable of {os.cpu_count() or usable}"
        if quota is None or quota >= usable:
            yield Symptom("cores", found)
            return
        remedy = f"Give the container whole cores (such as docker's --cpuset-cpus): {usable} threads share {quota:g}."
        yield Symptom("cores", f"{found}, but a control group allows the time of {quota:g}", NOTE, remedy)

    def _load(self) -> Iterator[Symptom]:
        load = self.load()
        if load > self.usable():
            text = f"{load:.1f} processes want to compute at once: speeds are lower than they could be"
            yield Symptom("load", text, NOTE, "Wait until other programs have ended.")

    def _memory(self) -> Iterator[Symptom]:
        free = self.free()
        state = NOTE if free < _LITTLE else OK
        remedy = "Close other programs or raise the limit; use a small --batch-size." if state == NOTE else ""
        found = f"{shown_size(free)} can be allocated (all limits counted), {shown_size(self.total())} in the machine"
        yield Symptom("memory", found, state, remedy)

    def _gpu(self) -> Iterator[Symptom]:
        build, *gpus = self.gpus()
        yield Symptom("gpu", f"{'; '.join(gpus) or 'none that torch can use'} ({build})")


def cpu_model(root: Path = Path("/")) -> str:
    """Return the name of the processor as the system gives it."""
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return " ".join((next(named, "") or platform.processor() or platform.machine() or "unknown").split())


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return how many cores' time the control groups of this process allow; None if there is no limit.

    Parameters
    ----------
    root : Path
        Root of the file system that has ``proc`` and ``sys``.
    """
    if not sys.platform.startswith("linux"):
        return None
    return min((quota for folder in _groups(root) if (quota := _quota(folder)) is not None), default=None)


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the process's groups and of those above them, in both versions of control groups."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        mounted = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        own = PurePosixPath(path.lstrip("/"))
        if (controllers and "cpu" not in controllers.split(",")) or ".." in own.parts:
            continue
        yield from (mounted / folder for folder in (own, *own.parents))


def _quota(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    if not quota:
        quota, period = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
