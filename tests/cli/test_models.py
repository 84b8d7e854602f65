"""``bottleneck models`` and ``bottleneck inspect`` on the command line."""

import contextlib
import json
import os
import pickle
import pty
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from click.testing import CliRunner
from safetensors.torch import save_file

from bottleneck.cli.main import cli
from tests.variants import each

ODD = "a_module_with_a_name_that_is_longer.than_any_terminal_is_wide.so_that_it_has_to_be_folded.weight"


def run(*words: object, code: int = 0) -> tuple[str, str]:
    """Run a command in this process; return what stands on stdout and on stderr."""
    found = CliRunner().invoke(cli, [str(word) for word in words])
    assert found.exit_code == code, found.output
    assert "Traceback" not in found.output
    return found.stdout, found.stderr


def run_json(*words: object, code: int = 0) -> dict[str, object]:
    """Run a command with ``--json``; return the one object on stdout."""
    out, _ = run(*words, "--json", code=code)
    assert len(out.splitlines()) == 1
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def row(table: str, name: str) -> list[str]:
    """Return the cells of the line of a table that begins with a name."""
    (line,) = [line for line in table.splitlines() if line.split()[:1] == [name]]
    return re.split(r"\s{2,}", line.strip())


def first_cells(table: str) -> list[str]:
    return [line.split()[0] for line in table.splitlines() if line.strip() and "──" not in line][1:]


@pytest.fixture
def in_a_terminal(monkeypatch) -> Callable[..., list[str]]:
    """Return a function that runs a command with stdout in a terminal of 80 columns, and returns what stands there."""

    def run(*words: object) -> list[str]:
        ours, theirs = pty.openpty()
        seen = bytearray()
        reading = threading.Thread(target=read, args=(ours, seen))
        reading.start()
        with (
            os.fdopen(theirs, "w") as terminal,
            contextlib.redirect_stdout(terminal),
            contextlib.suppress(SystemExit),
        ):
            cli.main([str(word) for word in words], standalone_mode=False)
        reading.join()
        os.close(ours)
        return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in seen.decode().splitlines()]

    def read(file: int, seen: bytearray) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(file, 1 << 16):
                seen += part

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    return run


