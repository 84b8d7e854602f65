import argparse
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bottleneck.backbones.restore import restore
from bottleneck.backbones.weights import Checkpoint, read_checkpoint, tensors_digest
from bottleneck.errors import ModelError, WeightsUnavailable
from tests.variants import each


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network(seed).state_dict().items()}


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


@each("name", ["w.pth", "w.pt", "w.safetensors", "w.SafeTensors", "checkpoint"])
def test_each_kind_of_file_is_read(tmp_path, name):
    path = tmp_path / name
    (save_file if "safetensors" in name.lower() else torch.save)(tensors(), path)

    assert same(read_checkpoint(path).tensors, tensors())


def test_a_file_of_pytorchs_old_format_is_read(tmp_path):
    torch.save(tensors(), tmp_path / "w.pth", _use_new_zipfile_serialization=False)

    assert same(read_checkpoint(tmp_path / "w.pth").tensors, tensors())


@each("wrapper", ["state_dict", "model_state_dict", "model"])
def test_a_wrapper_is_removed(tmp_path, wrapper):
    torch.save({wrapper: OrderedDict(tensors()), "epoch": 7, "optimizer": {"lr": 0.1}}, tmp_path / "w.pth")

    assert same(read_checkpoint(tmp_path / "w.pth").tensors, tensors())


def others(count: int = 1) -> dict[str, torch.Tensor]:
    """Return tensors that are not those of the network."""
    return {f"other.{number}": torch.zeros(number + 1) for number in range(count)}


def test_what_has_no_wrapper_has_no_remark(tmp_path):
    torch.save(tensors(), tmp_path / "w.pth")

    assert read_checkpoint(tmp_path / "w.pth").remarks == ()


@each("wrapper", ["state_dict", "net", "network", "weights", "params_ema"])
def test_a_removed_wrapper_is_named(tmp_path, wrapper):
    torch.save({wrapper: tensors(), "epoch": 7, "optimizer": {"lr": 0.1}}, tmp_path / "w.pth")

    found = read_checkpoint(tmp_path / "w.pth")

    assert same(found.tensors, tensors())
    assert found.remarks == (f"taken from {wrapper!r}",)


@each(
    "chosen, left",
    [
        ("state_dict", ["model"]),
        ("state_dict", ["model_ema", "network"]),
        ("model_state_dict", ["model", "ema"]),
        ("model", ["net", "model_ema"]),
        ("net", ["network"]),
        ("network", ["discriminator"]),
    ],
)
def test_the_best_known_of_several_wrappers_is_used_and_the_rest_are_named(tmp_path, chosen, left):
    torch.save({**{name: others(2) for name in left}, chosen: tensors()}, tmp_path / "w.pth")

    found = read_checkpoint(tmp_path / "w.pth")

    assert same(found.tensors, tensors())
    assert found.remarks == (f"taken from {chosen!r} ({', '.join(repr(name) for name in left)} not used)",)


def test_none_of_several_unknown_wrappers_is_used(tmp_path):
    torch.save({"generator": tensors(), "discriminator": others()}, tmp_path / "w.pth")

    with pytest.raises(ModelError, match="found a dictionary of generator, discriminator"):
        read_checkpoint(tmp_path / "w.pth")


def test_the_state_of_an_optimizer_is_not_a_wrapper(tmp_path):
    net = network()
    optimizer = torch.optim.Adam(net.parameters())
    sum(value.sum() for value in net.parameters()).backward()
    optimizer.step()
    torch.save({"optimizer": optimizer.state_dict(), "weights": tensors(), "lr": 0.1}, tmp_path / "w.pth")

    found = read_checkpoint(tmp_path / "w.pth")

    assert same(found.tensors, tensors())
    assert found.remarks == ("taken from 'weights'",)


@each("outer, inner", [("checkpoint", "model"), ("model", "state_dict"), ("a", "b"), ("state_dict", "a")])
def test_nested_wrappers_are_removed_and_named(tmp_path, outer, inner):
    torch.save({outer: {inner: tensors(), "epoch": 3}, "args": {"lr": 0.1}}, tmp_path / "w.pth")

    found = read_checkpoint(tmp_path / "w.pth")

    assert same(found.tensors, tensors())
    assert found.remarks == (f"taken from {outer!r}", f"taken from {inner!r}")


