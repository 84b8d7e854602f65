import hashlib
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save
from torch import nn

from bottleneck.errors import RunError
from bottleneck.finetuning import checkpoint
from bottleneck.finetuning.checkpoint import load_checkpoint, save_checkpoint
from bottleneck.finetuning.history import Epoch, History
from bottleneck.utils.tree import Tree
from tests.variants import each

KINDS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "plain-sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
}


def epoch(number):
    train = None if number == 0 else 0.1 + 0.2  # no short number
    return Epoch(
        number=number, train_loss=train, train_accuracy=train, val_loss=1 / (number + 3), val_accuracy=2 / 3,
        lr=0.1, seconds=1e-17,
    )  # fmt: skip


class Training:
    """A layer that is trained on random numbers."""

    def __init__(self, kind):
        torch.manual_seed(0)
        self.layer = nn.Linear(5, 3)
        groups = [{"params": [self.layer.weight], "weight_decay": 0.01}, {"params": [self.layer.bias]}]
        self.optimizer = KINDS[kind](groups)
        self.history = History(average={"weight": torch.ones(3, 5)})
        self.history.add(epoch(0), self.layer.state_dict())

    def step(self, number):
        torch.manual_seed(number)
        self.optimizer.zero_grad()
        self.layer(torch.randn(4, 5)).square().sum().backward()
        self.optimizer.step()
        self.history.add(epoch(number), self.layer.state_dict())

    def save(self, folder):
        save_checkpoint(folder, self.history, self.layer.state_dict(), self.optimizer)

    def load(self, folder):
        found = load_checkpoint(folder, self.optimizer)
        if found:
            self.history = found[0]
            self.layer.load_state_dict(found[1])
        return found


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return one == other


