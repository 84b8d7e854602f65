import json
import os
import pickle
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from bottleneck.errors import HeadError, RunError
from bottleneck.heads.head import FORMAT_VERSION, Head, softmax
from bottleneck.heads.kernel import KernelHead
from bottleneck.heads.linear import LinearHead
from bottleneck.heads.load import head_of, load_head
from bottleneck.heads.neighbours import NeighbourHead
from tests.variants import each

K, D = 3, 5
TENSORS = ("weight", "bias", "mean", "scale")


def make(classes: tuple[str, ...] = ("a", "b", "c"), **fields: Any) -> LinearHead:
    random = np.random.default_rng(0)
    given = {
        "family": "logistic",
        "classes": classes,
        "weight": random.normal(size=(len(classes), D)).astype(np.float32),
        "bias": random.normal(size=len(classes)).astype(np.float32),
        "mean": random.normal(size=D).astype(np.float32),
        "scale": random.uniform(0.5, 2, D).astype(np.float32),
        "inverse_temperature": 1.7,
        "fingerprint": "f" * 64,
    }
    return LinearHead(**{**given, **fields})


def features(count: int = 7, dim: int = D) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, dim)).astype(np.float32)


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


# --- what it computes -------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_formula():
    head, x = make(), features()
    expected = [
        [sum(float(w) * (float(v) - m) / s for w, v, m, s in zip(row, one, head.mean, head.scale, strict=True)) + b]
        for one in x.tolist()
        for row, b in zip(head.weight.tolist(), head.bias.tolist(), strict=True)
    ]

    np.testing.assert_allclose(head.scores(x), np.array(expected).reshape(7, K), rtol=1e-5, atol=1e-5)
    assert head.scores(x).dtype == np.float64


def test_probabilities_are_the_softmax_of_the_sharpened_scores():
    head, x = make(), features()
    powers = np.exp(1.7 * head.scores(x))

    np.testing.assert_allclose(head.probabilities(x), powers / powers.sum(axis=1, keepdims=True), rtol=1e-12)


def test_probabilities_sum_to_one_however_large_the_scores():
    probabilities = make(inverse_temperature=1e6).probabilities(features())

    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_the_prediction_is_the_most_probable_class():
    head, x = make(), features()

    assert head.predict(x).tolist() == [head.classes[i] for i in head.probabilities(x).argmax(axis=1)]


def test_the_sharpness_changes_no_prediction():
    one, other = (make(inverse_temperature=sharpness).predict(features(50)) for sharpness in (0.01, 100.0))

    assert one.tolist() == other.tolist()


def test_rows_are_divided_by_their_length_where_the_head_says_so():
    head, x = make(unit=True), features()
    lengths = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)

    np.testing.assert_allclose(head.scores(x), make().scores((x / lengths).astype(np.float32)), rtol=1e-5, atol=1e-5)
    assert np.isfinite(head.scores(np.zeros((1, D), np.float32))).all()


def test_no_images_have_no_scores():
    assert make().scores(features(0)).shape == (0, K)
    assert make().probabilities(features(0)).shape == (0, K)
    assert make().predict(features(0)).shape == (0,)


@each("x", [features(dim=D + 1), features(dim=1), features()[0], features()[None]])
@each("ask", [LinearHead.scores, LinearHead.probabilities, LinearHead.predict])
def test_features_of_another_width_are_refused(ask, x):
    with pytest.raises(HeadError, match=rf"expected features \(n, {D}\), got"):
        ask(make(), x)


def test_softmax_is_that_of_the_textbook():
    np.testing.assert_allclose(softmax(np.log([[1.0, 2.0, 5.0]])), [[0.125, 0.25, 0.625]])


def test_softmax_of_a_class_that_never_wins_is_zero():
    assert softmax(np.array([[0.0, -1e30]])).tolist() == [[1.0, 0.0]]


