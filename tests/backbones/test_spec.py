import copy
import json
from dataclasses import fields, replace
from typing import Any

import pytest

from bottleneck.backbones.spec import SPEC_VERSION, Spec
from bottleneck.errors import CacheError
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.images.view import View
from tests.variants import each

SPEC_CHANGES: dict[str, Any] = {
    "backbone": "other",
    "weights": "1" * 64,
    "layer": "avgpool:input",
    "pooling": "none",
    "transform_input": True,
    "precision": "bf16",
    "decoder": 2,
    "flip": True,
}
PREPROCESSING_CHANGES: dict[str, Any] = {
    "fast_jpeg": True,
    "resize": 33,
    "crop": 27,
    "interpolation": "bicubic",
    "antialias": False,
    "mean": (0.485, 0.456, 0.407),
    "std": (0.229, 0.224, 0.226),
    "mode": "squash",
    "view": View(augmentation="light", seed=0, number=0),
}


def changed(preprocessing: Preprocessing, **changes: Any) -> Preprocessing:
    # Not by replace(): what the class refuses today (antialias False) counts in the fingerprint all the same.
    other = copy.copy(preprocessing)
    for name, value in changes.items():
        object.__setattr__(other, name, value)
    return other


def test_the_changes_below_cover_every_field():
    assert {field.name for field in fields(Spec)} == {*SPEC_CHANGES, "preprocessing"}
    assert {field.name for field in fields(Preprocessing)} == set(PREPROCESSING_CHANGES)


@each("name", SPEC_CHANGES)
def test_every_field_changes_the_fingerprint(spec, name):
    assert replace(spec, **{name: SPEC_CHANGES[name]}).fingerprint != spec.fingerprint


@each("name", PREPROCESSING_CHANGES)
def test_every_field_of_the_preprocessing_changes_the_fingerprint(spec, name):
    other = changed(spec.preprocessing, **{name: PREPROCESSING_CHANGES[name]})

    assert replace(spec, preprocessing=other).fingerprint != spec.fingerprint


def test_every_field_of_a_view_changes_the_fingerprint(spec):
    views = [View(augmentation=name, seed=0, number=0) for name in ("light", "standard", "strong")]
    views += [View(augmentation="light", seed=1, number=0), View(augmentation="light", seed=0, number=1)]
    specs = [replace(spec, preprocessing=replace(spec.preprocessing, view=view)) for view in (None, *views)]

    assert len({one.fingerprint for one in specs}) == 6


def test_equal_specs_have_one_fingerprint(spec):
    assert copy.deepcopy(spec).fingerprint == spec.fingerprint


def test_the_fingerprint_is_64_hexadecimal_digits(spec):
    assert len(spec.fingerprint) == 64
    assert set(spec.fingerprint) <= set("0123456789abcdef")


def test_the_fingerprint_stays_what_it_was_in_earlier_releases(spec):
    # Every cache in the world is keyed by it: a change here means that SPEC_VERSION was raised on purpose.
    assert spec.fingerprint == "d6165c9cfd764420e1d0564ad543f43bb542e8ec8dbedcec7bc01c42715912ff"


def test_a_spec_survives_json(spec):
    assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_spec_with_a_view_survives_json(spec):
    seen = replace(spec, preprocessing=replace(spec.preprocessing, view=View(augmentation="strong", seed=3, number=7)))

    assert Spec.from_json(json.loads(json.dumps(seen.to_json()))) == seen
    # As above: caches of views are keyed by it.
    assert seen.fingerprint == "84019debe20fd29151c833483082dee901ac980a25d6eff956d96fd2282176fd"


@each("garbage", [None, 5, "x", [], {}, {"augmentation": "light"}, {"number": "0"}, ["light", 0, 0]])
def test_a_spec_with_an_invalid_view_is_refused(spec, garbage):
    preprocessing = {**spec.preprocessing.to_json(), "view": garbage}

    with pytest.raises(CacheError, match="expected a spec"):
        Spec.from_json({**spec.to_json(), "preprocessing": preprocessing})


@each("version", [0, SPEC_VERSION + 1, "1", None])
def test_a_spec_of_another_version_is_refused(spec, version):
    with pytest.raises(CacheError, match="version"):
        Spec.from_json({**spec.to_json(), "version": version})


@each("garbage", [None, 5, "spec", [], {}, {"version": SPEC_VERSION}, [["version", SPEC_VERSION]]])
def test_what_is_not_a_spec_is_refused(garbage):
    with pytest.raises(CacheError, match="expected a spec"):
        Spec.from_json(garbage)


@each("name", [*sorted(SPEC_CHANGES.keys() - {"flip"}), "preprocessing", "version"])
def test_a_spec_that_lacks_a_field_is_refused(spec, name):
    value = spec.to_json()
    del value[name]

    with pytest.raises(CacheError, match="expected a spec"):
        Spec.from_json(value)


def test_a_spec_with_a_field_too_many_is_refused(spec):
    with pytest.raises(CacheError, match="expected a spec"):
        Spec.from_json({**spec.to_json(), "colour": "red"})


@each("garbage", [None, 5, "x", [], {}, {"resize": 1}])
def test_a_spec_with_invalid_preprocessing_is_refused(spec, garbage):
    with pytest.raises(CacheError, match="expected a spec"):
        Spec.from_json({**spec.to_json(), "preprocessing": garbage})


@each("name, value", [("crop", -33), ("crop", 0), ("interpolation", "magic"), ("resize", "32")])
def test_a_spec_with_impossible_preprocessing_is_refused(spec, name, value):
    preprocessing = {**spec.preprocessing.to_json(), name: value}

    with pytest.raises(CacheError, match="expected a spec"):
        Spec.from_json({**spec.to_json(), "preprocessing": preprocessing})