def test_the_wrapper_of_a_wrapper_names_what_it_leaves(tmp_path):
    content = {"model": {"state_dict": tensors(), "ema": others()}, "teacher": others()}
    torch.save(content, tmp_path / "w.pth")

    assert read_checkpoint(tmp_path / "w.pth").remarks == (
        "taken from 'model' ('teacher' not used)",
        "taken from 'state_dict' ('ema' not used)",
    )


@each("old", [False, True])
def test_the_settings_of_a_training_script_are_accepted(tmp_path, old):
    settings = argparse.Namespace(lr=0.1, arch="resnet18", layers=[1, 2], resume=None)
    torch.save({"model": tensors(), "args": settings}, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)

    found = read_checkpoint(tmp_path / "w.pth")

    assert same(found.tensors, tensors())
    assert found.remarks == ("taken from 'model'",)


def test_settings_that_hold_code_are_refused(tmp_path):
    settings = argparse.Namespace(lr=0.1, bomb=Bomb(tmp_path / "it ran"))
    torch.save({"model": tensors(), "args": settings}, tmp_path / "w.pth")

    with pytest.raises(ModelError, match="could not read"):
        read_checkpoint(tmp_path / "w.pth")

    assert not (tmp_path / "it ran").exists()


def test_settings_are_allowed_while_a_checkpoint_is_read_only(tmp_path):
    torch.save({"model": tensors(), "args": argparse.Namespace()}, tmp_path / "w.pth")
    read_checkpoint(tmp_path / "w.pth")

    with pytest.raises(pickle.UnpicklingError, match="Namespace"):
        torch.load(tmp_path / "w.pth", weights_only=True)


def test_a_module_that_is_called_module_keeps_its_name(tmp_path):
    found = {"module.weight": torch.ones(2), "fc.weight": torch.ones(3)}
    torch.save(found, tmp_path / "w.pth")

    assert same(read_checkpoint(tmp_path / "w.pth").tensors, found)


@each("suffix", [".pth", ".pt", ".safetensors"])
@each("how", ["pickle", "torch.save", "wrapped", "old format"])
def test_a_pickle_that_would_run_code_runs_none(tmp_path, suffix, how):
    marker, path = tmp_path / "it ran", tmp_path / f"w{suffix}"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Bomb(marker)))
    elif how == "old format":
        torch.save(Bomb(marker), path, _use_new_zipfile_serialization=False)
    else:
        torch.save({"state_dict": tensors(), "extra": Bomb(marker)} if how == "wrapped" else Bomb(marker), path)

    with pytest.raises(ModelError, match="could not read"):
        read_checkpoint(path)

    assert not marker.exists()


def test_the_bomb_of_these_tests_goes_off(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "it ran")))

    assert (tmp_path / "it ran").exists()


