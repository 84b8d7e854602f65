import csv
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from bottleneck.backbones.spec import Spec
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.last import Last, save_last
from bottleneck.cache.scans import save_scan
from bottleneck.engines.records import Check, EngineRecords
from bottleneck.errors import (
    BottleneckError,
    BottleneckWarning,
    CacheError,
    HeadError,
    ImagesError,
    MissingFeatures,
    RunError,
    SplitError,
)
from bottleneck.fitting.fit import fit
from bottleneck.images.dataset import Failure
from bottleneck.images.scan import scan
from bottleneck.images.thumbnail_memo import ThumbnailMemo
from bottleneck.images.thumbnails import Thumbnail
from bottleneck.runs.images import Role
from bottleneck.runs.ranking import default_run
from bottleneck.runs.run import load_run
from tests.conftest import write
from tests.evaluation.test_perceptual_hash import scene, thumbnails
from tests.variants import case

DIM = 16


@pytest.fixture
def extracted(folder, spec: Spec, tmp_path):
    """Return a function that scans images and caches made-up features that tell the classes apart."""

    def make(root, leave_out=()):
        dataset = scan(root)
        centres = {
            name: np.random.default_rng(place).normal(size=DIM) * 3 for place, name in enumerate(dataset.classes)
        }
        rows = [row for row in dataset.first_rows() if dataset.paths[row] not in leave_out]
        features = np.array(
            [
                centres[dataset.labels[row]] + np.random.default_rng(dataset.digests[row]).normal(size=DIM)
                for row in rows
            ],
            np.float32,
        )
        store = FeatureCache("cache").store(spec)
        store.append(dataset.digests[rows], features)
        store.remember_request({"model": "tiny", "weights": "none", "seed": 0})
        save_scan(tmp_path / "cache", dataset)
        save_last(tmp_path / "cache", Last(str(dataset.source), True, store.name))
        return root

    return make


def files(count=40, classes="ab", prefix=""):
    return {f"{prefix}{name}/{number}.jpg": f"{prefix}{name}{number}".encode() for name in classes
            for number in range(count)}  # fmt: skip


def test_a_run_contains_the_head_the_card_and_the_predictions(folder, extracted):
    extracted(folder(files(classes="abc")))
    for head in ("logistic", "svm", "softmax"):
        run = load_run(fit(head=head, C=(0.01, 1.0), folds=3).path)
        files_of_run = {
            "head.safetensors",
            "card.json",
            "predictions.csv",
            "images.safetensors",
            "uncertainty.safetensors",
        }
        assert {path.name for path in run.path.iterdir()} == files_of_run
        assert run.card["classes"] == ["a", "b", "c"]
        assert run.card["heldout"] == "test"
        assert run.cv_accuracy > 0.9, head
        assert run.metrics["accuracy"] > 0.9, head
        assert run.head.family == head
        assert run.head.fingerprint == run.card["fingerprint"]


def test_the_card_records_the_head_the_images_and_the_scores(folder, extracted, spec):
    extracted(folder(files()))
    card = fit(seed=7).card
    assert card["spec"] == spec.to_json()
    assert card["fingerprint"] == spec.fingerprint
    assert card["seed"] == 7
    assert card["params"] in card["search"]["points"]
    divisions = card["search"]["divisions"]
    assert np.shape(card["search"]["fold_accuracy"]) == (len(card["search"]["points"]), 5 * divisions)
    assert {"ece", "log_loss", "brier"} <= set(card["search"]["cv"]) & set(card["metrics"])
    assert card["headline"] == "cross-validation"  # of eighty images, few are held out
    assert len(card["dataset"]["digest"]) == 64
    assert card["dataset"]["splits"]["train"] == card["n_train"]
    assert {"torch", "scikit-learn", "python", "bottleneck"} <= set(card["versions"])
    assert json.loads(json.dumps(card)) == card


def test_cross_validated_metrics_count_each_training_image_once(folder, extracted):
    extracted(folder({**files(30, "abc", "train/"), **files(10, "abc", "test/")}))
    card = fit(head="centroid").card
    cv = card["search"]["cv"]
    assert {name: row["n"] for name, row in cv["per_class"].items()} == {"a": 30, "b": 30, "c": 30}
    assert cv["n"] == 90
    assert [sum(row) for row in cv["confusion"]] == pytest.approx([30, 30, 30])
    right = sum(row[place] for place, row in enumerate(cv["confusion"]))
    assert right / 90 == pytest.approx(card["search"]["cv_accuracy"])


