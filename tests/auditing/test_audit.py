import json
from dataclasses import replace

import numpy as np
import pytest

from bottleneck.auditing.audit import audit
from bottleneck.errors import BottleneckWarning, HeadError
from bottleneck.fitting.fit import fit
from tests.auditing.conftest import DIM, class_features, with_wrong_labels
from tests.variants import case

N = 40  # images per class
IMAGES = "images"


def names_of(labels):
    return [f"{label}/{number:03d}.jpg" for number, label in enumerate(labels)]


@pytest.fixture
def flipped(extracted):
    return extracted(*with_wrong_labels(N))


class TestFindings:
    def test_wrong_labels_are_named_with_the_evidence(self, flipped):
        found = audit(IMAGES, pictures=False, refit=False)
        wrong = {one.path: one for one in found.of_kind("label error")}
        assert set(wrong) == {"images/bee/010.jpg", "images/bee/020.jpg", "images/ant/050.jpg"}
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


class TestUnusualData:
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
