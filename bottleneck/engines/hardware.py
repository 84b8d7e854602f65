"""Properties of this machine, found without importing torch or OpenVINO."""

import hashlib
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
_ISA_SWITCHES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_ISAS_WITH_BF16 = ("BF16", "FP16", "AMX", "AVX10", "AVX2_VNNI_2", "ALL", "DEFAULT")
_GPU_NODES = ("nvidia0", "nvidiactl", "kfd", "dxg")  # NVIDIA, AMD, WSL


@dataclass(frozen=True)
class Machine:
    """The machine that this process runs on.

    Parameters
    ----------
    system : str
        As `sys.platform`.
    environment : mapping of str to str
        The environment variables.
    root : Path
        Root of the file system, with ``proc/cpuinfo`` and ``dev/``.
    has_openvino : bool
        Whether OpenVINO is installed.
    """

    system: str = sys.platform
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    root: Path = Path("/")
    has_openvino: bool = field(default_factory=lambda: find_spec("openvino") is not None)

    def native_bf16(self) -> bool:
        """Return whether the CPU has bfloat16 instructions (AVX512-BF16, AMX, Arm's bf16) that oneDNN may use.

        On systems other than Linux this is unknown, and False is returned.
        """
        for switch in _ISA_SWITCHES:
            limit = self.environment.get(switch)
            if limit and not any(name in limit.upper() for name in _ISAS_WITH_BF16):
                return False
        return bool(self.cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})

    def gpu_possible(self) -> bool:
        """Return whether there may be a GPU that torch can use; only torch can tell."""
        nodes = (self.root / "dev" / name for name in _GPU_NODES)
        return self.system in ("darwin", "win32") or any(node.exists() for node in nodes)

    def cpu_id(self) -> str:
        """Return 8 digits that identify the type of CPU."""
        kind = f"{platform.machine()} {' '.join(sorted(self.cpu_flags()))} {self.native_bf16()}"
        return hashlib.sha256(kind.encode()).hexdigest()[:8]

    def cpu_flags(self) -> frozenset[str]:
        """Return the CPU flags that Linux lists."""
        return _cpu_flags(self.root / "proc" / "cpuinfo")


def cores() -> int:
    """Return the number of cores that this process may use."""
    if sys.platform.startswith("linux"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def native_bf16() -> bool:
    """Return whether this machine's CPU has bfloat16 instructions; see `Machine.native_bf16`."""
    return Machine().native_bf16()


def gpu_possible() -> bool:
    """Return whether this machine may have a GPU; see `Machine.gpu_possible`."""
    return Machine().gpu_possible()


@cache
def _cpu_flags(cpuinfo: Path) -> frozenset[str]:
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()