def test_groups_widen_the_intervals(folder, extracted):
    found = scan(extracted(folder({**files(30, "ab", "train/"), **files(10, "ab", "test/")})))
    names = zip(found.splits, found.labels, strict=True)
    groups = tuple(f"{split} {label} {row % 5}" for row, (split, label) in enumerate(names))
    cards = [fit(one, C=0.1).card for one in (found, replace(found, groups=groups))]
    alone, grouped = (card["search"] for card in cards)
    assert alone["cv_accuracy"] == grouped["cv_accuracy"] == 1
    assert alone["cv_ci95"][0] == pytest.approx(60 / (60 + 1.05 * 1.96**2), abs=1e-4)  # of sixty images
    assert grouped["cv_ci95"][0] < 0.7  # of ten groups
    assert grouped["cv_ci95"][1] == pytest.approx(1)
    many, few = (card["metrics"] for card in cards)
    assert many["accuracy_ci95"][0] == pytest.approx(20 / (20 + 1.96**2), abs=1e-4)  # of twenty held-out images
    assert few["accuracy_ci95"][0] < 0.7  # of ten groups
    assert few["resolution"] == pytest.approx((1 - few["accuracy_ci95"][0]) / 2)


def test_uninformative_features_give_the_class_frequencies(folder, spec):
    dataset = scan(folder({**files(12, "abc", "train/"), **files(12, "abc", "test/")}))
    store = FeatureCache("cache").store(spec)
    store.append(dataset.digests, np.full((len(dataset), DIM), 3, np.float32))
    store.remember_request({"model": "tiny", "weights": "none", "seed": 0})
    for head in ("logistic", "svm", "knn", "centroid"):
        with case(head), pytest.warns(BottleneckWarning, match="the same in all 36 training rows"):
            run = load_run(fit(dataset, head=head, allow_duplicates=True).path)

        assert run.metrics["log_loss"] == pytest.approx(np.log(3), abs=1e-6), head
        assert run.card["search"]["cv"]["log_loss"] == pytest.approx(np.log(3), abs=0.05), head
        assert run.head.inverse_temperature == 1


def test_the_card_names_the_engines_that_computed_the_features_as_torch_does(folder, extracted, spec):
    extracted(folder(files()))
    assert fit(head="centroid").card["engines"] == []
    kept = EngineRecords(FeatureCache("cache").store(spec).engines)
    kept.keep_check("one", Check("openvino 2026.4.1, cpu", "bf16", 0.9998, 0.9993, 8, "d1"))
    kept.keep_check("two", Check("torch 2.9.0, cpu", "bf16", 0.5))  # it was not used
    kept.keep_check("three", Check("torch 2.9.0, cuda:0", "bf16", 1.0))
    card = fit(head="centroid").card
    assert card["engines"] == [
        asdict(Check("openvino 2026.4.1, cpu", "bf16", 0.9998, 0.9993, 8, "d1")),
        asdict(Check("torch 2.9.0, cuda:0", "bf16", 1.0)),
    ]


def test_predictions_list_every_held_out_path(folder, extracted):
    root = folder(files())
    dataset = scan(root)
    held_out = [path for path, split in zip(dataset.paths, dataset.splits, strict=True) if split == "test"]
    copy = root / "a" / "copy.jpg" if "/a/" in held_out[0] else root / "b" / "copy.jpg"
    shutil.copy(held_out[0], copy)
    extracted(root)
    run = fit(head="centroid")
    rows = list(csv.DictReader((run.path / "predictions.csv").open()))
    assert sorted(row["path"] for row in rows) == sorted([*held_out, str(copy)])
    assert run.card["n_heldout"] == len(held_out)
    correct = {row["digest"]: row["label"] == row["predicted"] for row in rows}
    assert np.mean(list(correct.values())) == pytest.approx(run.metrics["accuracy"])
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)


