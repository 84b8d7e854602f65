import os
import subprocess
import sys
from pathlib import Path

import pytest

from bottleneck.engines import hardware
from bottleneck.engines.hardware import cores, cpu_id, gpu_possible, has_openvino, native_bf16


@pytest.fixture(autouse=True)
def no_switches(monkeypatch):
    for switch in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(switch, raising=False)


def flags(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(hardware, "_cpu_flags", lambda: frozenset(names))


@pytest.mark.parametrize(
    ("names", "native"),
    [
        ((), False),
        (("sse4_2", "avx2", "avx512f", "avx512_vnni"), False),
        (("avx512f", "avx512_bf16"), True),
        (("amx_tile", "amx_bf16"), True),
        (("asimd", "bf16"), True),
        (("amx_tile", "amx_int8"), False),
    ],
    ids=str,
)
def test_bf16_is_native_where_the_cpu_says_so(monkeypatch, names, native):
    flags(monkeypatch, *names)

    assert native_bf16() is native


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


@pytest.mark.parametrize("switch", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize(("limit", "native"), LIMITS.items())
def test_bf16_is_not_native_where_onednn_may_not_use_it(monkeypatch, switch, limit, native):
    flags(monkeypatch, "avx512f", "avx512_bf16", "amx_bf16")
    monkeypatch.setenv(switch, limit)

    assert native_bf16() is native


def test_no_switch_gives_a_cpu_what_it_lacks(monkeypatch):
    flags(monkeypatch, "avx512f")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX")

    assert not native_bf16()


def test_either_switch_is_enough(monkeypatch):
    flags(monkeypatch, "amx_bf16")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "ALL")
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX2")

    assert not native_bf16()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "processor\t: 0\nflags\t\t: fpu avx512_bf16 amx_bf16\nbugs\t: x\n\nflags\t: other\n",
            {"fpu", "avx512_bf16", "amx_bf16"},
        ),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", {"fp", "asimd", "bf16"}),
        ("vmx flags\t: vnmi avx512_bf16\n", set()),
        ("", set()),
    ],
    ids=["x86", "Arm", "others", "empty"],
)
def test_the_cpus_features_are_read_as_linux_lists_them(monkeypatch, text, found):
    monkeypatch.setattr(Path, "read_text", lambda *args, **options: text)

    assert hardware._cpu_flags.__wrapped__() == found


def test_where_linux_lists_nothing_nothing_is_known(monkeypatch):
    def missing(*args: object, **options: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)

    assert hardware._cpu_flags.__wrapped__() == frozenset()


def test_cpus_of_one_kind_share_8_digits(monkeypatch):
    flags(monkeypatch, "avx512f", "avx512_bf16")
    one = cpu_id()
    flags(monkeypatch, "avx512_bf16", "avx512f")

    assert cpu_id() == one
    assert len(one) == 8
    assert int(one, 16) >= 0


def test_cpus_of_other_kinds_and_other_limits_have_other_digits(monkeypatch):
    found = set()
    for names in (("avx2",), ("avx512f",), ("avx512f", "avx512_bf16")):
        flags(monkeypatch, *names)
        found.add(cpu_id())
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    found.add(cpu_id())

    assert len(found) == 4


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert cores() == 3

    monkeypatch.setattr(sys, "platform", "darwin")
    assert cores() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


@pytest.mark.parametrize("node", ["/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg"])
def test_a_gpu_is_possible_where_there_is_a_node_of_one(monkeypatch, node):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os.path, "exists", lambda path: path == node)
    assert gpu_possible()

    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert not gpu_possible()


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_a_gpu_is_possible_where_no_node_shows_it(monkeypatch, system):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(os.path, "exists", lambda path: False)

    assert gpu_possible()


def test_openvino_is_looked_for_and_not_imported(monkeypatch):
    monkeypatch.setattr(hardware, "find_spec", lambda name: object() if name == "openvino" else None)
    assert has_openvino()

    monkeypatch.setattr(hardware, "find_spec", lambda name: None)
    assert not has_openvino()


def test_nothing_heavy_is_imported_to_find_it():
    script = """
import sys
from bottleneck.engines.hardware import cores, cpu_id, gpu_possible, has_openvino, native_bf16

cores(), cpu_id(), gpu_possible(), has_openvino(), native_bf16()
print([name for name in ("torch", "openvino", "numpy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)

    assert done.stdout == "[]\n", done.stderr
