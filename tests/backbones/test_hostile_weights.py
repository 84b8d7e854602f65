"""Files that were made to run code, or to take memory and time, in place of weights."""

import io
import pickle
import pickletools
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from bottleneck.backbones.unpickling import interpret
from bottleneck.backbones.weights import read_checkpoint
from bottleneck.errors import ModelError
from tests.variants import each

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": 1001, "little_endian": sys.byteorder == "little", "type_sizes": {}}


class Bomb:
    """Unpickled, it runs a command that leaves a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        import os

        return os.system, (f"echo > '{self.marker}'",)


class Storage:
    """Pickled by `Saver`, it is a storage that claims so many numbers."""

    def __init__(self, key: str, count: int) -> None:
        self.id = ("storage", torch.FloatStorage, key, "cpu", count)


class Tensor:
    """Pickled, it is a tensor as torch.save describes one."""

    def __init__(self, storage: Storage, shape: tuple[int, ...], stride: tuple[int, ...] | None = None) -> None:
        self.arguments = storage, 0, shape, stride or (1,) * len(shape), False, {}

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


class Saver(pickle.Pickler):
    def persistent_id(self, value: object) -> object:
        return value.id if isinstance(value, Storage) else None


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    Saver(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def archive(content: bytes, members: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return what torch.save writes: a pickle and storages in an archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as found:
        found.writestr("archive/data.pkl", content)
        for name, data in (members or {}).items():
            found.writestr(f"archive/{name}", data, compression, compresslevel=1)
    return buffer.getvalue()


def old(content: bytes, keys: list[str], *storages: tuple[int, bytes]) -> bytes:
    """Return what torch.save wrote before it had archives."""
    begin = b"".join(pickle.dumps(one, 2) for one in (MAGIC, PROTOCOL, SYSTEM))
    return begin + content + pickle.dumps(keys, 2) + b"".join(struct.pack("<q", n) + data for n, data in storages)


# --- no code runs -------------------------------------------------------------------------------------------------


def tar(marker: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as found:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            data = pickle.dumps(Bomb(marker), 2)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            found.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def scripted(marker: Path) -> bytes:
    members = {"constants.pkl": pickle.dumps(Bomb(marker), 2), "code/__torch__.py": b"import os", "version": b"3\n"}
    return archive(pickle.dumps(Bomb(marker), 2), members)


FORMS: dict[str, Callable[[Path], bytes]] = {
    "pickle": lambda marker: pickle.dumps(Bomb(marker)),
    "archive": lambda marker: archive(pickle.dumps({"a": Bomb(marker)}, 2)),
    "archive beside tensors": lambda marker: archive(
        pickled({"a": Tensor(Storage("0", 2), (2,)), "b": Bomb(marker)}), {"data/0": b"\0" * 8}
    ),
    "old format": lambda marker: old(pickle.dumps({"a": Bomb(marker)}, 2), []),
    "old format, in the system": lambda marker: (
        pickle.dumps(MAGIC, 2) + pickle.dumps(PROTOCOL, 2) + pickle.dumps(Bomb(marker), 2)
    ),
    "old format, in the keys": lambda marker: old(pickle.dumps({}, 2), Bomb(marker)),  # type: ignore[arg-type]
    "tar": tar,
    "TorchScript": scripted,
    "array of objects": lambda marker: b"\x93NUMPY" + pickle.dumps(Bomb(marker)),
}


@each("suffix", [".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors", ""])
@each("form", FORMS)
def test_no_file_runs_code(tmp_path: Path, form: str, suffix: str) -> None:
    marker, path = tmp_path / "it ran", tmp_path / f"w{suffix}"
    path.write_bytes(FORMS[form](marker))

    with pytest.raises(ModelError):
        read_checkpoint(path)

    assert not marker.exists()


def test_the_bomb_of_these_tests_goes_off(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "it ran")))
    assert (tmp_path / "it ran").exists()


def test_no_unpickler_is_used(tmp_path: Path) -> None:
    content = {"model": {"a": torch.arange(3.0)}, "epoch": 3}
    for new in (True, False):
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=new)
        assert unpicklers_called(torch.load, tmp_path / "w.pth")
        assert unpicklers_called(read_checkpoint, tmp_path / "w.pth") <= {"pickle.decode_long"}  # of pickletools
        assert torch.equal(read_checkpoint(tmp_path / "w.pth").tensors["a"], torch.arange(3.0))


UNPICKLERS = {"pickle", "_pickle", "torch.serialization", "torch._weights_only_unpickler", "torch.jit._serialization"}


def unpicklers_called(call: Callable[[Path], object], path: Path) -> set[str]:
    """Return the functions and methods of unpicklers that a call runs."""
    called: set[str] = set()

    def note(frame: FrameType, event: str, function: Any) -> None:
        if event == "call" and frame.f_globals.get("__name__") in UNPICKLERS:
            called.add(f"{frame.f_globals['__name__']}.{frame.f_code.co_name}")
        elif event == "c_call":
            module = function.__module__ or type(function.__self__).__module__
            called.update({f"{module}.{function.__name__}"} if module in UNPICKLERS else set())

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call(path)
    finally:
        sys.setprofile(before)
    return called


# --- no more memory than the file justifies -----------------------------------------------------------------------


def in_one_place() -> bytes:
    """Return an archive of 4,000 members of 4 MB, which lie in one place."""
    count = 1 << 20
    content = pickled({f"a{n}": Tensor(Storage(str(n), count), (count,)) for n in range(4000)})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as found:
        found.writestr("archive/data.pkl", content)
        found.writestr("archive/data/0", bytes(4 * count))
        (first,) = (one for one in found.filelist if one.filename.endswith("/0"))
        for number in range(1, 4000):
            other = zipfile.ZipInfo(f"archive/data/{number}")
            for name in ("header_offset", "file_size", "compress_size", "CRC", "compress_type"):
                setattr(other, name, getattr(first, name))
            found.filelist.append(other)
    return buffer.getvalue()


def claiming(size: int) -> bytes:
    """Return an archive whose storage claims to be of some size."""
    content = pickled({"a": Tensor(Storage("0", size // 4), (size // 4,))})
    data = archive(content, {"data/0": b"\0" * 64})
    place = data.rindex(b"PK\x01\x02")
    return data[: place + 20] + struct.pack("<2L", size, size) + data[place + 28 :]


def many(tensor: Tensor) -> bytes:
    return archive(pickled({f"a{n}": tensor for n in range(100)}), {"data/0": bytes(1 << 20)})


CLAIMS: dict[str, Callable[[], bytes]] = {
    "terabytes, in the old format": lambda: old(
        pickled({"a": Tensor(Storage("0", 1 << 40), (1 << 40,))}), ["0"], (1 << 40, bytes(64))
    ),
    "less than nothing": lambda: old(pickled({"a": Tensor(Storage("0", -8), (2,))}), ["0"], (-8, bytes(64))),
    "gigabytes, in an archive": lambda: claiming(1 << 31),
    "compressed": lambda: archive(
        pickled({"a": Tensor(Storage("0", 1 << 26), (1 << 26,))}), {"data/0": bytes(1 << 28)}, zipfile.ZIP_DEFLATED
    ),
    "in one place": in_one_place,
    "one number, repeated": lambda: archive(
        pickled({"a": Tensor(Storage("0", 1), (1 << 40,), (0,))}), {"data/0": b"\0" * 4}
    ),
    "rows that overlap": lambda: archive(
        pickled({"a": Tensor(Storage("0", 1 << 18), (1 << 17, 1 << 17), (1, 1))}), {"data/0": bytes(1 << 20)}
    ),
    "the same numbers, often": lambda: many(Tensor(Storage("0", 1 << 18), (1 << 18,))),
    "beyond the storage": lambda: archive(
        pickled({"a": Tensor(Storage("0", 4), (2, 2), (1 << 40, 1))}), {"data/0": b"\0" * 16}
    ),
    "shapes of a shape": lambda: archive(pickled({"a": Tensor(Storage("0", 4), ((2, 2), 1))}), {"data/0": bytes(16)}),
    "more members than any network": lambda: archive(pickled({}), {f"{n:0100}": b"" for n in range(60_000)}),
}

READ = """
import sys
from pathlib import Path
import torch
from bottleneck.backbones.weights import read_checkpoint
from bottleneck.errors import ModelError

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

