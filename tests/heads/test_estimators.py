"""The heads as scikit-learn's classifiers: its own checks, and each beside the class it is named after there."""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, ShuffleSplit, StratifiedKFold, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.estimator_checks import check_estimator

from bottleneck.errors import HeadError
from bottleneck.heads.estimators import Centroid, KernelSVM, LinearSVM, Logistic, Neighbours, Ridge, Softmax
from tests.variants import each, pairwise

ALL = (Logistic, LinearSVM, KernelSVM, Softmax, Ridge, Neighbours, Centroid)
OF_C = (Logistic, LinearSVM, KernelSVM, Softmax, Ridge)
WEIGHTS = (None, "balanced", {"ant": 3.0, "bee": 0.5})


def some(classes: int, seed: int = 0, n: int = 150, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return overlapping classes, of which the first are the more: features (n, d) and labels."""
    random = np.random.default_rng(seed)
    codes = np.minimum(random.geometric(0.5, n) - 1, classes - 1)
    centres = np.random.default_rng(7).normal(size=(classes, d))
    return random.normal(size=(n, d)).astype(np.float32) + centres[codes], np.array(["ant", "bee", "cat", "dog"])[codes]


@pytest.fixture(autouse=True, scope="module")
def _array_api() -> Iterator[None]:
    """Let scikit-learn check arrays under its `array_api_dispatch`, too, and not skip that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCIPY_ARRAY_API", "1")
        yield


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@each(
    "estimator",
    [
        *(make(cv=3) for make in ALL if make is not Logistic),
        Logistic(normalize="standard", cv=3, class_weight="balanced"),
        Neighbours(3),
    ],
    ids=repr,
)
def test_scikit_learns_own_checks(estimator):
    results = check_estimator(estimator, on_fail=None)
    failed = {result["check_name"]: repr(result["exception"]) for result in results if result["status"] == "failed"}
    skipped = {result["check_name"] for result in results if result["status"] == "skipped"}

    assert not failed
    assert not skipped
    assert len(results) > 40


# --- beside scikit-learn ------------------------------------------------------------------------------------------


def shares(weights: object, labels: np.ndarray) -> np.ndarray:
    """Return the weight of each row."""
    names, codes = np.unique(labels, return_inverse=True)
    if weights is None:
        return np.ones(len(labels))
    if weights == "balanced":
        return (len(labels) / (len(names) * np.bincount(codes)))[codes]
    return np.array([weights.get(label, 1.0) for label in labels])


@each("weights", WEIGHTS)
@each("C", [0.01, 1.0, 30.0])
@each("classes", [2, 4])
def test_logistic_is_logistic_regression(classes, C, weights):
    x, labels = some(classes)
    ours = Logistic(C, class_weight=weights).fit(x, labels)
    theirs = LogisticRegression(C=C, class_weight=weights, tol=1e-10, max_iter=10_000).fit(x, labels)

    def objective(weight: np.ndarray, model) -> float:
        own = model.predict_proba(x)[np.arange(len(x)), np.searchsorted(theirs.classes_, labels)]
        return np.square(weight).sum() / 2 - C * shares(weights, labels) @ np.log(own)

    weight = ours.head_.weight if classes > 2 else ours.head_.weight[1] - ours.head_.weight[0]
    assert objective(weight, ours) == pytest.approx(objective(theirs.coef_, theirs), rel=1e-3)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-3 if C <= 1 else 3e-3)


@each("weights", WEIGHTS)
@each("C", [0.01, 1.0])
@each("classes", [2, 4])
def test_linear_svm_is_linear_svc(classes, C, weights):
    x, labels = some(classes)
    ours = LinearSVM(C, class_weight=weights).fit(x, labels)
    theirs = LinearSVC(C=C, dual=False, tol=1e-8, max_iter=10_000)
    # Its class_weight lets "the rest" of more than two classes weigh 1; weights of rows do not.
    theirs.fit(x, labels, sample_weight=shares(weights, labels))

    def objectives(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        signs = np.where(labels[:, None] == theirs.classes_[-len(weight) :], 1, -1)
        short = np.maximum(0, 1 - signs * (x @ weight.T.astype(float) + bias))
        return (np.square(weight).sum(axis=1) + bias**2) / 2 + C * shares(weights, labels) @ short**2

    last = slice(1, None) if classes == 2 else slice(None)
    found = objectives(ours.head_.weight[last], ours.head_.bias[last])
    np.testing.assert_allclose(found, objectives(theirs.coef_, theirs.intercept_), rtol=1e-3)
    np.testing.assert_allclose(ours.decision_function(x), theirs.decision_function(x), atol=5e-3)


@each("weights", WEIGHTS)
@each("gamma", ["scale", "auto", 0.3])
@each("classes", [2, 4])
def test_kernel_svm_is_svc(classes, gamma, weights):
    x, labels = some(classes)
    ours = KernelSVM(2.0, gamma=gamma, class_weight=weights).fit(x, labels)
    theirs = SVC(C=2.0, gamma=gamma, class_weight=weights, tol=1e-6).fit(x, labels)

    np.testing.assert_allclose(ours.decision_function(x), theirs.decision_function(x), atol=1e-4)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))