def test_val_is_held_out_if_there_is_no_test_split(folder, extracted):
    extracted(folder({**files(20, prefix="train/"), **files(6, prefix="val/")}))
    card = fit(head="centroid").card
    assert (card["heldout"], card["n_train"], card["n_heldout"]) == ("val", 40, 12)


def test_val_is_not_used_if_there_is_a_test_split(folder, extracted):
    extracted(folder({**files(20, prefix="train/"), **files(6, prefix="val/"), **files(5, prefix="test/")}))
    card = fit(head="centroid").card
    assert (card["heldout"], card["n_train"], card["n_heldout"]) == ("test", 40, 10)


def test_the_head_does_not_depend_on_the_held_out_split(folder, extracted):
    root = extracted(folder({**files(20, prefix="train/"), **files(6, prefix="val/")}))
    before = fit(root, C=(0.01, 1.0)).head
    for path in sorted((root / "val/a").iterdir())[1:]:
        path.rename(root / "val/b" / f"moved-{path.name}")
    after = fit(root, C=(0.01, 1.0)).head
    assert np.array_equal(before.weight, after.weight)
    assert np.array_equal(before.mean, after.mean)
    assert before.inverse_temperature == after.inverse_temperature


def test_equal_seeds_give_equal_heads(folder, extracted):
    extracted(folder(files()))
    heads = [fit(head="softmax", C=(0.1, 1.0), folds=3, seed=3).head for _ in range(2)]
    assert np.array_equal(heads[0].weight, heads[1].weight)


def test_a_fixed_c_is_kept(folder, extracted):
    extracted(folder(files()))
    cards = [fit(C=C, folds=3).card for C in (0.25, [0.25])]
    assert [card["params"] for card in cards] == [{"C": 0.25}] * 2


def test_new_images_without_features_are_an_error_that_names_the_command(folder, extracted):
    root = extracted(folder(files()))
    write(root / "a/new.jpg", b"new")
    with pytest.raises(MissingFeatures, match=r"1 have none .*new\.jpg.*bottleneck extract"):
        fit(head="centroid")


def test_images_that_failed_to_extract_are_left_out_for_any_reason(folder, extracted, tmp_path):
    root = folder(files())
    lost = str(root / "a/3.jpg")
    extracted(root, leave_out={lost})
    dataset = scan(root)
    digest = dataset.digests[dataset.paths.index(lost)].tobytes().hex()
    for code in ("truncated", "unreadable", "no-memory", "not-finite", "changed"):
        save_scan(tmp_path / "cache", replace(dataset, failures=(Failure(lost, code, "why", digest),)))
        card = fit(head="centroid").card
        assert (card["dataset"]["images"], card["dataset"]["used"]) == (80, 79), code
        assert [(failure["path"], failure["code"]) for failure in card["failures"]] == [(lost, code)]


def test_an_image_under_two_labels_is_left_out_with_a_warning(folder, extracted):
    root = folder(files())
    shutil.copy(root / "a/0.jpg", root / "b/same.jpg")
    with pytest.warns(BottleneckWarning, match="two labels"):
        extracted(root)
    with pytest.warns(BottleneckWarning, match="two labels"):
        card = fit(head="centroid").card
    assert card["dataset"]["used"] == 79


def test_an_image_in_two_given_splits_is_an_error_unless_allowed(folder, extracted):
    root = folder({**files(20, prefix="train/"), **files(6, prefix="val/")})
    shutil.copy(root / "train/a/0.jpg", root / "val/a/leak.jpg")
    extracted(root)
    with pytest.raises(SplitError, match=r"leak\.jpg.*--allow-duplicates"):
        fit(head="centroid")
    assert fit(allow_duplicates=True, head="centroid").card["n_heldout"] == 13


def test_a_group_in_two_given_splits_is_an_error_unless_allowed(folder, extracted):
    root = folder(files())
    lines = [f"{name}/{n}.jpg,{name},{'train' if n < 30 else 'val'},{'g' if n in (0, 35) else f'{name}{n}'}"
             for name in "ab" for n in range(40)]  # fmt: skip
    table = write(root / "list.csv", "\n".join(["path,label,split,group", *lines]).encode())
    extracted(table)
    with pytest.raises(SplitError, match="group"):
        fit()
    card = fit(head="centroid", allow_duplicates=True).card
    assert card["n_train"] == 60
    (found,) = card["leaks"]["groups_allowed"]
    assert found["group"] == "g"
    assert sorted(found) == ["group", "train", "val"]


