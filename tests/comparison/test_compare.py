import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.last import Last, load_last, save_last
from bottleneck.cache.scans import save_scan
from bottleneck.comparison.compare import compare
from bottleneck.comparison.sources import names_a_run, request_of
from bottleneck.errors import BottleneckError, CacheError, HeadError, ImagesError, ModelError, SplitError
from bottleneck.extraction.extract import extract
from bottleneck.fitting.fit import fit
from bottleneck.heads.folds import divide
from bottleneck.heads.learning_curve import subsampled
from bottleneck.images.dataset import Failure
from bottleneck.images.scan import scan
from tests import tiny
from tests.variants import case

DIM = 16


@pytest.fixture
def extracted(folder, spec: Spec, tmp_path):
    """Return a function that scans images and caches made-up features of models that tell classes apart so well."""

    def make(root, strengths, leave_out=()):
        dataset = scan(root)
        rows = dataset.first_rows()
        code = np.array([dataset.classes.index(dataset.labels[row]) for row in rows])
        for place, (name, strength) in enumerate(strengths.items()):
            noise = np.array([np.random.default_rng([place, *dataset.digests[row]]).normal(size=DIM) for row in rows])
            features = noise + strength * np.eye(DIM)[code]
            dtype = np.float16 if name == "half" else np.float32
            known = [row not in leave_out or name != "half" for row in rows]
            store = FeatureCache("cache").store(replace(spec, backbone=name))
            store.append(dataset.digests[rows][known], features[known].astype(dtype))
            save_last(tmp_path / "cache", Last(str(dataset.source), True, store.name))
        save_scan(tmp_path / "cache", dataset)
        return root

    return make


def files(count=60, classes="ab", prefix=""):
    return {f"{prefix}{name}/{number}.jpg": f"{prefix}{name}{number}".encode() for name in classes
            for number in range(count)}  # fmt: skip


PARTS = {**files(60, prefix="train/"), **files(40, prefix="val/")}
MODELS = {"strong": 5.0, "half": 5.0, "weak": 0.5}


def names(*models):
    """Return the names of cached specs, which need no torch."""
    stores = {store.spec.backbone: store.short_name for store in FeatureCache("cache").stores()}
    return [stores[model] for model in models]


def test_rows_are_ranked_and_tested_against_the_best(folder, extracted):
    extracted(folder(PARTS), MODELS)
    found = compare(models=names("weak", "strong"), heads="logistic,centroid")
    assert [row.model for row in found.rows] == [*names("strong") * 2, *names("weak") * 2]
    assert [row.verdict for row in found.rows] == ["best", "not told apart", "worse", "worse"]
    assert found.best.p_value is None
    assert all(row.significant == (row.p_value < 0.05) for row in found.rows[1:])
    assert [row.cv_accuracy for row in found.rows] == sorted((row.cv_accuracy for row in found.rows), reverse=True)
    assert (found.heldout, found.n_train, found.n_heldout, found.classes) == ("val", 120, 80, ("a", "b"))


def test_a_row_is_what_fit_finds(folder, extracted):
    extracted(folder(PARTS), MODELS)
    (row,) = compare(models=names("weak"), heads="svm", seed=3).rows
    run = fit(model="weak", head="svm", seed=3)
    assert row.cv_accuracy == run.cv_accuracy
    assert list(row.cv_ci95) == row.to_json()["cv_ci95"] == run.card["search"]["cv_ci95"]
    assert row.accuracy == run.metrics["accuracy"]
    assert row.params == run.card["params"]


@pytest.mark.filterwarnings("ignore:.*near duplicate")  # few random features are similar by chance
def test_of_equal_rows_the_one_of_fewer_bytes_is_best(folder, extracted):
    extracted(folder(PARTS), {"strong": 50.0, "half": 50.0})
    found = compare(models=names("strong", "half"), heads="centroid")
    assert [row.cv_accuracy for row in found.rows] == [1, 1]
    assert found.best.model in names("half")
    assert [row.feature_bytes for row in found.rows] == [200 * DIM * 2, 200 * DIM * 4]


