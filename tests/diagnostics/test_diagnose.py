from pathlib import Path

from bottleneck.diagnostics.diagnose import all_probes, diagnose
from bottleneck.diagnostics.diagnosis import Symptom
from bottleneck.diagnostics.probe import Probe


def _breaks():
    raise ImportError(f"cannot load {Path.cwd() / 'libh5.so'}")


PROBES = {"One": [Probe("h5py", _breaks), Probe("b", lambda: [Symptom("b", "fine")])], "Two": []}


def test_each_section_is_reported_as_soon_as_it_is_complete():
    seen = []
    found = diagnose(probes=PROBES, progress=seen.append)

    assert [group.title for group in seen] == ["One", "Two"]
    assert found.groups == tuple(seen)
    assert [symptom.name for symptom in found.wrong] == ["h5py"]
    assert found.groups[1].lines()[-2] == "- two: no problem found"


def test_paths_are_hidden_unless_requested(tmp_path):
    assert str(tmp_path) not in str(diagnose(probes=PROBES))
    assert "cannot load <path>" in str(diagnose(probes=PROBES))
    assert str(tmp_path) in str(diagnose(probes=PROBES, paths=True))


def test_engines_are_measured_only_if_requested():
    assert "Engines" in all_probes("cache", "runs", True, False)
    assert "Engines" not in all_probes("cache", "runs", False, False)


def test_everything_but_speed_is_found_on_this_machine(tmp_path):
    found = diagnose(speed=False)
    names = [symptom.name for symptom in found]

    assert {"python", "torch", "cpu", "cores", "memory", "gpu", "runs", "cache folder", "image codecs"} <= set(names)
    assert str(tmp_path) not in str(found)
    assert not any(tmp_path.iterdir())
