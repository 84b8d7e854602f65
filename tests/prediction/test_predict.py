import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bottleneck.backbones.describe import describe
from bottleneck.backbones.request import Request
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.comparison.compare import compare
from bottleneck.errors import BottleneckError, RunError
from bottleneck.extraction.extract import extract
from bottleneck.extraction.plan import EngineStart, Plan
from bottleneck.finetuning.recipe import Recipe
from bottleneck.fitting.fit import fit
from bottleneck.images.scan import scan
from bottleneck.prediction.evaluate import evaluate
from bottleneck.prediction.predict import predict
from bottleneck.runs.run import Run
from tests import tiny
from tests.conftest import photo, write
from tests.markup import parsed, text_in
from tests.prediction.conftest import copied, fitted
from tests.variants import case

CLASSES = {f"{name}/{number}.jpg": 100 * place + number for place, name in enumerate("abcd") for number in range(12)}


@pytest.fixture(scope="module")
def four_classes(tmp_path_factory) -> Path:
    return fitted(tmp_path_factory.mktemp("four"), CLASSES, split="60/0/40")


@pytest.fixture
def run(four_classes, monkeypatch) -> Run:
    """Return a run of four classes in the current folder, which has its images and their features."""
    tiny.use(monkeypatch)
    return copied(four_classes)


def change_request(run, request):
    card = json.loads((run.path / "card.json").read_text())
    (run.path / "card.json").write_text(json.dumps({**card, "request": request}))


def test_predictions_are_those_of_the_head_on_the_features(run):
    found = predict("images")
    store_features = extract("images").store.read(extract("images").dataset.digests)
    assert [item.label for item in found] == run.head.predict(store_features).tolist()
    assert len(found) == 48
    assert found.failures == ()


def test_a_prediction_has_the_next_two_labels_with_decreasing_probabilities(run):
    for item in predict("images"):
        shares = [share for _, share in item.top]
        assert len(item.top) == 3
        assert item.top[0] == (item.label, item.probability)
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) <= 1 + 1e-9


def test_predictions_become_json_and_rows(run, folder):
    (folder({"x.jpg": 900}, name="new") / "broken.jpg").write_text("no image")
    found = predict("new", top=9)
    broken, usable = json.loads(json.dumps(found.to_json()))
    header, failed, row = found.to_rows()
    assert found.top == len(run.classes)
    assert broken == {
        **dict.fromkeys(("label", "probability")),
        "path": "new/broken.jpg",
        "digest": found[0].digest,
        "error": {"code": found[0].failure.code, "message": found[0].failure.message},
    }
    assert [one["label"] for one in usable["top"]] == row[2:-3:2] == [label for label, _ in found[1].top]
    assert header[-5:] == ["label_4", "probability_4", "code", "message", "familiarity"]
    assert failed[2:] == [*[""] * 8, found[0].failure.code, found[0].failure.message, ""]


def test_a_notebook_shows_pictures_with_their_labels(run, folder):
    (folder({"x.jpg": 900}, name="new") / "broken.jpg").write_text("no image")
    found = predict("new")
    html = found._repr_html_()
    usable = found[1]
    assert len(list(parsed(html).iter("img"))) == 1
    assert "2 images, 1 of which cannot be used" in text_in(html)
    assert f"{usable.label} {usable.probability:.0%}" in text_in(html)
    assert found[0].failure.code in text_in(html)


def test_new_images_fill_the_cache_and_cached_ones_are_used(run, folder):
    new = folder({"x.jpg": 900, "deep/y.png": photo(901, kind="PNG"), "z.jpg": 0}, name="new")
    assert [Path(item.path).name for item in predict(new)] == ["y.png", "x.jpg", "z.jpg"]
    assert extract(new, labels=False).computed == 0


def test_remarks_on_the_engine_are_passed_on(run, folder, monkeypatch):
    def start_engine(plan: Plan, sample: object) -> EngineStart:
        start = tiny.start_engine(plan, sample)
        return EngineStart(start.engine, replace(start.plan, remarks=("a remark",)))

    tiny.use(monkeypatch, start_engine=start_engine)
    new = folder({"x.jpg": 900}, name="new")

    assert predict(new).remarks == ("a remark",)
    assert predict(new).remarks == (), "nothing was computed"


def test_a_single_file_can_be_classified(run, folder):
    new = folder({"x.jpg": 900}, name="new")
    (item,) = predict(new / "x.jpg")
    assert item.path == str(new / "x.jpg")