def test_cached_features_are_not_extracted_and_the_last_model_is_unchanged(folder, extracted, tmp_path):
    extracted(folder(PARTS), MODELS)
    before = load_last(tmp_path / "cache")
    found = compare(heads="centroid")
    assert {row.model for row in found.rows} == set(names(*MODELS))
    assert all((row.extracted, row.extract_seconds) == (0, None) for row in found.rows)
    assert load_last(tmp_path / "cache") == before
    assert not (tmp_path / "runs").exists()


def test_missing_features_are_extracted_once(folder, monkeypatch):
    tiny.use(monkeypatch)
    root = folder({f"{name}/{number}.jpg": 100 * ord(name) + number for name in "ab" for number in range(30)})
    first, second = (compare(root, models="resnet18@none", heads="centroid").best for _ in range(2))
    assert (first.extracted, second.extracted) == (60, 0)
    assert first.extract_seconds > 0
    assert second.extract_seconds is None
    assert first.accuracy == second.accuracy


def test_only_images_that_all_models_can_use_count(folder, extracted, monkeypatch):
    root = folder(PARTS)
    extracted(root, MODELS)
    dataset = scan(root)
    lost = [row for row in dataset.first_rows() if dataset.paths[row].endswith("train/a/7.jpg")]
    shutil.rmtree("cache/features")
    extracted(root, MODELS, leave_out=lost)
    failed = Failure(dataset.paths[lost[0]], "corrupt", "torn", dataset.digests[lost[0]].tobytes().hex())
    save_scan(FeatureCache("cache").root, replace(dataset, failures=(*dataset.failures, failed)))
    found = compare(models=names("strong", "half"), heads="centroid")
    assert found.n_train == 119
    assert failed.path in {failure.path for failure in found.failures}
    assert "1 image is left out" in found.remarks[0]


def test_a_head_that_cannot_be_trained_is_left_out_with_a_remark(folder, extracted):
    extracted(folder(PARTS), MODELS)
    found = compare(models=names("strong"), heads="logistic,knn", C=[1.0])
    assert [row.head for row in found.rows] == ["logistic"]
    assert "knn" in found.remarks[0]
    assert "has no C" in found.remarks[0]
    with pytest.raises(HeadError, match="has no C"):
        compare(models=names("strong"), heads="knn", C=[1.0])


def test_svm_rbf_is_a_separate_head(folder, extracted):
    extracted(folder(files(20, prefix="train/") | files(10, prefix="val/")), {"strong": 5.0})
    (row,) = compare(models=names("strong"), heads="svm-rbf").rows
    assert row.head == "svm-rbf"
    assert "gamma" in row.params


def test_unknown_heads_and_models_are_errors_before_any_work(folder, extracted):
    extracted(folder(PARTS), MODELS)
    with pytest.raises(HeadError, match="svm-rbf, got 'forest'"):
        compare(heads="forest")
    with pytest.raises(ModelError, match="resnet18"):
        compare(models="resnet81@none")


def test_before_any_extraction_models_must_be_named(folder):
    with pytest.raises(CacheError, match="--models"):
        compare(folder(PARTS))


def test_leaks_are_refused_unless_allowed(folder, extracted):
    root = folder(PARTS)
    shutil.copy(root / "train/a/0.jpg", root / "val/a/leak.jpg")
    extracted(root, {"strong": 5.0})
    with pytest.raises(SplitError, match=r"leak\.jpg.*--allow-duplicates"):
        compare(heads="centroid")
    assert compare(heads="centroid", allow_duplicates=True).n_heldout == 81


def test_images_without_labels_cannot_be_compared(folder, extracted):
    root = extracted(folder(PARTS), {"strong": 5.0})
    with pytest.raises(ImagesError, match="labels"):
        compare(root / "train/a", heads="centroid")


def test_a_model_may_name_its_weights():
    assert request_of("resnet18") == Request(model="resnet18")
    assert request_of("resnet18@none") == Request(model="resnet18", weights="none")
    assert request_of("lite0@some/file.pth").file.name == "file.pth"


def test_the_result_is_json(folder, extracted):
    extracted(folder(PARTS), MODELS)
    found = compare(heads="centroid", learning_curve=True).to_json()
    assert json.loads(json.dumps(found)) == found
    assert found["best"] == {"model": found["rows"][0]["model"], "head": "centroid"}


