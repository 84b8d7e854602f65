"""The contract of every family of heads, and each family compared with scikit-learn."""

import functools
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from bottleneck.errors import HeadError, TuningError
from bottleneck.finetuning.handback import fold_head
from bottleneck.heads.arrays import Arrays
from bottleneck.heads.calibration import calibrate
from bottleneck.heads.family import NAMES, Family, family
from bottleneck.heads.features import InMemoryFeatures
from bottleneck.heads.folds import Folds, divide
from bottleneck.heads.head import Head, softmax
from bottleneck.heads.linear import LinearHead
from bottleneck.heads.linear_family import LinearFamily
from bottleneck.heads.load import load_head
from bottleneck.heads.problem import Problem
from bottleneck.heads.search import search
from tests.variants import each

D = 20


def blobs(
    classes: int, seed: int = 0, each: int = 20, apart: float = 6.0, dim: int = D
) -> tuple[np.ndarray, np.ndarray]:
    """Return gaussian blobs of unit spread: features (n, d) and labels; the centres do not depend on the seed."""
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    centres *= apart / np.linalg.norm(centres, axis=1, keepdims=True)
    codes = np.repeat(np.arange(classes), each)
    noise = np.random.default_rng(seed).normal(size=(len(codes), dim))
    return (centres[codes] + noise).astype(np.float32), np.array(["ant", "bee", "cat", "dog"])[codes]


FAMILIES = {name: {} for name in NAMES} | {"svm rbf": {"kernel": "rbf"}, "softmax dropout": {"dropout": 0.2}}
LINEAR = ("logistic", "svm", "softmax", "ridge")


def family_of(name: str) -> Family:
    return family(name.split()[0], **FAMILIES[name])


every_name = each("name", FAMILIES)
every_family = each("some", map(family_of, FAMILIES), ids=lambda some: f"{some.name} {some.title}")
every_linear_family = each("linear", map(family, LINEAR), ids=lambda linear: linear.name)


def fit(some: Family, x: np.ndarray, labels: np.ndarray, **options: object) -> Head:
    """Return the head of a small search; `grid=None` searches the family's whole grid."""
    few = some.values[2:5] if some.name in LINEAR and isinstance(some, LinearFamily) else None
    return search(x, labels.tolist(), some, **{"folds": 3, "repeats": 1, "grid": few, **options}).head


@functools.cache
def fitted(name: str, classes: int, apart: float = 6.0) -> Head:
    """Return a head that several tests read."""
    return fit(family_of(name), *blobs(classes, apart=apart), fingerprint="f" * 64)


def problem(
    x: np.ndarray, codes: np.ndarray, count: int, trained: np.ndarray | None = None, **options: object
) -> Problem:
    """Return the problem of training on the rows of each column of `trained`, by default on all at once."""
    columns = np.ones((len(x), 1), bool) if trained is None else trained
    folds = Folds(tested=np.full(len(x), -1), trained=columns)
    return Problem(table=InMemoryFeatures(x), codes=codes, count=count, folds=folds, arrays=Arrays(), **options)


