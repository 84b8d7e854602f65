"""Newer versions read what version 0.1.0 wrote, and keep what its users rely on.

Version 0.1.0 itself wrote the project, see `tests.project_0_1_0`. Newer versions may add options, keys, columns and
names: the tests only look for those of 0.1.0.
"""

import hashlib
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

import bottleneck
from bottleneck import FeatureCache, evaluate, extract, fit, load_run, predict, scan
from tests import interface
from tests.project_0_1_0 import HOME, recorded, unpacked
from tests.variants import each

EXPECTED, INTERFACE = recorded("expected"), recorded("interface")
RUNS = EXPECTED["runs"]
TINY = {"model": "timm/test_convnext", "weights": "./tiny.safetensors", "resize": 32, "crop": 32, "precision": "fp32"}
BUNDLED = {"model": "efficientnet_lite0", "layer": ["blocks.1"], "resize": 32, "crop": 32, "precision": "fp32"}

# Probabilities are rounded to 1e-9 in the file. Those of cached features differ by the order of sums in BLAS; those of
# the photos in new/ differ by the convolutions too, as their features are computed anew.
CACHED, NEW = 1e-6, 2e-3


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    project = unpacked(tmp_path_factory.mktemp("shared") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        extract("new", engine="torch", labels=False, remember=False, **TINY)  # so that no engine need be chosen
    return project


@pytest.fixture
def opened(shared, monkeypatch):
    """Run the test in a copy of the project, in which others may have run before; return its folder."""
    monkeypatch.chdir(shared)
    return shared


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Run the test in its own copy of the project."""
    monkeypatch.chdir(unpacked(tmp_path / "project"))


def missing(old, new):
    """Return what `new` lacks of `old`: names of dicts and lists, and values that differ."""
    if isinstance(old, dict):
        lost = [key for key in old if key not in new]
        return lost + [f"{key}: {one}" for key in old if key in new for one in missing(old[key], new[key])]
    if isinstance(old, list):
        return [one for one in old if one not in new]
    return [] if old is None or old == new else [f"{new!r} instead of {old!r}"]


# --- the cache ----------------------------------------------------------------------------------------------------


def test_features_are_read_bit_for_bit(opened):
    digests = scan("photos").digests
    stores = {store.spec.backbone: store for store in FeatureCache("cache").stores()}

    assert stores.keys() == EXPECTED["features"].keys()
    for backbone, wanted in EXPECTED["features"].items():
        features = stores[backbone].read(digests)
        assert stores[backbone].spec.fingerprint == wanted["fingerprint"]
        assert (str(features.dtype), list(features.shape)) == (wanted["dtype"], wanted["shape"])
        assert hashlib.sha256(np.ascontiguousarray(features).tobytes()).hexdigest() == wanted["sha256"]


@each("asked", [TINY, BUNDLED])
def test_extract_finds_all_features_and_computes_none(opened, asked):
    os.chdir(opened)
    done = extract("photos", **asked)

    assert (done.computed, done.reused) == (0, 45)
    assert done.store.spec.fingerprint == EXPECTED["features"][asked["model"]]["fingerprint"]


def test_extract_without_images_takes_those_of_the_last_extraction(opened):
    assert "45 images: 0 computed" in interface.run(f"extract {interface.TINY}")


def test_no_shard_is_damaged(project):
    assert interface.run("cache verify --json").startswith('{"cache": "cache", "shards": 4, "damage": []')


# --- runs ---------------------------------------------------------------------------------------------------------


@each("purpose", RUNS)
def test_a_run_is_loaded_predicts_and_is_evaluated_as_before(opened, purpose):
    os.chdir(opened)
    wanted = RUNS[purpose]

    run = load_run(Path("runs", wanted["name"]))
    predictions = predict(
        ["photos/test", "new"] if "new/rose/0.jpg" in wanted["predictions"] else "photos/test", run=run
    )
    found = evaluate("new" if run.is_final else "photos/test", run=run.name).to_json()

    assert list(run.classes) == wanted["classes"]
    assert run.score == wanted["score"]
    assert run.metrics.items() >= wanted["metrics"].items()
    assert [one.path for one in predictions] == list(wanted["predictions"])
    for one in predictions:
        probabilities = [probability for _, probability in sorted(one.top)]
        tolerance = NEW if one.path.startswith("new") else CACHED
        assert probabilities == pytest.approx(wanted["predictions"][one.path], abs=tolerance)
    tolerance = NEW if run.is_final else CACHED
    assert {key: found[key] for key in wanted["evaluation"]} == pytest.approx(wanted["evaluation"], abs=tolerance)


def test_a_fine_tuned_run_names_its_initial_run(opened):
    run = load_run(Path("runs", RUNS["fine-tuned"]["name"]))

    assert run.is_tuned
    assert run.card["from"]["run"] == RUNS["logistic"]["name"]
    assert [epoch["number"] for epoch in run.card["curves"]] == [0, 1, 2]
    assert run.weights.is_file()


def test_a_fine_tuning_that_was_stopped_is_resumed(project):
    run = bottleneck.finetune(resume=EXPECTED["stopped"])

    assert run.name == EXPECTED["stopped"]
    assert [epoch["number"] for epoch in run.card["curves"]] == [0, 1, 2]


@each(
    "purpose, asked",
    [
        ("logistic", {"head": "logistic"}),
        ("svm", {"head": "svm"}),
        ("ridge", {"head": "ridge"}),
        ("knn", {"head": "knn"}),
        ("svm-rbf", {"head": "svm", "kernel": "rbf"}),
        ("centroid, bundled", {"head": "centroid"}),
    ],
)
def test_a_head_fitted_to_the_cache_is_as_accurate_as_before(opened, purpose, asked):
    os.chdir(opened)
    model = load_run(Path("runs", RUNS[purpose]["name"])).card["model"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bottleneck.errors.BottleneckWarning)

        run = fit("photos", model=model, **asked)

    assert run.metrics["accuracy"] == RUNS[purpose]["metrics"]["accuracy"]
    assert run.metrics["log_loss"] == pytest.approx(RUNS[purpose]["metrics"]["log_loss"], rel=0.01)
    assert run.score == pytest.approx(RUNS[purpose]["score"], abs=0.01)  # the mean of 5 x 24 answers


def test_a_table_keeps_the_columns_that_were_named(opened):
    run = fit("flowers.csv", head="ridge", class_weight="balanced")

    assert run.metrics["accuracy"] == RUNS["ridge, table"]["metrics"]["accuracy"]


# --- what users rely on -------------------------------------------------------------------------------------------


def test_every_option_is_there_with_its_choices_and_its_default():
    assert missing(INTERFACE["options"], interface.options()) == []


def test_every_public_name_is_there_with_its_parameters():
    assert missing(INTERFACE["names"], interface.public_names()) == []


def test_commands_and_results_have_the_same_keys_columns_and_attributes(project):
    some = [RUNS["logistic"]["name"], RUNS["knn"]["name"]]

    assert missing(INTERFACE["columns"], interface.table_columns(some)) == []
    assert missing(INTERFACE["results"], interface.result_attributes(some[0])) == []
    assert missing(INTERFACE["json"], interface.json_keys(some)) == []


def test_the_project_is_small():
    assert sum(path.stat().st_size for path in (HOME / "project").rglob("*") if path.is_file()) < 300_000
