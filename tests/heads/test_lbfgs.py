"""The directions of L-BFGS beside its two loops, written out for one problem."""

import numpy as np

from bottleneck.heads.arrays import Arrays
from bottleneck.heads.lbfgs import StepHistory
from tests.variants import each

P, D = 3, 12


def quadratics(seed: int = 0) -> np.ndarray:
    """Return second derivatives ``(P, D, D)``."""
    roots = np.random.default_rng(seed).normal(size=(P, D, D))
    return roots @ roots.swapaxes(1, 2) + np.eye(D)


def two_loops(steps: list[np.ndarray], changes: list[np.ndarray], gradient: np.ndarray) -> np.ndarray:
    rest, parts = gradient.copy(), []
    for step, change in zip(reversed(steps), reversed(changes), strict=True):
        parts.append(step @ rest / (step @ change))
        rest -= parts[-1] * change
    rest *= steps[-1] @ changes[-1] / (changes[-1] @ (0.5 * changes[-1])) * 0.5
    for step, change, part in zip(steps, changes, reversed(parts), strict=True):
        rest += (part - change @ rest / (step @ change)) * step
    return -rest


@each("device", ["cpu", "torch"])
@each("taken", [1, 3, 4, 9])
def test_directions_are_those_of_the_two_loops(taken, device):
    arrays, random, second = Arrays(device), np.random.default_rng(1), quadratics()
    memory = StepHistory(arrays, P, D, 4)
    steps = random.normal(size=(taken, P, D)).astype(np.float32)
    changes = np.einsum("pij,tpj->tpi", second, steps).astype(np.float32)
    for step, change in zip(steps, changes, strict=True):
        memory.append(np.arange(P), arrays.put(step), arrays.put(change))
    gradient = random.normal(size=(P, D)).astype(np.float32)
    found = arrays.get(memory.direction(arrays.put(gradient), lambda some: 0.5 * some))

    for problem in range(P):
        own = [list(kept[-4:, problem].astype(np.float64)) for kept in (steps, changes)]
        expected = two_loops(*own, gradient[problem].astype(np.float64))
        np.testing.assert_allclose(found[problem], expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())


def test_without_a_memory_the_direction_is_the_preconditioners():
    gradient = np.ones((P, D), np.float32)

    np.testing.assert_array_equal(
        StepHistory(Arrays(), P, D, 4).direction(gradient, lambda some: 2 * some), -2 * gradient
    )


def test_problems_remember_on_their_own():
    memory, alone = StepHistory(Arrays(), P, D, 4), StepHistory(Arrays(), 1, D, 4)
    random = np.random.default_rng(2)
    gradient = random.normal(size=(P, D)).astype(np.float32)
    for rows in ([0, 2], [1], [2], [2, 0], [2], [2]):
        step = random.normal(size=(len(rows), D)).astype(np.float32)
        memory.append(np.array(rows), step, 3 * step)
        if 2 in rows:
            alone.append(np.array([0]), step[[rows.index(2)]], 3 * step[[rows.index(2)]])

    assert memory.taken.tolist() == [2, 1, 5]
    one, other = memory.direction(gradient, np.copy)[2], alone.direction(gradient[2:], np.copy)[0]
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_steps_along_which_the_slope_does_not_rise_teach_nothing():
    memory, step = StepHistory(Arrays(), P, D, 4), np.ones((P, D), np.float32)
    memory.append(np.arange(P), step, step * np.array([[1], [-1], [0]], np.float32))

    assert memory.taken.tolist() == [1, 0, 0]
    assert np.isfinite(memory.direction(step, np.copy)).all()


def test_what_was_learnt_at_one_C_is_true_at_another():
    random, penalty = np.random.default_rng(3), np.ones(D, np.float32)
    penalty[-1] = 0
    loss = quadratics()
    at_one, at_ten = StepHistory(Arrays(), P, D, 4), StepHistory(Arrays(), P, D, 4)
    for step in random.normal(size=(3, P, D)).astype(np.float32):
        of_loss = np.einsum("pij,pj->pi", loss, step).astype(np.float32)
        at_one.append(np.arange(P), step, of_loss + penalty * step)
        at_ten.append(np.arange(P), step, 10 * of_loss + penalty * step)
    at_one.rescale(10.0, penalty)
    gradient = random.normal(size=(P, D)).astype(np.float32)

    np.testing.assert_allclose(
        at_one.direction(gradient, np.copy), at_ten.direction(gradient, np.copy), rtol=1e-3, atol=1e-5
    )
