"""The solver beside scikit-learn's, on the very same problems; and each loss beside its own differences."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from bottleneck.errors import HeadError
from bottleneck.heads.arrays import Arrays
from bottleneck.heads.features import InMemoryFeatures, scaled, scalings
from bottleneck.heads.losses import LogisticLoss, SoftmaxLoss, SquaredHingeLoss
from bottleneck.heads.objective import Pass, SolverProblems, TrainingData, relative
from bottleneck.heads.precondition import Preconditioner, spectrum
from bottleneck.heads.solver import solve
from tests.variants import each

N, D = 240, 60
CS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]


def features(seed: int = 0, count: int = N) -> np.ndarray:
    """Return features as a network gives them: not negative, correlated, a few directions much larger."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(D, D)) * (1 + np.arange(D))[:, None] ** -1.0
    return np.maximum(random.normal(size=(count, D)) @ mixing, 0).astype(np.float32)


def classes(x: np.ndarray, count: int) -> np.ndarray:
    random = np.random.default_rng(5)
    scores = (x - x.mean(axis=0)) @ random.normal(size=(D, count)) + random.gumbel(size=(len(x), count)) * 2
    return scores.argmax(axis=1)


def problems(folds: int = 1, outputs: tuple[int, ...] = (0,)) -> SolverProblems:
    return SolverProblems(fold=np.repeat(np.arange(folds), len(outputs)), output=np.tile(outputs, folds))


def material(x: np.ndarray, codes: np.ndarray, weights: np.ndarray | None = None) -> TrainingData:
    return TrainingData(
        table=InMemoryFeatures(x), codes=codes, weights=np.ones((len(x), 1), np.float32) if weights is None else weights
    )


def signs(codes: np.ndarray, count: int) -> np.ndarray:
    return np.where(codes[:, None] == np.arange(count), 1, -1).astype(np.float32)


def logistic_objective(x, codes, C, weight, bias, row_weights=None) -> float:
    scores = x.astype(np.float64) @ weight.T + bias
    if len(weight) == 1:
        losses = np.logaddexp(0, -np.where(codes == 1, 1, -1) * scores[:, 0])
    else:
        top = scores.max(axis=1)
        losses = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top - scores[np.arange(len(x)), codes]
    return float(C * (losses * (1 if row_weights is None else row_weights)).sum() + (weight**2).sum() / 2)


def hinge_objective(x, sign, C, weight, bias) -> float:
    short = np.maximum(0, 1 - sign * (x.astype(np.float64) @ weight + bias))
    return float(C * (short**2).sum() + (weight**2).sum() / 2 + bias**2 / 2)


# --- beside scikit-learn ----------------------------------------------------------------------------------------


@functools.cache
def best_logistic(count: int, C: float) -> float:
    """Return scikit-learn's objective."""
    x = features()
    codes = classes(x, count)
    theirs = LogisticRegression(C=C, max_iter=10_000, tol=1e-8).fit(x.astype(np.float64), codes)
    return logistic_objective(x, codes, C, theirs.coef_, theirs.intercept_)


@functools.cache
def best_svm(output: int, C: float) -> float:
    """Return LIBLINEAR's objective for one of four classes."""
    x = features()
    sign = signs(classes(x, 4), 4)[:, output]
    theirs = LinearSVC(C=C, dual=False, tol=1e-8, max_iter=100_000).fit(x.astype(np.float64), sign)
    return hinge_objective(x, sign, C, theirs.coef_[0], theirs.intercept_[0])


@each("device", ["cpu", "torch"])
@each("count", [2, 3, 6])
def test_logistic_reaches_scikit_learns_objective_at_every_C(count, device):
    x = features()
    codes = classes(x, count)
    loss = LogisticLoss() if count == 2 else SoftmaxLoss(count)
    found = solve(Arrays(device), material(x, codes), loss, problems(outputs=(1,)), CS, tolerance=1e-3)

    for C, (theta,), (objective,) in zip(CS, found.theta.astype(np.float64), found.objective, strict=True):
        ours = logistic_objective(x, codes, C, theta[:, :-1], theta[:, -1])
        assert ours <= best_logistic(count, C) * (1 + 1e-3), C
        assert objective == pytest.approx(ours, rel=1e-4)


