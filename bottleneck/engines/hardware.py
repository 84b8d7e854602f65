"""Properties of this machine, found without importing torch or OpenVINO."""

import hashlib
import os
import platform
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
_ISA_SWITCHES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_ISAS_WITH_BF16 = ("BF16", "FP16", "AMX", "AVX10", "AVX2_VNNI_2", "ALL", "DEFAULT")
_GPU_NODES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, WSL


def cores() -> int:
    """Return the number of cores that this process may use."""
    if sys.platform.startswith("linux"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def native_bf16() -> bool:
    """Return whether the CPU has bfloat16 instructions (AVX512-BF16, AMX, Arm's bf16) that oneDNN may use.

    On systems other than Linux this is unknown, and the result is False.
    """
    for switch in _ISA_SWITCHES:
        limit = os.environ.get(switch)
        if limit and not any(name in limit.upper() for name in _ISAS_WITH_BF16):
            return False
    return bool(_cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def gpu_possible() -> bool:
    """Return whether there may be a GPU that torch can use; only torch can find out."""
    return sys.platform == "darwin" or any(os.path.exists(node) for node in _GPU_NODES) or sys.platform == "win32"


def has_openvino() -> bool:
    """Return whether OpenVINO is installed."""
    return find_spec("openvino") is not None


def cpu_id() -> str:
    """Return 8 digits that identify the type of CPU."""
    kind = f"{platform.machine()} {' '.join(sorted(_cpu_flags()))} {native_bf16()}"
    return hashlib.sha256(kind.encode()).hexdigest()[:8]


@cache
def _cpu_flags() -> frozenset[str]:
    """Return the CPU flags that Linux lists."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()
