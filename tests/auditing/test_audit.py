import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bottleneck.auditing.audit import audit
from bottleneck.backbones.tuned import Tuned, record_tuned
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.errors import BottleneckWarning, HeadError
from bottleneck.fitting.fit import fit
from tests.auditing.conftest import DIM, class_features, with_wrong_labels
from tests.conftest import photo
from tests.markup import tables
from tests.variants import case

N = 40  # images per class
IMAGES = "images"


def names_of(labels):
    return [f"{label}/{number:03d}.jpg" for number, label in enumerate(labels)]


def bordered(data: bytes, colour: tuple[int, int, int]) -> Image.Image:
    """Return a picture with a coloured border of a sixth of its height."""
    image = Image.new("RGB", (64, 48), colour)
    image.paste(Image.open(io.BytesIO(data)).resize((48, 32)), (8, 8))
    return image


def as_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def flipped(extracted):
    return extracted(*with_wrong_labels(N))


class TestFindings:
    def test_wrong_labels_are_named_with_the_evidence(self, flipped):
        found = audit(IMAGES, pictures=False, refit=False)
        wrong = {one.path: one for one in found.of_kind("label error")}
        assert set(wrong) == {"images/bee/010.jpg", "images/bee/020.jpg", "images/ant/050.jpg"}
        assert tables(found._repr_html_())[0][1] == ["label error", "3"]
        one = wrong["images/bee/010.jpg"]
        assert (one.label, one.suggested) == ("bee", "ant")
        assert one.split in ("train", "val", "test")
        assert [image.label for image in one.similar] == ["ant"] * 3
        assert "as ant" in one.reason

    def test_an_image_unlike_all_others_is_an_outlier(self, flipped):
        (outlier,) = audit(IMAGES, pictures=False, refit=False).of_kind("outlier")
        assert outlier.path == "images/ant/005.jpg"
        assert outlier.suggested is None

    def test_results_as_json_and_as_a_frame(self, flipped):
        found = audit(IMAGES, pictures=False, refit=False)
        value = json.loads(json.dumps(found.to_json()))
        assert value["n"] == 2 * N
        assert value["counts"]["label error"] == len(found.of_kind("label error")) == 3
        assert len(value["findings"]) == len(found) == len(found.to_frame())
        assert found.to_frame()["path"].tolist() == [one.path for one in found]
        assert value["accuracy"] == pytest.approx(1 - 3 / (2 * N), abs=0.02)
        low, high = found.accuracy_ci95
        assert low < found.accuracy < high

    def test_equal_seeds_give_equal_findings(self, flipped):
        assert (
            audit(IMAGES, pictures=False, refit=False).findings == audit(IMAGES, pictures=False, refit=False).findings
        )


class TestSubject:
    def test_a_run_gives_its_images_its_features_and_its_head(self, flipped):
        run = fit(head="ridge")
        found = audit(run=run, pictures=False, refit=False)
        assert found.head == "ridge"
        assert found.n == 2 * N
        assert len(found.of_kind("label error")) == 3

    def test_a_head_without_usable_probabilities_is_replaced(self, flipped):
        assert audit(run=fit(head="centroid"), pictures=False, refit=False).head == "logistic"


