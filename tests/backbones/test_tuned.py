import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from bottleneck.backbones import torchvision_models
from bottleneck.backbones.registry import build_without_numbers, load
from bottleneck.backbones.request import Request
from bottleneck.backbones.tuned import WEIGHTS, Tuned, read_tuned, weights_of_run
from bottleneck.errors import BottleneckError
from tests.variants import each

SAID = Tuned(model="resnet18", weights="IMAGENET1K_V1", options={"crop": 48}, dataset="d" * 64, score=0.75)


def written(path: Path, metadata: dict[str, str] | None = None) -> Path:
    save_file({"a": np.zeros(2, np.float32)}, path, metadata if metadata is not None else SAID.metadata())
    return path


def test_metadata_are_read_back_unchanged(tmp_path):
    assert read_tuned(written(tmp_path / "model.safetensors")) == SAID
    assert read_tuned(written(tmp_path / "MODEL.SAFETENSORS")) == SAID


@each("said", [
        "", "{", "[]", "5", "null", '"text"', "{}", '{"model": "resnet18"}', "[" * 100_000,
        json.dumps({**vars(SAID), "more": 1}),
    ])  # fmt: skip
def test_files_with_other_metadata_are_not_fine_tuned_networks(tmp_path, said):
    assert read_tuned(written(tmp_path / "model.safetensors", {"bottleneck": said})) is None


def test_foreign_and_damaged_files_are_not_fine_tuned_networks(tmp_path):
    assert read_tuned(written(tmp_path / "other.safetensors", {"format": "pt"})) is None
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "plain.safetensors")
    assert read_tuned(tmp_path / "plain.safetensors") is None
    assert read_tuned(tmp_path / "missing.safetensors") is None
    (tmp_path / "folder.safetensors").mkdir()
    assert read_tuned(tmp_path / "folder.safetensors") is None
    good = written(tmp_path / "good.safetensors").read_bytes()
    for number, data in enumerate((b"", good[:20], good[:-1], b"\xff" * 200, good[:9] + b"\x00" + good[10:])):
        file = tmp_path / f"damaged{number}.safetensors"
        file.write_bytes(data)
        assert read_tuned(file) is None
    renamed = tmp_path / "model.pth"
    renamed.write_bytes(good)
    assert read_tuned(renamed) is None


def test_the_weights_of_a_run_by_folder_and_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    for name in ("run:one", "run:two", "run:../runs/one"):
        with pytest.raises(BottleneckError):  # no weights, no run, no name
            weights_of_run(name, "runs")
    written(run / WEIGHTS)
    assert weights_of_run("run:one", "runs") == str(Path("runs") / "one" / WEIGHTS)
    assert weights_of_run(Path("runs/one"), "elsewhere") == str(Path("runs") / "one" / WEIGHTS)
    assert weights_of_run(str(run), "elsewhere") == str(run / WEIGHTS)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights_of_run("~/runs/one", "elsewhere") == str(run / WEIGHTS)
    for name in ("DEFAULT", "IMAGENET1K_V2", "one", "two", str(run / WEIGHTS), "./two"):
        assert weights_of_run(name, "runs") == name


@each("where", [".", "runs"])
@each("name", ["DEFAULT", "none", "None", "IMAGENET1K_V1", "a1_in1k", "resnet18", "efficientnet_lite0"])
def test_a_name_of_weights_is_not_taken_for_a_folder(tmp_path, where, name):
    folder = tmp_path / where / name
    folder.mkdir(parents=True)
    written(folder / WEIGHTS)
    assert weights_of_run(name, "runs") == name
    assert Request(weights=name).file is None
    assert weights_of_run(f"./{where}/{name}", "runs") == str(Path(where) / name / WEIGHTS)
    if where == ".":
        assert Request(weights=weights_of_run(Path(name), "runs")).file == Path(name) / WEIGHTS


@each("weights, resize", [("IMAGENET1K_V1", 256), ("imagenet1k_v2", 232), ("DEFAULT", 232), ("none", 232)])
def test_images_are_preprocessed_as_for_the_initial_weights(tmp_path, weights, resize):
    said = Tuned(model="resnet50", weights=weights, options={}, dataset="", score=0.0)
    save_torch({"fc.bias": torch.zeros(3)}, tmp_path / "model.safetensors", said.metadata())
    found = build_without_numbers(Request(model="resnet50", weights=str(tmp_path / "model.safetensors")))
    assert found.preprocessing.resize == resize


def test_tensors_of_a_fine_tuned_network_are_restored(tmp_path):
    tensors = torchvision_models.build(Request(model="resnet18", weights="none", seed=5)).network.state_dict()
    said = Tuned(model="resnet18", weights="DEFAULT", options={}, dataset="", score=0.0)
    left = {name: value for name, value in tensors.items() if "num_batches" not in name}
    save_torch(left, tmp_path / "model.safetensors", said.metadata())
    found = load(Request(model="resnet18", weights=str(tmp_path / "model.safetensors")))
    assert found.restored.complete
    assert torch.equal(found.network.state_dict()["conv1.weight"], tensors["conv1.weight"])