for path in sys.argv[1:]:
    before = peak()
    try:
        read_checkpoint(Path(path))
        print("read", path)
    except ModelError:
        pass
    if peak() - before > 200_000 + Path(path).stat().st_size // 1000:
        print(path, "took", peak() - before, "kB")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_not_allocated_for_what_a_file_only_claims(tmp_path: Path) -> None:
    paths = []
    for number, make in enumerate(CLAIMS.values()):
        paths.append(tmp_path / f"{number}.pth")
        paths[-1].write_bytes(make())
    for number, size in enumerate((1 << 62, 1 << 40, 1 << 27)):
        paths.append(tmp_path / f"{number}.safetensors")
        with open(paths[-1], "wb") as file:
            file.write(struct.pack("<Q", size) + b"{")
            file.truncate(1 << 28)  # of which the disk has nothing

    done = subprocess.run([sys.executable, "-c", READ, *map(str, paths)], capture_output=True, text=True)

    assert (done.stdout, done.returncode) == ("", 0), done.stderr


@each("claim", ["in one place", "the same numbers, often", "compressed"])
def test_the_files_with_false_claims_are_otherwise_in_the_format_of_torch(tmp_path: Path, claim: str) -> None:
    (tmp_path / "w.pth").write_bytes(CLAIMS[claim]())
    with zipfile.ZipFile(tmp_path / "w.pth") as found:
        assert "archive/data.pkl" in found.namelist()
    torch.save({"a": torch.zeros(3), "b": torch.zeros(3)}, tmp_path / "good.pth")
    assert read_checkpoint(tmp_path / "good.pth").tensors.keys() == {"a", "b"}


