import json
from itertools import product
from pathlib import Path

import pytest

from bottleneck.engines.records import Check, EngineRecords, is_complete
from tests.conftest import write
from tests.variants import each

CHECK = Check("openvino 2026.4.1, cpu", "bf16", 0.99951, 0.9993, 8)


@pytest.fixture
def kept(tmp_path) -> EngineRecords:
    return EngineRecords(tmp_path / "features" / "engines")


@pytest.fixture
def engines(tmp_path) -> Path:
    """The folder of `kept`."""
    return tmp_path / "features" / "engines"


# Checks


@each("check", [CHECK, Check("torch 2.15.0, cpu", "fp32", 1.0), Check("x", "fp16", None, None, 3)])
def test_a_check_is_read_back_unchanged(kept, check):
    kept.keep_check("one", check)

    assert kept.check("one") == check
    assert kept.checks() == [check]


@each("cosine, passed", [(1.0, True), (0.9990, True), (0.9989999, False), (0.0, False), (-1.0, False), (None, False)])
def test_a_check_is_passed_from_0_999_on(cosine, passed):
    assert Check("x", "bf16", cosine).passed is passed


@each(
    "own, images, suits, lowest",
    [
        (None, 0, True, 0.9995),
        (None, 3, False, None),
        (0.9992, 8, True, 0.9992),
        (0.5, 8, False, 0.5),
        (1.0, 1, True, 0.9995),
    ],
)
def test_a_check_on_images_of_the_user(own, images, suits, lowest):
    check = Check("x", "bf16", 0.9995, own, images)

    assert (check.passed, check.suits, check.lowest) == (True, suits, lowest)


def test_a_later_check_replaces_an_earlier_one(kept):
    kept.keep_check("one", Check("x", "bf16", 0.5))
    kept.keep_check("one", CHECK)

    assert kept.check("one") == CHECK
    assert kept.checks() == [CHECK]


def test_the_checks_of_all_engines_are_listed(kept):
    others = [Check(f"engine {number}", "fp32", 1.0, 1.0, number) for number in range(3)]
    for number in (2, 0, 1):
        kept.keep_check(f"engine-{number}", others[number])

    assert kept.checks() == others


def test_a_missing_check_is_none(kept):
    assert kept.check("one") is None
    assert kept.checks() == []


@each(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"3",
        b"{}",
        b"\xff\xfe",
        b'{"engine": "x", "precision": "bf16"}',
        b'{"engine": "x", "precision": "bf16", "cosine": "high"}',
        b'{"engine": "x", "precision": "bf16", "cosine": 1.0, "own_cosine": "high", "own_images": 8}',
        b'{"engine": "x", "precision": "bf16", "cosine": 1.0, "own_cosine": 1.0, "own_images": "8"}',
        b'{"engine": "x", "precision": "bf16", "cosine": 1.0, "images": 8, "more": 1}',
    ],
)
def test_a_damaged_check_is_none(kept, engines, data):
    kept.keep_check("one", CHECK)
    kept.keep_check("other", CHECK)
    (engines / "one.json").write_bytes(data)

    assert kept.check("one") is None
    assert kept.checks() == [CHECK]


def test_a_check_that_cannot_be_written_is_not_an_error(kept, engines):
    write(engines, b"a file in place of the folder")
    kept.keep_check("one", CHECK)

    assert kept.check("one") is None


# Conversions


@pytest.fixture
def model():
    openvino = pytest.importorskip("openvino")
    given = openvino.op.Parameter(openvino.Type.f32, openvino.PartialShape([2, 3]))
    weights = openvino.op.Constant(openvino.Type.f32, openvino.Shape([2, 3]), [1.1, 2.2, 3.3, 4.4, 5.5, 6.6])
    return openvino.Model([openvino.opset13.add(given, weights)], [given], "tiny")


def test_a_conversion_is_stored_and_read_back(kept, engines, model):
    kept.keep_conversion("one", model)

    path = kept.conversion("one")

    import openvino

    assert path
    assert path.parent == engines / "one"
    again = openvino.Core().read_model(path)
    constants = [each.get_data() for each in again.get_ops() if each.get_type_name() == "Constant"]
    assert constants[0].dtype == "float32", "weights are not rounded to fp16"
    assert constants[0].flatten().tolist() == pytest.approx([1.1, 2.2, 3.3, 4.4, 5.5, 6.6], rel=1e-7)
    assert not list(engines.glob(".tmp-*"))


def test_a_missing_conversion_is_none(kept):
    assert kept.conversion("one") is None


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = {"flipped": flip, "cut short": shorten, "lost": Path.unlink, "emptied": lambda path: path.write_bytes(b"")}


def test_a_damaged_conversion_is_none_and_can_be_replaced(kept, engines, model):
    for name, (damage, spoil) in product(("model.xml", "model.bin", "hashes.json"), DAMAGES.items()):
        kept.keep_conversion("one", model)
        spoil(engines / "one" / name)
        assert kept.conversion("one") is None, (name, damage)

    kept.keep_conversion("one", model)
    assert kept.conversion("one") == engines / "one" / "model.xml"


@each("hashes", [[], {}, None, "x", {"model.xml": "0" * 64}])
def test_a_conversion_with_other_hashes_is_none(kept, engines, model, hashes):
    kept.keep_conversion("one", model)
    (engines / "one" / "hashes.json").write_text(json.dumps(hashes))

    assert kept.conversion("one") is None


def test_a_conversion_stored_twice_is_complete(kept, engines, model):
    kept.keep_conversion("one", model)
    kept.keep_conversion("one", model)

    assert kept.conversion("one")
    assert sorted(path.name for path in engines.iterdir()) == ["one"]


def test_conversions_are_not_checks(kept, model):
    kept.keep_conversion("one", model)

    assert kept.checks() == []


def test_a_conversion_that_cannot_be_written_is_not_an_error(kept, engines, model):
    write(engines, b"a file in place of the folder")

    assert kept.keep_conversion("one", model) is None
    assert kept.conversion("one") is None


def test_a_conversion_that_ends_early_is_not_complete(kept, model):
    path = kept.keep_conversion("one", model)
    text, size = path.read_bytes(), path.with_name("model.bin").stat().st_size

    assert is_complete(text, size)
    assert not is_complete(text[:200], size)
    assert not is_complete(text, size - 1)


def test_a_full_disk_keeps_the_old_conversion_and_nothing_else(kept, engines, model):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept.keep_conversion("old", model)
    for size in (0, 10, 200):  # bytes that fit into a file
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            found = [kept.keep_conversion(name, model) for name in ("old", "new")]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

        assert found == [None, None], size
        assert kept.conversion("old") == engines / "old" / "model.xml"
        assert [path.name for path in engines.iterdir()] == ["old"]