@each(
    "wrong",
    [
        {"bias": np.zeros(K + 1, np.float32)},
        {"bias": np.zeros((K, 1), np.float32)},
        {"mean": np.zeros(D + 1, np.float32)},
        {"scale": np.ones(D - 1, np.float32)},
        {"classes": ("a", "b")},
        {"weight": np.zeros((K + 1, D), np.float32)},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_tensors_that_do_not_add_up_are_refused(wrong):
    with pytest.raises(HeadError, match="expected"):
        replace(make(), **wrong)


def test_a_head_of_one_class_is_refused():
    with pytest.raises(HeadError):
        make(("a",))


@each("name", TENSORS)
@each("value", [np.nan, np.inf, -np.inf])
def test_tensors_that_are_not_finite_are_refused(name, value):
    tensor = getattr(make(), name).copy()
    tensor.flat[-1] = value

    with pytest.raises(HeadError, match="finite"):
        make(**{name: tensor})


def test_a_scale_of_zero_is_refused():
    with pytest.raises(HeadError, match="zero"):
        make(scale=np.array([1, 1, 0, 1, 1], np.float32))


# --- on disk ----------------------------------------------------------------------------------------------------


def kernel_head(**fields: Any) -> KernelHead:
    """Return a head of three classes with 2, 0 and 3 support vectors."""
    random, common = np.random.default_rng(2), make()
    given = {
        "family": "svm",
        "classes": common.classes,
        "mean": common.mean,
        "scale": common.scale,
        "vectors": random.normal(size=(5, D)).astype(np.float32),
        "dual": random.normal(size=(2, 5)),
        "intercept": random.normal(size=3),
        "sizes": np.array([2, 0, 3]),
        "gamma": 0.1 + 1e-17,
    }
    return KernelHead(**{**given, **fields})


def neighbour_head(**fields: Any) -> NeighbourHead:
    common = make()
    given = {
        "family": "knn",
        "classes": common.classes,
        "mean": common.mean,
        "scale": common.scale,
        "rows": features(6),
        "codes": np.array([0, 1, 2, 0, 1, 2]),
        "neighbours": 2.0,
    }
    return NeighbourHead(**{**given, **fields})


FORMS = {"linear": make, "kernel": kernel_head, "neighbours": neighbour_head}


def assert_same(found: Head, wanted: Head) -> None:
    assert type(found) is type(wanted)
    for field in fields(wanted):
        one, other = getattr(found, field.name), getattr(wanted, field.name)
        if isinstance(other, np.ndarray):
            assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()), field.name
        else:
            assert one == other, field.name


@each("form", FORMS)
def test_a_head_comes_back_bit_for_bit(tmp_path, form):
    head = FORMS[form](inverse_temperature=1 / 3, unit=True, fingerprint="e" * 64)
    head.save(tmp_path / "head.safetensors")
    found = load_head(tmp_path / "head.safetensors")

    assert_same(found, head)
    assert found.probabilities(features()).tobytes() == head.probabilities(features()).tobytes()


@each("form", FORMS)
def test_equal_heads_are_equal_files(tmp_path, form):
    for number in range(20):  # the library orders its metadata at random
        FORMS[form]().save(tmp_path / f"{number}.safetensors")

    assert len({path.read_bytes() for path in tmp_path.glob("*.safetensors")}) == 1


@each("form", FORMS)
def test_each_form_predicts_one_of_its_classes(form):
    head = FORMS[form]()

    assert set(head.predict(features(30)).tolist()) <= set(head.classes)
    np.testing.assert_allclose(head.probabilities(features(30)).sum(axis=1), 1)


def test_a_head_of_the_first_format_is_read(tmp_path):
    path = crafted(tmp_path, metadata={"format_version": "1", "form": None, "unit": None})

    assert_same(load_head(path), make())


@each("classes", [("ä", "日本"), ("", " "), ('"', "\\n\n"), ("1", "2"), ("a\udcff", "b")])
def test_any_label_comes_back(tmp_path, classes):
    make(classes).save(tmp_path / "head.safetensors")

    assert load_head(tmp_path / "head.safetensors").classes == classes


def test_a_class_that_no_image_has_comes_back(tmp_path):
    head = make(bias=np.array([0, -1e30, 1], np.float32))
    head.save(tmp_path / "head.safetensors")

    assert_same(load_head(tmp_path / "head.safetensors"), head)


def test_views_are_saved_as_what_they_show(tmp_path):
    head = make(weight=np.asfortranarray(make().weight), mean=np.arange(10, dtype=np.float32)[::2])
    head.save(tmp_path / "head.safetensors")

    assert_same(load_head(tmp_path / "head.safetensors"), head)


def test_saving_leaves_one_file(tmp_path):
    make().save(tmp_path / "new" / "head.safetensors")

    assert [path.name for path in (tmp_path / "new").iterdir()] == ["head.safetensors"]


def crafted(tmp_path: Path, tensors: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None) -> Path:
    """Write a head's file with some parts replaced; None removes one."""
    head = make()
    plain = {
        "format_version": str(FORMAT_VERSION),
        "family": head.family,
        "classes": json.dumps(head.classes),
        "sharpness": repr(head.inverse_temperature),
        "fingerprint": head.fingerprint,
        "form": "linear",
        "unit": "false",
    }
    arrays = {name: getattr(head, name) for name in TENSORS} | (tensors or {})
    texts = plain | (metadata or {})
    path = tmp_path / "head.safetensors"
    path.write_bytes(
        save(
            {name: value for name, value in arrays.items() if value is not None},
            {name: value for name, value in texts.items() if value is not None},
        )
    )
    return path


def refused(path: Path) -> str:
    with pytest.raises((RunError, HeadError)) as caught:
        load_head(path)
    return str(caught.value)


def test_a_file_made_by_hand_is_read(tmp_path):
    assert_same(load_head(crafted(tmp_path)), make())


def test_a_missing_file_is_refused_by_its_name(tmp_path):
    assert "head.safetensors" in refused(tmp_path / "head.safetensors")


def test_a_folder_is_refused(tmp_path):
    assert str(tmp_path) in refused(tmp_path)


@each("part", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, part):
    path = crafted(tmp_path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])

    assert "cannot read it" in refused(path)


