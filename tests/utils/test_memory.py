"""Free memory, of machines and control groups whose files are made for the test; and sizes as people write them."""

import subprocess
import sys
from pathlib import Path

import pytest

from bottleneck.utils.memory import free_memory, parse_size, shown_size
from tests.variants import each

GB = 10**9
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's files are Linux's")


class Machine:
    """A root folder with the files of a kernel."""

    def __init__(self, root: Path, available: int = 64 * GB) -> None:
        self.root = root
        self.available = available
        self._mounts: list[str] = []

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def mount(self, kind: str, place: str, mounted: str = "/", options: str = "rw") -> None:
        escaped = place.replace(" ", "\\040")
        self._mounts.append(f"31 23 0:28 {mounted} {escaped} rw,relatime shared:9 - {kind} cgroup {options}\n")
        self.write("proc/self/mountinfo", "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + "".join(self._mounts))

    def group(self, folder: str, **values: object) -> None:
        """Make a control group; of a name such as memory.max the dots are underscores."""
        for name, value in values.items():
            self.write(f"{folder}/{name.replace('_', '.', 1)}", f"{value}\n")

    def free(self) -> int:
        return free_memory(self.root, lambda: self.available)


V1 = "/sys/fs/cgroup/memory"
V2 = "/sys/fs/cgroup"


def version_1(machine: Machine, path: str, mounted: str = "/") -> None:
    machine.write("proc/self/cgroup", f"9:name=systemd:/\n4:cpu,memory:{path}\n3:cpuset:/\n0::/\n")
    machine.mount("cgroup", V1, mounted, "rw,memory")
    machine.mount("cgroup", "/sys/fs/cgroup/cpuset", "/", "rw,cpuset")


def version_2(machine: Machine, path: str, mounted: str = "/") -> None:
    machine.write("proc/self/cgroup", f"0::{path}\n")
    machine.mount("cgroup2", V2, mounted)


# Of the machine


def test_without_a_limit_it_is_what_the_machine_has(tmp_path):
    machine = Machine(tmp_path)
    assert machine.free() == 64 * GB


def test_without_the_files_of_linux_it_is_what_the_system_has(tmp_path):
    assert free_memory(tmp_path) > 1 << 28


# Of control groups


def test_a_group_of_version_1_leaves_its_limit_less_what_is_used(tmp_path):
    machine = Machine(tmp_path)
    version_1(machine, "/job")
    machine.group(f"{V1}/job", memory_limit_in_bytes=2 * GB, memory_usage_in_bytes=900_000_000)
    machine.write(f"{V1}/job/memory.stat", "cache 700000000\ninactive_file 5\ntotal_inactive_file 600000000\n")
    assert machine.free() == 2 * GB - 300_000_000


def test_a_group_of_version_2_leaves_its_limit_less_what_is_used(tmp_path):
    machine = Machine(tmp_path)
    version_2(machine, "/user.slice/job.scope")
    folder = f"{V2}/user.slice/job.scope"
    machine.group(folder, memory_max=2 * GB, memory_high="max", memory_current=900_000_000)
    machine.write(f"{folder}/memory.stat", "anon 200000000\ninactive_file 600000000\n")
    assert machine.free() == 2 * GB - 300_000_000


def test_a_group_is_slowed_down_before_it_is_ended(tmp_path):
    machine = Machine(tmp_path)
    version_2(machine, "/job")
    machine.group(f"{V2}/job", memory_max=4 * GB, memory_high=GB, memory_current=0)
    assert machine.free() == GB


@each(
    "begin, names",
    [
        (version_1, ("memory_limit_in_bytes", "memory_usage_in_bytes", V1)),
        (version_2, ("memory_max", "memory_current", V2)),
    ],
)
@each("inner, outer, expected", [(3 * GB, 2 * GB, 2 * GB), (GB, 2 * GB, GB), (None, GB, GB)])
def test_the_least_of_nested_groups_counts(tmp_path, begin, names, inner, outer, expected):
    machine = Machine(tmp_path)
    limit, usage, top = names
    begin(machine, "/outer/inner/own")
    none = 9223372036854771712 if begin is version_1 else "max"
    machine.group(f"{top}/outer", **{limit: outer, usage: 0})
    machine.group(f"{top}/outer/inner", **{limit: inner or none, usage: 0})
    machine.group(f"{top}/outer/inner/own", **{limit: none, usage: 0})
    machine.group(f"{top}/another", **{limit: 5, usage: 0})
    assert machine.free() == expected


@each(
    "path, mounted",
    [
        ("/docker/0f3a", "/docker/0f3a"),  # a container of version 1: only its own group is mounted
        ("/", "/"),  # a name space of control groups
        ("/../../elsewhere", "/"),  # a process that was moved out of the name space
        ("/docker/0f3a", "/../.."),
        ("/hidden/by/the/container", "/"),  # nothing of it can be seen
    ],
)
@each("version", [1, 2])
def test_in_a_container_the_group_that_is_mounted_counts(tmp_path, path, mounted, version):
    machine = Machine(tmp_path)
    (version_1 if version == 1 else version_2)(machine, path, mounted)
    machine.group(V1, memory_limit_in_bytes=2 * GB, memory_usage_in_bytes=GB)
    machine.group(V2, memory_max=2 * GB, memory_current=GB)
    assert machine.free() == GB


def test_the_limit_of_a_hybrid_system_is_that_of_version_1(tmp_path):
    machine = Machine(tmp_path)
    version_1(machine, "/job")
    machine.mount("cgroup2", "/sys/fs/cgroup/unified")
    machine.group(f"{V1}/job", memory_limit_in_bytes=GB, memory_usage_in_bytes=0)
    machine.group("/sys/fs/cgroup/unified", cgroup_procs=1)
    assert machine.free() == GB


def test_a_mount_with_a_space_in_its_name_is_found(tmp_path):
    machine = Machine(tmp_path)
    machine.write("proc/self/cgroup", "0::/job\n")
    machine.mount("cgroup2", "/my groups")
    machine.group("/my groups/job", memory_max=GB, memory_current=0)
    assert machine.free() == GB


def test_a_group_that_is_over_its_limit_leaves_nothing(tmp_path):
    machine = Machine(tmp_path)
    version_2(machine, "/job")
    machine.group(f"{V2}/job", memory_max=GB, memory_current=3 * GB)
    assert machine.free() == 0


@each("value", ["", "-1", "1e9", "9" * 400, "\u0663", "nan"])
def test_a_limit_that_is_not_a_number_is_none(tmp_path, value):
    machine = Machine(tmp_path)
    version_2(machine, "/job")
    machine.group(f"{V2}/job", memory_max=value, memory_current=value)
    assert machine.free() == 64 * GB


@each("text", ["", "0::", ":::", "\n\n", "a b c - d\n", "1 2 3 4 5 - cgroup2\n" * 3])
def test_broken_files_of_groups_limit_nothing(tmp_path, text):
    machine = Machine(tmp_path)
    machine.write("proc/self/cgroup", text)
    machine.write("proc/self/mountinfo", text)
    assert machine.free() == 64 * GB


# Of the address space


@LINUX
def test_the_limit_of_the_address_space_counts(tmp_path):
    code = "from bottleneck.utils.memory import free_memory; print(free_memory())"
    command = f"ulimit -v 400000; exec {sys.executable} -c '{code}'"
    found = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert 0 < int(found.stdout) < 400_000 << 10


# Sizes


@each(
    "text, size",
    [
        ("2G", 2 * GB),
        ("2g", 2 * GB),
        ("2GB", 2 * GB),
        (" 2 gb ", 2 * GB),
        ("2", 2 * GB),
        ("0.5", GB // 2),
        (".5G", GB // 2),
        ("500M", 500 * 10**6),
        ("500MiB", 500 << 20),
        ("1Ki", 1024),
        ("1.5GiB", 3 << 29),
        ("64k", 64_000),
        ("1T", 1000 * GB),
    ],
)
def test_a_size_is_read(text, size):
    assert parse_size(text) == size


@each(
    "text",
    [
        "",
        "G",
        "0",
        "0G",
        "-1G",
        "nan",
        "inf",
        "infG",
        "1e3",
        "1e400",
        "2X",
        "2 G B",
        "1,5G",
        "2G4",
        "0x10",
        "9" * 60,
        "500000000000",
        "\u0662G",
        "1_000",
        "1.2.3",
        "0.0000000001k",
    ],
)
def test_what_is_not_a_size_is_refused(text):
    with pytest.raises(ValueError, match="expected a size such as 2G, 500M"):
        parse_size(text)


@each(
    "size, text",
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (32_000_000, "32 MB"),
        (347_400_000, "347 MB"),
        (1_430_000_000, "1.43 GB"),
        (3.2e12, "3,200 GB"),
    ],
)
def test_a_size_is_shown(size, text):
    assert shown_size(size) == text