def test_the_last_scan_replaces_a_missing_folder(folder, extracted):
    root = extracted(folder(files()))
    before = fit(head="centroid")
    shutil.rmtree(root)
    with pytest.warns(BottleneckWarning, match="last scan"):
        after = fit(head="centroid")
    assert after.card["dataset"]["digest"] == before.card["dataset"]["digest"]
    assert np.array_equal(after.head.weight, before.head.weight)


def test_renamed_files_give_the_same_data_digest_and_the_same_head(folder, extracted):
    root = extracted(folder(files()))
    before = fit(head="centroid")
    for number, path in enumerate(sorted(root.rglob("*.jpg"), reverse=True)):
        path.rename(path.with_name(f"{number:03d}.png"))
    after = fit(head="centroid")
    assert after.card["dataset"]["digest"] == before.card["dataset"]["digest"]


def test_no_held_out_image_is_an_error_with_advice(folder, extracted):
    extracted(folder({**files(3)}))
    with pytest.raises(SplitError, match="--split"):
        fit(split="99/1/0")


def test_shares_decide_the_splits(folder, extracted):
    extracted(folder(files()))
    assert fit(split="50/0/50", head="centroid").card["n_heldout"] > 2 * fit(head="centroid").card["n_heldout"]


def test_shares_divide_a_dataset_that_was_scanned_with_others(folder, extracted):
    dataset = scan(extracted(folder(files())))
    card = fit(dataset, split="50/0/50", head="centroid").card
    assert card["n_heldout"] > 20
    assert card["dataset"]["shares"] == "50/0/50"


def test_a_model_is_found_when_the_last_one_was_deleted(folder, extracted, tmp_path):
    root = extracted(folder(files()))
    save_last(tmp_path / "cache", Last(str(root), True, "gone-" + "0" * 64))
    assert fit(model="tiny", head="centroid").card["model"] == "tiny"
    with pytest.raises(CacheError, match="bottleneck extract"):
        fit(head="centroid")


def test_before_any_extraction_the_error_says_so(tmp_path):
    with pytest.raises(CacheError, match="bottleneck extract"):
        fit()


def test_an_unknown_model_is_an_error_that_names_the_cached_ones(folder, extracted):
    extracted(folder(files()))
    with pytest.raises(CacheError, match="tiny"):
        fit(model="resnet50")


def test_an_unknown_head_is_an_error_that_names_the_known_ones(folder, extracted):
    with pytest.raises(HeadError, match="logistic, svm, softmax"):
        fit(head="forest")


def test_images_without_labels_cannot_be_fitted(folder, extracted):
    root = extracted(folder(files()))
    with pytest.raises(ImagesError, match="labels"):
        fit(root / "a")


def test_near_duplicates_across_splits_warn_and_are_in_the_card(folder, extracted, spec, tmp_path):
    root = folder({**files(20, prefix="train/"), **files(6, prefix="val/")})
    edited, original = str(root / "val/a/edited.jpg"), str(root / "train/a/3.jpg")
    write(root / "val/a/edited.jpg", b"edited")
    extracted(root, leave_out={edited})
    dataset = scan(root)
    rows = [dataset.paths.index(path) for path in (original, edited)]
    store = FeatureCache("cache").store(spec)
    store.append(dataset.digests[rows[1:]], store.read(dataset.digests[rows[:1]]) + np.float32(0.01))
    with pytest.warns(BottleneckWarning, match=r"1 held-out image has a near dup.*edited\.jpg is like .*a/3\.jpg"):
        card = fit(head="centroid").card
    (found,) = card["leaks"]["near_duplicates"]
    assert found[:2] == [original, edited]
    assert found[2] == pytest.approx(1, abs=0.01)
    assert 0.3 <= card["leaks"]["near_threshold"] < found[2]
    assert card["leaks"]["near_thumbnails"] == 0
    assert (card["n_train"], card["n_heldout"]) == (40, 13)  # it is told, not left out