# --- the learning curve -----------------------------------------------------------------------------------------


def test_the_curve_ends_at_the_cross_validated_accuracy(folder, extracted):
    extracted(folder(PARTS), MODELS)
    found = compare(models=names("weak"), heads="logistic", learning_curve=True)
    points = found.curve.points
    assert [point.n for point in points] == [10, 20, 40, 68, 96]
    assert points[-1].accuracy == pytest.approx(found.best.cv_accuracy, abs=0.01)
    assert points[0].accuracy < points[-1].accuracy


def test_smaller_parts_of_the_training_rows_are_subsets_with_two_of_each_class():
    codes = np.repeat([0, 1, 2], [50, 30, 4])
    folds = divide(codes, None, 4, 0)
    parts = [subsampled(folds, codes, share, 0).trained for share in (0.1, 0.4, 1.0)]
    assert (parts[0] <= parts[1]).all()
    assert (parts[1] <= parts[2]).all()
    assert np.array_equal(parts[2], folds.trained)
    assert all(np.bincount(codes[rows]).min() >= 2 for rows in parts[0].T)


def test_many_neighbours_need_many_images(folder, extracted):
    extracted(folder(files(12, prefix="train/") | files(10, prefix="val/")), {"weak": 0.5})
    found = compare(heads="knn", learning_curve=True)
    assert found.curve.points[0].n >= found.best.params["neighbours"]


def test_numpy_arguments_are_accepted(folder, extracted):
    extracted(folder(PARTS), {"weak": 0.5})
    for heads in (np.array(["ridge", "centroid"]), ("ridge", "centroid"), np.str_("ridge,centroid")):
        with case(heads):
            found = compare(
                heads=heads,
                models=np.array(names("weak")),
                seed=np.int64(0),
                folds=np.uint8(3),
                learning_curve=np.False_,
            )

            assert {row.head for row in found.rows} == {"ridge", "centroid"}
            json.dumps(found.to_json())


def test_invalid_arguments_are_bottleneck_errors(folder, extracted):
    extracted(folder(files(12)), {"weak": 0.5})
    for wrong in (
        {"heads": 3}, {"models": [3]}, {"folds": "3"}, {"seed": True}, {"learning_curve": "no"}, {"memory": -1},
    ):  # fmt: skip
        with case(wrong), pytest.raises(BottleneckError, match="expected"):
            compare(**wrong)


@pytest.mark.slow
@pytest.mark.shared
def test_ants_and_bees_reach_what_the_readme_says_and_random_features_do_not(hymenoptera):
    done = extract(hymenoptera)
    assert (done.images, done.ignored, done.dataset.ignored) == (397, 1, {".gif": 1})
    for head in ("logistic", "svm", "softmax"):
        run = fit(head=head)
        assert (run.card["n_train"], run.card["n_heldout"], run.card["heldout"]) == (244, 153, "val")
        assert run.cv_accuracy >= 0.955, head
        assert run.metrics["accuracy"] >= 0.935, head
    with pytest.warns(UserWarning, match="random weights"):
        found = compare(hymenoptera, models=["timm/test_resnet@none", "efficientnet_lite0"], heads="logistic")
    assert found.best.model == "efficientnet_lite0"
    assert found.best.cv_accuracy >= 0.955
    assert found.best.accuracy >= 0.935
    assert [(row.verdict, row.extracted) for row in found.rows] == [("best", 0), ("worse", 397)]


def test_a_model_is_not_confused_with_a_folder_of_its_name():
    for name in ("run:x", "runs/x", "./resnet18", "/runs/x", "~/runs/x", "./a@b", "./timm/resnet18"):
        assert names_a_run(name), name
    for name in (
        "resnet18", "timm/resnet18", "timm/resnet18.a1_in1k", "resnet18@./w.pth", "resnet18@none",
        "timm/resnet18@w/w.pth",
    ):  # fmt: skip
        assert not names_a_run(name), name


def test_a_run_that_is_named_like_a_model_is_an_error_that_shows_the_spelling(tmp_path):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="fine-tuned run of that name is written run:mine"):
        compare("photos", models="mine")