@each("weights", WEIGHTS)
@each("n, d", [(150, 8), (40, 60)])
@each("classes", [2, 4])
def test_ridge_is_ridge_classifier(classes, n, d, weights):
    x, labels = some(classes, n=n, d=d)
    ours = Ridge(0.1, class_weight=weights).fit(x, labels)
    theirs = RidgeClassifier(alpha=5.0, class_weight=weights).fit(x, labels)

    np.testing.assert_allclose(ours.decision_function(x), theirs.decision_function(x), atol=1e-3)


@each("classes", [2, 4])
def test_neighbours_are_those_of_k_neighbors_classifier(classes):
    x, labels = some(classes)
    other = some(classes, seed=1)[0]
    ours, theirs = (make(7).fit(x, labels) for make in (Neighbours, KNeighborsClassifier))

    np.testing.assert_array_equal(ours.predict(other), theirs.predict(other))
    np.testing.assert_allclose(ours.predict_proba(other), theirs.predict_proba(other), atol=1e-12)


@each("classes", [2, 4])
def test_centroid_is_nearest_centroid(classes):
    x, labels = some(classes)
    other = some(classes, seed=1)[0]

    np.testing.assert_array_equal(
        Centroid().fit(x, labels).predict(other), NearestCentroid().fit(x, labels).predict(other)
    )


@each("weights", [None, "balanced"])
def test_softmax_is_near_logistic(weights):
    x, labels = some(4, n=1000)
    one, other = (
        make(1.0, normalize="standard", class_weight=weights).fit(x, labels).predict_proba(x)
        for make in (Softmax, Logistic)
    )

    assert np.abs(one - other).mean() < 0.02


@each("make", [Logistic, LinearSVM, KernelSVM, Neighbours, Centroid])
def test_standard_is_a_standard_scaler_before_it(make):
    x, labels = some(4)
    x *= np.logspace(-2, 2, x.shape[1])

    ours = make(normalize="standard").fit(x, labels).decision_function(x)
    theirs = make_pipeline(StandardScaler(), make()).fit(x, labels).decision_function(x)

    np.testing.assert_allclose(ours, theirs, atol=5e-3)


# --- probabilities ------------------------------------------------------------------------------------------------


@each("cv", [None, 4])
@each("classes", [2, 4])
@each("make", ALL)
def test_the_most_probable_class_is_predicted(make, classes, cv):
    x, labels = some(classes)
    model = make(cv=cv).fit(x, labels)
    shares, decision = model.predict_proba(x), model.decision_function(x)

    assert model.calibrated_ == (cv is not None)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_array_equal(model.classes_[shares.argmax(axis=1)], model.predict(x))
    best = (decision > 0).astype(int) if classes == 2 else decision.argmax(axis=1)
    np.testing.assert_array_equal(model.classes_[best], model.predict(x))


@each("make", [LinearSVM, KernelSVM, Ridge, Centroid])
def test_margins_become_probabilities_that_say_how_often_they_are_right(make):
    x, labels = some(4, n=600)
    other, answers = some(4, seed=1, n=2000)
    model = make().fit(x, labels)

    right = (model.predict(other) == answers).mean()
    assert model.predict_proba(other).max(axis=1).mean() == pytest.approx(right, abs=0.06)


@each("make", ALL)
def test_one_row_a_class_is_not_calibrated(make):
    x = np.eye(3, 5)
    model = make(1, cv=5) if make is Neighbours else make(cv=5)

    model.fit(x, [7, 3, 5])

    assert not model.calibrated_
    np.testing.assert_array_equal(model.predict(x), [7, 3, 5])


