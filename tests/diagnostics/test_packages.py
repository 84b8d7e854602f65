import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from bottleneck.diagnostics.diagnosis import NOTE, OK, WRONG
from bottleneck.diagnostics.packages import OPTIONAL, REQUIRED, Installed, numbers
from tests.variants import each

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def look(version="9999", load=lambda module: None):
    def versions(name):
        found = version.get(name, "9999") if isinstance(version, dict) else version
        if found is None:
            raise PackageNotFoundError(name)
        return found

    installed = Installed(versions, load)
    probes = [*installed.probes(), *installed.imports()]
    return {found.name: found for probe in probes for found in probe.symptoms()}


def test_the_tables_are_those_of_pyproject():
    text = PYPROJECT.read_text(encoding="utf-8")
    required = re.search(r"^dependencies = \[(.*?)^\]", text, re.M | re.S)[1]

    assert dict(re.findall(r'"([\w-]+)>=([\d.]+)"', required)) == {one.name: one.least for one in REQUIRED}
    for one in OPTIONAL:
        assert f'"{one.name}>={one.least}"' in re.search(rf"^{one.extra} = (.*)$", text, re.M)[1]


def test_all_is_well_if_everything_is_installed():
    assert {found.state for found in look().values()} == {OK}


def test_a_missing_package_names_the_line_that_installs_it():
    found = look({"h5py": None, "openvino": None})

    assert (found["h5py"].state, found["h5py"].remedy) == (WRONG, "Run: pip install 'h5py>=3.16'")
    assert found["openvino"].state == OK
    assert found["openvino"].remedy == "To install: pip install 'bottleneck-vision[openvino]'"


def test_a_package_that_is_too_old():
    found = look({"torch": "2.5.1+cu124", "pyarrow": "14.0"})

    assert (found["torch"].state, found["torch"].value) == (WRONG, "2.5.1+cu124, older than 2.6")
    assert found["pyarrow"].state == NOTE


@each("error", [ImportError("undefined symbol: x"), OSError("libgomp"), SystemExit(1), RuntimeError("operator nms")])
def test_a_package_that_cannot_be_imported_is_one_line(error):
    def load(module):
        if module == "h5py":
            raise error

    found = look(load=load)

    assert found["h5py"].state == WRONG
    assert str(error) in found["h5py"].value
    assert "pip install --force-reinstall" in found["h5py"].remedy
    assert found["torch"].state == OK


def test_versions_are_found_before_anything_is_imported():
    loaded = []
    installed = Installed(lambda name: "9999", loaded.append)
    versions = [found.name for probe in installed.probes() for found in probe.symptoms()]

    assert "torch" in versions
    assert loaded == []
    assert [found for probe in installed.imports() for found in probe.symptoms()] == []
    assert {"torch", "h5py", "PIL.Image"} <= set(loaded)


@each("version, expected", [("2.6.1+cu124", (2, 6, 1)), ("13", (13,)), ("3.0", (3,)), ("2.0rc1", (2,)), ("x", ())])
def test_the_numbers_of_a_version(version, expected):
    assert numbers(version) == expected
