import warnings

import numpy as np
import pytest

from bottleneck.errors import BottleneckWarning, HeadError
from bottleneck.evaluation.metrics import evaluate_probabilities
from bottleneck.heads.estimators import Centroid, KernelSVM, LinearSVM, Logistic, Neighbours, Ridge, Softmax
from bottleneck.heads.family import NAMES, family
from bottleneck.heads.features import InMemoryFeatures
from bottleneck.heads.load import load_head
from bottleneck.heads.options import HeadOptions
from bottleneck.heads.search import search
from tests.variants import each, pairwise

FAMILIES = {name: family(name) for name in NAMES} | {"svm rbf": family("svm", kernel="rbf")}
ESTIMATORS = [Logistic, LinearSVM, KernelSVM, Softmax, Ridge, Neighbours, Centroid]
NORMALIZE = ["standard", "l2", "none"]
D = 12
THE_SAME = "the same in all"


every_family = each("some", FAMILIES.values(), ids=lambda some: f"{some.name} {some.title}")


def equal(value: float, n: int) -> np.ndarray:
    return np.full((n, D), value, np.float32)


# Constant features under any normalization; `n` rows of them.
NOTHING = {
    "blank images": lambda n: equal(3, n),
    "a dead layer": lambda n: equal(0, n),
    "negative": lambda n: equal(-7.25, n),
    "huge": lambda n: equal(1e30, n),
    "near the end of float32": lambda n: equal(3.4e38, n),
    "subnormal": lambda n: equal(1e-40, n) * np.random.default_rng(0).uniform(1, 2, (n, 1)),
    "each column another": lambda n: np.tile(np.random.default_rng(0).normal(size=D).astype(np.float32), (n, 1)),
    "equal but for rounding": lambda n: equal(3, n) * (1 + np.random.default_rng(0).integers(0, 2, (n, D)) * 1.2e-7),
    "one feature": lambda n: equal(2, n)[:, :1],
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@each("name, nothing, normalize, balanced", pairwise(list(FAMILIES), list(NOTHING), NORMALIZE, [False, True]))
def test_constant_features_give_the_frequencies_of_the_classes(name, nothing, normalize, balanced):
    some = FAMILIES[name]
    labels = list("aaabbc" * 10)
    x = NOTHING[nothing](60).astype(np.float32)
    with pytest.warns(BottleneckWarning, match=f"all {x.shape[1]} {THE_SAME} 60 training rows"):
        found = search(x, labels, some, normalize=normalize, balanced=balanced, repeats=2)
    shares = [1 / 3, 1 / 3, 1 / 3] if balanced else [1 / 2, 1 / 3, 1 / 6]

    others = np.random.default_rng(1).normal(size=(5, x.shape[1])).astype(np.float32)

    np.testing.assert_allclose(found.head.probabilities(x[:5]), [shares] * 5, atol=1e-6)
    np.testing.assert_allclose(found.head.probabilities(others), [shares] * 5, atol=1e-6)
    np.testing.assert_allclose(found.probabilities, [shares] * 60, atol=0.02)  # of the rows of each fold
    assert found.head.inverse_temperature == 1
    assert found.head.family == some.name
    assert found.params == found.points[0]


@every_family
@each("classes", [2, 4, 10])
def test_of_equal_classes_the_loss_is_the_logarithm_of_their_number(some, classes):
    labels = [f"c{row % classes}" for row in range(10 * classes)]
    with pytest.warns(BottleneckWarning, match=THE_SAME):
        head = search(equal(3, len(labels)), labels, some).head

    found = evaluate_probabilities(labels, head.probabilities(equal(3, len(labels))), head.classes)
    assert found["log_loss"] == pytest.approx(np.log(classes), abs=1e-6)
    assert found["ece"] == pytest.approx(0, abs=1e-6)


@every_family
def test_a_head_of_the_class_shares_is_read_back(some, tmp_path):
    labels = list("aab" * 10)
    with pytest.warns(BottleneckWarning, match=THE_SAME):
        search(equal(3, 30), labels, some).head.save(tmp_path / "head.safetensors")

    probabilities = load_head(tmp_path / "head.safetensors").probabilities(equal(5, 2))
    np.testing.assert_allclose(probabilities, [[2 / 3, 1 / 3]] * 2, atol=1e-6)


@each("name", ["logistic", "knn"])
def test_rows_that_are_multiples_of_one_are_equal_at_length_one(name):
    x = (np.arange(1, 61)[:, None] * np.linspace(1, 2, D)).astype(np.float32)
    with pytest.warns(BottleneckWarning, match=THE_SAME):
        head = search(x, list("ab" * 30), family(name), normalize="l2").head

    np.testing.assert_allclose(head.probabilities(x), 0.5, atol=1e-6)


# --- nearly nothing ---------------------------------------------------------------------------------------------


def but(rows, value):
    def make(n):
        x = equal(3, n)
        x[rows] = np.random.default_rng(0).normal(size=x[rows].shape) if value is None else value
        return x

    return make


# Features that are nearly constant: the classes take turns in all of them.
LITTLE = {
    "one other row": but([7], 5),
    "one other row of noise": but([7], None),
    "one large row": but([7], 1e6),
    "two other rows": but([7, 8], 5),
    "five rows of noise": but(slice(7, 12), None),
    "two vectors": lambda n: np.where((np.arange(n) // 4 % 2)[:, None], equal(3, n), equal(4, n)),
    "zeros and one row": lambda n: equal(0, n) + (np.arange(n)[:, None] == 7),
}


@pytest.mark.filterwarnings(f"ignore:.*{THE_SAME}")  # rows of one length are
@pytest.mark.filterwarnings("error")
@each("name, little, normalize", pairwise(list(FAMILIES), list(LITTLE), NORMALIZE))
def test_nearly_constant_features_make_no_head_confident(name, little, normalize):
    some = FAMILIES[name]
    labels = np.array(list("abcd" * 50))
    x = LITTLE[little](200).astype(np.float32)
    train = np.random.default_rng(0).permutation(200) < 160
    train[7:12] = True
    found = search(x[train], labels[train].tolist(), some, normalize=normalize, repeats=1)

    of_new = evaluate_probabilities(labels[~train].tolist(), found.head.probabilities(x[~train]), found.head.classes)
    of_folds = evaluate_probabilities(labels[train][found.rows].tolist(), found.probabilities, found.head.classes)
    assert of_new["log_loss"] < np.log(4) + 0.1
    assert of_folds["log_loss"] < np.log(4) + 0.1
    assert 0 < found.head.inverse_temperature < np.inf


@pytest.mark.filterwarnings("error")
@each("normalize, huge", [("standard", 1e14), ("l2", 1e30)])
@every_family
def test_one_row_of_huge_features_leaves_no_infinity(some, huge, normalize):
    x = np.random.default_rng(0).normal(size=(40, D)).astype(np.float32)
    x[7], x[8] = huge, -huge
    found = search(x, list("ab" * 20), some, normalize=normalize, repeats=1)

    assert np.isfinite(found.head.probabilities(x)).all()
    assert np.isfinite(found.probabilities).all()


@pytest.mark.filterwarnings("error")
@each("normalize, huge", [("standard", 3e38), ("none", 1e16), ("none", 3e38)])
@every_family
def test_features_near_the_end_of_float32_are_refused(some, huge, normalize):
    x = np.random.default_rng(0).normal(size=(80, D)).astype(np.float32)
    x[7], x[8] = huge, -huge
    with pytest.raises(HeadError, match="expected features up to"):
        search(x, list("ab" * 40), some, normalize=normalize)


@pytest.mark.filterwarnings("error")
@each("normalize", NORMALIZE)
@every_family
def test_folds_that_are_constant_in_themselves_give_the_shares(some, normalize):
    groups = ["one", "other"] * 40
    x = np.where((np.arange(80) % 2)[:, None], equal(3, 80), np.linspace(1, 1000, D, dtype=np.float32))
    labels = [*"ab" * 20, *"ba" * 20]  # both groups have as many of both
    with pytest.warns(BottleneckWarning, match="of each fold"):
        found = search(x, labels, some, groups=groups, normalize=normalize)

    np.testing.assert_allclose(found.head.probabilities(x), 0.5, atol=1e-6)


@pytest.mark.filterwarnings("error")
@each("normalize", NORMALIZE)
@every_family
def test_a_fold_that_is_constant_does_not_spoil_the_calibration(some, normalize):
    # All rows of two groups are blank, those of the third are not: a fold without the third sees blank ones only.
    random = np.random.default_rng(0)
    labels = np.array(list("ab" * 30))
    groups = np.repeat(["one", "two", "three"], 20)
    x = equal(3, 60)
    x[40:] = random.normal(size=(20, D)) + 3 * (labels[40:, None] == "a")
    found = search(x, labels.tolist(), some, groups=groups.tolist(), normalize=normalize, folds=3, repeats=1)

    of_folds = evaluate_probabilities(labels[found.rows].tolist(), found.probabilities, found.head.classes)
    assert of_folds["log_loss"] < np.log(2) + 0.05


# --- beside good features -----------------------------------------------------------------------------------------


@each("normalize", NORMALIZE)
@every_family
def test_many_constant_columns_are_named_and_the_others_learnt_from(some, normalize):
    labels = np.array(list("ab" * 40))
    good = np.random.default_rng(0).normal(size=(80, 5)) + 6 * (labels[:, None] == "a")
    x = np.column_stack([np.ones((80, 2)), good, np.zeros((80, 13))]).astype(np.float32)
    if normalize == "l2":
        x[:, :2] = 0  # or their shares of the length would differ
    with pytest.warns(BottleneckWarning, match=rf"15 of 20 features are {THE_SAME} 80 .*columns 0, 1, 7, 8, 9, \.\.\."):
        found = search(x, labels.tolist(), some, normalize=normalize, repeats=1)

    assert found.accuracy > 0.9


@every_family
def test_a_few_constant_columns_are_no_news(some):
    labels = np.array(list("ab" * 40))
    x = np.random.default_rng(0).normal(size=(80, D)).astype(np.float32) + 4 * (labels[:, None] == "a")
    x[:, :5] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert search(x, labels.tolist(), some, repeats=1).accuracy > 0.95


# --- where else heads are made ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@each("cv", [None, 5])
@each("make", ESTIMATORS)
def test_estimators_say_the_shares(make, cv):
    labels = np.array(list("aab" * 10))
    with pytest.warns(BottleneckWarning, match=THE_SAME):
        model = make(cv=cv).fit(equal(3, 30), labels)

    np.testing.assert_allclose(model.predict_proba(equal(3, 2)), [[2 / 3, 1 / 3]] * 2, atol=1e-6)
    assert model.predict(equal(3, 2)).tolist() == ["a", "a"]
    assert not hasattr(model, "support_vectors_")
    assert not hasattr(model, "centroids_")


@each("make", [Logistic, LinearSVM, KernelSVM, Softmax, Ridge])
def test_shares_are_those_of_the_weights(make):
    labels = np.array(list("aab" * 10))
    with pytest.warns(BottleneckWarning, match=THE_SAME):
        by_class = make(class_weight={"a": 1, "b": 4}).fit(equal(3, 30), labels)
    with pytest.warns(BottleneckWarning, match=THE_SAME):
        by_row = make().fit(equal(3, 30), labels, np.where(labels == "b", 4, 1))

    np.testing.assert_allclose(by_class.predict_proba(equal(3, 1)), [[1 / 3, 2 / 3]], atol=1e-6)
    np.testing.assert_allclose(by_row.predict_proba(equal(3, 1)), [[1 / 3, 2 / 3]], atol=1e-6)


@every_family
def test_a_class_of_one_row_has_its_share(some):
    with pytest.warns(BottleneckWarning, match=THE_SAME):
        head = search(equal(3, 31), [*"ab" * 15, "c"], some).head

    np.testing.assert_allclose(head.probabilities(equal(3, 1)), [[15 / 31, 15 / 31, 1 / 31]], atol=1e-6)


def test_a_value_of_C_and_options_are_still_checked():
    with pytest.raises(HeadError, match="above 0"), pytest.warns(BottleneckWarning, match=THE_SAME):
        search(equal(3, 20), list("ab" * 10), family("svm"), grid=(0.0,))


def test_a_learning_curve_of_nothing_is_flat():
    from bottleneck.heads.learning_curve import learning_curve

    options = HeadOptions()
    labels = list("ab" * 40)
    with pytest.warns(BottleneckWarning, match=THE_SAME):
        found = options.search_head("svm", equal(3, 80), labels, None, "")
    curve = learning_curve(InMemoryFeatures(equal(3, 80)), labels, None, found, family("svm"), options)

    assert {point.accuracy for point in curve.points} == {0.5}