def test_tensors_that_share_their_numbers_are_read(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    content = {"a": shared, "b": shared, "c": shared.view(2, 3).T, "d": torch.ones(1).expand(4), "e": torch.ones(2)}
    torch.save(content, tmp_path / "w.pth")
    found = read_checkpoint(tmp_path / "w.pth").tensors
    assert all(torch.equal(found[name], value) for name, value in content.items())


# --- no time without end ------------------------------------------------------------------------------------------


def doubled(depth: int = 200) -> bytes:
    """Return the steps that make a tuple of two of a tuple of two ..., which takes no room, and for ever to look at."""
    return b"\x80\x02)" + b"2\x86" * depth


ENDLESS = {
    "a key": b"}" + doubled() + b"Ns.",
    "a member of a set": b"(" + doubled() + b"\x91.",
    "what is called": doubled() + b")R.",
    "the name of a class": doubled() + b"X\x01\x00\x00\x00a\x93.",
    "a persistent id": doubled() + b"\x85Q.",
    "a storage": b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + doubled() + b"X\x03\x00\x00\x00cpuK\x01tQ.",
    "copies of a list": (
        b"]q\x00(" + b"N" * 50_000 + b"e0" + b"cbuiltins\nset\nh\x00\x85R0" * 200_000 + b"N."
    ),
    "copies of a dictionary": (
        b"}q\x00(" + b"".join(b"J" + struct.pack("<i", n) + b"N" for n in range(50_000)) + b"u0"
        + b"ccollections\nOrderedDict\nh\x00\x85R0" * 200_000 + b"N."
    ),
    "an attribute of an attribute": (
        b"cx\nA\n" + (b"q\x000cbuiltins\ngetattr\nh\x00X\x00\x10\x00\x00" + b"a" * 4096 + b"\x86R") * 10_000 + b"."
    ),
    "the name of a key that is shown": b"}" + b"cx\nA\n)\x81q\x01(K\x00" + doubled()[2:] + b"uNs.",
    "numbers of equal hashes": (
        b"}(" + b"".join(b"\x8a\x0a" + ((2**61 - 1) * n).to_bytes(10, "little", signed=True) + b"N"
                         for n in range(1, 40_000)) + b"u."
    ),
}  # fmt: skip


def test_a_doubled_tuple_is_read() -> None:
    *_, (last, _, _) = pickletools.genops(doubled(3) + b".")
    assert last.name == "STOP"
    assert interpret(io.BytesIO(doubled(2) + b".")) == (((), ()), ((), ()))


@each("form", ["archive", "old format"])
@each("name", ENDLESS)
def test_no_file_takes_endless_time(tmp_path: Path, name: str, form: str) -> None:
    content = ENDLESS[name]
    (tmp_path / "w.pth").write_bytes(archive(content) if form == "archive" else old(content, []))
    with pytest.raises(ModelError):
        read_checkpoint(tmp_path / "w.pth")


class Net:
    """A network of two of a network of two ..."""

    def __init__(self, inner: object) -> None:
        self._parameters, self._buffers = {}, {}
        self._modules = {"a": inner, "b": inner} if inner else {}


def test_nested_modules_end(tmp_path: Path) -> None:
    found: Net | None = None
    for _ in range(100):
        found = Net(found)
    (tmp_path / "w.pth").write_bytes(archive(pickle.dumps({"model": found}, 2)))
    with pytest.raises(ModelError):
        read_checkpoint(tmp_path / "w.pth")