@each("device", ["cpu", "torch"])
def test_svm_reaches_liblinears_objective_at_every_C(device):
    x = features()
    codes = classes(x, 4)
    found = solve(
        Arrays(device), material(x, codes), SquaredHingeLoss(), problems(outputs=(0, 1, 2, 3)), CS, tolerance=1e-3
    )

    for number, output in np.ndindex(len(CS), 4):
        C, theta = CS[number], found.theta[number, output, 0].astype(np.float64)
        ours = hinge_objective(x, signs(codes, 4)[:, output], C, theta[:-1], theta[-1])
        assert ours <= best_svm(output, C) * (1 + 1e-3), (C, output)


@each("offset", [0, 3, 30])
def test_svm_of_features_far_from_zero_reaches_liblinears_objective(offset):
    x = features() + np.float32(offset)
    codes = classes(x, 3)
    found = solve(
        Arrays(), material(x, codes), SquaredHingeLoss(), problems(outputs=(1,)), [0.1, 1.0, 10.0], tolerance=1e-3
    )
    sign = signs(codes, 3)[:, 1]

    for C, ((theta,),) in zip((0.1, 1.0, 10.0), found.theta.astype(np.float64), strict=True):
        theirs = LinearSVC(C=C, dual=False, tol=1e-9, max_iter=100_000).fit(x.astype(np.float64), sign)
        best = hinge_objective(x, sign, C, theirs.coef_[0], theirs.intercept_[0])
        assert hinge_objective(x, sign, C, theta[:-1], theta[-1]) <= best * (1 + 1e-3), C


def test_rows_may_have_weights():
    x = features()
    codes, weights = classes(x, 3), np.random.default_rng(1).uniform(0.2, 3, N).astype(np.float32)
    found = solve(Arrays(), material(x, codes, weights[:, None]), SoftmaxLoss(3), problems(), [0.1], tolerance=1e-4)
    theirs = LogisticRegression(C=0.1, max_iter=10_000, tol=1e-8).fit(x.astype(np.float64), codes, weights)
    theta = found.theta[0, 0].astype(np.float64)

    best = logistic_objective(x, codes, 0.1, theirs.coef_, theirs.intercept_, weights)
    assert logistic_objective(x, codes, 0.1, theta[:, :-1], theta[:, -1], weights) <= best * (1 + 1e-4)


def test_a_fold_sees_its_own_rows_in_its_own_scaling():
    x = features()
    codes = classes(x, 3)
    trained = np.random.default_rng(2).random((N, 3)) > 0.3
    whole, *folds = scalings(InMemoryFeatures(x), trained, "standard")
    shift, gain = relative(whole, folds)
    shared = TrainingData(
        table=scaled(InMemoryFeatures(x), whole),
        codes=codes,
        weights=trained.astype(np.float32),
        shift=shift,
        gain=gain,
    )
    together = solve(Arrays(), shared, SoftmaxLoss(3), problems(folds=3), [0.01, 1.0], tolerance=1e-7)

    for number, fold in np.ndindex(2, 3):
        C = (0.01, 1.0)[number]
        rows = trained[:, fold]
        alone = material(folds[fold](x[rows]), codes[rows])
        expected = solve(Arrays(), alone, SoftmaxLoss(3), problems(), [C], tolerance=1e-7)
        assert together.objective[number, fold] == pytest.approx(expected.objective[0, 0], rel=1e-5)
        ours, theirs = together.theta[number, fold], expected.theta[0, 0]
        np.testing.assert_allclose(ours[:, :-1], theirs[:, :-1], atol=2e-2)
        np.testing.assert_allclose(np.ptp(ours[:, -1] - theirs[:, -1]), 0, atol=2e-2)  # all may be larger by one number


# --- how it goes there ------------------------------------------------------------------------------------------


def test_problems_that_do_not_fit_together_are_solved_in_parts():
    x = features()
    codes = classes(x, 3)
    whole = solve(Arrays(), material(x, codes), SoftmaxLoss(3), problems(), CS, tolerance=1e-7)
    parts = solve(Arrays(), material(x, codes), SoftmaxLoss(3), problems(), CS, tolerance=1e-7, working_bytes=60_000)

    np.testing.assert_allclose(parts.objective, whole.objective, rtol=1e-4)


def test_blocks_of_rows_give_what_all_rows_at_once_give():
    x = features()
    codes = classes(x, 3)
    whole = solve(Arrays(), material(x, codes), SoftmaxLoss(3), problems(), CS, tolerance=1e-7)
    cut = replace(material(x, codes), table=InMemoryFeatures(x, range(64, N, 64)))
    blocks = solve(Arrays(), cut, SoftmaxLoss(3), problems(), CS, tolerance=1e-7)

    np.testing.assert_allclose(blocks.objective, whole.objective, rtol=1e-4)


