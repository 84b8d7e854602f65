import os
import subprocess
import sys
from pathlib import Path

import pytest

from bottleneck.engines.hardware import Machine, cores
from tests.conftest import write
from tests.variants import each


@pytest.fixture
def machine(tmp_path):
    """Return a function that makes a Linux machine with these CPU flags and environment variables."""
    made = []

    def make(*flags: str, **environment: str) -> Machine:
        made.append(write(tmp_path / f"machine-{len(made)}/proc/cpuinfo", f"flags : {' '.join(flags)}\n".encode()))
        return Machine("linux", environment, made[-1].parents[1])

    return make


@each(
    "flags, native",
    [
        ((), False),
        (("sse4_2", "avx2", "avx512f", "avx512_vnni"), False),
        (("avx512f", "avx512_bf16"), True),
        (("amx_tile", "amx_bf16"), True),
        (("asimd", "bf16"), True),
        (("amx_tile", "amx_int8"), False),
    ],
)
def test_bf16_is_native_if_the_cpu_lists_it(machine, flags, native):
    assert machine(*flags).native_bf16() is native


LIMITS = {
    "SSE41": False,
    "AVX2": False,
    "AVX2_VNNI": False,
    "AVX512_CORE": False,
    "AVX512_CORE_VNNI": False,
    "avx512_core": False,
    "AVX512_CORE_BF16": True,
    "AVX512_CORE_FP16": True,
    "AVX512_CORE_AMX": True,
    "AVX512_CORE_AMX_FP16": True,
    "avx512_core_amx": True,
    "AVX10_1_512": True,
    "AVX2_VNNI_2": True,
    "ALL": True,
    "DEFAULT": True,
}


@each("limit, native", LIMITS.items())
def test_bf16_is_not_native_if_onednn_is_not_allowed_to_use_it(machine, limit, native):
    for switch in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        assert machine("avx512f", "avx512_bf16", "amx_bf16", **{switch: limit}).native_bf16() is native


def test_a_switch_does_not_add_what_the_cpu_lacks(machine):
    assert not machine("avx512f", ONEDNN_MAX_CPU_ISA="AVX512_CORE_AMX").native_bf16()


def test_each_of_the_two_switches_is_enough(machine):
    assert not machine("amx_bf16", ONEDNN_MAX_CPU_ISA="ALL", DNNL_MAX_CPU_ISA="AVX2").native_bf16()


@each(
    "text, flags",
    [
        (
            "processor\t: 0\nflags\t\t: fpu avx512_bf16 amx_bf16\nbugs\t: x\n\nflags\t: other\n",
            {"fpu", "avx512_bf16", "amx_bf16"},
        ),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", {"fp", "asimd", "bf16"}),
        ("vmx flags\t: vnmi avx512_bf16\n", set()),
        ("", set()),
        (None, set()),
    ],
)
def test_cpu_flags_are_read_in_the_format_of_linux(tmp_path, text, flags):
    if text is not None:
        write(tmp_path / "proc/cpuinfo", text.encode())

    assert Machine(root=tmp_path).cpu_flags() == flags


def test_cpus_of_one_type_have_the_same_8_digits(machine):
    one = machine("avx512f", "avx512_bf16").cpu_id()

    assert machine("avx512_bf16", "avx512f").cpu_id() == one
    assert len(one) == 8
    assert int(one, 16) >= 0


def test_cpus_of_different_types_and_limits_have_different_digits(machine):
    machines = [machine("avx2"), machine("avx512f"), machine("avx512f", "avx512_bf16")]
    limited = machine("avx512f", "avx512_bf16", ONEDNN_MAX_CPU_ISA="AVX512_CORE")

    assert len({each.cpu_id() for each in (*machines, limited)}) == 4


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux restricts a process to some cores")
def test_cores_are_those_that_this_process_may_use():
    allowed = os.sched_getaffinity(0)
    assert cores() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@each("node", ["nvidia0", "nvidiactl", "kfd", "dxg"])
def test_a_gpu_is_possible_if_there_is_a_device_file_of_one(tmp_path, node):
    machine = Machine("linux", root=tmp_path)
    assert not machine.gpu_possible()

    write(tmp_path / "dev" / node, b"")
    assert machine.gpu_possible()


def test_a_gpu_is_always_possible_on_systems_without_device_files(tmp_path):
    assert Machine("darwin", root=tmp_path).gpu_possible()
    assert Machine("win32", root=tmp_path).gpu_possible()


def test_nothing_heavy_is_imported_to_find_the_properties_of_a_machine():
    script = """
import sys
from bottleneck.engines.hardware import Machine, cores, gpu_possible, native_bf16

cores(), Machine().cpu_id(), gpu_possible(), native_bf16()
print(Machine().has_openvino, [name for name in ("torch", "openvino", "numpy") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60
    )
    try:
        import openvino
    except ImportError:
        openvino = None

    assert done.stdout == f"{openvino is not None} []\n", done.stderr