def test_thumbnails_that_the_cache_has_are_compared_too(folder, extracted):
    root = folder({**files(20, prefix="train/"), **files(6, prefix="val/")})
    extracted(root)
    dataset = scan(root)
    scenes = thumbnails([scene(seed) for seed in range(len(dataset))])
    original, copy = (dataset.paths.index(str(root / path)) for path in ("train/a/3.jpg", "val/b/2.jpg"))
    scenes[copy] = scenes[original]
    memo = ThumbnailMemo.in_cache(Path("cache"))
    memo.put({digest.tobytes(): Thumbnail(one, 9, 9) for digest, one in zip(dataset.digests, scenes, strict=True)})
    with pytest.warns(BottleneckWarning, match=r"1 held-out image has a near dup.*b/2\.jpg is like .*a/3\.jpg"):
        card = fit(head="centroid").card
    (found,) = card["leaks"]["near_duplicates"]
    assert found[:2] == [dataset.paths[original], dataset.paths[copy]]
    assert found[2] < card["leaks"]["near_threshold"]  # its features do not tell
    assert card["leaks"]["near_thumbnails"] == card["n_heldout"]


def test_allowed_duplicates_and_ambiguous_images_are_in_the_card(folder, extracted):
    root = folder({**files(20, prefix="train/"), **files(6, prefix="val/")})
    shutil.copy(root / "train/a/0.jpg", root / "val/a/leak.jpg")
    shutil.copy(root / "train/a/1.jpg", root / "train/b/torn.jpg")
    with pytest.warns(BottleneckWarning, match="two labels"):
        extracted(root)
    with pytest.warns(BottleneckWarning, match="two labels"):
        card = fit(allow_duplicates=True, head="centroid").card
    assert card["leaks"]["duplicates_allowed"] == [[str(root / "train/a/0.jpg"), str(root / "val/a/leak.jpg")]]
    assert card["leaks"]["two_labels"] == [[str(root / "train/a/1.jpg"), str(root / "train/b/torn.jpg")]]
    assert card["leaks"]["near_duplicates"] == []
    assert card["leaks"]["groups_allowed"] == []


# --- a final head -----------------------------------------------------------------------------------------------

HEADS = [
    {"head": "logistic", "C": (0.01, 1)}, {"head": "svm", "normalize": "l2"},
    {"head": "softmax", "class_weight": "balanced", "C": 1},
    {"head": "ridge", "normalize": "none"}, {"head": "knn"}, {"head": "centroid"},
    {"head": "svm", "kernel": "rbf", "C": 1},
]  # fmt: skip


def noisy(folder, spec):
    """Scan images of two classes with features that tell them apart in most cases, and cache these."""
    counts = {"train/": 20, "val/": 6, "test/": 8}
    dataset = scan(
        folder({name: data for split in counts for name, data in files(counts[split], prefix=split).items()})
    )
    features = [
        np.random.default_rng(digest).normal(size=DIM) + 0.7 * (label == "a")
        for digest, label in zip(dataset.digests, dataset.labels, strict=True)
    ]
    store = FeatureCache("cache").store(spec)
    store.append(dataset.digests, np.array(features, np.float32))
    store.remember_request({"model": "tiny", "weights": "none", "seed": 0})
    return dataset


def test_a_final_head_is_trained_on_all_images_and_scores_are_those_of_the_tested_head(folder, spec):
    dataset = noisy(folder, spec)
    x = FeatureCache("cache").store(spec).read(dataset.digests)
    for options in HEADS:
        with case(options):
            tested = fit(dataset, folds=3, **options)
            final = load_run(fit(dataset, folds=3, final=True, **options).path)
            check_final(tested, final, x, dataset)


def check_final(tested, final, x, dataset):
    assert (tested.is_final, final.is_final) == (False, True)
    for name in ("params", "metrics", "search", "sharpness", "n_train", "n_heldout", "leaks", "dataset", "classes"):
        assert final.card[name] == tested.card[name], name
    assert final.predictions == tested.predictions
    assert final.score == tested.score
    assert final.card["final"]["n_train"] == len(dataset) == 68
    assert final.card["final"]["tested_sha256"] == tested.card["head_sha256"] != final.card["head_sha256"]
    alike = final.head.predict(x) == tested.head.predict(x)
    held_out = np.array(dataset.splits) == "test"
    assert final.card["final"]["agreement"] == alike[held_out].mean()
    if final.head.mean.any():
        np.testing.assert_allclose(final.head.mean, x.mean(axis=0, dtype=np.float64), atol=1e-6)
    assert (final.head.predict(x) == np.array(dataset.labels)).mean() > 0.7


