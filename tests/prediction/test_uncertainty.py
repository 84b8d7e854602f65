"""Familiarity, rejection and prediction sets of the images that a run classifies."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottleneck.errors import RunError
from bottleneck.fitting.fit import fit
from bottleneck.prediction.evaluate import summary
from bottleneck.prediction.predict import predict
from bottleneck.runs.uncertainty import UNCERTAINTY
from bottleneck.utils.csv_text import csv_lines
from tests.variants import each


def table(found):
    return list(csv.DictReader(io.StringIO("".join(csv_lines(found.to_rows())))))


@pytest.fixture
def odd(run, folder):
    """Return a folder with two images as in training, a black one, and one that cannot be used."""
    black = io.BytesIO()
    Image.new("RGB", (32, 32)).save(black, "PNG")
    images = {"a.jpg": 9800, "b.jpg": 9801, "bad.jpg": b"<html>", "black.png": black.getvalue()}
    return folder(images, name="odd").relative_to(Path.cwd())


def test_familiarity_is_in_objects_json_and_rows(run, odd):
    found = predict(odd, unfamiliar=0.05)
    bad, black = found[2], found[3]
    values = run.uncertainty.familiarity
    assert bad.familiarity is None
    assert found.to_frame()["familiarity"].tolist()[3] == black.familiarity
    assert black.familiarity == values.least
    assert [item.unfamiliar for item in found] == [False, False, False, True]
    assert found.unfamiliar == (black,)
    assert [item.to_json().get("familiarity") for item in found][2:] == [None, round(values.least, 6)]
    rows = table(found)
    assert [row["familiarity"] for row in rows][2:] == ["", f"{values.least:.6f}"]
    assert rows[3]["label"] == black.label
    assert list(rows[0])[-3:] == ["code", "message", "familiarity"]


def test_a_rejected_image_has_no_label_and_is_no_failure(run, odd):
    kept, found = predict(odd, unfamiliar=0.05), predict(odd, unfamiliar=0.05, reject=True)
    black = found[3]
    assert (black.label, black.probability, black.failure, black.rejected) == (None, None, None, True)
    assert black.top == kept[3].top
    assert found.items[:3] == kept.items[:3]
    assert black in found.usable
    assert len(found.failures) == 1
    written = black.to_json()
    assert written == {
        **{"path": black.path, "digest": black.digest, "label": None, "probability": None, "top": []},
        **{"familiarity": round(black.familiarity, 6), "rejected": "unfamiliar"},
    }
    rows = table(found)
    assert [row["rejected"] for row in rows] == ["", "", "", "unfamiliar"]
    assert [row["code"] for row in rows] == ["", "", "not-an-image", ""]
    assert {rows[3][name] for name in ("label", "probability", "label_2", "probability_2")} == {""}


def test_rejected_images_count_in_the_accuracy_as_before(run, folder):
    new = folder(
        {f"{name}/{number}.jpg": 5000 + 10 * number + (name == "b") for name in "ab" for number in range(5)}, name="new"
    )
    everything = predict(new, unfamiliar=0.999, reject=True)
    assert any(item.rejected for item in everything)
    assert summary(everything).right == summary(predict(new)).right


def test_sets_are_in_objects_json_and_rows(run, odd):
    for coverage, everything in ((0.5, False), (0.999, True)):
        found = predict(odd, coverage=coverage)
        for item in (found[0], found[1], found[3]):
            assert item.set[0] == item.label
            assert not everything or set(item.set) == set(run.classes)
            assert item.to_json()["set"] == list(item.set)
        sets = [None if item.failure else list(item.set) for item in found]
        assert [json.loads(row["set"]) if row["set"] else None for row in table(found)] == sets
        assert any("each set has all classes" in caution for caution in found.cautions) is everything
    assert "set" not in table(predict(odd))[0]
    rejected = predict(odd, coverage=0.5, unfamiliar=0.05, reject=True)
    assert rejected[3].to_json()["set"] is None
    assert table(rejected)[3]["set"] == ""


def test_too_few_calibration_images_are_said(run, odd):
    count = len(run.uncertainty.familiarity.calibration)
    assert 1 / (count + 1) > 0.01
    assert f"calibrated on {count} images, so it is at least {1 / (count + 1):.3g}" in predict(odd).cautions[0]
    assert predict(odd, unfamiliar=1 / (count + 1)).cautions == ()


def without_uncertainty(run):
    """Make a run like one of an earlier version."""
    card = json.loads((run.path / "card.json").read_text())
    left = {key: value for key, value in card.items() if key not in ("uncertainty", "uncertainty_sha256", "coverage")}
    (run.path / "card.json").write_text(json.dumps(left))
    (run.path / UNCERTAINTY).unlink()


def test_a_run_of_an_earlier_version_has_no_familiarity(run, odd):
    without_uncertainty(run)
    found = predict(odd)
    assert {item.familiarity for item in found} == {None}
    assert not found.has_familiarity
    assert found[0].label is not None
    assert "fit again to see how familiar images are" in found.cautions[0]
    for option in ({"reject": True}, {"coverage": 0.9}):
        with pytest.raises(RunError, match="an earlier version wrote it: fit again"):
            predict(odd, **option)


def test_a_missing_and_a_changed_file_are_refused(run, odd):
    for data in (b"no tensors", None):
        if data is None:
            (run.path / UNCERTAINTY).unlink()
        else:
            (run.path / UNCERTAINTY).write_bytes(data)
        with pytest.raises(RunError, match=rf"{UNCERTAINTY}.*[Ff]it again"):
            predict(odd, run=run.path)


@each("option", [{"unfamiliar": 1}, {"unfamiliar": -0.1}, {"coverage": 0}, {"coverage": 1}, {"coverage": np.nan}])
def test_impossible_shares_are_refused(run, option):
    with pytest.raises(RunError, match=next(iter(option))):
        predict("images", **option)


def test_familiarity_does_not_depend_on_the_order_of_the_images(run):
    found = {item.path: item.familiarity for item in predict("images")}
    paths = sorted(found, reverse=True)
    assert [item.familiarity for item in predict(paths)] == [found[path] for path in paths]


def test_a_final_run_refers_to_all_of_its_images(run):
    final = fit(head="centroid", final=True)
    assert final.card["uncertainty"]["references"] == final.card["final"]["n_train"] == 60
    assert run.card["uncertainty"]["references"] == run.card["n_train"]
    assert final.card["uncertainty"]["optimistic"] is False
    assert [one["n"] for one in final.card["coverage"]] == [run.card["n_heldout"]] * 3