@each("kind", KINDS)
def test_training_continues_from_it_bit_for_bit(tmp_path, kind):
    whole = Training(kind)
    for number in (1, 2, 3):
        whole.step(number)
    whole.save(tmp_path)
    again = Training(kind)
    again.load(tmp_path)
    assert again.history.epochs == whole.history.epochs
    assert again.history.best == whole.history.best
    for name in ("best_tensors", "average"):
        one, other = getattr(again.history, name), getattr(whole.history, name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    one, other = (training.optimizer.state_dict()["state"] for training in (again, whole))
    assert one.keys() == other.keys()
    for place in other:
        assert one[place].keys() == other[place].keys()
        for name, value in other[place].items():
            assert same(one[place][name], value), (place, name)
    for training in (again, whole):
        training.step(4)
    for name, value in whole.layer.state_dict().items():
        assert torch.equal(value, again.layer.state_dict()[name])


def test_there_is_no_checkpoint_before_the_first_epoch(tmp_path):
    assert Training("sgd").load(tmp_path) is None
    assert Training("sgd").load(tmp_path / "missing") is None


def test_one_tensors_file_is_left(tmp_path):
    training = Training("sgd")
    for number in (1, 2, 3):
        training.step(number)
        training.save(tmp_path)
        assert len(list(tmp_path.iterdir())) == 2


class Killed(BaseException):
    pass


@each("file", ["safetensors", "state.json"])
def test_a_kill_before_either_write_leaves_the_previous_checkpoint(tmp_path, monkeypatch, file):
    training = Training("adamw")
    training.step(1)
    training.save(tmp_path)
    weight = training.layer.weight.detach().clone()

    write = Tree.write

    def kill(tree, path, data):
        if path.name.endswith(file):
            raise Killed
        write(tree, path, data)

    training.step(2)
    with monkeypatch.context() as patch:
        patch.setattr(Tree, "write", kill)
        with pytest.raises(Killed):
            training.save(tmp_path)
    again = Training("adamw")
    again.load(tmp_path)
    assert again.history.last == 1
    assert torch.equal(again.layer.weight, weight)
    training.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_missing_average_stays_none(tmp_path):
    training = Training("sgd")
    training.history.average = None
    training.save(tmp_path)
    again = Training("sgd")
    again.load(tmp_path)
    assert again.history.average is None


def changed(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def changed_epoch(file, **values):
    *others, last = json.loads(file.read_text())["epochs"]
    changed(file, epochs=[*others, {**last, **values}])


@each(
    "damage, message",
    [
        (lambda file: changed(file, version=2), "version 1 .* found 2"),
        (lambda file: changed(file, version=None), "version 1 .* found None"),
        (lambda file: changed(file, tensors="0.safetensors"), "expected the tensors of a checkpoint"),
        (lambda file: changed(file, tensors=5), "cannot read"),
        (lambda file: changed(file, epochs=[{"number": 1}]), "cannot read"),
        (lambda file: changed(file, epochs=5), "cannot read"),
        (lambda file: changed(file, optimizer=[]), "cannot read"),
        (lambda file: changed(file, optimizer={"x/y": 1}), "cannot read"),
        (lambda file: changed(file, best=7), "cannot read"),
        (lambda file: changed(file, best=None), "cannot read"),
        (lambda file: changed(file, best=float("inf")), "cannot read"),
        (lambda file: changed(file, best=float("nan")), "cannot read"),
        (lambda file: changed(file, best=0.5), "cannot read"),
        (lambda file: changed(file, best=True), "cannot read"),
        (lambda file: changed(file, best="0"), "cannot read"),
        (lambda file: changed(file, best=-1), "cannot read"),
        (lambda file: changed_epoch(file, number=float("inf")), "cannot read"),
        (lambda file: changed_epoch(file, number=7), "the epochs 0, 1, 2"),
        (lambda file: changed_epoch(file, val_loss=float("nan")), "finite numbers"),
        (lambda file: changed_epoch(file, val_loss="0"), "finite numbers"),
        (lambda file: changed_epoch(file, train_loss=float("-inf")), "finite numbers"),
        (lambda file: changed_epoch(file, val_accuracy=1.5), "accuracies from 0 to 1"),
        (lambda file: changed_epoch(file, seconds=-1), "a rate and seconds"),
        (lambda file: changed_epoch(file, lr=[0.1]), "finite numbers"),
        (lambda file: file.write_text(file.read_text().replace('"best": 1', '"best": 1e999')), "cannot read"),
        (lambda file: changed(file, tensors="../0.safetensors"), "cannot read"),
        (lambda file: changed(file, tensors="/dev/zero"), "cannot read"),
        (lambda file: changed(file, optimizer={"0/momentum": float("inf")}), "cannot read"),
        (lambda file: changed(file, optimizer={"99/step": 1}), "the state of 2 parameters"),
        (lambda file: changed(file, optimizer={"0/momentum_buffer": "x"}), "cannot read"),
        (lambda file: changed(file, optimizer={"0/momentum_buffer": 5}), "cannot read"),
        (lambda file: changed(file, optimizer={"0/odd": None}), "expected momentum_buffer"),
        (lambda file: file.write_text("{"), "cannot read"),
        (lambda file: file.write_text("[]"), "cannot read"),
        (lambda file: file.write_bytes(b"\xff\xfe\x00"), "cannot read"),
    ],
)
def test_damage_and_other_versions_are_refused(tmp_path, damage, message):
    training = Training("sgd")
    training.step(1)
    training.save(tmp_path)
    damage(tmp_path / "state.json")
    with pytest.raises(RunError, match=message):
        Training("sgd").load(tmp_path)


def test_the_state_of_another_optimizer_is_refused(tmp_path):
    training = Training("adamw")
    training.step(1)
    training.save(tmp_path)
    with pytest.raises(RunError, match="expected momentum_buffer"):
        Training("sgd").load(tmp_path)


def test_changed_or_missing_tensors_are_refused(tmp_path):
    training = Training("sgd")
    training.save(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(RunError, match="has changed"):
        Training("sgd").load(tmp_path)
    file.unlink()
    with pytest.raises(RunError, match="found none: start again"):
        Training("sgd").load(tmp_path)


def replaced(folder, change):
    """Let a checkpoint name tensors that are changed, with their own hash."""
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    change(tensors)
    data = save(tensors)
    name = f"{hashlib.sha256(data).hexdigest()}.safetensors"  # as earlier versions have named it
    (folder / name).write_bytes(data)
    changed(folder / "state.json", tensors=name)


def test_a_checkpoint_of_an_earlier_version_is_read(tmp_path):
    training = Training("adamw")
    training.step(1)
    training.save(tmp_path)
    replaced(tmp_path, lambda tensors: None)
    assert Training("adamw").load(tmp_path)[0].epochs == training.history.epochs


@each(
    "change",
    [
        lambda tensors: tensors.pop("best/weight"),
        lambda tensors: tensors.update({"best/weight": torch.zeros(3, 4)}),
        lambda tensors: tensors.update({"best/bias": torch.zeros(3, dtype=torch.int64)}),
        lambda tensors: tensors.update({"average/other": torch.zeros(3)}),
        lambda tensors: tensors.update({"average/weight": torch.zeros(1)}),
        lambda tensors: tensors.update({"optimizer/0/exp_avg": torch.zeros(5, 3)}),
        lambda tensors: tensors.update({"optimizer/7/exp_avg": torch.zeros(1)}),
    ],
)
def test_inconsistent_groups_of_tensors_are_refused(tmp_path, change):
    training = Training("adamw")
    training.step(1)
    training.save(tmp_path)
    replaced(tmp_path, change)
    with pytest.raises(RunError, match="cannot read"):
        Training("adamw").load(tmp_path)


# --- two writers, where a lock does not hold --------------------------------------------------------------------


def as_another(monkeypatch, number):
    monkeypatch.setattr(checkpoint, "_WRITER", f"{number:08x}")


def named(folder):
    return folder / json.loads((folder / "state.json").read_text())["tensors"]


@each("moment", ["before the tensors", "before the state", "before cleaning"])
def test_two_writers_never_lose_the_checkpoint(tmp_path, monkeypatch, moment):
    one, two = Training("adamw"), Training("adamw")
    for training in (one, two):  # both have resumed the same epoch, and compute the same numbers
        training.step(1)
    one.save(tmp_path)

    def other(*_):
        """Let the second writer save two epochs while the first is in the middle of one."""
        with monkeypatch.context() as patch:
            patch.setattr(Tree, "write", write_whole)
            patch.setattr(checkpoint, "_clean", clean)
            as_another(patch, 2)
            for number in (2, 3):
                two.step(number)
                two.save(tmp_path)
                assert named(tmp_path).exists()

    write_whole, clean = Tree.write, checkpoint._clean
    moments = {"before the tensors": ".safetensors", "before the state": "state.json"}

    def write(tree, path, data):
        if path.name.endswith(moments.get(moment, "never")):
            other()
        write_whole(tree, path, data)

    def cleaned(*words):
        if moment == "before cleaning":
            other()
        clean(*words)

    one.step(2)
    with monkeypatch.context() as patch:
        patch.setattr(Tree, "write", write)
        patch.setattr(checkpoint, "_clean", cleaned)
        one.save(tmp_path)
        assert named(tmp_path).exists()
    assert Training("adamw").load(tmp_path)[0].last in (2, 3)
    for number in (3, 4):
        one.step(number)
        one.save(tmp_path)
        assert named(tmp_path).exists()


def test_a_reader_finds_a_checkpoint_that_is_replaced_meanwhile(tmp_path, monkeypatch):
    training = Training("adamw")
    training.step(1)
    training.save(tmp_path)
    reads, read_whole = [], Tree.read

    def read(tree, path, *largest):
        if path.name == "state.json":
            return read_whole(tree, path, *largest)
        reads.append(path)
        if len(reads) == 1:
            training.step(2)
            training.save(tmp_path)
        return read_whole(tree, path, *largest)

    monkeypatch.setattr(Tree, "read", read)
    assert Training("adamw").load(tmp_path)[0].last == 2
    assert len(set(reads)) == 2


def test_abandoned_tensors_are_removed_and_recent_ones_kept(tmp_path):
    training = Training("sgd")
    old, fresh = tmp_path / f"{'0' * 64}-aaaaaaaa-1.safetensors", tmp_path / f"{'1' * 64}-aaaaaaaa-2.safetensors"
    for file in (old, fresh):
        file.write_bytes(b"")
    os.utime(old, (1, 1))
    training.save(tmp_path)
    assert not old.exists()
    assert fresh.exists()
