import json
import shutil
from pathlib import Path

import pytest

from bottleneck.backbones.request import Request
from bottleneck.backbones.weights_files import RecordedRequest, described, recorded_at, recorded_request
from bottleneck.errors import ModelError
from bottleneck.utils.files import sha256_hex
from tests.variants import each

DATA, OTHER = b"the weights", b"not weights"  # of equal length


@pytest.fixture
def project(tmp_path):
    return renamed_project(tmp_path)


def renamed_project(tmp_path: Path) -> Path:
    """Return the folder of a project that recorded a weights file and was then renamed."""
    before = tmp_path / "before"
    (before / "runs" / "one").mkdir(parents=True)
    (before / "mine.pth").write_bytes(DATA)
    request = Request(model="resnet18", weights=str(before / "mine.pth"), crop=48)
    value = described(request, sha256_hex(DATA), before / "runs" / "one")
    (before / "runs" / "one" / "request.json").write_text(json.dumps(value))
    return before.rename(tmp_path / "after")


def recorded(project: Path, **changes) -> RecordedRequest:
    home = project / "runs" / "one"
    value = json.loads((home / "request.json").read_text())
    return RecordedRequest({**value, **changes}, home)


def found(project: Path, *folders: Path, **changes) -> Path:
    return recorded(project, **changes).located(folders).file


def test_a_request_is_restored_from_its_json_record(project):
    here = recorded(project)

    assert here.request == Request(model="resnet18", weights=str(project.parent / "before" / "mine.pth"), crop=48)
    assert (here.sha256, here.size) == (sha256_hex(DATA), len(DATA))
    assert here.value["weights_file"]["place"] == "../../mine.pth"


@each("weights", ["DEFAULT", "none", "IMAGENET1K_V1"])
def test_weights_that_are_not_a_file_are_unchanged(tmp_path, weights):
    request = Request(model="resnet18", weights=weights)
    value = described(request, None, tmp_path)

    assert value == request.to_json()
    assert RecordedRequest(value, tmp_path).located() == request


def test_a_weights_file_is_found_in_a_renamed_project(project):
    assert found(project) == project / "mine.pth"


def test_the_weights_file_of_a_copied_project_is_the_copy(project):
    shutil.copytree(project, project.parent / "before")

    assert found(project) == project / "mine.pth"


def test_a_weights_file_is_found_if_only_the_runs_moved(project):
    project.rename(project.parent / "before")
    home = shutil.copytree(project.parent / "before" / "runs", project.parent / "elsewhere" / "runs") / "one"

    value = json.loads((home / "request.json").read_text())
    assert RecordedRequest(value, home).located().file == project.parent / "before" / "mine.pth"


def test_the_hash_decides_between_several_files(project):
    (project.parent / "before").mkdir()
    (project / "mine.pth").rename(project.parent / "before" / "mine.pth")
    (project / "mine.pth").write_bytes(OTHER)

    assert found(project) == project.parent / "before" / "mine.pth"


def test_a_file_of_another_size_is_another_file(project):
    (project / "mine.pth").write_bytes(DATA + b"!")

    assert found(project, project) == project.parent / "before" / "mine.pth"


@each("name", ["renamed.pth", "weights/mine.pth", "models/other.pt", "checkpoints/last.ckpt"])
def test_a_file_with_another_name_is_found_by_its_hash(tmp_path, name):
    project = renamed_project(tmp_path)
    (project / name).parent.mkdir(exist_ok=True)
    (project / "mine.pth").rename(project / name)
    (project / "decoy.pth").write_bytes(OTHER)

    assert found(project, project) == project / name


def test_the_current_folder_is_searched_too(project, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (project / "mine.pth").rename(tmp_path / "here" / "new.pth")
    monkeypatch.chdir(tmp_path / "here")

    assert found(project).resolve() == tmp_path / "here" / "new.pth"


def test_a_missing_file_keeps_its_path_and_the_error_describes_it(project):
    (project / "mine.pth").unlink()
    here = recorded(project)

    assert here.located([project]) == here.request
    text = str(here.missing())
    assert str(project.parent / "before" / "mine.pth") in text
    assert sha256_hex(DATA) in text
    assert f"{len(DATA)} bytes" in text
    assert "`bottleneck extract IMAGES --model resnet18 --weights" in text
    assert "--crop 48" in text


@each("path", ["mine.pth", "deep/er/mine.pth"])
def test_requests_of_older_versions_are_found_by_the_end_of_the_path(tmp_path, path):
    project = renamed_project(tmp_path)
    old = str(project.parent / "before" / path)
    (project / path).parent.mkdir(parents=True, exist_ok=True)
    (project / path).write_bytes(DATA)

    assert found(project, project, weights=old, weights_file=None) == project / path


@each("told", [5, [], "text", {"sha256": 5, "bytes": "many", "place": 7}, {"place": "\0"}])
def test_an_invalid_record_of_a_file_is_ignored(tmp_path, told):
    project = renamed_project(tmp_path)
    (project / "mine.pth").unlink()

    assert found(project, weights_file=told) == project.parent / "before" / "mine.pth"


def test_an_invalid_request_is_an_error(project):
    with pytest.raises((TypeError, ModelError)):
        recorded(project, unknown=5).located()


def test_a_request_can_be_recorded_in_another_folder(project):
    value = recorded(project).at(project / "cache" / "features" / "x")

    assert value["weights_file"]["place"] == "../../../mine.pth"
    assert RecordedRequest(value, project / "cache" / "features" / "x").located().file == project / "mine.pth"


@each("weights", ["~no-such-user/x", "~no-such-user.pth", "./a\0b", "x" * 5000 + ".pth", "/" + "b" * 300])
def test_a_foreign_request_for_an_impossible_path_is_none(tmp_path, weights):
    value = {"model": "resnet18", "weights": weights, "seed": 0}
    assert recorded_request(value, tmp_path, (), "fp32") is None
    assert recorded_at(value, tmp_path, tmp_path / "there") == value