class TestPictures:
    @pytest.fixture
    def pictures(self, extracted):
        """Two classes with coloured borders, an edited copy with another label, a black picture, and an exact copy."""
        codes = np.repeat([0, 1], N)
        features, names = class_features(codes), names_of(np.array(["ant", "bee"])[codes].tolist())
        shown = [bordered(photo(row), ((200, 30, 30), (30, 30, 200))[code]) for row, code in enumerate(codes)]
        shown[3] = Image.new("RGB", (64, 48), (2, 2, 2))
        names, features = [*names, "bee/copy.jpg", "ant/same.jpg"], np.vstack([features, features[[7, 8]]])
        edited = shown[7].point(lambda level: min(255, int(1.1 * level)))
        data = [as_png(one) for one in shown]
        return extracted(names, features, [*data, as_png(edited), data[8]])

    def test_a_bad_picture_copies_and_a_border(self, pictures):
        found = audit(pictures, refit=False)
        (bad,) = found.of_kind("bad picture")
        assert bad.path == "images/ant/003.jpg"
        (near,) = found.of_kind("near duplicate")
        assert (near.path, near.similar[0].path) == ("images/bee/copy.jpg", "images/ant/007.jpg")  # its label is wrong
        assert "with different labels" in near.reason
        (exact,) = found.of_kind("exact duplicate")
        assert {exact.path, exact.similar[0].path} == {"images/ant/008.jpg", "images/ant/same.jpg"}
        assert found.border.is_finding
        assert found.border.balanced_accuracy > 0.9
        assert found.found_anything

    def test_without_decoding(self, pictures):
        found = audit(pictures, pictures=False, refit=False)
        assert found.of_kind("bad picture") == ()
        assert found.border is None
        assert any("no pictures were decoded" in remark for remark in found.remarks)
        assert len(found.of_kind("near duplicate")) == 1  # its features are equal

    def test_of_copies_the_held_out_image_is_left(self, pictures):
        splits = tuple("test" if "copy" in path else "train" for path in pictures.paths)
        labels = tuple(
            "ant" if "copy" in path else label for path, label in zip(pictures.paths, pictures.labels, strict=True)
        )
        dataset = replace(pictures, given_splits=splits, labels=labels)
        (near,) = audit(dataset, refit=False).of_kind("near duplicate")
        assert near.path == "images/ant/007.jpg"
        assert near.similar[0].path == "images/bee/copy.jpg"
        assert "in different splits" in near.reason

    def test_pictures_that_cannot_be_read_any_more_are_listed(self, pictures):
        shutil.rmtree("images/bee")
        found = audit(pictures, refit=False)
        assert any("cannot be read any more" in remark for remark in found.remarks)
        assert len(found.of_kind("bad picture")) == 1


class TestWorth:
    def test_each_kind_of_findings_has_its_worth(self, flipped):
        found = audit(IMAGES, pictures=False)
        assert {kind: [one.name for one in worth] for kind, worth in found.worth.items()} == {
            "label error": ["give 3 probable label errors the suggested label", "remove 3 probable label errors"],
            "outlier": ["remove 1 outlier"],
        }
        for one in (*found.worth["label error"], *found.worth["outlier"]):
            low, high = one.ci95
            assert low <= one.gain <= high
            assert one.tested == 2 * N - 4

    def test_an_image_with_two_labels_is_an_exact_duplicate_and_trains_nothing(self, flipped):
        twice = replace(
            flipped,
            paths=(*flipped.paths, "images/again.jpg"),
            digests=np.vstack([flipped.digests, flipped.digests[:1]]),
            labels=(*flipped.labels, "bee"),
            given_splits=(*flipped.given_splits, None),
            groups=(*flipped.groups, None),
        )
        found = audit(twice, pictures=False)
        (exact,) = found.of_kind("exact duplicate")
        assert "with different labels" in exact.reason
        assert found.n == 2 * N
        assert found.worth["outlier"][0].tested == 2 * N - 5


def test_a_head_that_an_audit_cannot_use_is_refused(flipped):
    for head in ("knn", "magic"):
        with case(head), pytest.raises(HeadError, match="expected a head among logistic"):
            audit(IMAGES, head=head)


