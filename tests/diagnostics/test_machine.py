import pytest

from bottleneck.diagnostics.diagnosis import NOTE, OK, WRONG
from bottleneck.diagnostics.machine import Devices, cpu_model, cpu_quota
from bottleneck.engines.hardware import Machine
from tests.variants import each


def put(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def look(root, **options):
    known = {"usable": lambda: 8, "total": lambda: 16 * 10**9, "free": lambda: 8 * 10**9, "gpus": lambda: ["torch x"]}
    known["load"] = lambda: 1.0
    devices = Devices(machine=Machine(root=root, environment={}), **known | options)
    return {found.name: found for probe in devices.probes() for found in probe.symptoms()}


@pytest.mark.skipif("sys.platform != 'linux'")
@each(
    "files, expected",
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "200000 100000\n"}, 2.0),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/docker/x\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            4.0,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({"proc/self/cgroup": "0::/../..\n", "sys/fs/cgroup/cpu.max": "?\n"}, None),
    ],
)
def test_the_quota_of_the_control_groups(tmp_path, files, expected):
    assert cpu_quota(put(tmp_path, files)) == expected


@pytest.mark.skipif("sys.platform != 'linux'")
def test_a_quota_below_the_usable_cores_is_noted(tmp_path):
    put(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"})

    assert look(tmp_path)["cores"].state == NOTE
    assert "the time of 2" in look(tmp_path)["cores"].value
    assert look(tmp_path, usable=lambda: 2)["cores"].state == OK


def test_the_cpu_and_its_instructions(tmp_path):
    text = "model name\t: Some   CPU @ 2 GHz\nflags\t\t: avx2 avx512f avx512_bf16 amx_bf16\n"

    found = look(put(tmp_path, {"proc/cpuinfo": text}))

    assert found["cpu"].value == "Some CPU @ 2 GHz, AVX2, AVX-512, AVX512-BF16, AMX-BF16, native bf16"
    assert cpu_model(tmp_path / "none")


def test_little_memory_is_noted(tmp_path):
    assert look(tmp_path, free=lambda: 10**9)["memory"].state == NOTE
    assert look(tmp_path)["memory"].value == "8 GB can be allocated (all limits counted), 16 GB in the machine"


def test_a_busy_machine_is_noted(tmp_path):
    assert look(tmp_path, load=lambda: 9.5)["load"].state == NOTE
    assert "load" not in look(tmp_path)


def test_a_broken_torch_is_a_line(tmp_path):
    def broken():
        raise ImportError("libcudart.so")

    found = look(tmp_path, gpus=broken)

    assert found["gpu"].state == WRONG
    assert "libcudart.so" in found["gpu"].value
    assert found["memory"].state == OK
