import numpy as np
import pytest

from bottleneck.evaluation.discriminant import Discriminant, principal_directions
from bottleneck.evaluation.familiarity import familiarity, reference_rows, representative
from tests.variants import each

DIM = 12


def drawn(seed, count, classes=3, dim=DIM):
    """Return features of several classes, and labels."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, classes, count)
    centres = 4 * np.random.default_rng(99).normal(size=(classes, dim))
    return (centres[codes] + random.normal(size=(count, dim))).astype(np.float32), [f"class {code}" for code in codes]


def test_p_values_of_exchangeable_images_are_uniform():
    trials, found = 400, []
    for seed in range(trials):
        x, labels = drawn(seed, 15 + 19 + 1)
        known = familiarity(x[:15], labels[:15], unseen=x[15:34])
        found.append(known.p_values(x[34:])[0])
    counts = np.bincount(np.round(20 * np.array(found)).astype(int), minlength=21)
    assert counts[0] == 0
    fifths = counts[1:].reshape(5, 4).sum(axis=1)  # each binomial (400, 0.2): 80 ± 8, and 40 away in 1 of 700,000
    assert np.abs(fifths - trials / 5).max() < 40


@each("grouped", [False, True])
def test_about_a_twentieth_of_new_images_is_below_a_twentieth(grouped):
    x, labels = drawn(0, 600)
    groups = [f"{row // 2}" for row in range(600)] if grouped else None
    p_values = familiarity(x, labels, groups).p_values(drawn(1, 2000)[0])
    assert 0.03 < (p_values <= 0.05).mean() < 0.07
    assert 0.4 < p_values.mean() < 0.6


def test_images_of_another_kind_have_the_least_p_value():
    x, labels = drawn(0, 200)
    known = familiarity(x, labels)
    far = -20 * x.mean(axis=0, keepdims=True)
    assert known.p_values(far).tolist() == [1 / 201]
    assert known.least == 1 / 201
    assert known.p_values(x[:1])[0] > 0.5, "a training image is usual"
    assert known.p_values(np.zeros((1, DIM), np.float32)).tolist() == [1 / 201]


def test_a_new_class_is_seen_where_classes_differ():
    random = np.random.default_rng(5)
    codes = random.integers(0, 5, 500)
    centres = np.concatenate([8 * np.eye(5), -4 * np.ones((1, 5))])

    def features(codes):
        """Return features with a small part in which classes differ, and a large one in which images do."""
        small, large = random.normal(size=(len(codes), 5)), 40 * random.normal(size=(len(codes), 6))
        return np.concatenate([small + centres[codes], large], axis=1).astype(np.float32)

    x, new = features(codes), features(np.full(300, 5))
    with_classes = familiarity(x, [str(code) for code in codes])
    without = familiarity(x, [str(row) for row in range(500)])
    assert without.discriminant.count == 0
    assert (without.p_values(new) <= 0.05).mean() < 0.2
    assert (with_classes.p_values(new) <= 0.05).mean() > 0.9
    assert (with_classes.p_values(features(codes)) <= 0.05).mean() < 0.08


def test_copies_count_once():
    x, labels = drawn(0, 80)
    once, twice = familiarity(x, labels), familiarity(np.concatenate([x, x]), [*labels, *labels])
    assert len(twice.references) == len(twice.calibration) == 80
    assert np.array_equal(once.p_values(drawn(1, 50)[0]), twice.p_values(drawn(1, 50)[0]))


def test_images_of_a_group_are_not_compared_with_each_other():
    x, labels = drawn(0, 100)
    scenes = np.repeat(x, 12, axis=0) + np.random.default_rng(1).normal(0, 1e-3, (1200, DIM)).astype(np.float32)
    names, groups = [label for label in labels for _ in range(12)], [str(row // 12) for row in range(1200)]
    new = drawn(1, 300)[0]
    assert (familiarity(scenes, names).p_values(new) <= 0.05).mean() > 0.9
    assert (familiarity(scenes, names, groups).p_values(new) <= 0.05).mean() < 0.15


@each(
    "count, labels, calibrated",
    [(1, "a", 0), (2, "ab", 2), (5, "aaabb", 5), (30, "ab" + 28 * "c", 30), (30, 30 * "a", 30)],
)
def test_few_images_and_few_of_a_class_have_defined_p_values(count, labels, calibrated):
    x = drawn(0, count)[0]
    known = familiarity(x, list(labels))
    p_values = known.p_values(drawn(1, 20)[0])
    assert len(known.calibration) == calibrated
    assert np.isfinite(p_values).all()
    assert p_values.min() >= known.least == 1 / (calibrated + 1)
    assert p_values.max() <= 1


@each("value", [0.0, 1.0])
def test_equal_images_are_one(value):
    known = familiarity(np.full((40, DIM), value, np.float32), ["a", "b"] * 20)
    assert len(known.references) == 1
    assert known.p_values(drawn(1, 3)[0]).tolist() == [1, 1, 1], "nothing is known about distances"


def test_one_group_leaves_nothing_to_calibrate_with():
    x, labels = drawn(0, 30)
    assert familiarity(x, labels, ["one"] * 30).p_values(x).tolist() == [1.0] * 30


def test_p_values_do_not_depend_on_the_other_images():
    x, labels = drawn(0, 150)
    known, new = familiarity(x, labels), drawn(1, 64)[0]
    order = np.random.default_rng(0).permutation(64)
    assert known.p_values(new[order]) == pytest.approx(known.p_values(new)[order], abs=1 / 151)
    assert known.p_values(new[:1]) == pytest.approx(known.p_values(new)[:1], abs=1 / 151)
    assert known.p_values(new[:0]).shape == (0,)


def test_equal_seeds_give_equal_results():
    x, labels = drawn(0, 150)
    assert np.array_equal(familiarity(x, labels).calibration, familiarity(x, labels).calibration)
    assert not np.array_equal(familiarity(x, labels).calibration, familiarity(x, labels, seed=1).calibration)


def test_references_are_drawn_evenly_over_the_classes():
    labels = ["large"] * 900 + ["small"] * 5 + ["medium"] * 95
    rows = reference_rows(labels, 105)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert [sum(labels[row] == name for row in rows) for name in ("large", "small", "medium")] == [50, 5, 50]
    assert reference_rows(labels, 1000).tolist() == list(range(1000))
    assert reference_rows(labels, 105, seed=1).tolist() != rows.tolist()


def test_references_calibrate_in_the_ratio_of_the_classes():
    labels = ["large"] * 900 + ["small"] * 5 + ["medium"] * 95
    rows = reference_rows(labels, 105)
    chosen = [labels[row] for row in rows[representative(labels, rows)]]
    assert [chosen.count(name) for name in ("large", "small", "medium")] == [50, 1, 6]
    assert representative(labels, np.arange(1000)).all()
    assert representative(labels, np.array([0, 950])).tolist() == [True, True], "no reference of a class"
    x = drawn(0, 30)[0]
    half = np.arange(30) < 15
    assert len(familiarity(x, ["a", "b"] * 15, calibrates=half).calibration) == 15


def test_principal_directions_are_those_of_the_singular_values():
    random = np.random.default_rng(0)
    rows = (random.normal(size=(60, 20)) * 0.5 ** np.arange(20)).astype(np.float32)
    found = principal_directions(rows, 4)
    exact = np.linalg.svd(rows, full_matrices=False)[2][:4].T
    assert np.abs((found * exact).sum(axis=0)) == pytest.approx(np.ones(4), abs=1e-3)
    assert found.T @ found == pytest.approx(np.eye(4), abs=1e-5)
    assert principal_directions(rows[:3], 10).shape == (20, 3)
    assert principal_directions(np.ones((5, 20), np.float32), 10).shape == (20, 1)


def test_discriminants_weigh_directions_by_their_differences_within_a_class():
    random = np.random.default_rng(0)
    codes = np.repeat([0, 1], 500)
    rows = (random.normal(size=(1000, 2)) * [10, 1]).astype(np.float32)
    rows[:, 1] += 6 * codes
    first = Discriminant.of(rows, codes, 1).directions[:, 0]
    assert abs(first[0] / first[1]) < 0.02
    assert Discriminant.of(rows[:1], codes[:1]).count == 0, "nothing varies within a class"