# --- what was learnt, under scikit-learn's names ------------------------------------------------------------------

LINEAR = (Logistic, LinearSVM, Softmax, Ridge, Centroid)
WEIGHTED = (Logistic, LinearSVM, KernelSVM, Softmax, Ridge, Centroid)


@each("normalize", ["none", "standard"])
@each("classes", [2, 4])
@each("make", LINEAR)
def test_the_decision_is_linear_in_the_features_as_they_are_given(make, classes, normalize):
    x, labels = some(classes)
    x = x * np.logspace(-1, 1, x.shape[1]) + 3
    model = make(normalize=normalize).fit(x, labels)
    rows = 1 if classes == 2 else classes

    assert model.coef_.shape == (rows, x.shape[1])
    assert model.intercept_.shape == (rows,)
    decision = x @ model.coef_.T + model.intercept_
    np.testing.assert_allclose(
        decision.ravel() if classes == 2 else decision, model.decision_function(x), rtol=1e-4, atol=1e-3
    )


@each(
    "ours, theirs",
    [
        (Logistic(1.0), LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000)),
        (LinearSVM(1.0), LinearSVC(C=1.0, dual=False, tol=1e-10, max_iter=10_000)),
        (Ridge(0.1), RidgeClassifier(alpha=5.0)),
    ],
)
@each("classes", [2, 4])
def test_weights_and_biases_have_the_signs_of_scikit_learns(ours, theirs, classes):
    x, labels = some(classes, n=400)
    ours, theirs = clone(ours).fit(x, labels), theirs.fit(x, labels)

    np.testing.assert_allclose(ours.coef_, np.atleast_2d(theirs.coef_), atol=5e-3)
    free = classes > 2 and isinstance(ours, Logistic)  # only differences of its biases count
    one, other = (model.intercept_ - free * model.intercept_.mean() for model in (ours, theirs))
    np.testing.assert_allclose(one, other, atol=5e-3)


@each("classes", [2, 3])
def test_a_kernel_svm_shows_what_svc_shows(classes):
    x, labels = some(classes)
    ours, theirs = KernelSVM(2.0).fit(x, labels), SVC(C=2.0, tol=1e-6).fit(x, labels)

    np.testing.assert_array_equal(ours.n_support_, theirs.n_support_)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-3)
    order, other = (np.lexsort(vectors.T) for vectors in (ours.support_vectors_, theirs.support_vectors_))
    np.testing.assert_allclose(ours.support_vectors_[order], theirs.support_vectors_[other], atol=1e-6)
    np.testing.assert_allclose(ours.dual_coef_[:, order], theirs.dual_coef_[:, other], atol=1e-2)


def test_centroids_are_the_means_of_the_classes():
    x, labels = some(3)
    for normalize in ("none", "standard"):
        found = Centroid(normalize=normalize).fit(x, labels).centroids_
        np.testing.assert_allclose(found, NearestCentroid().fit(x, labels).centroids_, atol=1e-5)


@each("make", LINEAR)
def test_what_is_not_there_is_an_attribute_error(make):
    x, labels = some(2)

    assert not hasattr(make(), "coef_")
    assert not hasattr(make(normalize="l2").fit(x, labels), "coef_")
    with pytest.raises(AttributeError, match="not linear"):
        make(normalize="l2").fit(x, labels).intercept_  # noqa: B018
    model = make().fit(x, labels)
    assert hasattr(model, "coef_")
    assert not hasattr(model.set_params(normalize="l2").fit(x, labels), "coef_")


def test_names_of_features_are_kept_and_compared():
    pandas = pytest.importorskip("pandas")
    x, labels = some(3)
    frame = pandas.DataFrame(x, columns=[f"f{number}" for number in range(x.shape[1])])
    model = Logistic().fit(frame, pandas.Series(labels), sample_weight=pandas.Series(np.ones(len(x))))

    assert model.feature_names_in_.tolist() == list(frame.columns)
    assert model.n_features_in_ == x.shape[1]
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"f0": "other"}))
    with pytest.warns(UserWarning, match="valid feature names"):
        model.predict(x)


# --- weights of rows ----------------------------------------------------------------------------------------------