def test_a_start_near_the_end_is_a_short_way():
    x = features()
    codes = classes(x, 3)
    first = solve(Arrays(), material(x, codes), SoftmaxLoss(3), problems(), [1.0], tolerance=1e-7)
    again = solve(Arrays(), material(x, codes), SoftmaxLoss(3), problems(), [1.0], tolerance=1e-4, start=first.theta[0])

    assert again.iterations[0, 0] < first.iterations[0, 0] / 3
    assert again.objective[0, 0] == pytest.approx(first.objective[0, 0], rel=1e-4)


def test_a_large_C_is_reached_sooner_by_way_of_smaller_ones():
    x = features()
    codes = classes(x, 3)
    zero = np.zeros((1, 3, D + 1), np.float32)
    at_once = solve(Arrays(), material(x, codes), SoftmaxLoss(3), problems(), [10.0], tolerance=1e-3, start=zero)
    climbed = solve(Arrays(), material(x, codes), SoftmaxLoss(3), problems(), CS, tolerance=1e-3)

    assert climbed.iterations[-1, 0] < at_once.iterations[0, 0]
    assert climbed.objective[-1, 0] == pytest.approx(at_once.objective[0, 0], rel=1e-3)


def test_the_order_of_the_Cs_does_not_matter():
    x = features()
    codes = classes(x, 3)
    shared = material(x, codes)
    up, down = (solve(Arrays(), shared, SoftmaxLoss(3), problems(), Cs, tolerance=1e-3) for Cs in (CS, CS[::-1]))

    np.testing.assert_array_equal(up.theta, down.theta[::-1])


def test_products_are_computed_in_float32():
    seen = set()

    class Watched(SoftmaxLoss):
        def __call__(self, arrays, scores, target, weights):
            seen.add(scores.dtype)
            return super().__call__(arrays, scores, target, weights)

    x = features()
    solve(Arrays(), material(x, classes(x, 3)), Watched(3), problems(), CS, tolerance=1e-3)

    assert seen == {np.dtype(np.float32)}


def test_blocks_that_a_fold_tests_are_left_out_of_its_products():
    x = features()
    codes, tested = classes(x, 3), np.arange(N) * 4 // N
    weights = (tested[:, None] != np.arange(4)).astype(np.float32)
    theta = np.random.default_rng(3).normal(size=(4, 3, D + 1)).astype(np.float32)
    cut = TrainingData(table=InMemoryFeatures(x, np.flatnonzero(np.diff(tested)) + 1), codes=codes, weights=weights)
    found, expected = (
        Pass(Arrays(), one, SoftmaxLoss(3), problems(folds=4))(theta) for one in (cut, material(x, codes, weights))
    )

    for name, value in vars(found).items():
        np.testing.assert_allclose(value, getattr(expected, name), rtol=1e-4, atol=1e-3)


def test_easy_problems_end_before_hard_ones():
    x = features()
    found = solve(Arrays(), material(x, classes(x, 3)), SoftmaxLoss(3), problems(), [1e-5, 10.0], tolerance=1e-3)

    assert found.iterations[0, 0] < found.iterations[1, 0]


def test_a_fold_without_rows_has_the_weights_it_began_with():
    x = features()
    weights = np.stack([np.ones(N), np.zeros(N)], axis=1).astype(np.float32)
    found = solve(
        Arrays(), material(x, classes(x, 3), weights), SoftmaxLoss(3), problems(folds=2), [1.0], tolerance=1e-3
    )

    assert np.isfinite(found.theta).all()
    assert not found.theta[0, 1].any()
    assert found.theta[0, 0].any()


def test_knowing_the_large_directions_saves_most_of_the_way():
    x = features() * np.float32(30)
    codes = classes(features(), 3)
    options = {"tolerance": 1e-3, "history": 8}  # a longer one compensates for some of it
    known, unknown = (
        solve(
            Arrays(), material(x, codes), SoftmaxLoss(3), problems(), [1e-3], preconditioner=kind, **options
        ).iterations[0, 0]
        for kind in (Preconditioner, Plain)
    )

    assert known < unknown / 2


class Plain(Preconditioner):
    """A preconditioner that knows nothing."""

    def __call__(self, gradient: np.ndarray) -> np.ndarray:
        return gradient * 1e-4


def test_the_spectrum_is_that_of_the_covariance():
    x = features(count=2000)
    found = spectrum(Arrays(), InMemoryFeatures(x), bias=False)
    exact = np.linalg.eigvalsh(x.T.astype(np.float64) @ x / len(x))[::-1]
    rank = len(found.values)

    np.testing.assert_allclose(found.values[:10], exact[:10], rtol=1e-3)
    np.testing.assert_allclose(found.values.sum() + found.tail * (D - rank), exact.sum(), rtol=1e-3)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(rank), atol=1e-4)