class TestUnusualData:
    def test_one_group_per_class_leaves_the_rest_of_the_audit(self, extracted):
        dataset = extracted(names_of(["a"] * 12 + ["b"] * 12), class_features([0] * 12 + [1] * 12))
        found = audit(replace(dataset, groups=tuple(dataset.labels)), pictures=False, refit=False)
        assert found.accuracy is None
        assert any("label errors were not searched for" in remark for remark in found.remarks)

    def test_features_of_a_fine_tuned_network_know_the_labels(self, extracted):
        dataset = extracted(names_of(["a"] * 20 + ["b"] * 20), class_features([0] * 20 + [1] * 20))
        (store,) = FeatureCache("cache").stores()
        record_tuned(store.folder, Tuned(model="resnet18", weights="none", options={}, dataset="0" * 64, score=0.9))
        found = audit(dataset, pictures=False, refit=False)
        assert any("fine-tuned on labels" in remark for remark in found.remarks)

    def test_images_without_a_label_do_not_vote(self, extracted):
        codes = np.repeat([0, 1], 60)
        labels = np.array(["a", "b"])[codes]
        labels[[5, 70]] = "b", "a"
        dataset = extracted(names_of(labels.tolist()), class_features(codes))
        some = tuple(
            label if row % 3 == 0 or "005" in path or "070" in path else None
            for row, (path, label) in enumerate(zip(dataset.paths, dataset.labels, strict=True))
        )
        found = audit(replace(dataset, labels=some), pictures=False, refit=False)
        assert {one.path for one in found.of_kind("label error")} == {"images/b/005.jpg", "images/a/070.jpg"}

    def test_of_labels_that_cannot_be_learned_none_is_suspected(self, extracted):
        labels = np.random.default_rng(0).permutation(["a", "b"] * N)
        found = audit(extracted(names_of(labels.tolist()), class_features([0] * 2 * N)), pictures=False)
        assert found.of_kind("label error") == found.overlaps == ()
        assert "label error" not in found.worth
        assert not found.has_labels
        assert any("not significantly better than guessing" in remark for remark in found.remarks)

    def test_without_labels_only_pictures_and_features_are_audited(self, extracted):
        features = class_features([0] * N)
        features[3] = -features[3]
        extracted([f"{number:03d}.jpg" for number in range(N)], features)
        found = audit(IMAGES, pictures=False, refit=False)
        assert found.accuracy is None
        assert [one.path for one in found.of_kind("outlier")] == ["images/003.jpg"]
        assert any("label errors were not searched for" in remark for remark in found.remarks)

    def test_classes_of_one_image(self, extracted):
        features = class_features([0] * 10 + [1] * 10 + [2])
        extracted(names_of(["a"] * 10 + ["b"] * 10 + ["c"]), features)
        found = audit(IMAGES, pictures=False, refit=False)
        assert found.n == 21
        assert "c" not in [one.label for one in found.of_kind("label error")]

    def test_equal_features(self, extracted):
        extracted(names_of(["a"] * 10 + ["b"] * 10), np.ones((20, DIM), np.float32))
        with pytest.warns(BottleneckWarning, match="all 64 the same"):
            found = audit(IMAGES, pictures=False, refit=False)
        assert found.of_kind("outlier") == found.of_kind("label error") == ()

    def test_features_that_do_not_fit_are_reduced(self, extracted):
        codes = np.repeat([0, 1], N)
        labels = np.array(["a", "b"])[codes]
        labels[7] = "b"
        wide = np.hstack([class_features(codes), np.random.default_rng(1).normal(size=(2 * N, 200)) / 10])
        extracted(names_of(labels.tolist()), wide.astype(np.float32))
        found = audit(IMAGES, pictures=False, refit=False, memory=4 * 4 * 2 * N * 70)
        assert any("70 principal components" in remark for remark in found.remarks)
        assert [one.path for one in found.of_kind("label error")] == ["images/b/007.jpg"]
        with pytest.raises(HeadError, match="allow more with --memory"):
            audit(IMAGES, pictures=False, refit=False, memory=4 * 4 * 2 * N * 50)

    def test_two_images_and_one_class(self, extracted):
        dataset = extracted(names_of(["a", "b"]), class_features([0, 1]))
        for part in (dataset, dataset.subset([0]), replace(dataset, labels=("a", "a"))):
            with case(part.labels):
                found = audit(part, pictures=False, refit=False)
                assert found.n == len(part)
                assert found.of_kind("label error") == ()
                assert found.accuracy is None