@each(
    "make, normalize, class_weight, cv", pairwise(WEIGHTED, ["none", "standard", "l2"], [None, "balanced"], [None, 3])
)
def test_a_weight_is_so_many_equal_rows_and_none_is_no_row(make, normalize, class_weight, cv):
    x, labels = some(3, n=60)
    often = np.random.default_rng(1).integers(0, 4, len(x))
    options = {"normalize": normalize, "cv": cv, **({} if make is Centroid else {"class_weight": class_weight})}
    weighted = make(**options).fit(x, labels, sample_weight=often)
    repeated = make(**options).fit(np.repeat(x, often, axis=0), np.repeat(labels, often))

    np.testing.assert_array_equal(weighted.predict_proba(x), repeated.predict_proba(x))
    assert not np.array_equal(weighted.predict_proba(x), make(**options).fit(x, labels).predict_proba(x))


@each(
    "ours, theirs, scale",
    [
        (Logistic(1.0), LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000), 1.0),
        (LinearSVM(1.0), LinearSVC(C=1.0, dual=False, tol=1e-10, max_iter=10_000), 1.0),
        (KernelSVM(1.0, gamma=0.1), SVC(C=1.0, gamma=0.1, tol=1e-6), 1.0),
        (Ridge(0.1), RidgeClassifier(alpha=5.0), 1.0),
        (Logistic(100.0), LogisticRegression(C=100.0, tol=1e-10, max_iter=10_000), 1e-3),
    ],
)
@each("classes", [2, 3])
def test_fractions_weigh_as_in_scikit_learn(ours, theirs, scale, classes):
    x, labels = some(classes)
    weights = scale * np.random.default_rng(0).exponential(size=len(x))
    ours, theirs = (model.fit(x, labels, sample_weight=weights) for model in (clone(ours), theirs))

    one, other = (model.decision_function(x).reshape(len(x), -1) for model in (ours, theirs))
    if classes > 2 and isinstance(ours, Logistic):  # only differences count
        one, other = (scores - scores.mean(axis=1, keepdims=True) for scores in (one, other))
    np.testing.assert_allclose(one, other, atol=6e-3)


@each("make", WEIGHTED)
def test_the_order_of_the_rows_has_no_influence(make):
    x, labels = some(3)
    order = np.random.default_rng(2).permutation(len(x))

    np.testing.assert_array_equal(
        make(cv=4).fit(x, labels).predict_proba(x), make(cv=4).fit(x[order], labels[order]).predict_proba(x)
    )


@each("make", WEIGHTED)
def test_one_weight_for_all_is_that_of_each(make):
    x, labels = some(2)
    expected = make().fit(np.repeat(x, 2, axis=0), np.repeat(labels, 2)).predict_proba(x)
    kinds = [2.0, np.float32(2), np.int64(2), np.array(2), [2] * 150, np.full(150, 2, np.int8)]
    for weights in kinds if make is Logistic else kinds[::5]:
        found = make().fit(x, labels, sample_weight=weights).predict_proba(x)
        np.testing.assert_array_equal(found, expected, err_msg=repr(weights)[:60])


@each(
    "weights, words",
    [
        (np.ones(149), "shape"),
        (np.ones((150, 1)), "shape"),
        (np.r_[np.ones(149), -1], "0 or more, got -1"),
        (np.zeros(150), "zero"),
        (np.r_[np.ones(149), np.nan], "NaN"),
        (np.r_[np.ones(149), np.inf], "infinity"),
        (["heavy"] * 150, "could not convert"),
    ],
)
def test_weights_that_are_none_are_refused(weights, words):
    with pytest.raises(ValueError, match=words):
        Logistic().fit(*some(2), sample_weight=weights)


def test_a_class_all_of_whose_rows_weigh_nothing_is_not_learnt():
    x, labels = some(3)

    assert Logistic().fit(x, labels, sample_weight=labels != "cat").classes_.tolist() == ["ant", "bee"]
    with pytest.raises(HeadError, match="only one class"):
        Logistic().fit(x, labels, sample_weight=labels == "cat")


def test_neighbours_take_no_weights_as_those_of_scikit_learn():
    with pytest.raises(TypeError, match="sample_weight"):
        Neighbours().fit(*some(2), sample_weight=np.ones(150))


# --- folds that are given -----------------------------------------------------------------------------------------