def test_unusable_images_keep_their_rows_and_the_others_are_predicted(run, folder):
    new = folder({"x.jpg": 900, "bad.jpg": b"<html>"}, name="new")
    found = predict(new)
    assert [(Path(item.path).name, item.label is None) for item in found] == [("bad.jpg", True), ("x.jpg", False)]
    assert found[0].probability is None
    assert found[0].top == ()
    assert found[0].failure == found.failures[0]
    assert [(Path(failure.path).name, failure.code) for failure in found.failures] == [("bad.jpg", "not-an-image")]
    assert found.usable == (found[1],)


def test_only_unusable_images_keep_their_rows(run, folder):
    for count in (1, 3):
        new = folder({f"{number}.jpg": b"<html>" for number in range(count)}, name=f"new{count}")
        for time in ("first", "from memory"):
            found = predict([new, "nowhere.jpg"])

            rows = [*((f"{number}.jpg", None) for number in range(count)), ("nowhere.jpg", None)]
            assert [(Path(item.path).name, item.label) for item in found] == rows, time
            assert [item.failure.code for item in found] == ["not-an-image"] * count + ["unreadable"]
            assert found.usable == ()


def test_predicting_does_not_change_the_default_images(run, folder):
    predict(folder({"x.jpg": 900}, name="new"))
    assert fit(head="centroid", split="60/0/40").card["dataset"]["source"] == str(Path("images").absolute())


def test_a_run_is_found_by_path_by_name_and_as_an_object(run):
    ways = [predict("images", run=way) for way in (run, run.path, run.name)]
    assert ways[0].items == ways[1].items == ways[2].items


def test_an_unknown_run_is_an_error(run):
    with pytest.raises(RunError, match=f"found no such folder; runs in runs: {run.name}"):
        predict("images", run="nowhere")


@pytest.mark.filterwarnings("ignore:.*random weights", "ignore:.*near duplicate")
def test_a_head_is_never_used_on_features_of_another_spec(folder):
    extract(folder(CLASSES), model="timm/test_resnet", weights="none", resize=32, crop=32, engine="torch")
    run = fit(head="centroid", split="60/0/40")
    change_request(run, {**run.card["request"], "seed": 1})
    with pytest.raises(RunError, match="expected features of spec"):
        predict("images")


def test_a_card_without_a_request_is_an_error(run):
    change_request(run, None)
    with pytest.raises(RunError, match="how its backbone was built"):
        predict("images")


def test_order_of_files_does_not_move_predictions_between_images(run):
    before = {item.digest: item.probability for item in predict("images")}
    for number, path in enumerate(sorted(Path("images").rglob("*.jpg"), reverse=True)):
        path.rename(path.with_name(f"z{number}.jpg"))
    write(Path("images/a/0new.jpg"), photo(777))
    after = {item.digest: item.probability for item in predict("images")}
    assert len(after) == 49
    assert np.allclose([after[digest] for digest in before], list(before.values()))


def test_arguments_of_numpy_and_pathlib_are_taken(run):
    labels = [item.label for item in predict("images", run=run)]
    for top in (np.int64(2), np.array(2), 2.0):
        found = predict(Path("images"), run=np.str_(run.name), cache=Path("cache"), runs=np.str_("runs"), top=top)

        assert [len(item.top) for item in found] == [2] * 48, repr(top)
        assert [item.label for item in found] == labels


def test_invalid_arguments_are_bottleneck_errors(run):
    for wrong in ({"top": 0}, {"top": -1}, {"top": True}, {"top": "3"}, {"run": 3}, {"runs": None}):
        with case(wrong), pytest.raises(BottleneckError, match="expected"):
            predict("images", **wrong)


def test_results_are_one_short_line_at_the_prompt(run, folder):
    strange = folder({"a\nb.jpg": 900, "broken.jpg": b"<html>"}, name="ph\x1b[31motos")
    found, done = predict(strange, run=run), extract("images")
    compared = compare("images", heads="centroid", split="60/0/40", learning_curve=True)
    results = [
        run,
        run.head,
        found,
        *found,
        done,
        done.dataset,
        scan(strange, labels=False),
        done.store,
        done.store.spec,
    ]
    results += [FeatureCache(), compared, *compared.rows, compared.curve, evaluate("images", run=run), run.request]
    results += [done.store.spec, Recipe(epochs=3), describe("timm/test_resnet")]

    for result in results:
        assert repr(result).isprintable(), result
        assert len(repr(result).replace(str(Path.cwd()), "")) < 230, result
    assert repr(found).startswith("<Predictions: 2 images, 1 failed, by ")
    assert "not-an-image" in repr(found[1]) or "not-an-image" in repr(found[0])
    assert repr(Recipe(epochs=3)) == "Recipe(epochs=3)"
    assert eval(repr(run.request), {"Request": Request}) == run.request