def test_a_final_run_records_all_images_as_trained_and_results_of_the_tested_head(folder, spec):
    dataset = noisy(folder, spec)
    tested, final = (fit(dataset, C=0.1, final=final).images for final in (False, True))

    assert np.array_equal(final.digests, tested.digests)
    assert np.array_equal(final.right, tested.right)
    assert set(final.roles.tolist()) == {Role.TRAINED}
    held_out = tested.roles == Role.HELD_OUT
    assert held_out.sum() == 16
    assert (final.right[held_out] == -1).all()
    assert (final.right[~held_out] >= 0).all()


def test_the_order_of_the_paths_changes_no_bit(folder, spec):
    found = noisy(folder, spec)
    for place, options in enumerate(HEADS):
        with case(options):
            check_order(found, options, grouped=place % 2 == 0)


def check_order(found, options, grouped):
    twice = [*range(len(found)), *range(9)]  # some images have a second path, in other splits and groups
    splits = [*found.splits, *["train", "val", "test"] * 3]
    dataset = replace(
        found.subset(twice),
        paths=(*found.paths, *(f"/copy/{row}.jpg" for row in range(9))),
        groups=tuple(f"g{row % 30}" if grouped else None for row in range(len(twice))),
        given_splits=tuple(splits),
        decided=None,
    )
    order = np.random.default_rng(0).permutation(len(twice)).tolist()
    shuffled = replace(dataset.subset(order), given_splits=tuple(splits[row] for row in order), decided=None)
    one, other = (fit(images, allow_duplicates=True, final=True, folds=2, **options) for images in (dataset, shuffled))

    assert one.card["final"]["n_train"] == len(found)
    for name in ("head.safetensors", "images.safetensors", "uncertainty.safetensors"):
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes()
    for key in ("final", "metrics", "search", "params", "sharpness", "n_train", "n_heldout"):  # final: of both heads
        assert one.card[key] == other.card[key]
    rows = [list(csv.DictReader((run.path / "predictions.csv").open())) for run in (one, other)]
    tested = [path for path, split in zip(shuffled.paths, shuffled.splits, strict=True) if split == "test"]
    assert [row["path"] for row in rows[1]] == tested
    assert sorted(rows[0], key=str) == sorted(rows[1], key=str)


def test_a_final_head_is_not_trained_on_a_class_without_training_images(folder, extracted):
    extracted(folder({**files(20, "ab", "train/"), **files(6, "abc", "val/"), **files(5, "abd", "test/")}))
    with pytest.warns(BottleneckWarning) as warned:
        run = fit(final=True)
    said = [str(one.message) for one in warned]
    expected = "no training image of c, d: the final head is not trained on its 11 images"
    assert any(expected in message for message in said)
    assert run.head.classes == ("a", "b")
    assert run.card["final"]["n_train"] == 62
    roles = dict(zip(*np.unique(run.images.roles, return_counts=True), strict=True))
    assert roles == {Role.TRAINED: 62, Role.HELD_OUT: 5, Role.UNUSED: 6}


def test_features_that_do_not_fit_into_memory_give_nearly_the_same_heads(folder, extracted):
    images = extracted(folder(files()))
    x = FeatureCache("cache").stores()[0].read(scan(images).digests)
    for head in ("logistic", "svm", "softmax", "ridge", "centroid"):
        options = {"head": head, "folds": 3, "C": None if head == "centroid" else (0.01, 1.0)}
        held = fit(**options, final=True)
        rows_of_train = 4 * DIM * 3 * held.card["n_train"]
        for memory, streamed in ((1, [True, True]), (rows_of_train, [False, True])):
            with case(head, memory):
                with pytest.warns(BottleneckWarning, match=f"{head} reads them from the cache"):
                    found = fit(**options, final=True, memory=memory)
                assert [found.card["streamed"], found.card["final"]["streamed"]] == streamed
                assert found.card["final"]["n_train"] == 80
                np.testing.assert_allclose(found.head.probabilities(x), held.head.probabilities(x), atol=0.05)
                assert found.card["normalize"] == held.card["normalize"]
                assert np.array_equal(
                    found.uncertainty.familiarity.p_values(x), held.uncertainty.familiarity.p_values(x)
                )
                assert found.metrics["accuracy"] == pytest.approx(held.metrics["accuracy"], abs=0.05)
                assert (found.card["leaks"]["near_threshold"] is None) == streamed[0]
                if head != "softmax":  # its batches differ
                    assert found.card["params"] == held.card["params"]
                    np.testing.assert_allclose(found.head.weight, held.head.weight, atol=2e-2)