@each("make", ALL)
@each("shuffled", [False, True])
def test_folds_may_be_given_as_scikit_learn_takes_them(make, shuffled):
    x, labels = some(3)
    splitter = StratifiedKFold(3, shuffle=shuffled, random_state=0 if shuffled else None)
    by_splitter = make(cv=splitter).fit(x, labels)
    by_list = make(cv=list(splitter.split(x, labels))).fit(x, labels)

    assert by_splitter.calibrated_
    np.testing.assert_array_equal(by_splitter.predict_proba(x), by_list.predict_proba(x))
    np.testing.assert_array_equal(by_splitter.predict(x), make(cv=None).fit(x, labels).predict(x))


@each("wrong", [ShuffleSplit(5, test_size=0.5, random_state=0), [], "five", 3.0, True, -1])
def test_folds_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Logistic(cv=wrong).fit(*some(2))


# --- odd data -----------------------------------------------------------------------------------------------------


@each("labels", [np.array([True, False]), np.array([1.0, 2.0]), np.array(["a", "b"], object)])
def test_labels_keep_their_type(labels):
    x, codes = some(2)
    predicted = Logistic().fit(x, labels[(codes == "ant").astype(int)]).predict(x)

    assert predicted.dtype == labels.dtype
    assert set(predicted.tolist()) == set(labels.tolist())


ODD = {
    "constant": lambda x: np.ones_like(x),
    "zeros": lambda x: np.zeros_like(x),
    "one feature": lambda x: x[:, :1],
    "tiny": lambda x: x * 1e-20,
    "large": lambda x: x * 1e8,
    "very large": lambda x: x * 1e12,
    "far off": lambda x: x + 1e4,
    "a constant one": lambda x: np.column_stack([x, np.full(len(x), 1e5)]),
}


@pytest.mark.filterwarnings("ignore:.*did not converge", "ignore:.*the same in all")  # it says so
@pytest.mark.filterwarnings("error")
@each("make, odd, normalize", pairwise(ALL, list(ODD), ["none", "standard", "l2"]))
def test_odd_features_give_finite_probabilities(make, odd, normalize):
    x, labels = some(3, n=30)
    x = ODD[odd](x)
    shares = make(normalize=normalize).fit(x, labels).predict_proba(x)

    assert np.isfinite(shares).all()


@pytest.mark.filterwarnings("ignore:.*did not converge")  # it says so
@each("scale", [1e4, 1e12])
@each("make", [Logistic, LinearSVM])
def test_large_features_are_learnt_from_as_well(make, scale):
    x, labels = some(3, n=30)

    assert make().fit(x * scale, labels).score(x * scale, labels) >= make().fit(x, labels).score(x, labels) - 0.1


@pytest.mark.filterwarnings("error")
@each("make", ALL)
def test_what_float32_cannot_square_is_refused_unless_normalized(make):
    x, labels = some(3, n=30)
    x = x * 1e25

    with pytest.raises(HeadError, match="normalize them"):
        make().fit(x, labels)
    assert np.isfinite(make(normalize="standard").fit(x, labels).predict_proba(x)).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of scikit-learn's check
@each("make", ALL)
def test_what_float32_cannot_hold_is_refused(make):
    x, labels = some(2)

    with pytest.raises(ValueError, match="too large for dtype"):
        make().fit(x * 1e39, labels)


@each("make", OF_C)
@each(
    "wrong",
    [{"C": 0}, {"C": "1"}, {"C": np.inf}, {"cv": 1}, {"cv": 2.5}, {"normalize": "both"}, {"class_weight": {"ant": -1}}],
)
def test_a_parameter_out_of_range_is_refused(make, wrong):
    x, labels = some(2)

    with pytest.raises(HeadError, match="expected"):
        make(**wrong).fit(x, labels)


@each("wrong", [0, 2.5, 1000])
def test_a_number_of_neighbours_out_of_range_is_refused(wrong):
    with pytest.raises(HeadError, match="expected"):
        Neighbours(wrong).fit(*some(2))


# --- in scikit-learn's tools --------------------------------------------------------------------------------------


@each("make", OF_C)
def test_a_grid_search_in_a_pipeline(make):
    x, labels = some(4)
    name = make.__name__.lower()
    grid = GridSearchCV(make_pipeline(StandardScaler(), make()), {f"{name}__C": [0.01, 1.0]}, cv=2)

    assert grid.fit(x, labels).best_score_ > 0.6