@each("garbage", [b"garbage" * 50, b"\0" * 100, b"\xff" * 100, b"<!doctype html>", b"{}"])
def test_a_damaged_file_is_refused(tmp_path, garbage):
    (tmp_path / "head.safetensors").write_bytes(garbage)

    assert "head.safetensors" in refused(tmp_path / "head.safetensors")


@each("length", [2**63 - 1, 2**60, 10**8 + 1, 10**6])
def test_a_header_that_claims_a_huge_size_is_refused(tmp_path, length):
    path = crafted(tmp_path)
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])

    assert str(path) in refused(path)


def test_a_tensor_that_claims_a_huge_size_is_refused(tmp_path):
    header = json.dumps(
        {
            "__metadata__": {"format_version": "2"},
            "weight": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]},
        }
    ).encode()
    (tmp_path / "head.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 64)

    assert "head.safetensors" in refused(tmp_path / "head.safetensors")


def test_a_huge_file_is_refused_unread(tmp_path):
    path = crafted(tmp_path)
    os.truncate(path, (1 << 31) + 1)  # sparse: it takes no space

    assert "GiB" in refused(path)


@each("version", ["3", "0", "", "one", None])
def test_another_version_is_refused(tmp_path, version):
    assert "format version 2" in refused(crafted(tmp_path, metadata={"format_version": version}))


@each("name", TENSORS)
def test_a_missing_tensor_is_refused(tmp_path, name):
    assert name in refused(crafted(tmp_path, {name: None}))


@each("name", TENSORS)
def test_a_tensor_of_another_shape_is_refused(tmp_path, name):
    assert "expected" in refused(crafted(tmp_path, {name: np.ones((2, 2, 2), np.float32)}))


@each("name", TENSORS)
@each("value", [np.nan, np.inf])
def test_a_tensor_that_is_not_finite_is_refused(tmp_path, name, value):
    tensor = getattr(make(), name).copy()
    tensor.flat[0] = value

    assert "finite" in refused(crafted(tmp_path, {name: tensor}))


@each("form", ["", "forest", "Linear", "../linear", "__main__"])
def test_an_unknown_form_is_refused(tmp_path, form):
    assert "linear, kernel, neighbours" in refused(crafted(tmp_path, metadata={"form": form}))


@each("form", ["kernel", "neighbours"])
def test_the_tensors_of_another_form_are_refused(tmp_path, form):
    assert "expected" in refused(crafted(tmp_path, metadata={"form": form, "gamma": "1.0", "neighbours": "1.0"}))


@each("unit", ["", "1", "yes", "null", "[]", "[" * 100_000])
def test_a_unit_that_is_neither_true_nor_false_is_refused(tmp_path, unit):
    assert "expected" in refused(crafted(tmp_path, metadata={"unit": unit}))


IMPOSSIBLE = {
    "a size below zero": lambda: kernel_head(sizes=np.array([6, -1, 0])),
    "sizes of more vectors": lambda: kernel_head(sizes=np.array([2, 2, 3])),
    "sizes whose sum overflows": lambda: kernel_head(sizes=np.array([2**62, 2**62, 5])),
    "no gamma": lambda: kernel_head(gamma=0.0),
    "an infinite gamma": lambda: kernel_head(gamma=np.inf),
    "too few coefficients": lambda: kernel_head(dual=np.zeros((1, 5))),
    "too few intercepts": lambda: kernel_head(intercept=np.zeros(2)),
    "a vector that is no number": lambda: kernel_head(vectors=np.full((5, D), np.nan, np.float32)),
    "a class that there is not": lambda: neighbour_head(codes=np.array([0, 1, 2, 3, 1, 2])),
    "a class below zero": lambda: neighbour_head(codes=np.array([0, 1, 2, -1, 1, 2])),
    "no neighbours": lambda: neighbour_head(neighbours=0.0),
    "more neighbours than rows": lambda: neighbour_head(neighbours=7.0),
    "half a neighbour": lambda: neighbour_head(neighbours=1.5),
    "neighbours that are no number": lambda: neighbour_head(neighbours=np.nan),
}


@each("case", IMPOSSIBLE)
def test_parameters_that_make_no_head_are_refused(case):
    with pytest.raises(HeadError, match="expected"):
        IMPOSSIBLE[case]()


@each("form", ["kernel", "neighbours"])
@each("part", [0.1, 0.5, 0.99])
def test_a_truncated_file_of_each_form_is_refused(tmp_path, form, part):
    path = tmp_path / "head.safetensors"
    FORMS[form]().save(path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])

    assert "expected" in refused(path)


