import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottleneck.errors import ImagesError, RunError
from bottleneck.evaluation.stats import mcnemar
from bottleneck.extraction.extract import extract
from bottleneck.fitting.fit import fit
from bottleneck.images.keys import as_digests
from bottleneck.images.scan import scan
from bottleneck.prediction import evaluate as run_evaluation
from bottleneck.prediction.evaluate import evaluate, summary
from bottleneck.prediction.predict import predict
from bottleneck.runs.images import IMAGES as FILE
from bottleneck.runs.images import Role
from tests import tiny
from tests.markup import tables, text_in
from tests.prediction.conftest import IMAGES
from tests.variants import case

NEW = {f"{name}/{number}.jpg": 100 * ord(name) + number for name in "ab" for number in range(50, 70)}


@pytest.fixture
def new(folder):
    return folder(NEW, name="new")


def truth(item):
    return Path(item.path).parent.name


def test_it_is_a_public_name_and_a_function():
    import bottleneck

    assert bottleneck.evaluate is run_evaluation.evaluate


def test_metrics_are_those_of_the_predictions(run, new):
    found, said = evaluate(new), predict(new)
    right = [item.label == truth(item) for item in said]
    assert found.n == len(NEW)
    assert found.accuracy == pytest.approx(np.mean(right))
    low, high = found.accuracy_ci95
    assert low < found.accuracy < high
    assert np.sum(found.metrics["confusion"]) == len(NEW)
    html = found._repr_html_()
    assert f"{found.accuracy:.1%} of {len(NEW)} images classified correctly" in text_in(html)
    assert [row[0] for row in tables(html)[0][1:]] == [error.path for error in found.errors[:10]]
    assert {"ece", "log_loss", "brier", "mean_confidence"} <= set(found.metrics)
    wrong = {item.path: item for item in said if item.label != truth(item)}
    assert {error.path for error in found.errors} == set(wrong)
    for error in found.errors:
        item = wrong[error.path]
        assert (error.predicted, error.probability, error.label) == (item.label, item.probability, truth(item))
        assert error.label_probability == pytest.approx(1 - item.probability)
    shares = [error.probability for error in found.errors]
    assert shares == sorted(shares, reverse=True)


def test_groups_widen_the_intervals(run, new):
    other = fit(head="centroid")
    rows = [f"{path},{path.parent.name}" for path in sorted(new.rglob("*.jpg"))]
    alone, grouped = Path("alone.csv"), Path("grouped.csv")
    alone.write_text("\n".join(["path,label", *rows]))
    grouped.write_text("\n".join(["path,label,group", *(f"{row},{place // 10}" for place, row in enumerate(rows))]))
    narrow, wide = (evaluate(table, run=run, against=other) for table in (alone, grouped))
    assert wide.accuracy == narrow.accuracy
    assert wide.accuracy_ci95[0] < narrow.accuracy_ci95[0] - 0.1
    assert wide.against.accuracy_ci95[0] < narrow.against.accuracy_ci95[0] - 0.05
    assert f"{wide.against.verdict} against {other.name} (p = " in text_in(wide._repr_html_())


def test_training_images_are_left_out_under_any_path(run, new):
    dataset = scan("images")
    trained = [path for path, split in zip(dataset.paths, dataset.splits, strict=True) if split == "train"]
    for number, path in enumerate(trained[:5]):
        (new / Path(path).parent.name / f"moved{number}.jpg").write_bytes(Path(path).read_bytes())
    found = evaluate(new)
    assert (found.n, found.left.trained_on) == (len(NEW), 5)
    whole = evaluate("images")
    assert whole.left.trained_on == len(trained)
    assert whole.n == len(IMAGES) - len(trained)
    with pytest.raises(ImagesError, match=f"trained on all {len(trained)}"):
        evaluate(dataset.subset(row for row, split in enumerate(dataset.splits) if split == "train"))


def test_a_final_run_cannot_be_evaluated_on_its_images(run, new):
    final = fit(final=True)
    found = evaluate(new, run=final)
    assert (found.n, found.left.trained_on) == (len(NEW), 0)
    assert summary(predict("images", run=final)).left.trained_on == len(IMAGES)
    for one, other in ((final, None), (run, final)):
        with pytest.raises(
            ImagesError, match=f"all {len(IMAGES)} .*: {final.name} was fitted with --final, on its test"
        ):
            evaluate("images", run=one, against=other)


def test_another_run_is_tested_on_the_same_images_without_those_of_either(run, new):
    other = fit(head="centroid", split="60/0/40")
    found = evaluate([new, "images"], run=run, against=other)
    trained = {
        digest.tobytes() for one in (run, other) for digest in one.images.digests[one.images.roles == Role.TRAINED]
    }
    items = [item for item in predict([new, "images"], run=run) if bytes.fromhex(item.digest) not in trained]
    others = {item.digest: item for item in predict([new, "images"], run=other)}
    assert found.n == len(items)
    assert found.left.trained_on == len(trained)
    right = [item.label == truth(item) for item in items]
    theirs = [others[item.digest].label == truth(item) for item in items]
    test = mcnemar(right, theirs)
    assert (found.against.only_run, found.against.only_against) == (test["only_a"], test["only_b"])
    assert found.against.p_value == test["p_value"]
    assert found.against.accuracy == pytest.approx(np.mean(theirs))
    assert found.against.verdict in ("better", "worse", "not told apart")


def test_a_run_against_itself_is_refused(run, new):
    with pytest.raises(RunError, match="two different runs"):
        evaluate(new, run=run, against=run.name)


