"""What every family of heads keeps, as one contract; and how each compares with scikit-learn."""

import hashlib
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from bottleneck.errors import HeadError
from bottleneck.heads.family import NAMES, Family, family, spread
from bottleneck.heads.linear import LinearHead
from bottleneck.heads.search import _fit, fit_sharpness, search, standardisation

D = 20


def blobs(
    classes: int, seed: int = 0, each: int = 40, apart: float = 6.0, dim: int = D
) -> tuple[np.ndarray, np.ndarray]:
    """Return gaussian blobs of unit spread: features (n, d) and labels; the centres do not depend on the seed."""
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    centres *= apart / np.linalg.norm(centres, axis=1, keepdims=True)
    codes = np.repeat(np.arange(classes), each)
    noise = np.random.default_rng(seed).normal(size=(len(codes), dim))
    return (centres[codes] + noise).astype(np.float32), np.array(["ant", "bee", "cat", "dog"])[codes]


@pytest.fixture(params=NAMES)
def some(request) -> Family:
    return family(request.param)


def fit(some: Family, x: np.ndarray, labels: np.ndarray, **options: object) -> LinearHead:
    """Return the head of a small search; `grid=None` searches the family's whole grid."""
    return search(x, labels.tolist(), some, **{"folds": 3, "grid": some.grid[2:5], **options}).head


def accuracy(head: LinearHead, x: np.ndarray, labels: np.ndarray) -> float:
    return float((head.predict(x) == labels).mean())


def parts(head: LinearHead) -> Iterator[bytes]:
    for name in ("weight", "bias", "mean", "scale"):
        yield getattr(head, name).tobytes()
    yield repr((head.family, head.classes, head.sharpness, head.fingerprint)).encode()


# --- the contract -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 4])
def test_blobs_are_told_apart(some, classes):
    assert accuracy(fit(some, *blobs(classes)), *blobs(classes, seed=1)) > 0.95


@pytest.mark.parametrize("classes", [2, 4])
def test_a_head_is_a_matrix_and_a_bias(some, classes):
    head = fit(some, *blobs(classes))

    assert head.family == some.name
    assert head.classes == ("ant", "bee", "cat", "dog")[:classes]
    assert (head.weight.shape, head.bias.shape) == ((classes, D), (classes,))
    assert {getattr(head, name).dtype for name in ("weight", "bias", "mean", "scale")} == {np.dtype(np.float32)}


@pytest.mark.parametrize("classes", [2, 4])
def test_probabilities_sum_to_one_and_their_best_is_the_prediction(some, classes):
    x, labels = blobs(classes, apart=2.0)
    head = fit(some, x, labels)
    probabilities = head.probabilities(x)

    assert probabilities.shape == (len(x), classes)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert np.array(head.classes)[probabilities.argmax(axis=1)].tolist() == head.predict(x).tolist()


@pytest.mark.parametrize("classes", [2, 4])
def test_probabilities_of_blobs_that_overlap_are_right_as_often_as_they_say(some, classes):
    x, labels = blobs(classes, apart=2.0, each=150)
    new, wanted = blobs(classes, seed=1, apart=2.0, each=1000)
    head = fit(some, x, labels, folds=5, grid=None)

    assert head.probabilities(new).max(axis=1).mean() == pytest.approx(accuracy(head, new, wanted), abs=0.06)


def test_the_sharpness_is_that_of_the_head_and_not_of_the_smaller_ones_of_the_folds(some):
    # With few folds they see far fewer rows, and where C is small the weights grow with the rows.
    x, labels = blobs(4, apart=2.0, each=150)
    new, wanted = blobs(4, seed=1, apart=2.0, each=1000)
    head = fit(some, x, labels, folds=2, grid=some.grid[2:3])
    best = fit_sharpness(replace(head, sharpness=1.0).scores(new), np.unique(wanted, return_inverse=True)[1])

    assert head.sharpness / best == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("classes", [2, 4])
def test_one_seed_gives_one_head_bit_for_bit(some, classes):
    one, other = (fit(some, *blobs(classes), seed=3) for _ in range(2))

    assert list(parts(one)) == list(parts(other))


def test_fits_that_run_in_threads_are_the_fits_alone_bit_for_bit(some):
    # The folds of a search run so: solvers that share a state, such as one random generator, must not.
    x, labels = blobs(4, apart=2.0, dim=500)
    mean, scale = standardisation(x)
    codes = np.unique(labels, return_inverse=True)[1]

    def path(_: int) -> str:
        ((weight, bias),) = some.fit_path((x - mean) / scale, codes, 4, (0.01,), 3)
        return hashlib.sha256(weight.tobytes() + bias.tobytes()).hexdigest()

    with threadpool_limits(1), ThreadPoolExecutor(3 if some.threads else 1) as pool:
        alone = path(0)
        together = list(pool.map(path, range(9)))

    assert together == [alone] * 9