@each("save", [torch.save, save_file])
@each("part", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_a_model_error(tmp_path, save, part):
    path = tmp_path / ("w.pth" if save is torch.save else "w.safetensors")
    save(tensors(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])

    with pytest.raises(ModelError, match="could not read"):
        read_checkpoint(path)


@each("name", ["w.pth", "w.safetensors"])
@each("garbage", [b"<!doctype html><html>404</html>", b"version https://git-lfs", b"\xff" * 500])
def test_invalid_content_is_a_model_error(tmp_path, name, garbage):
    (tmp_path / name).write_bytes(garbage)

    with pytest.raises(ModelError, match="could not read"):
        read_checkpoint(tmp_path / name)


@each("name", ["w.pth", "w.safetensors"])
def test_a_missing_file_is_weights_unavailable(tmp_path, name):
    with pytest.raises(WeightsUnavailable, match=name):
        read_checkpoint(tmp_path / name)


@each("name", ["w.pth", "w.safetensors"])
def test_a_folder_is_a_model_error(tmp_path, name):
    (tmp_path / name).mkdir()

    with pytest.raises(ModelError):
        read_checkpoint(tmp_path / name)


@each(
    "content",
    [torch.ones(3), [torch.ones(3)], {}, {"a": 1}, {"a": torch.ones(1), "b": "text"}, {"state_dict": {}}, 5, None],
)
def test_what_is_not_a_state_dict_is_a_model_error(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")

    with pytest.raises(ModelError, match="expected a state_dict"):
        read_checkpoint(tmp_path / "w.pth")


def test_loading_copies_every_tensor():
    target = network(1)
    restore(target, Checkpoint("w.pth", tensors(2)))

    assert same(dict(target.state_dict()), tensors(2))


def test_a_tensor_of_another_shape_is_named_with_both_shapes():
    wrong = {**tensors(), "3.weight": torch.ones(5, 4)}

    with pytest.raises(ModelError, match=r"w\.pth.*3\.weight \(expected \(2, 4\), found \(5, 4\)\)"):
        restore(network(), Checkpoint("w.pth", wrong))


def test_missing_tensors_are_named_and_counted():
    lacking = tensors()
    del lacking["0.bias"], lacking["1.running_mean"]

    with pytest.raises(ModelError, match=r"2 missing: 0\.bias, 1\.running_mean"):
        restore(network(), Checkpoint("w.pth", lacking))


def test_the_first_of_many_missing_tensors_are_named():
    with pytest.raises(ModelError, match=r"8 missing: 0\.weight, 0\.bias, .* and 4 more"):
        restore(network(), Checkpoint("w.pth", {"other": torch.ones(1)}))


def test_a_network_that_does_not_fit_is_left_unchanged():
    target = network(1)

    with pytest.raises(ModelError):
        restore(target, Checkpoint("w.pth", {**tensors(2), "3.weight": torch.ones(5, 4)}))

    assert tensors_digest(target) == tensors_digest(network(1))


def test_unneeded_tensors_do_no_harm():
    target = network(1)
    restore(target, Checkpoint("w.pth", {**tensors(2), "classifier.weight": torch.ones(1000, 4)}))

    assert tensors_digest(target) == tensors_digest(network(2))


def test_a_counter_of_batches_may_be_missing():
    lacking = tensors(2)
    del lacking["1.num_batches_tracked"]
    target = network(1)
    restore(target, Checkpoint("w.pth", lacking))

    assert tensors_digest(target) == tensors_digest(network(2))


@each("name", [name for name in tensors() if "num_batches" not in name])
def test_the_digest_changes_with_any_value_of_any_tensor(name):
    one, other = network(), network()
    with torch.no_grad():
        other.state_dict()[name].view(-1)[-1] += 1e-6

    assert tensors_digest(one) != tensors_digest(other)


def test_the_digest_ignores_counters_of_batches():
    one, other = network(), network()
    other.state_dict()["1.num_batches_tracked"].fill_(1000)

    assert tensors_digest(one) == tensors_digest(other)


def test_the_digest_changes_with_a_name():
    one, other = nn.Module(), nn.Module()
    one.register_buffer("a", torch.ones(2))
    other.register_buffer("b", torch.ones(2))

    assert tensors_digest(one) != tensors_digest(other)


def test_the_digest_depends_on_shapes_and_types():
    values = (torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(6), torch.zeros(6, dtype=torch.int32))
    digests = set()
    for value in values:
        module = nn.Module()
        module.register_buffer("a", value)
        digests.add(tensors_digest(module))

    assert len(digests) == len(values)


def test_the_digest_depends_on_a_single_number():
    one, other = nn.Module(), nn.Module()
    one.register_buffer("a", torch.tensor(1.0))
    other.register_buffer("a", torch.tensor(2.0))

    assert tensors_digest(one) != tensors_digest(other)


def test_the_digest_does_not_depend_on_the_layout_in_memory_or_on_gradients():
    other = network().to(memory_format=torch.channels_last).requires_grad_(False)

    assert tensors_digest(other) == tensors_digest(network())


def test_the_digest_does_not_depend_on_the_order_of_the_modules():
    one, other = nn.Module(), nn.Module()
    one.a, one.b = nn.Linear(2, 2), nn.Linear(2, 3)
    other.b, other.a = one.b, one.a

    assert tensors_digest(one) == tensors_digest(other)


def test_a_torchscript_program_is_named_in_the_error(tmp_path):
    torch.jit.script(network()).save(str(tmp_path / "w.pt"))

    with pytest.raises(ModelError, match="it is a TorchScript program, not tensors") as caught:
        read_checkpoint(tmp_path / "w.pt")

    assert "weights_only" not in str(caught.value)


def test_a_web_page_is_not_reported_as_code(tmp_path):
    (tmp_path / "w.pth").write_text("<!doctype html><html>404</html>")

    with pytest.raises(ModelError, match=r"it was not written by torch\.save"):
        read_checkpoint(tmp_path / "w.pth")


def test_sparse_tensors_are_refused(tmp_path):
    torch.save({"a": torch.ones(2, 2).to_sparse()}, tmp_path / "w.pth")

    with pytest.raises(ModelError, match="expected a state_dict"):
        read_checkpoint(tmp_path / "w.pth")