def test_a_bias_that_is_a_weight_is_in_the_spectrum():
    x = features(count=2000)
    found = spectrum(Arrays(), InMemoryFeatures(x), bias=True)
    known = np.column_stack([x, np.ones(len(x))]).astype(np.float64)
    exact = np.linalg.eigvalsh(known.T @ known / len(x))[::-1]

    np.testing.assert_allclose(found.values[:10], exact[:10], rtol=1e-3)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(len(found.values)), atol=1e-4)


@each("count", [1, 5])
def test_fewer_rows_than_directions_have_a_spectrum(count):
    found = spectrum(Arrays(), InMemoryFeatures(features(count=count)), bias=False)

    assert found.vectors.shape == (D + 1, len(found.values))
    assert not found.vectors[-1].any()
    assert np.isfinite(found.vectors).all()


# --- losses -----------------------------------------------------------------------------------------------------


@each("device", ["cpu", "torch"])
@each("loss", [SoftmaxLoss(3), LogisticLoss(), SquaredHingeLoss()], ids=lambda loss: type(loss).__name__)
def test_a_losss_derivative_is_that_of_its_differences(loss, device):
    arrays, random = Arrays(device), np.random.default_rng(0)
    scores = random.normal(size=(4, 2, loss.outputs)).astype(np.float32)
    weights = random.uniform(0.5, 2, (4, 2)).astype(np.float32)
    target = np.array([0, 2, 1, 1]) if loss.outputs == 3 else random.choice([-1, 1], (4, 2)).astype(np.float32)

    def ask(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = loss(arrays, arrays.put(at.copy()), arrays.put(target), arrays.put(weights))
        return arrays.get(found.total), arrays.get(found.slope)

    slope = ask(scores)[1]
    for place in np.ndindex(scores.shape):
        change = np.zeros_like(scores)
        change[place] = 1e-2
        difference = ((ask(scores + change)[0] - ask(scores - change)[0]) / 2e-2)[place[1]]
        assert slope[place] == pytest.approx(difference, abs=2e-2)


@each("loss", [SoftmaxLoss(3), LogisticLoss(), SquaredHingeLoss()], ids=lambda loss: type(loss).__name__)
def test_a_losss_curvature_is_how_its_derivative_differs(loss):
    arrays, random = Arrays(), np.random.default_rng(1)
    scores = random.normal(size=(4, 2, loss.outputs)).astype(np.float32)
    weights = random.uniform(0.5, 2, (4, 2)).astype(np.float32)
    target = np.array([0, 2, 1, 1]) if loss.outputs == 3 else random.choice([-1, 1], (4, 2)).astype(np.float32)
    curvature = loss(arrays, scores.copy(), target, weights).curvature

    for output in range(loss.outputs):
        change = np.zeros_like(scores)
        change[..., output] = 1e-2
        above, below = (loss(arrays, scores + sign * change, target, weights).slope[..., output] for sign in (1, -1))
        np.testing.assert_allclose(curvature[:, output], (above - below).sum(axis=0) / 2e-2, atol=2e-2)


@each("loss", [SoftmaxLoss(3), LogisticLoss()], ids=lambda loss: type(loss).__name__)
@each("size", [1e3, 1e10, 1e30])
def test_huge_scores_have_a_finite_loss(loss, size):
    scores = np.array([-1, 1, 0.5][: loss.outputs], np.float32).reshape(1, 1, -1) * np.float32(size)
    target = np.array([1]) if loss.outputs == 3 else np.ones((1, 1), np.float32)
    found = loss(Arrays(), scores, target, np.ones((1, 1), np.float32))

    for value in vars(found).values():
        assert np.isfinite(value).all()


# --- where it is computed ---------------------------------------------------------------------------------------


@each("device", ["", "abacus", "cuda:99", "mps"])
def test_a_device_that_is_not_there_is_a_head_error(device):
    with pytest.raises(HeadError, match="device"):
        Arrays(device)


def test_torch_computes_what_numpy_does():
    x = features()
    one, other = (
        solve(Arrays(device), material(x, classes(x, 3)), SoftmaxLoss(3), problems(), CS, tolerance=1e-7)
        for device in ("cpu", "torch")
    )

    np.testing.assert_allclose(one.objective, other.objective, rtol=1e-4)