@pytest.mark.parametrize("classes", [2, 4])
def test_a_saved_head_is_the_same_head(some, classes, tmp_path):
    head = fit(some, *blobs(classes), fingerprint="f" * 64)
    head.save(tmp_path / "head.safetensors")
    found = LinearHead.load(tmp_path / "head.safetensors")

    assert list(parts(found)) == list(parts(head))
    assert found.probabilities(blobs(classes)[0]).tobytes() == head.probabilities(blobs(classes)[0]).tobytes()


def test_features_of_another_width_are_refused(some):
    with pytest.raises(HeadError, match=rf"expected features \(n, {D}\)"):
        fit(some, *blobs(2)).predict(blobs(2, dim=D + 1)[0])


@pytest.mark.parametrize("constant", [0.0, -7.5, 1e30])
def test_constant_features_do_no_harm(some, constant):
    (x, labels), (new, wanted) = blobs(4), blobs(4, seed=1)
    wide, new_wide = (np.insert(one, [3, 9], np.float32(constant), axis=1) for one in (x, new))
    head = fit(some, wide, labels)

    assert accuracy(head, new_wide, wanted) > 0.95
    assert np.isfinite(head.weight).all()


def test_features_that_are_all_constant_give_a_head(some):
    head = fit(some, np.ones((20, 3), np.float32), np.array(["a", "b"] * 10))

    np.testing.assert_allclose(head.probabilities(np.ones((1, 3), np.float32)), 0.5, atol=0.05)


@pytest.mark.parametrize("factor", [1e-6, 1e12, 1e30])
def test_features_of_any_scale_are_told_apart(some, factor):
    (x, labels), (new, wanted) = blobs(4), blobs(4, seed=1)
    head = fit(some, x * np.float32(factor), labels)

    assert accuracy(head, new * np.float32(factor), wanted) > 0.95


def test_one_feature_of_a_huge_scale_does_not_drown_the_others(some):
    (x, labels), (new, wanted) = blobs(4), blobs(4, seed=1)
    x[:, 0] *= 1e12
    new[:, 0] *= 1e12

    assert accuracy(fit(some, x, labels), new, wanted) > 0.95


def test_features_far_from_zero_are_told_apart(some):
    (x, labels), (new, wanted) = blobs(4), blobs(4, seed=1)

    assert accuracy(fit(some, x + 1000, labels), new + 1000, wanted) > 0.95


def test_a_class_of_one_image_is_harmless(some):
    x, labels = blobs(4)
    rows = np.r_[0:121]  # one dog
    head = fit(some, x[rows], labels[rows], grid=None)

    assert head.classes == ("ant", "bee", "cat", "dog")
    assert accuracy(head, *(part[:120] for part in blobs(4, seed=1))) > 0.95


def test_two_images_of_one_class_and_one_of_the_other_are_enough(some):
    x, labels = blobs(2, apart=20.0)
    head = fit(some, x[[0, 1, 40]], labels[[0, 1, 40]], grid=None)

    assert head.classes == ("ant", "bee")
    assert np.isfinite(head.probabilities(x)).all()


@pytest.mark.parametrize("each", [2, 3, 5, 10])
def test_a_few_images_of_a_real_backbones_width_give_a_sane_head(some, each):
    x, labels = blobs(2, each=each, dim=1280, apart=100.0)
    head = fit(some, x, labels, grid=None)

    assert np.abs(head.weight).max() < 100
    assert 0 < head.sharpness < np.inf
    assert accuracy(head, *blobs(2, seed=1, dim=1280, apart=100.0)) > 0.95


@pytest.mark.parametrize("absent", [0, 2, 3])
def test_a_class_without_rows_never_wins(some, absent):
    x, labels = blobs(4)
    codes = np.unique(labels, return_inverse=True)[1]
    mean, scale = standardisation(x)
    rows = codes != absent
    far = np.random.default_rng(2).normal(size=(1000, D)) * 100  # in all directions
    path = some.fit_path((x[rows] - mean) / scale, codes[rows], 4, some.grid, 0)

    for weight, bias in path[-3:]:
        scores = ((x - mean) / scale) @ weight.T + bias
        assert (weight.shape, bias.shape) == ((4, D), (4,))
        assert np.isfinite(weight).all()
        assert np.isfinite(bias).all()
        assert absent not in scores.argmax(axis=1)
        assert absent not in (far @ weight.T + bias).argmax(axis=1)
        assert (scores.argmax(axis=1) == codes)[rows].mean() > 0.95


@pytest.mark.parametrize("absent", [0, 1])
def test_the_only_class_that_has_rows_always_wins(some, absent):
    x, _ = blobs(2)
    codes = np.full(len(x), 1 - absent)

    ((weight, bias),), _, _ = _fit(x, codes, 2, some, some.grid[-2:-1], 0)

    assert ((x @ weight.T + bias).argmax(axis=1) == 1 - absent).all()


@pytest.mark.parametrize("classes", [2, 4])
def test_every_C_of_the_familys_grid_gives_finite_and_moderate_weights(some, classes):
    x, labels = blobs(classes)
    mean, scale = standardisation(x)
    codes = np.unique(labels, return_inverse=True)[1]

    for C, (weight, bias) in zip(
        some.grid, some.fit_path((x - mean) / scale, codes, classes, some.grid, 0), strict=True
    ):
        assert np.abs(weight).max() < 100, C  # NaN is not below 100 either
        assert np.abs(bias).max() < 100, C