def path(
    some: LinearFamily, x: np.ndarray, codes: np.ndarray, count: int, Cs: Sequence[float], **options: object
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return weights and bias at each C, for standardised features."""
    found = some.paths(problem(x, codes, count, **options), list(Cs), exact=True)[:, 0]
    return [(theta[:, :-1], theta[:, -1]) for theta in found]


def standardised(x: np.ndarray) -> np.ndarray:
    return ((x - x.mean(axis=0, dtype=np.float64)) / x.std(axis=0, dtype=np.float64)).astype(np.float32)


def accuracy(head: Head, x: np.ndarray, labels: np.ndarray) -> float:
    return float((head.predict(x) == labels).mean())


def parts(head: Head) -> Iterator[bytes]:
    for name in head.tensors:
        yield getattr(head, name).tobytes()
    yield repr((head.family, head.classes, head.inverse_temperature, head.fingerprint)).encode()


# --- the contract -----------------------------------------------------------------------------------------------


@each("classes", [2, 4])
@every_name
def test_a_head_is_accurate_typed_and_the_same_after_saving(name, classes, tmp_path):
    head = fitted(name, classes)
    x, labels = blobs(classes, seed=1)

    assert accuracy(head, x, labels) > 0.95
    assert (head.family, head.classes) == (name.split()[0], ("ant", "bee", "cat", "dog")[:classes])
    if isinstance(head, LinearHead):
        assert (head.weight.shape, head.bias.shape) == ((classes, D), (classes,))
        assert {getattr(head, one).dtype for one in ("weight", "bias", "mean", "scale")} == {np.dtype(np.float32)}
    head.save(tmp_path / "head.safetensors")
    found = load_head(tmp_path / "head.safetensors")
    assert list(parts(found)) == list(parts(head))
    assert found.probabilities(x).tobytes() == head.probabilities(x).tobytes()
    with pytest.raises(HeadError, match=rf"expected features \(n, {D}\)"):
        head.predict(blobs(2, dim=D + 1)[0])


@each("classes", [2, 4])
@every_name
def test_probabilities_sum_to_one_and_their_best_is_the_prediction(name, classes):
    x = blobs(classes, apart=2.0)[0]
    head = fitted(name, classes, apart=2.0)
    probabilities = head.probabilities(x)

    assert probabilities.shape == (len(x), classes)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert np.array(head.classes)[probabilities.argmax(axis=1)].tolist() == head.predict(x).tolist()


@each("classes", [2, 4])
@every_name
def test_a_linear_head_folded_into_a_layer_gives_the_same_probabilities(name, classes):
    head = fitted(name, classes, apart=2.0)
    x = blobs(classes, apart=2.0)[0]
    if not isinstance(head, LinearHead):
        with pytest.raises(TuningError, match="expected a linear head"):
            fold_head(head)
        return
    layer = fold_head(head)

    logits = x.astype(np.float64) @ layer.weight.T + layer.bias
    np.testing.assert_allclose(softmax(logits), head.probabilities(x), atol=1e-5)


@each("classes", [2, 4])
@every_name
def test_one_seed_gives_one_head_bit_for_bit_and_leaves_the_features(name, classes):
    x, labels = blobs(classes)
    before = x.copy()

    assert list(parts(fit(family_of(name), x, labels, fingerprint="f" * 64))) == list(parts(fitted(name, classes)))
    assert np.array_equal(x, before)


@each("classes", [2, 4])
@every_family
def test_probabilities_of_blobs_that_overlap_are_right_as_often_as_they_say(some, classes):
    x, labels = blobs(classes, apart=2.0, each=100)
    new, wanted = blobs(classes, seed=1, apart=2.0, each=1000)
    head = fit(some, x, labels, grid=None)

    assert head.probabilities(new).max(axis=1).mean() == pytest.approx(accuracy(head, new, wanted), abs=0.06)


@every_linear_family
def test_the_sharpness_is_nearly_the_one_that_new_images_ask_for(linear):
    x, labels = blobs(4, apart=2.0, each=150)
    new, wanted = blobs(4, seed=1, apart=2.0, each=1000)
    head = fit(linear, x, labels)
    best = calibrate(head.scores(new), np.unique(wanted, return_inverse=True)[1])

    assert head.inverse_temperature / best == pytest.approx(1, abs=0.25)


@each("linear", [family(name) for name in LINEAR if name != "softmax"])  # softmax shares batches
def test_folds_that_are_solved_at_once_are_the_folds_alone(linear):
    x, labels = blobs(4, apart=2.0)
    codes = np.unique(labels, return_inverse=True)[1]
    trained = np.random.default_rng(0).random((len(x), 3)) > 0.2
    together = linear.paths(problem(x, codes, 4, trained), [0.01, 1.0], exact=True)
    for fold, rows in enumerate(trained.T):
        alone = linear.paths(problem(x[rows], codes[rows], 4), [0.01, 1.0], exact=True)[:, 0]
        np.testing.assert_allclose(together[:, fold], alone, atol=2e-3)


TRANSFORMED = {
    "a constant 0": lambda x: np.insert(x, [3, 9], np.float32(0), axis=1),
    "a constant -7.5": lambda x: np.insert(x, [3, 9], np.float32(-7.5), axis=1),
    "a constant 1e30": lambda x: np.insert(x, [3, 9], np.float32(1e30), axis=1),
    "tiny": lambda x: x * np.float32(1e-6),
    "large": lambda x: x * np.float32(1e12),
    "huge": lambda x: x * np.float32(1e30),
    "one huge feature": lambda x: x * np.where(np.arange(D) == 0, np.float32(1e12), np.float32(1)),
    "far from zero": lambda x: x + 1000,
}


@each("transform, normalize", zip(TRANSFORMED, itertools.cycle(["standard", "shrunk", "auto"])))
@every_family
def test_features_of_any_scale_and_offset_are_separated(some, transform, normalize):
    (x, labels), (new, wanted) = ((TRANSFORMED[transform](x), y) for x, y in (blobs(4), blobs(4, seed=1)))
    head = fit(some, x, labels, normalize=normalize)

    assert accuracy(head, new, wanted) > 0.95
    assert all(np.isfinite(getattr(head, tensor)).all() for tensor in head.tensors)


@every_family
def test_a_class_of_one_image_is_harmless(some):
    x, labels = blobs(4)
    rows = np.r_[0:61]  # one dog
    head = fit(some, x[rows], labels[rows], grid=None)

    assert head.classes == ("ant", "bee", "cat", "dog")
    assert accuracy(head, *(part[:60] for part in blobs(4, seed=1))) > 0.95


@every_family
def test_two_images_of_one_class_and_one_of_the_other_are_enough(some):
    x, labels = blobs(2, apart=20.0)
    head = fit(some, x[[0, 1, 20]], labels[[0, 1, 20]], grid=None)

    assert head.classes == ("ant", "bee")
    assert np.isfinite(head.probabilities(x)).all()


@each("count", [2, 3, 5, 10])
@every_family
def test_a_few_images_of_a_real_backbones_width_give_a_sane_head(some, count):
    x, labels = blobs(2, each=count, dim=512, apart=60.0)
    head = fit(some, x, labels, grid=None)

    if head.form == "linear":
        assert np.abs(head.weight).max() < 100
    assert 0 < head.inverse_temperature < np.inf
    assert accuracy(head, *blobs(2, seed=1, dim=512, apart=60.0)) > 0.95


@each("absent", [0, 2, 3])
@every_family
def test_a_class_that_a_fold_has_no_rows_of_never_wins(some, absent):
    x, labels = blobs(4)
    codes = np.unique(labels, return_inverse=True)[1]
    folds = Folds(tested=np.where(codes == absent, 0, -1), trained=(codes != absent)[:, None])
    lacking = Problem(table=InMemoryFeatures(x), codes=codes, count=4, folds=folds, arrays=Arrays())
    points = some.grid(lacking, full=False)

    for rows, scores in some.cross_validate(lacking, points).blocks():
        assert scores.shape == (len(points), len(rows), 4)
        assert np.isfinite(scores).all()
        assert (scores.argmax(axis=2) != absent).all()


@each("absent", [0, 1])
@every_family
def test_the_only_class_that_a_fold_has_always_wins(some, absent):
    x, labels = blobs(2)
    codes = np.unique(labels, return_inverse=True)[1]
    folds = Folds(tested=np.where(codes == absent, 0, -1), trained=(codes != absent)[:, None])
    lacking = Problem(table=InMemoryFeatures(x), codes=codes, count=2, folds=folds, arrays=Arrays())

    for _, scores in some.cross_validate(lacking, some.grid(lacking, full=False)).blocks():
        assert (scores.argmax(axis=2) == 1 - absent).all()


@each("classes", [2, 3])
@each("normalize", ["shrunk", "standard"])
@every_family
def test_divisions_that_are_cross_validated_together_score_as_each_alone(some, normalize, classes):
    x, labels = (rows[4:] for rows in blobs(classes, apart=2.0))  # fewer of one class, so that priors are adjusted for
    codes = np.unique(labels, return_inverse=True)[1]
    first, *rest = (
        replace(problem(x, codes, classes, normalize=normalize), folds=divide(codes, None, 3, seed)) for seed in (0, 1)
    )
    problems = [first, *(first.with_folds(other.folds) for other in rest)]
    points = some.grid(first, full=False)[-2:]

    together = some.cross_validate_all(problems, points)
    for division, found in zip(problems, together, strict=True):
        alone = some.cross_validate(division, points)
        for (rows, scores), (same_rows, wanted) in zip(found.blocks(), alone.blocks(), strict=True):
            assert np.array_equal(rows, same_rows)
            np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-4)


@each("classes", [2, 4])
@every_linear_family
def test_every_C_of_the_familys_grid_gives_finite_and_moderate_weights(linear, classes):
    x, labels = blobs(classes)
    codes = np.unique(labels, return_inverse=True)[1]

    for C, (weight, bias) in zip(linear.values, path(linear, x, codes, classes, linear.values), strict=True):
        assert np.abs(weight).max() < 100, C  # NaN is not below 100 either
        assert np.abs(bias).max() < 100, C


@every_linear_family
def test_a_larger_C_regularises_less(linear):
    x, labels = blobs(4, apart=2.0)
    codes = np.unique(labels, return_inverse=True)[1]
    norms = [float(np.linalg.norm(weight)) for weight, _ in path(linear, x, codes, 4, (1e-4, 1e-3, 1e-2))]

    assert norms[0] < norms[1] < norms[2]


@every_linear_family
def test_the_path_at_each_C_is_the_fit_at_that_C_alone(linear):
    x, labels = blobs(4, apart=2.0)
    codes = np.unique(labels, return_inverse=True)[1]
    grid = (1e-3, 1e-2, 1e-1)

    for C, (weight, bias) in zip(grid, path(linear, x, codes, 4, grid), strict=True):
        ((alone, alone_bias),) = path(linear, x, codes, 4, (C,))
        np.testing.assert_allclose(weight, alone, atol=2e-3)
        np.testing.assert_allclose(bias, alone_bias, atol=2e-3)


@every_family
def test_a_grid_begins_with_the_simplest(some):
    x, labels = blobs(2)
    codes = np.unique(labels, return_inverse=True)[1]
    for full in (False, True):
        points = some.grid(problem(x, codes, 2), full=full)
        if "C" in points[0] and "gamma" not in points[0]:
            assert [point["C"] for point in points] == sorted({point["C"] for point in points})
        if "neighbours" in points[0]:
            assert [-point["neighbours"] for point in points] == sorted({-point["neighbours"] for point in points})
        assert len(points) == len({tuple(point.items()) for point in points})


def test_dropout_keeps_the_weights_small():
    # It acts as a penalty on weights (Wager et al. 2013), where classes that are apart let them grow without end.
    x, labels = blobs(2, each=40, apart=4.0)
    codes = np.unique(labels, return_inverse=True)[1]
    plain, dropped = (path(family("softmax", dropout=part), x, codes, 2, (100.0,))[0][0] for part in (0.0, 0.5))

    assert np.linalg.norm(dropped) < 0.97 * np.linalg.norm(plain)


def test_more_epochs_of_softmax_come_nearer_to_the_optimum():
    x, labels = blobs(4, apart=1.0)
    codes = np.unique(labels, return_inverse=True)[1]
    ((wanted, _),) = path(family("logistic"), x, codes, 4, (0.1,))
    away = [
        float(np.abs(path(family("softmax", epochs=epochs), x, codes, 4, (0.1,))[0][0] - wanted).max())
        for epochs in (1, 10, 200)
    ]

    assert away[0] > away[1] > away[2]


@each("name, options", [("softmax", {"dropout": 1.0}), ("softmax", {"epochs": 0}), ("svm", {"kernel": "poly"}),
                          ("logistic", {"kernel": "rbf"}), ("ridge", {"dropout": 0.5})])  # fmt: skip
def test_an_impossible_option_is_a_head_error(name, options):
    with pytest.raises(HeadError, match=r"expected|no option"):
        family(name, **options)


# --- beside scikit-learn ----------------------------------------------------------------------------------------


@each("classes", [2, 4])
@each("C", [0.001, 0.01, 0.1])
def test_logistic_gives_scikit_learns_probabilities(classes, C):
    x, labels = blobs(classes, apart=2.0)
    scaler = StandardScaler().fit(x)
    reference = LogisticRegression(C=C, max_iter=10_000, tol=1e-9).fit(scaler.transform(x), labels)
    head = replace(fit(family("logistic"), x, labels, grid=(C,), normalize="standard"), inverse_temperature=1.0)
    new = blobs(classes, seed=1, apart=2.0)[0]

    assert head.classes == tuple(reference.classes_)
    np.testing.assert_allclose(head.probabilities(new), reference.predict_proba(scaler.transform(new)), atol=5e-4)


@each("classes", [2, 4])
@each("dim", [3, 30])
def test_svm_orders_as_scikit_learns_decision_function(classes, dim):
    x, labels = blobs(classes, apart=2.0, dim=dim)
    new = blobs(classes, seed=1, apart=2.0, dim=dim)[0]
    scaler = StandardScaler().fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        reference = LinearSVC(C=0.01, dual=False, tol=1e-8, max_iter=100_000).fit(scaler.transform(x), labels)
    theirs = reference.decision_function(scaler.transform(new))
    if classes == 2:
        theirs = np.stack([-theirs, theirs], axis=1)
    ours = fit(family("svm"), x, labels, grid=(0.01,), normalize="standard").scores(new)

    np.testing.assert_allclose(ours, theirs, atol=0.01)
    # Where two scores of theirs are further apart than the solvers' tolerance, ours stand in the same order.
    gaps = theirs[:, :, None] - theirs[:, None, :]
    assert ((ours[:, :, None] - ours[:, None, :])[gaps > 0.02] > 0).all()


@each("classes", [2, 4])
@each("C", [0.01, 0.1])
def test_softmax_labels_nearly_as_logistic_does(classes, C):
    x, labels = blobs(classes, each=40, apart=3.0)
    new, _ = blobs(classes, seed=1, apart=3.0, each=100)
    one, other = (fit(family(name), x, labels, grid=(C,)).predict(new) for name in ("softmax", "logistic"))

    assert (one == other).mean() > 0.97


def test_softmax_visits_the_rows_in_an_order_drawn_from_the_seed():
    x, labels = blobs(4, apart=2.0)
    heads = [fit(family("softmax"), x, labels, grid=(0.1,), seed=seed) for seed in (1, 2)]

    assert not np.array_equal(heads[0].weight, heads[1].weight)


# --- names ---------------------------------------------------------------------------------------------------------


@each("name", ["", "tree", "Logistic", "linear", "search", "../logistic"])
def test_an_unknown_family_is_a_head_error_that_names_the_known(name):
    with pytest.raises(HeadError, match="logistic, svm, softmax, ridge, knn, centroid"):
        family(name)