@pytest.fixture
def nothing_here(tmp_path, monkeypatch) -> Path:
    """Let torch have fetched no weights; return the folder where it would keep them."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return torchvision.models.resnet18(weights=None).state_dict()


@pytest.fixture
def saved(tensors, tmp_path) -> Path:
    torch.save({"state_dict": tensors}, tmp_path / "w.pth")
    return tmp_path / "w.pth"


@pytest.fixture
def misfit(tensors, tmp_path) -> Path:
    changed = {**tensors, "layer1.0.conv1.weight": torch.zeros(64, 32, 3, 3)}
    del changed["layer2.0.conv1.weight"]
    torch.save(changed, tmp_path / "misfit.pth")
    return tmp_path / "misfit.pth"


# --- models -------------------------------------------------------------------------------------------------------


def test_models_lists_all_bundled_torchvisions_and_timms(nothing_here):
    out, err = run("models")
    found = first_cells(out)

    assert {"efficientnet_lite0", "resnet18", "timm/resnet18"} <= set(found)
    assert len(found) == len(set(found)) > 1000
    assert err.startswith(f"{len(found)} models")


def test_models_of_a_pattern_are_shown_with_their_properties(nothing_here):
    out, _ = run("models", "resnet1*")

    assert first_cells(out) == ["resnet101", "resnet152", "resnet18"]
    found = [cell.replace(" ", "") for cell in row(out, "resnet18")]
    assert found[:5] == ["resnet18", "torchvision", "11.7M", "224x224", "512"]


def test_models_says_which_weights_are_here(nothing_here):
    nothing_here.mkdir(parents=True)
    (nothing_here / "resnet18-f37072fd.pth").write_bytes(b"tensors")
    out, err = run("models", "resnet1*")

    assert row(out, "resnet18")[-1] == "here"
    assert row(out, "resnet101")[-1].endswith("download")
    assert "3 models; the weights of 1 are on this machine" in err


@each(
    "name, last",
    [("efficientnet_lite0", "here"), ("timm/test_vit_relpos", "unpublished"), ("timm/test_vit", "download")],
)
def test_models_says_where_weights_come_from(nothing_here, name, last):
    assert row(run("models", name)[0], name)[-1].split()[-1] == last


def test_models_of_a_pattern_with_a_dot_are_shown_with_all_their_weights(nothing_here):
    out, _ = run("models", "resnet50.*")
    lines = [line for line in out.splitlines() if line.split()[:1] == ["resnet50"]]

    assert [re.findall(r"IMAGENET1K_V\d", line) for line in lines] == [["IMAGENET1K_V2"], ["IMAGENET1K_V1"]]
    lines = [line.split()[:2] for line in run("models", "timm/resnet18.*")[0].splitlines()]
    assert ["timm/resnet18", "a1_in1k"] in lines
    assert ["timm/resnet18", "tv_in1k"] in lines


def test_models_as_json(nothing_here):
    (found,) = [model for model in run_json("models", "resnet18")["models"] if model["name"] == "resnet18"]

    assert found == {
        "name": "resnet18",
        "source": "torchvision",
        "weights": "IMAGENET1K_V1",
        "parameters": 11_689_512,
        "input_size": [224, 224],
        "dim": 512,
        "is_here": False,
    }


def test_a_misspelt_pattern_exits_with_1_and_names_the_nearest():
    out, err = run("models", "rsnet18", code=1)

    assert out == ""
    assert re.fullmatch(r"error: expected the name of a model .* got 'rsnet18'; did you mean .*\bresnet18\b.*\?\n", err)


def test_a_misspelt_pattern_is_one_json_object_too():
    found = run_json("models", "rsnet18", code=1)

    assert found["error"]["type"] == "ModelError"
    assert "resnet18" in found["error"]["message"]


# --- inspect a model ----------------------------------------------------------------------------------------------


def test_inspect_shows_the_modules_with_their_shapes_parameters_and_multiply_adds():
    out, _ = run("inspect", "resnet18")

    assert out.startswith("resnet18 (torchvision): 11.7M parameters, 1.81G multiply-adds")
    assert "features: 512 from fc:input\n" in out
    assert row(out, "layer4") == ["layer4", "Sequential", "512x7x7", "8.39M", "411M"]
    assert row(out, "fc") == ["fc", "Linear", "1000", "513k", "512k"]
    assert "stages: conv1, bn1, layer1, layer2, layer3, layer4, fc\n" in out


def test_inspect_shows_that_inception_maps_its_input_and_takes_larger_images():
    out, _ = run("inspect", "inception_v3")

    assert "images: the shorter side to 342 (bilinear), centre 299 x 299, mean 0.485" in out
    assert "transform_input" in out
    assert row(out, "Mixed_7c")[2] == "2048x8x8"
    assert "AuxLogits" not in out


@each("depth, deepest", [("1", 1), ("2", 2), ("all", 4), ("99", 4)])
def test_inspect_shows_the_requested_levels(depth, deepest):
    out, _ = run("inspect", "resnet18", "--depth", depth)
    shown = {name for name, _ in torchvision.models.resnet18().named_modules() if name and name.count(".") < deepest}
    table = out.split("stages:")[0].split("\n\n")[0]

    assert {name for name in first_cells(table) if name in shown} == shown
    assert ("; --depth all shows " in out) is (deepest < 4)


@each("depth", ["x", "0", "-1", "1.5", ""])
def test_an_invalid_depth_is_a_usage_error(depth):
    _, err = run("inspect", "resnet18", f"--depth={depth}", code=2)

    assert "expected a number from 1, or all" in " ".join(err.split())


def test_inspect_of_a_model_as_json(nothing_here):
    found = run_json("inspect", "resnet18")

    assert (found["parameters"], found["dim"], found["layer"], found["input_size"]) == (
        11_689_512,
        512,
        "fc:input",
        [224, 224],
    )
    assert found["weights"] == [{"name": "IMAGENET1K_V1", "is_here": False}]
    assert {"name": "layer4", "kind": "Sequential", "output": [512, 7, 7]}.items() <= next(
        module for module in found["modules"] if module["name"] == "layer4"
    ).items()
    assert len(found["modules"]) == len(list(torchvision.models.resnet18().modules())) - 1


@each("model", ["timm/test_vit", "timm/test_vit.r160_in1k"])
def test_inspect_of_a_timm_model_with_and_without_its_tag(nothing_here, model):
    out, _ = run("inspect", model, "--depth", "1")

    assert out.startswith(f"{model} (timm): ")
    assert "weights: r160_in1k (download)\n" in out
    assert row(out, "blocks")[:3] == ["blocks", "Sequential", "101x64"]


def test_inspect_of_an_unknown_model_names_the_nearest():
    _, err = run("inspect", "rsnet18", code=1)

    assert "did you mean resnet18" in err


# --- inspect a checkpoint -----------------------------------------------------------------------------------------


def test_inspect_of_a_pth_file_lists_its_tensors(saved):
    out, _ = run("inspect", saved)

    assert row(out, "layer1.0.conv1.weight") == ["layer1.0.conv1.weight", "64x64x3x3", "float32"]
    assert row(out, "bn1.num_batches_tracked") == ["bn1.num_batches_tracked", "scalar", "int64"]
    assert re.search(r"w\.pth: 122 tensors, 11\.7M numbers, 46\.8 MB; taken from 'state_dict'\n", out)


def test_inspect_of_a_safetensors_file_lists_its_tensors(tmp_path):
    save_file({"a.weight": torch.zeros(2, 3), "b": torch.zeros(5, dtype=torch.float16)}, tmp_path / "w.safetensors")
    out, _ = run("inspect", tmp_path / "w.safetensors")

    assert (row(out, "a.weight"), row(out, "b")) == (["a.weight", "2x3", "float32"], ["b", "5", "float16"])
    assert "2 tensors, 11 numbers" in out


def test_inspect_of_a_checkpoint_as_json(saved, tensors):
    found = run_json("inspect", saved)

    assert (found["checkpoint"], found["remarks"], found["against"]) == (str(saved), ["taken from 'state_dict'"], None)
    assert [tensor["name"] for tensor in found["tensors"]] == list(tensors)
    assert found["tensors"][0] == {"name": "conv1.weight", "shape": [64, 3, 7, 7], "dtype": "float32"}


def test_inspect_against_a_model_shows_what_it_would_restore(saved):
    out, err = run("inspect", saved, "--against", "resnet18")

    assert row(out, "100") == ["100 tensors", "restored"]
    assert row(out, "fc.weight") == ["fc.weight", "not needed"]
    assert "100 of 100 tensors restored; taken from 'state_dict'; 2 not needed: fc.weight, fc.bias" in out
    assert err == ""


def test_inspect_against_a_model_lists_every_tensor_with_depth_all(saved):
    out, _ = run("inspect", saved, "--against", "resnet18", "--depth", "all")

    assert row(out, "conv1.weight") == ["conv1.weight", "restored"]


def test_inspect_against_a_model_shows_what_does_not_fit(misfit):
    out, err = run("inspect", misfit, "--against", "resnet18", code=1)

    assert row(out, "layer1.0.conv1.weight") == ["layer1.0.conv1.weight", "wrong shape", "64x64x3x3", "64x32x3x3"]
    assert row(out, "layer2.0.conv1.weight") == ["layer2.0.conv1.weight", "missing"]
    assert "do not fit resnet18, which needs 100 tensors: 1 missing: layer2.0.conv1.weight, 1 of another shape" in err


def test_inspect_against_a_model_shows_what_is_left_out(saved):
    out, _ = run("inspect", saved, "--against", "resnet18", "--restore-exclude", "layer4.1.conv1")

    assert row(out, "layer4.1.conv1.weight") == ["layer4.1.conv1.weight", "excluded"]
    assert "99 of 100 tensors restored" in out


def test_inspect_against_a_model_as_json(misfit):
    found = run_json("inspect", misfit, "--against", "resnet18", code=1)["against"]

    assert (found["model"], found["complete"], found["missing"]) == ("resnet18", False, ["layer2.0.conv1.weight"])
    assert found["misshapen"] == {"layer1.0.conv1.weight": [[64, 64, 3, 3], [64, 32, 3, 3]]}
    assert len(found["restored"]) == 98


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@each("name", ["garbage.pth", "garbage.safetensors", "garbage.bin"])
@pytest.mark.parametrize("content", [b"", b"<html>" * 100, b"PK\x03\x04" + bytes(100)], ids=["empty", "html", "zip"])
def test_inspect_of_a_damaged_file_exits_with_1_and_a_message(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    out, err = run("inspect", tmp_path / name, code=1)

    assert out == ""
    assert re.match(rf"error: expected tensors \(a state_dict\) in .*{re.escape(name)}, could not read them: ", err)


def test_inspect_of_a_pickle_runs_no_code(tmp_path):
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "it ran"), protocol=2))
    run("inspect", tmp_path / "bomb.pth", code=1)

    assert not (tmp_path / "it ran").exists()


@each("words", [["missing.pth"], ["missing.pth", "--against", "resnet18"], ["no/such.safetensors"]])
def test_inspect_of_a_missing_file_exits_with_1_and_names_it(words):
    _, err = run("inspect", *words, code=1)

    assert err == f"error: expected a weights file at {words[0]}, found none\n"


def test_a_model_is_not_compared_with_a_model():
    _, err = run("inspect", "resnet18", "--against", "resnet18", code=1)

    assert err == "error: expected a checkpoint file with --against, got 'resnet18'\n"


@each("thing", ["resnet18", "w.pth"])
def test_what_is_excluded_is_excluded_from_a_comparison(thing):
    assert "--restore-exclude needs --against MODEL" in run("inspect", thing, "--restore-exclude", "fc", code=2)[1]


def test_inspect_against_an_unknown_model_names_the_nearest(saved):
    assert "did you mean resnet18" in run("inspect", saved, "--against", "rsnet18", code=1)[1]


# --- in a terminal ------------------------------------------------------------------------------------------------


def assert_fits(lines: list[str], *whole: str) -> None:
    """Check that no line is wider than the terminal, and that no name is cut."""
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    first = "".join(line.strip().split("  ")[0] for line in lines)
    for name in whole:
        assert name in first, lines


@each(
    "words, name",
    [
        (["models", "timm/vit_so400m*"], "timm/vit_so400m_patch14_siglip_gap_896"),
        (["models", "timm/resnet50.*"], "timm/resnet50"),
        (["models", "resnet50.*"], "resnet50"),
        (["inspect", "inception_v3", "--depth", "1"], "Conv2d_1a_3x3"),
        (["inspect", "timm/test_vit", "--depth", "all"], "blocks.0.attn.qkv"),
    ],
)
def test_tables_fit_into_a_terminal_of_80_columns_and_no_name_is_cut(in_a_terminal, words, name):
    assert_fits(in_a_terminal(*words), name)


@each("against", [[], ["--against", "resnet18"]])
def test_the_tables_of_a_checkpoint_fit_into_a_terminal_too(in_a_terminal, tmp_path, against):
    torch.save({ODD: torch.zeros(512, 512, 3, 3), "conv1.weight": torch.zeros(1, 1)}, tmp_path / "w.pth")

    assert_fits(in_a_terminal("inspect", tmp_path / "w.pth", *against), ODD, "conv1.weight")


def test_in_a_pipe_a_name_is_on_one_line(tmp_path):
    save_file({ODD: torch.zeros(512, 512, 3, 3)}, tmp_path / "w.safetensors")

    assert row(run("inspect", tmp_path / "w.safetensors")[0], ODD) == [ODD, "512x512x3x3", "float32"]


@each("name", ["resnet18", "timm/resnet18"])
def test_a_model_is_inspected_even_if_a_file_has_its_name(name):
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(b"no checkpoint")
    assert run_json("inspect", name)["model"] == name
    assert "could not read them" in run("inspect", f"./{name}", code=1)[1]
