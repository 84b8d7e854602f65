import argparse
import collections
import datetime
import enum
import functools
import os
import pathlib
import pickle
import subprocess
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bottleneck.backbones.torch_files import module_tensors, read_plain, read_tensor
from bottleneck.backbones.unpickling import HoldsCode, Inert
from bottleneck.backbones.weights import read_checkpoint
from bottleneck.errors import ModelError
from tests.variants import each


class Mode(enum.Enum):
    """An option of a training script."""

    FAST = "fast"


class Config(dict):
    """The settings of a training script, with attributes and items."""

    def __init__(self, **values: object) -> None:
        super().__init__(values)
        self.__dict__.update(values)


class lowercase:
    """Settings of a training script that follows other habits."""

    rate = 0.1


class Callback:
    """Has a function and a method."""

    def __init__(self) -> None:
        self.function = os.path.join
        self.method = self.called

    def called(self) -> None:
        """Do nothing."""


class Calls:
    """Unpickled, it calls a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    whole = torch.randn(6, 8)
    return {
        "stem.weight": torch.randn(4, 3, 2, 2),
        "transposed": whole.T,
        "slice": whole[1:3],
        "parameter": nn.Parameter(torch.randn(5)),
        "half": torch.randn(3).half(),
        "brain": torch.randn(3).bfloat16(),
        "count": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "none": torch.empty(0, 4),
        "long": torch.arange(3),
    }


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        torch.equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype for name in wanted
    )


def linear_regression() -> object:
    from sklearn.linear_model import LinearRegression

    return LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])


def lambda_scheduler() -> object:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    return torch.optim.lr_scheduler.StepLR(optimizer, 2)


BESIDE = {
    "NumPy float": lambda: np.float64(71.2),
    "NumPy int, bool and str": lambda: [np.int32(3), np.bool_(True), np.str_("a")],
    "array": lambda: np.arange(3.0),
    "array of objects": lambda: np.array([1, "a", None], object),
    "masked array": lambda: np.ma.masked_array([1, 2], [True, False]),
    "dtype": lambda: np.dtype("float32"),
    "random generator": lambda: np.random.default_rng(0),
    "paths": lambda: [pathlib.Path("/out"), pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("C:\\a")],
    "namespace": lambda: argparse.Namespace(lr=0.1, out=Path("/out"), best=np.float32(1)),
    "collections": lambda: [
        collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]), collections.Counter("aab"),
        collections.deque([1, 2]),
    ],
    "torch's": lambda: [torch.Size([2, 3]), torch.device("cpu"), torch.float16],
    "times": lambda: [datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc), datetime.timedelta(1)],
    "sets": lambda: [{1, 2}, frozenset("a"), slice(1, 2), 1j, bytearray(b"a"), range(3)],
    "enumeration": lambda: Mode.FAST,
    "partial": lambda: functools.partial(nn.LayerNorm, eps=1e-6),
    "settings of a class": lambda: Config(lr=0.1, mode=Mode.FAST),
    "settings of a class with a small letter": lowercase,
    "callback": Callback,
    "method": lambda: Calls(getattr, Path("a"), "touch"),
    "class as a key": lambda: {Callback: {"best": 1.0}, Mode.FAST: 2, Path("a"): 3},
    "estimator": linear_regression,
    "scheduler": lambda_scheduler,
}  # fmt: skip


@each("old", [False, True])
@each("beside", BESIDE.values())
def test_plain_things_next_to_tensors_do_no_harm(tmp_path, beside, old):
    file = tmp_path / "w.pth"
    torch.save({"epoch": 3, "beside": beside(), "model": tensors()}, file, _use_new_zipfile_serialization=not old)

    found = read_checkpoint(file)

    assert same(found.tensors, tensors())
    assert found.remarks == ("taken from 'model'",)


@each("protocol", [2, 3, 4, 5])
@each("old", [False, True])
def test_any_pickle_protocol_is_read(tmp_path, protocol, old):
    content = {"state_dict": tensors(), "best": np.float64(0.5), "out": Path("/out")}
    file = tmp_path / "w.pt"
    torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=not old)

    assert same(read_checkpoint(file).tensors, tensors())


def test_nothing_is_registered_with_torch(tmp_path):
    before = torch.serialization.get_safe_globals()
    torch.save({"model": tensors(), "best": np.float64(0.5)}, tmp_path / "w.pth")
    read_checkpoint(tmp_path / "w.pth")

    assert torch.serialization.get_safe_globals() == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "w.pth", weights_only=True)


@each("old", [False, True])
def test_the_rest_of_the_file_is_not_read(tmp_path, monkeypatch, old):
    content = {"best": np.float64(0.5), "model": {"a": torch.ones(2)}, "optimizer": [torch.zeros(1000)]}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)

    found = read_plain(tmp_path / "w.pth")

    assert read_tensor(found["model"]["a"]).tolist() == [1, 1]
    assert "bytes" not in vars(found["optimizer"][0].storage.region)


@each("checksums", [False, True])
def test_a_file_without_checksums_is_read(tmp_path, checksums):
    if not hasattr(torch.serialization, "set_crc32_options"):
        checksums = True  # this version always writes them
    else:
        before = torch.serialization.get_crc32_options()
        torch.serialization.set_crc32_options(checksums)
    try:
        torch.save({"model": tensors(), "best": np.float64(0.5)}, tmp_path / "w.pth")
    finally:
        if hasattr(torch.serialization, "set_crc32_options"):
            torch.serialization.set_crc32_options(before)

    assert same(read_checkpoint(tmp_path / "w.pth").tensors, tensors())


CODE = {
    "os.system": lambda marker: (os.system, f"touch {marker}"),
    "eval": lambda marker: (eval, f"open({str(marker)!r}, 'w')"),
    "exec": lambda marker: (exec, f"open({str(marker)!r}, 'w')"),
    "open": lambda marker: (open, str(marker), "w"),
    "a method": lambda marker: (Path.touch, marker),
    "a class that starts programs": lambda marker: (subprocess.Popen, ["touch", str(marker)]),
    "a class that writes": lambda marker: (zipfile.ZipFile, str(marker), "w"),
    "its own function": lambda marker: (touch, marker),
}


def touch(marker: Path) -> None:
    marker.touch()


@each("old", [False, True])
@each("where", ["beside", "inside", "alone"])
@each("code", CODE.values())
def test_no_code_of_a_file_runs(tmp_path, code, where, old):
    marker, file = tmp_path / "it ran", tmp_path / "w.pth"
    bomb = Calls(*code(marker))
    content = {
        "beside": {"model": tensors(), "extra": [np.float64(1), bomb]},
        "inside": {"model": {**tensors(), "extra": bomb}},
        "alone": bomb,
    }[where]
    torch.save(content, file, _use_new_zipfile_serialization=not old)

    with pytest.raises(ModelError, match="could not read"):
        read_checkpoint(file)

    assert not marker.exists()


@each("name", ["os.system", "eval", "exec", "open", "a method", "its own function"])
def test_a_file_that_calls_functions_is_refused_and_they_are_named(tmp_path, name):
    function, *arguments = CODE[name](tmp_path / "it ran")
    torch.save({"model": tensors(), "extra": Calls(function, *arguments)}, tmp_path / "w.pth")

    with pytest.raises(ModelError, match=rf"could not read them: .*{function.__name__}.* could run code") as caught:
        read_checkpoint(tmp_path / "w.pth")

    assert isinstance(caught.value.__cause__, HoldsCode)


def build(target: bytes, attribute: str) -> bytes:
    """Return a pickle that puts an attribute onto what `target` pushes: a class, or a function."""
    name = pickle.dumps({attribute: 1}, 2)[2:-1]
    return b"\x80\x02" + target + b"N" + name + b"\x86b."


@each(
    "target, attribute, victim",
    [
        (b"cargparse\nNamespace\n", "__eq__", argparse.Namespace),
        (b"ctorch._utils\n_rebuild_tensor_v2\n", "__wrapped__", torch._utils._rebuild_tensor_v2),
        (b"cpathlib\nPath\n", "marked", pathlib.Path),
        (b"ccollections\nOrderedDict\n", "marked", collections.OrderedDict),
    ],
)
def test_a_pickle_cannot_change_the_classes_of_this_process(tmp_path, target, attribute, victim):
    archive = tmp_path / "w.pth"
    before = getattr(victim, attribute, None)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("w/data.pkl", build(target, attribute))

    with suppress(TypeError, AttributeError):
        read_plain(archive)

    assert getattr(victim, attribute, None) is before
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("w/data.pkl", b"\x80\x02" + target + b".")
    assert getattr(read_plain(archive), "marked", None) is None  # nor what a later file is read with


@each("module", ["pathlib", "pathlib._local"])
def test_paths_of_any_python_do_no_harm(tmp_path, module):
    called = f"c{module}\nPosixPath\n".encode() + pickle.dumps("/out", 2)[2:-1] + b"\x85R"
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as file:
        file.writestr("w/data.pkl", b"\x80\x02" + called + b".")

    found = read_plain(tmp_path / "w.pth")

    assert isinstance(found, Inert)
    assert found.kind == (module, "PosixPath")


def test_what_is_not_loaded_keeps_its_items_and_its_state(tmp_path):
    torch.save(Config(lr=0.1), tmp_path / "w.pth")

    found = read_plain(tmp_path / "w.pth")

    assert isinstance(found, Inert)
    assert found.kind == (__name__, "Config")
    assert dict(found) == found.state == {"lr": 0.1}


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        collections.OrderedDict(stem=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), act=nn.ReLU(), fc=nn.Linear(4, 2))
    )


@each(
    "wrap, wrappers",
    [
        (lambda net: net, ()),
        (lambda net: {"model": net, "epoch": 3}, ("taken from 'model'",)),
        (lambda net: {"net": {"state": net, "best": np.float64(1)}}, ("taken from 'net'", "taken from 'state'")),
    ],
)
def test_the_tensors_of_a_pickled_network_are_read(tmp_path, wrap, wrappers):
    torch.save(wrap(network()), tmp_path / "w.pth")

    found = read_checkpoint(tmp_path / "w.pth")

    assert same(found.tensors, dict(network().state_dict()))
    assert found.remarks == (*wrappers, "taken from a pickled network")


def test_buffers_that_are_not_part_of_the_state_are_not_taken(tmp_path):
    net = network()
    net.register_buffer("scratch", torch.zeros(3), persistent=False)
    torch.save(net, tmp_path / "w.pth")

    assert "scratch" not in module_tensors(read_plain(tmp_path / "w.pth"))


def test_a_dictionary_that_has_some_values_that_are_not_tensors_is_read(tmp_path):
    torch.save({**tensors(), "epoch": 3, "best": np.float64(0.5)}, tmp_path / "w.pth")

    found = read_checkpoint(tmp_path / "w.pth")

    assert same(found.tensors, tensors())
    assert found.remarks == ("epoch, best not used: not tensors",)


@each(
    "content, key, others",
    [
        ({"student": 1, "teacher": 0}, "teacher", "'student'"),
        ({"encoder": 1, "predictor": 1, "target_encoder": 0}, "target_encoder", "'encoder', 'predictor'"),
        ({"params": 1, "params_ema": 0}, "params_ema", "'params'"),
    ],
)
def test_the_teacher_is_used_instead_of_the_student_and_reported(tmp_path, content, key, others):
    states = {name: {"a": torch.full((2,), float(value))} for name, value in content.items()}
    torch.save({**states, "best": np.float64(1)}, tmp_path / "w.pth")

    found = read_checkpoint(tmp_path / "w.pth")

    assert found.tensors["a"].tolist() == [0, 0]
    assert found.remarks == (f"taken from {key!r} ({others} not used)",)


@each("old", [False, True])
@each("part", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_a_model_error(tmp_path, old, part):
    file = tmp_path / "w.pth"
    torch.save({"model": tensors(), "best": np.float64(0.5)}, file, _use_new_zipfile_serialization=not old)
    data = file.read_bytes()
    file.write_bytes(data[: int(part * len(data))])

    with pytest.raises(ModelError, match="could not read"):
        read_checkpoint(file)


def test_endless_wrappers_are_refused(tmp_path):
    endless: dict[str, object] = {"b": {"a": torch.ones(2)}}
    endless["model"] = endless
    torch.save(endless, tmp_path / "w.pth")

    with pytest.raises(ModelError, match="expected a state_dict"):
        read_checkpoint(tmp_path / "w.pth")