def test_each_image_counts_once_and_images_with_two_labels_are_left_out(run, new):
    (new / "a" / "copy.jpg").write_bytes((new / "a" / "50.jpg").read_bytes())
    (new / "b" / "torn.jpg").write_bytes((new / "a" / "51.jpg").read_bytes())
    found = evaluate([new, new / "a" / "52.jpg"])
    assert found.n == len(NEW) - 1
    assert (found.left.copies, found.left.two_labels, found.left.unlabelled) == (2, 1, 1)


def test_a_table_without_some_labels_and_files(run, new):
    rows = [f"new/a/{number}.jpg,a" for number in range(50, 60)] + ["new/b/50.jpg,", "new/gone.jpg,b"]
    Path("list.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    found = evaluate("list.csv")
    assert (found.n, found.left.unlabelled, found.left.failed) == (10, 1, 1)
    assert found.labels_from == ("the column of labels of list.csv",)
    assert [failure.path for failure in found.failures] == ["new/gone.jpg"]


def test_unknown_labels_count_as_wrong_and_are_reported(run, new, folder):
    folder({"fox/1.jpg": 900, "fox/2.jpg": 901}, name="new")
    found = evaluate(new)
    assert found.unknown_labels == {"fox": 2}
    assert found.n == len(NEW) + 2
    assert sum(error.label == "fox" for error in found.errors) == 2
    assert found.metrics["per_class"]["fox"]["recall"] == 0


def test_only_unknown_labels_are_an_error(run, folder):
    with pytest.raises(ImagesError, match=r"among the classes .*\(a, b\), found x, y"):
        evaluate(folder({"x/1.jpg": 900, "y/2.jpg": 901}, name="other"))


def test_images_without_labels_are_an_error(run, new):
    Path("list.csv").write_text("path\nnew/a/50.jpg\n")
    for images in ("new/a", "list.csv", ["new/a/50.jpg", "new/b/50.jpg"]):
        with case(images), pytest.raises(ImagesError, match="expected labels"):
            evaluate(images)


def test_names_that_differ_in_their_accents_alone_are_one(folder, monkeypatch):
    tiny.use(monkeypatch)
    names = {"a": "e\u0301t\u00e9", "b": "b"}
    extract(folder({path.replace("a/", names["a"] + "/"): seed for path, seed in IMAGES.items()}))
    fit()
    found = evaluate(folder({path.replace("a/", "\u00e9te\u0301/"): seed for path, seed in NEW.items()}, name="new"))
    assert found.unknown_labels == {}
    assert len(found.metrics["classes"]) == 2


def test_a_run_that_does_not_record_its_images_is_reported(run, new):
    (run.path / FILE).unlink()
    found = evaluate(new)
    assert [one.path for one in found.unrecorded] == [run.path]
    assert found.left.trained_on == 0
    assert found.to_json()["trained_on_unrecorded"] == [str(run.path)]


def test_images_that_selected_an_epoch_are_evaluated_and_reported(run, new):
    digests = [bytes.fromhex(item.digest) for item in predict(new)][:3]
    known = run.images
    more = type(known)(
        digests=np.concatenate([known.digests, as_digests(digests)]),
        roles=np.concatenate([known.roles, np.full(3, Role.SELECTED, np.uint8)]),
        right=np.concatenate([known.right, np.full(3, -1, np.int8)]),
    )
    (run.path / FILE).write_bytes(more.to_bytes())
    found = evaluate(new)
    assert (found.n, found.selected_by) == (len(NEW), 3)


def test_edited_copies_of_training_images_are_reported(run, new):
    dataset = scan("images")
    path = next(path for path, split in zip(dataset.paths, dataset.splits, strict=True) if split == "train")
    label = Path(path).parent.name
    Image.open(path).save(new / label / "edited.png")  # the same pixels in other bytes
    found = evaluate(new)
    assert found.near[0] == (str(new / label / "edited.png"), pytest.approx(1.0, abs=1e-3))
    assert all(cosine >= 0.9 for _, cosine in found.near)
    assert found.n == len(NEW) + 1


def test_the_json_object_has_everything(run, new):
    found = evaluate(new, against=fit(head="centroid"), run=run)
    value = json.loads(json.dumps(found.to_json()))
    assert value["accuracy"] == found.accuracy
    assert len(value["errors"]) == len(found.errors)
    assert value["against"]["p_value"] == found.against.p_value
    assert len(list(found.to_rows())) == 1 + len(found.errors)
    assert set(value["left_out"]) == {"trained_on", "copies", "unlabelled", "two_labels", "failed"}


# --- what predict says ------------------------------------------------------------------------------------------


def test_predictions_of_class_folders_are_compared(run, new):
    found = summary(predict(new))
    assert found.labels_from == (f"the folders of {new}",)
    assert (found.n, found.right) == (len(NEW), round(evaluate(new).accuracy * len(NEW)))


def test_class_folders_are_labels_if_half_of_their_names_are_classes(run, new, folder):
    folder({"x/1.jpg": 900, "y/2.jpg": 901}, name="new")
    assert summary(predict(new)).n == len(NEW) + 2
    folder({"z/1.jpg": 902}, name="new")
    found = summary(predict(new))
    assert found.labels_from == ()
    assert "2 of 5 names are classes" in found.passed_over[0]


def test_other_folders_are_ignored_and_a_column_label_is_reported(run, folder):
    folder({"2019/1.jpg": 900, "2020/2.jpg": 901}, name="other")
    assert summary(predict("other")) is None
    Path("list.csv").write_text("path,label\nother/2019/1.jpg,x\n")
    (said,) = summary(predict("list.csv")).passed_over
    assert said.startswith("the column of labels of list.csv")


def test_training_images_are_not_compared(run):
    found = summary(predict("images"))
    assert found.n + found.left.trained_on == len(IMAGES)
    assert found.left.trained_on == run.card["n_train"]