def test_a_head_that_needs_all_features_in_memory_is_refused_before_the_search(folder, extracted):
    extracted(folder(files()))
    train = fit(head="centroid").card["n_train"]
    for options in ({"head": "knn"}, {"head": "svm", "kernel": "rbf"}):
        with case(options), pytest.raises(HeadError, match=r"needs them all at once.*--memory"):
            fit(memory=1, **options)
        with case(options), pytest.raises(HeadError, match=r"features of 80 images .* needs them all at once"):
            fit(memory=4 * DIM * 3 * train, final=True, **options)
    assert len(list(Path("runs").iterdir())) == 1


def test_a_final_head_of_uninformative_features_gives_the_class_frequencies_of_all_images(folder, spec):
    dataset = scan(
        folder({**files(12, "ab", "train/"), "test/a/x.jpg": b"x", "test/b/y.jpg": b"y", "val/b/z.jpg": b"z"})
    )
    store = FeatureCache("cache").store(spec)
    features = np.full((len(dataset), DIM), 3, np.float32)
    features[np.array(dataset.splits) != "train"] = np.random.default_rng(0).normal(size=(3, DIM))
    store.append(dataset.digests, features)
    store.remember_request({"model": "tiny", "weights": "none", "seed": 0})
    for head in ("logistic", "knn"):
        with pytest.warns(BottleneckWarning, match="the same in all 24 training rows"):
            run = fit(dataset, head=head, final=True)

        assert run.head.inverse_temperature == 1, head
        np.testing.assert_allclose(run.head.probabilities(features), [[13 / 27, 14 / 27]] * len(dataset), atol=1e-6)


def test_a_final_run_is_the_default_of_its_images(folder, spec):
    dataset = noisy(folder, spec)
    first, final, later = fit(dataset, C=0.1), fit(dataset, C=0.1, final=True), fit(dataset, head="ridge")
    assert later.path != first.path
    assert default_run("runs").run.path == final.path


# --- options of heads -------------------------------------------------------------------------------------------


OPTIONS = [
    {"head": "svm", "kernel": "rbf", "C": 1},
    {"head": "knn"},
    {"head": "ridge", "normalize": "l2", "class_weight": "balanced"},
    {"head": "softmax", "dropout": 0.2, "epochs": 3, "normalize": "none"},
    {"head": "ridge", "search": "full"},
    {"device": "torch", "C": (0.01, 1)},
]


def test_each_run_records_its_options(folder, extracted):
    extracted(folder(files()))
    features = np.random.default_rng(0).normal(size=(5, DIM)).astype(np.float32)
    for options in OPTIONS:
        with case(options):
            run = load_run(fit(**{"folds": 3, **options}).path)
            given = {key: value for key, value in options.items() if key in ("kernel", "dropout", "epochs")}
            assert run.card["params"].items() >= given.items()
            assert run.card["normalize"] == options.get("normalize", "shrunk")
            assert run.card["class_weight"] == options.get("class_weight")
            assert run.card["search"]["search"] == options.get("search", "fast")
            assert set(run.head.predict(features)) <= set(run.card["classes"])