@each("form", FORMS)
@settings(max_examples=60)
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=8))
def test_a_file_with_flipped_bits_is_refused_or_read_as_numbers(form, flips):
    data = bytearray(FORMS[form]().to_bytes())
    for part, bit in flips:
        data[int(part * len(data))] ^= 1 << bit

    found = None
    with suppress(RunError, HeadError):
        found = head_of(bytes(data), Path("head.safetensors"))
    assert found is None or all(np.isfinite(getattr(found, name)).all() for name in found.tensors)


@each("name", ["family", "classes", "sharpness", "fingerprint"])
def test_a_missing_text_is_refused(tmp_path, name):
    assert name in refused(crafted(tmp_path, metadata={name: None}))


@each(
    "classes",
    [
        "",
        "{",
        "null",
        "5",
        '["a", "b"]',
        '"abc"',
        "[1, 2, 3]",
        '["a", null, "c"]',
        '["a", "a", "b"]',
        '["\\ud800", "a", "b"]',
    ],
)
def test_classes_that_are_no_list_of_labels_are_refused(tmp_path, classes):
    assert "expected" in refused(crafted(tmp_path, metadata={"classes": classes}))


@each("sharpness", ["", "many", "nan", "inf", "-inf", "-1.0", "0.0"])
def test_an_impossible_sharpness_is_refused(tmp_path, sharpness):
    assert "expected" in refused(crafted(tmp_path, metadata={"sharpness": sharpness}))


@each("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_in_place_of_a_head_runs_no_code(tmp_path, protocol):
    marker = tmp_path / "it ran"
    (tmp_path / "head.safetensors").write_bytes(pickle.dumps(Bomb(marker), protocol))

    assert "expected" in refused(tmp_path / "head.safetensors")

    assert not marker.exists()


def test_an_array_of_pickled_objects_runs_no_code(tmp_path):
    marker = tmp_path / "it ran"
    with open(tmp_path / "head.safetensors", "wb") as file:
        np.save(file, np.array([Bomb(marker)]), allow_pickle=True)

    assert "expected" in refused(tmp_path / "head.safetensors")

    assert not marker.exists()