@each("make", LINEAR)
def test_features_are_chosen_by_their_weights(make):
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 6))
    labels = np.where(x[:, 2] - x[:, 4] > 0, "ant", "bee")

    assert np.flatnonzero(RFE(make(), n_features_to_select=2).fit(x, labels).support_).tolist() == [2, 4]
    chosen = SelectFromModel(make(), max_features=2, threshold=-np.inf).fit(x, labels)
    assert np.flatnonzero(chosen.get_support()).tolist() == [2, 4]
    ranks = permutation_importance(make().fit(x, labels), x, labels, n_repeats=2, random_state=0).importances_mean
    assert set(np.argsort(ranks)[-2:].tolist()) == {2, 4}


ENSEMBLES = {
    "bagging": lambda one: BaggingClassifier(one, n_estimators=3, random_state=0),
    "calibrated": lambda one: CalibratedClassifierCV(one, cv=3),
    "stacking": lambda one: StackingClassifier([("one", one), ("other", Neighbours())], cv=3),
    "voting": lambda one: VotingClassifier([("one", one), ("other", Neighbours())], voting="soft"),
    "one against the rest": lambda one: OneVsRestClassifier(one),
}


@each("make, ensemble", [(Logistic, name) for name in ENSEMBLES] + list(zip(WEIGHTED[1:], ENSEMBLES, strict=True)))
def test_ensembles_of_them(make, ensemble):
    x, labels = some(3)

    assert ENSEMBLES[ensemble](make()).fit(x, labels).score(x, labels) > 0.6


@each("make", WEIGHTED)
def test_ensembles_that_weigh_rows(make):
    x, labels = some(3)
    boosted = AdaBoostClassifier(make(), n_estimators=3)  # its weights have the sum 1: C = 1 is a strong penalty
    for ensemble in (boosted, CalibratedClassifierCV(make(), cv=3)) if make is Logistic else (boosted,):
        assert ensemble.fit(x, labels, sample_weight=np.arange(1.0, 151)).score(x, labels) > 0.4


@each("make", WEIGHTED)
def test_weights_reach_it_through_a_search_and_a_pipeline(make):
    x, labels = some(2)
    weights = np.random.default_rng(0).uniform(size=len(x))
    name = make.__name__.lower()
    scaled = StandardScaler().fit_transform(x)
    direct = make().fit(scaled, labels, sample_weight=weights)
    piped = make_pipeline(StandardScaler(), make()).fit(x, labels, **{f"{name}__sample_weight": weights})
    searched = GridSearchCV(make(), {"normalize": ["none"]}, cv=3).fit(x, labels, sample_weight=weights)

    np.testing.assert_array_equal(
        piped.decision_function(x), direct.decision_function(StandardScaler().fit_transform(x))
    )
    np.testing.assert_array_equal(
        searched.decision_function(x), make().fit(x, labels, sample_weight=weights).decision_function(x)
    )
    assert len(cross_val_score(make(), x, labels, cv=3, params={"sample_weight": weights})) == 3


@each("make", ALL)
def test_sparse_features_and_several_outputs_are_refused(make):
    x, labels = some(2)

    with pytest.raises(TypeError, match="dense data is required"):
        make().fit(csr_matrix(x), labels)
    with pytest.raises(ValueError, match=r"multi|1d|shape"):
        make().fit(x, np.eye(2)[(labels == "ant").astype(int)])


@each("make", ALL)
def test_scores_of_folds(make):
    x, labels = some(4)

    assert cross_val_score(make(cv=3), x, labels, cv=3, scoring="neg_log_loss").mean() > -1.2


@each("make", ALL)
def test_a_clone_learns_the_same(make):
    x, labels = some(4)
    model = make(normalize="l2")
    other = clone(model)

    assert other.get_params() == model.get_params()
    assert other.set_params(cv=3).cv == 3
    np.testing.assert_array_equal(
        model.fit(x, labels).predict_proba(x), clone(model).fit(x.tolist(), labels.tolist()).predict_proba(x)
    )


def test_nothing_else_of_the_heads_imports_scikit_learn():
    code = (
        "import pkgutil, sys, importlib, bottleneck.heads as heads\n"
        "names = [one.name for one in pkgutil.iter_modules(heads.__path__) if one.name != 'estimators']\n"
        "for name in names: importlib.import_module(f'bottleneck.heads.{name}')\n"
        "assert len(names) > 10 and 'sklearn' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