IMPOSSIBLE = [
    ({"head": "knn", "C": [1.0]}, "has no C"),
    ({"head": "logistic", "kernel": "rbf"}, "no option kernel"),
    ({"head": "svm", "dropout": 0.5}, "no option dropout"),
    ({"select": "aic"}, "select to be one of log-loss, simplest, accuracy"),
    ({"normalize": "max"}, "normalize to be one of auto, shrunk, global, standard, l2, none"),
    ({"class_weight": "even"}, "class_weight to be one of"),
    ({"search": "slow"}, "search to be one of fast, full"),
    ({"device": "abacus"}, "expected a device"),
    ({"C": -1}, "values of C above 0"),
    ({"C": "abc"}, "values of C above 0"),
    ({"seed": -1}, "expected a seed"),
    ({"folds": 1}, "at least two folds"),
]


def test_an_impossible_option_is_a_head_error(folder, extracted):
    extracted(folder(files()))
    for options, message in IMPOSSIBLE:
        with case(options), pytest.raises(HeadError, match=message):
            fit(**options)


# --- numbers, flags and lists of NumPy and pandas ---------------------------------------------------------------


NUMPY = [
    {"seed": np.int64(3), "folds": np.uint8(3), "C": np.float32(0.5), "memory": np.int64(10**9)},
    {"seed": np.array(3), "folds": 3.0, "C": np.array([0.5]), "allow_duplicates": np.False_},
    {"seed": 3, "folds": np.float64(3), "C": [np.float16(0.5)], "head": np.str_("logistic")},
    {
        "seed": np.uint32(3),
        "folds": np.array(3.0),
        "C": (0.5,),
        "split": np.str_("80/10/10"),
        "search": np.str_("fast"),
    },
]


def test_arguments_of_numpy_give_the_run_that_those_of_python_give(folder, extracted):
    def facts(options):
        card = json.loads((fit(images, **options).path / "card.json").read_text())
        return {name: card[name] for name in ("params", "seed", "normalize", "metrics", "head_sha256")}

    images = extracted(folder(files()))
    expected = facts({"seed": 3, "folds": 3, "C": 0.5})
    for options in NUMPY:
        with case(options):
            assert facts(options) == expected


def test_values_of_c_may_be_a_series(folder, extracted):
    pandas = pytest.importorskip("pandas")
    run = fit(extracted(folder(files())), C=pandas.Series([1, 10], index=[5, 6]), runs=np.str_("elsewhere"))

    assert run.card["params"]["C"] in (1.0, 10.0)
    assert run.path.parent.name == "elsewhere"


WRONG = [
    {"seed": True}, {"seed": -1}, {"seed": 2**32}, {"seed": 1.5}, {"seed": "1"}, {"seed": np.nan}, {"folds": 1},
    {"folds": np.array([3])}, {"C": np.nan}, {"C": [1, np.inf]}, {"C": "1"}, {"C": []}, {"C": -1}, {"C": {1: 2}},
    {"head": "softmax", "epochs": 0}, {"head": "softmax", "epochs": True}, {"head": "softmax", "epochs": 2.5},
    {"head": "softmax", "dropout": 1}, {"head": "softmax", "dropout": np.nan}, {"memory": -1}, {"memory": "1 GB"},
    {"normalize": None}, {"class_weight": np.array(["balanced"])}, {"head": ["logistic"]}, {"search": 3}, {"model": 3},
    {"allow_duplicates": "no"}, {"final": "yes"}, {"final": 1.5}, {"runs": 3}, {"cache": None}, {"split": 80},
    {"images": 3}, {"images": ["images"]},
]  # fmt: skip


def test_invalid_arguments_are_head_errors_before_anything_is_read(folder, extracted):
    extracted(folder(files()))
    for wrong in WRONG:
        with case(wrong), pytest.raises(BottleneckError, match="expected"):
            fit(**wrong)
        assert not Path("runs").exists(), wrong


def test_a_fit_that_fails_leaves_nothing(folder, extracted, monkeypatch):
    extracted(folder(files(20)))
    for place in ("bottleneck.runs.run.Tree.write_json", "bottleneck.runs.save.make_under_free_name"):
        for error in (KeyboardInterrupt, RuntimeError, OSError):

            def fail(*_: object, error: type[BaseException] = error) -> None:
                raise error("here")

            with case(place, error), monkeypatch.context() as patch:
                patch.setattr(place, fail)
                with pytest.raises((error, RunError)):
                    fit(head="centroid")
            assert list(Path("runs").iterdir()) == [], (place, error)
