import warnings
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import BottleneckWarning
from bottleneck.fitting.final_head import images_of_known_classes, train_final
from bottleneck.fitting.partition import LabelledFeatures, once
from bottleneck.fitting.train import train_head
from bottleneck.heads.features import InMemoryFeatures
from bottleneck.heads.options import HeadOptions
from bottleneck.images.dataset import Dataset
from tests.variants import each

DIM = 8


def dataset(labels: str, splits: list[str], first: int = 0) -> Dataset:
    """Return an image of each label, in its split."""
    numbers = range(first, first + len(labels))
    return Dataset(
        source=Path("/images"),
        paths=tuple(f"/images/{number}.jpg" for number in numbers),
        digests=np.array([[number % 256, number // 256, *[7] * 30] for number in numbers], np.uint8),
        labels=tuple(labels),
        given_splits=tuple(splits),
        groups=(None,) * len(labels),
    )


def part(images: Dataset) -> LabelledFeatures:
    """Return images with features by which the classes are told apart, but for noise."""
    noise = np.random.default_rng(len(images)).normal(size=(len(images), DIM))
    centres = np.array([[ord(str(label)) - ord("a")] for label in images.labels])
    return LabelledFeatures(images, InMemoryFeatures((noise + 2 * centres).astype(np.float32)))


def test_a_final_head_is_trained_on_each_image_of_the_training_classes_once():
    usable = dataset("ababcab", ["train"] * 4 + ["val", "val", "test"])
    usable = usable.subset([*range(7), 0, 5])  # two of them have a second path
    train = part(once(usable.subset(range(4))))
    with pytest.warns(BottleneckWarning, match=r"no training image of c: the final head is not trained on its 1 image"):
        found = images_of_known_classes(usable, train)

    assert "".join(map(str, found.labels)) == "ababab"
    assert found.paths == tuple(f"/images/{number}.jpg" for number in (0, 1, 2, 3, 5, 6))


def test_without_unknown_classes_there_is_no_warning():
    usable = dataset("abab", ["train", "train", "val", "test"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(images_of_known_classes(usable, part(usable.subset(range(2))))) == 4


@each("head", ["logistic", "knn"])
def test_a_final_head_is_right_where_the_tested_head_was_wrong(head):
    usable = dataset("ab" * 60, ["train"] * 80 + ["test"] * 40)
    whole = part(usable)
    features = whole.table.features
    train, test = (
        LabelledFeatures(usable.subset(rows), InMemoryFeatures(features[rows]))
        for rows in (np.arange(80), np.arange(80, 120))
    )
    options = HeadOptions(seed=2)
    trained = train_head(head, options, train, test, "f" * 64)
    found = train_final(head, options, trained, train, test, whole)

    said = found.head.predict(test.table.features)
    assert found.images is usable
    assert found.head.fingerprint == "f" * 64
    assert found.card["n_train"] == 120
    assert found.card["agreement"] == np.mean(said == np.array(trained.predicted))
    assert found.card["sharpness"] == found.head.inverse_temperature <= trained.head.inverse_temperature
    assert found.card["streamed"] is False
    assert np.mean(said == np.array(test.labels)) >= trained.metrics["accuracy"]
