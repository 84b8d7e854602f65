from importlib.metadata import PackageNotFoundError

from bottleneck.diagnostics.conflicts import Conflicts
from bottleneck.diagnostics.diagnosis import NOTE, OK, WRONG
from bottleneck.diagnostics.packages import Installed
from bottleneck.engines.hardware import Machine
from bottleneck.engines.torch_build import TorchBuild
from tests.variants import each

CODECS = {"libjpeg": "6.2", "zlib": "1.3", "libtiff": "4.7.0", "webp": "1.6.0"}


def installed(*names):
    def version(name):
        if name not in names:
            raise PackageNotFoundError(name)
        return "1"

    return Installed(version)


def look(root, environment=None, packages=(), **options):
    known = {
        "usable": lambda: 4,
        "build": lambda: TorchBuild("CPU", ()),
        "codecs": lambda: CODECS,
        "runtimes": lambda: ["libgomp"],
        "shared_memory": lambda: 10**10,
        "encoding": lambda: "utf-8",
    }
    machine = Machine(system="linux", environment=environment or {}, root=root)
    conflicts = Conflicts(
        environment=environment or {}, installed=installed(*packages), machine=machine, **known | options
    )
    found = {one.name: one for probe in conflicts.probes() for one in probe.symptoms()}
    assert all(one.remedy for one in found.values() if one.state != OK)
    return found


def test_a_machine_without_conflicts_has_only_its_codecs(tmp_path):
    found = look(tmp_path)

    assert list(found) == ["image codecs"]
    assert found["image codecs"].value == "libjpeg 6.2, zlib 1.3, libtiff 4.7.0, webp 1.6.0"


@each("name", ["Bottleneck", "pillow-simd"])
def test_packages_that_replace_files_of_others(tmp_path, name):
    assert look(tmp_path, packages=[name])[name].state == WRONG


@each(
    "environment, name",
    [
        ({"OMP_NUM_THREADS": "1"}, "OMP_NUM_THREADS"),
        ({"MKL_NUM_THREADS": "64,2"}, "MKL_NUM_THREADS"),
        ({"OMP_PROC_BIND": "close"}, "OMP_PROC_BIND"),
        ({"KMP_DUPLICATE_LIB_OK": "TRUE"}, "KMP_DUPLICATE_LIB_OK"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, "ONEDNN_MAX_CPU_ISA"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_settings_that_get_in_the_way(tmp_path, environment, name):
    assert look(tmp_path, environment)[name].state == NOTE


@each(
    "environment",
    [{"OMP_NUM_THREADS": "4"}, {"OMP_PROC_BIND": "false"}, {"HF_HUB_OFFLINE": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}],
)
def test_settings_that_do_not(tmp_path, environment):
    assert list(look(tmp_path, environment)) == ["image codecs"]


@each(
    "platform, node, expected",
    [
        ("CUDA 12.8", True, "cannot use it"),
        ("CUDA 12.8", False, "without a GPU"),
        ("CPU", True, "was built for CPUs"),
    ],
)
def test_a_torch_that_does_not_suit_the_machine(tmp_path, platform, node, expected):
    (tmp_path / "dev").mkdir()
    if node:
        (tmp_path / "dev" / "nvidia0").touch()

    assert expected in look(tmp_path, build=lambda: TorchBuild(platform, ()))["gpu build"].value


def test_little_shared_memory_matters_for_several_gpus(tmp_path):
    for gpus, expected in ((("a",), False), (("a", "b"), True)):
        options = {"build": lambda gpus=gpus: TorchBuild("CUDA 12.8", gpus), "shared_memory": lambda: 64 * 10**6}
        assert ("/dev/shm" in look(tmp_path, **options)) == expected


def test_two_kinds_of_openmp(tmp_path):
    assert look(tmp_path, runtimes=lambda: ["libiomp", "libomp"])["OpenMP"].state == NOTE


def test_codecs_that_are_missing_or_old(tmp_path):
    found = look(tmp_path, codecs=lambda: CODECS | {"libjpeg": None, "libtiff": "4.5.0", "webp": None})

    assert found["libjpeg"].state == WRONG
    assert found["libtiff"].state == NOTE
    assert "without webp" in found["image codecs"].value


def test_file_names_that_are_not_utf8(tmp_path):
    assert "PYTHONUTF8" in look(tmp_path, encoding=lambda: "ascii")["encoding"].remedy


def test_a_broken_torch_hides_no_other_conflict(tmp_path):
    def broken():
        raise ImportError("no torch")

    found = look(tmp_path, {"OMP_NUM_THREADS": "1"}, build=broken)

    assert "no torch" in found["gpu build"].value
    assert "OMP_NUM_THREADS" in found
