from dataclasses import replace

import numpy as np
import pytest

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.errors import BottleneckWarning, MissingFeatures, OutputError, RunError
from bottleneck.exploring import session as sessions
from bottleneck.fitting.fit import fit
from tests.auditing.conftest import cache_features
from tests.conftest import photo
from tests.exploring.conftest import FEATURES, NAMES


def ready(session):
    session.start()
    for task in (*session.maps.tasks.values(), session.tasks["refit"]):
        task.wait()
    return session


def names(session):
    return [column["name"] for column in session.state()["columns"]]


def test_without_labels_there_are_no_columns_that_need_them(spec, explored):
    flat = [name.replace("/", "-") for name in NAMES[:20]]
    cache_features(spec, flat, FEATURES[:20])
    session = ready(explored())
    assert names(session) == ["split", "cluster", "tag", "excluded", "edited"]
    assert session.state()["model"] is None
    session.suggestions(5)
    session.tasks["suggestions"].wait()
    assert len(session.suggestions(5)) == 5
    session.refit()
    session.tasks["refit"].wait()
    assert "expected labels of two classes" in session.tasks["refit"].error
    session.edit("label", "ant", list(range(5)))
    session.edit("label", "bee", list(range(5, 10)))
    session.refit()
    session.tasks["refit"].wait()
    assert {"label", "prediction", "error", "confidence"} <= set(names(session))
    assert "10 other images by the head" in session.state()["model"]["text"]
    error = session.column("error").data
    assert set(error[10:].tolist()) == {65535}


def test_the_head_of_a_run_predicts_and_it_is_said_what_it_was_trained_on(images, explored):
    run = fit("images", split="60/0/40", C=1.0)
    session = ready(explored(None, run=run.name, head=None))
    model = session.state()["model"]
    assert model["accuracy"] in (run.metrics["accuracy"], run.cv_accuracy)
    trained = session.images.splits.count("train")
    assert f"trained on {trained} of these 80 images" in model["text"]
    probabilities = run.head.probabilities(session.features.stored)
    assert session.column("confidence").data == pytest.approx(probabilities.max(axis=1), abs=1e-6)
    familiar = run.uncertainty.familiarity.p_values(session.features.stored)
    assert session.column("familiarity").data == pytest.approx(familiar, abs=1e-6)
    session.refit()
    session.tasks["refit"].wait()
    assert session.state()["model"]["refitted"]
    assert "cross-validated: each labelled image" in session.state()["model"]["text"]


def test_an_image_with_two_labels_has_none_and_copies_are_findings(spec, explored):
    pictures = [photo(number) for number in (*range(1000, 1080), 1000, 1001)]
    made = FEATURES[[*range(len(NAMES)), 0, 1]]
    with pytest.warns(BottleneckWarning, match="one image with two labels"):
        cache_features(spec, [*NAMES, "bee/copy.jpg", "ant/copy.jpg"], made, pictures)
    with pytest.warns(BottleneckWarning, match="one image with two labels"):
        session = ready(explored())
    several = session.images.paths.index("images/ant/000.jpg")
    assert session.annotations.labels[several] is None
    assert any("1 image with several labels" in remark for remark in session.remarks)
    session.tasks["audit"].start()
    session.tasks["audit"].wait()
    exact = [one for one in session.findings.items if one["kind"] == "exact duplicate"]
    assert [one["text"] for one in exact if one["row"] != several] == [
        "2 files have the same bytes: ant/001.jpg, ant/copy.jpg"
    ]


def test_features_that_the_head_of_a_run_cannot_predict_are_an_error(images, spec, explored):
    run = fit("images", C=1.0)
    other = replace(spec, layer="other:input")
    cache_features(other, NAMES, FEATURES)
    with pytest.raises(RunError, match="leave out --model"):
        explored("images", run=run.name, model=FeatureCache("cache").store(other).name)


def test_predictions_are_out_of_fold(session):
    wrong = [row for row, path in enumerate(session.images.paths) if path.endswith(("bee/010.jpg", "bee/020.jpg"))]
    assert [session.guesses.probabilities(row)[0][0] for row in wrong] == ["ant", "ant"]
    assert session.column("error").data[wrong].tolist() == [1, 1]


def test_the_familiarity_of_labelled_images_is_not_that_to_themselves(session):
    familiar = session.guesses.familiarity
    assert np.median(familiar) < 0.8
    outlier = session.images.paths.index("images/ant/005.jpg")
    assert familiar[outlier] <= 0.05


def test_heads_of_many_images_use_components_and_their_hyperparameters_are_searched_once(images, explored, monkeypatch):
    monkeypatch.setattr(sessions, "_IN_FULL", 100)
    monkeypatch.setattr(sessions, "REDUCED", 8)
    session = ready(explored(head="logistic"))
    assert "8 principal components of tiny" in session.state()["model"]["text"]
    assert session.state()["model"]["accuracy"] > 0.9
    selected = session.guesses.selected
    session.refit()
    session.tasks["refit"].wait()
    assert session.guesses.selected == selected


def test_an_excluded_image_trains_no_head(session):
    few = [row for row, label in enumerate(session.images.labels) if label == "ant"]
    session.edit("exclude", None, few)
    session.refit()
    session.tasks["refit"].wait()
    assert "expected labels of two classes" in session.tasks["refit"].error


def test_only_columns_that_change_get_a_new_revision(session):
    before = {column["name"]: column["revision"] for column in session.state()["columns"]}
    session.edit("tag", "night", [3])
    after = {column["name"]: column["revision"] for column in session.state()["columns"]}
    assert {name for name in after if after[name] != before[name]} == {"tag", "edited"}
    assert session.state()["revision"] == after["tag"] > max(before.values())


def test_copies_are_one_image(spec, explored):
    pictures = [b"GIF89a" + bytes([number // 2]) for number in range(8)]
    labels = [f"{'ab'[number // 4]}/{number}.jpg" for number in range(8)]
    cache_features(spec, labels, np.repeat(FEATURES[[0, 1, 60, 61]], 2, axis=0), pictures)
    session = explored()
    assert len(session.images) == 4
    assert session.images.paths == ("images/a/0.jpg", "images/a/2.jpg", "images/b/4.jpg", "images/b/6.jpg")


def test_maps_are_remembered(images, explored):
    first = ready(explored())
    again = explored(labels="other.csv")
    again.maps.start()
    for task in again.maps.tasks.values():
        task.wait()
    np.testing.assert_array_equal(again.maps.layouts["pca"].points, first.maps.layouts["pca"].points)
    assert again.column("cluster").same_as(first.column("cluster"))
    assert "_features" not in vars(again)


def test_missing_features_and_other_tables_are_errors(images, explored, folder):
    with pytest.raises(MissingFeatures, match="bottleneck extract"):
        explored(str(folder({"a/1.jpg": 1, "b/2.jpg": 2}, "others")))
    with pytest.raises(OutputError, match=r"expected a table FILE.csv"):
        explored(labels="labels.txt")


def test_few_images_have_maps_too(spec, explored):
    cache_features(spec, ["0.jpg"], FEATURES[:1])
    session = ready(explored("images", no_labels=True, tsne=True))
    assert [one["name"] for one in session.state()["layouts"]] == ["pca"]
    assert session.maps.layouts["pca"].points.tolist() == [[0.5, 0.5]]
    assert session.column("cluster").data.tolist() == [0]
    session.suggestions(3)
    session.tasks["suggestions"].wait()
    assert [one["row"] for one in session.suggestions(3)] == [0]