def test_a_larger_C_regularises_less(some):
    x, labels = blobs(4, apart=2.0)
    mean, scale = standardisation(x)
    codes = np.unique(labels, return_inverse=True)[1]
    path = some.fit_path((x - mean) / scale, codes, 4, (1e-3, 1e-2, 1e-1), 0)
    norms = [float(np.linalg.norm(weight)) for weight, _ in path]

    assert norms[0] < norms[1] < norms[2]


def test_the_path_at_each_C_is_the_fit_at_that_C_alone(some):
    x, labels = blobs(4, apart=2.0)
    mean, scale = standardisation(x)
    codes = np.unique(labels, return_inverse=True)[1]
    grid = (1e-3, 1e-2, 1e-1)
    path = some.fit_path((x - mean) / scale, codes, 4, grid, 0)

    for C, (weight, bias) in zip(grid, path, strict=True):
        ((alone, alone_bias),) = some.fit_path((x - mean) / scale, codes, 4, (C,), 0)
        np.testing.assert_allclose(weight, alone, atol=2e-3)
        np.testing.assert_allclose(bias, alone_bias, atol=2e-3)


def test_the_features_given_are_left_as_they_were(some):
    x, labels = blobs(2)
    before = x.copy()
    fit(some, x, labels)

    assert np.array_equal(x, before)


def test_the_grid_rises(some):
    assert list(some.grid) == sorted(set(some.grid))
    assert some.grid[0] > 0


# --- beside scikit-learn ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("C", [0.001, 0.01, 0.1])
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [({"max_iter": 500}, 1e-4), ({"max_iter": 10_000, "tol": 1e-9}, 2e-3)],
    ids=["own", "exact"],
)
def test_logistic_gives_scikit_learns_own_probabilities(classes, C, options, tolerance):
    x, labels = blobs(classes, apart=2.0)
    scaler = StandardScaler().fit(x)
    reference = LogisticRegression(C=C, **options).fit(scaler.transform(x), labels)
    head = replace(fit(family("logistic"), x, labels, grid=(C,)), sharpness=1.0)
    new = blobs(classes, seed=1, apart=2.0)[0]

    assert head.classes == tuple(reference.classes_)
    np.testing.assert_allclose(head.probabilities(new), reference.predict_proba(scaler.transform(new)), atol=tolerance)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("dim", [3, 30], ids=["primal", "dual"])
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
    ours = fit(family("svm"), x, labels, grid=(0.01,)).scores(new)

    np.testing.assert_allclose(ours, theirs, atol=0.01)
    # Where two scores of theirs are further apart than the solvers' tolerance, ours stand in the same order.
    gaps = theirs[:, :, None] - theirs[:, None, :]
    assert ((ours[:, :, None] - ours[:, None, :])[gaps > 0.02] > 0).all()


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("C", [0.01, 0.1])
def test_softmax_labels_nearly_as_logistic_does(classes, C):
    x, labels = blobs(classes, apart=3.0)
    new, _ = blobs(classes, seed=1, apart=3.0, each=100)
    one, other = (fit(family(name), x, labels, grid=(C,)).predict(new) for name in ("softmax", "logistic"))

    assert (one == other).mean() > 0.97


def test_softmax_visits_the_rows_in_an_order_drawn_from_the_seed():
    x, labels = blobs(4, apart=2.0)
    heads = [fit(family("softmax"), x, labels, grid=(0.1,), seed=seed) for seed in (1, 2)]

    assert not np.array_equal(heads[0].weight, heads[1].weight)


# --- names and parts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "tree", "Logistic", "linear", "search", "../logistic"])
def test_an_unknown_family_is_a_head_error_that_names_the_known(name):
    with pytest.raises(HeadError, match="logistic, svm, softmax"):
        family(name)


def test_a_family_is_called_by_its_name(some):
    assert family(some.name) is some


def test_a_decision_between_two_is_spread_over_two_rows():
    weight, bias = spread(np.array([[1.0, 2.0]]), np.array([3.0]), np.array([0, 1]), 2)

    assert weight.tolist() == [[-1, -2], [1, 2]]
    assert bias.tolist() == [-3, 3]


def test_rows_are_spread_to_the_classes_that_were_present():
    weight, bias = spread(np.array([[1.0], [2.0], [3.0]]), np.array([4.0, 5.0, 6.0]), np.array([0, 2, 3]), 5)

    assert weight.tolist() == [[1], [0], [2], [3], [0]]
    assert bias[[0, 2, 3]].tolist() == [4, 5, 6]
    assert (bias[[1, 4]] < -1e29).all()


def test_two_present_of_three_classes_are_spread_to_their_rows():
    weight, bias = spread(np.array([[1.0]]), np.array([3.0]), np.array([0, 2]), 3)

    assert weight.tolist() == [[-1], [0], [1]]
    assert bias[[0, 2]].tolist() == [-3, 3]
    assert bias[1] < -1e29
