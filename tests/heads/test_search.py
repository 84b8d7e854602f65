from collections.abc import Callable

import numpy as np
import pytest

from bottleneck.errors import HeadError
from bottleneck.heads.family import NAMES, Family, family
from bottleneck.heads.linear import softmax
from bottleneck.heads.search import fit_sharpness, one_standard_error, search, standardisation

LOGISTIC = family("logistic")


def rows(labels: list[str], apart: float = 5.0, seed: int = 0) -> np.ndarray:
    """Return features (n, 9) of separable classes; the first is the number of the row."""
    centres = np.random.default_rng(7).normal(size=(26, 8)) * apart
    noise = np.random.default_rng(seed).normal(size=(len(labels), 8))
    x = centres[[ord(label) - ord("a") for label in labels]] + noise
    return np.column_stack([np.arange(len(labels)), x]).astype(np.float32)


@pytest.fixture
def folds(monkeypatch) -> Callable[..., list[tuple[set[int], set[int]]]]:
    """Return a function that searches, and returns the rows that each fold was trained and tested on."""

    def run(labels: list[str], **options: object) -> list[tuple[set[int], set[int]]]:
        seen: list[set[int]] = []

        def spy(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            seen.append({int(number) for number in features[:, 0]})
            return standardisation(features)

        monkeypatch.setattr("bottleneck.heads.search.standardisation", spy)
        search(rows(labels), labels, LOGISTIC, grid=(0.1,), **options)
        everything = set(range(len(labels)))
        assert seen[-1] == everything, "the head itself is fitted on all rows"
        return [(train, everything - train) for train in seen[:-1]]

    return run


# --- what is chosen ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_chosen_C_is_in_the_familys_grid(name):
    labels = list("ab" * 20)
    found = search(rows(labels), labels, family(name))

    assert found.grid == family(name).grid
    assert found.C in found.grid
    assert found.fold_accuracy.shape == (len(found.grid), 5)


def test_the_chosen_C_is_in_the_grid_that_was_given():
    labels = list("ab" * 20)
    found = search(rows(labels), labels, LOGISTIC, grid=(1.0, 0.01, 0.1))

    assert found.grid == (0.01, 0.1, 1.0)
    assert found.C in found.grid


def test_the_head_is_the_familys_at_the_chosen_C():
    labels = list("abc" * 20)
    x = rows(labels, apart=0.5)
    found = search(x, labels, LOGISTIC)
    mean, scale = standardisation(x)
    codes = np.array([ord(label) - ord("a") for label in labels])
    ((weight, bias),) = LOGISTIC.fit_path((x - mean) / scale, codes, 3, (found.C,), 0)

    assert found.head.weight.tobytes() == weight.tobytes()
    assert found.head.bias.tobytes() == bias.tobytes()


def test_the_accuracy_is_the_mean_over_folds_at_the_chosen_C():
    labels = list("abc" * 20)
    found = search(rows(labels, apart=0.5), labels, LOGISTIC)
    row = found.grid.index(found.C)

    assert found.accuracy == pytest.approx(found.fold_accuracy[row].mean())
    assert row == one_standard_error(found.fold_accuracy)


def test_the_accuracy_of_noise_is_that_of_chance():
    labels = list("ab" * 100)
    x = np.random.default_rng(0).normal(size=(200, 50)).astype(np.float32)

    assert search(x, labels, LOGISTIC).accuracy == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([[0.9, 0.9], [0.95, 0.95], [0.8, 0.8]], 1),  # no spread: the best
        ([[0.9, 0.9], [0.9, 0.9], [0.9, 0.9]], 0),  # all equal: the most regularised
        ([[0.88, 0.88], [0.85, 0.95], [0.7, 0.7]], 0),  # error 0.05, so 0.85 is enough
        ([[0.84, 0.84], [0.85, 0.95], [0.7, 0.7]], 1),  # 0.84 is not
        ([[0.84, 0.84], [0.86, 0.86], [0.85, 0.95]], 1),  # the first within the error
        ([[0.2, 1.0], [0.9, 0.9]], 1),  # the error is the best one's, not the others'
        ([[0.7, 0.7, 0.7, 0.7], [0.5, 0.7, 0.9, 1.0]], 0),  # error 0.111, so 0.664 is enough
        ([[0.66, 0.66, 0.66, 0.66], [0.5, 0.7, 0.9, 1.0]], 1),
        ([[0.8], [0.9], [0.9]], 1),  # one fold has no spread
        ([[0.6]], 0),
    ],
)
def test_one_standard_error(table, expected):
    assert one_standard_error(np.array(table)) == expected


# --- the rows that are looked at --------------------------------------------------------------------------------


def test_each_row_is_tested_once_and_never_trained_on_then(folds):
    found = folds(list("abc" * 10))

    assert len(found) == 5
    assert sorted(row for _, test in found for row in test) == list(range(30))


def test_every_fold_has_its_share_of_each_class(folds):
    labels = list("a" * 40 + "b" * 10)

    for _, test in folds(labels):
        assert sum(labels[row] == "b" for row in test) == 2


@pytest.mark.parametrize(("labels", "expected"), [("a" * 20 + "b" * 2, 5), ("aaab", 3), ("ab" * 9, 5)])
def test_there_are_no_more_folds_than_images_of_the_largest_class(folds, labels, expected):
    assert len(folds(list(labels))) == expected


def test_the_number_of_folds_can_be_asked_for(folds):
    assert len(folds(list("ab" * 10), folds=3)) == 3


def test_the_seed_decides_the_folds(folds):
    one, same, other = (sorted(sorted(test) for _, test in folds(list("ab" * 10), seed=seed)) for seed in (1, 1, 2))

    assert one == same
    assert one != other


def test_a_fold_is_standardised_by_its_own_training_rows():
    labels = list("ab" * 20)
    seen: list[np.ndarray] = []

    def spy(features, codes, count, grid, seed):
        seen.append(features)
        return LOGISTIC.fit_path(features, codes, count, grid, seed)

    x = rows(labels)
    x[:8] += 100  # rows that move a mean wherever they are
    search(x, labels, Family("spy", (0.1,), spy))

    assert len(seen) == 6
    for features in seen:
        np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(features.std(axis=0), 1, atol=1e-4)


def test_the_heads_scaling_is_that_of_the_training_rows():
    labels = list("ab" * 20)
    x = rows(labels)
    head = search(x, labels, LOGISTIC).head

    np.testing.assert_allclose(head.mean, x.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(head.scale, x.std(axis=0), rtol=1e-5)


GROUPED = {
    "pairs": (list("ab" * 20), [f"g{row // 4}" for row in range(40)]),
    "some alone": (list("ab" * 20), [f"g{row // 4}" if row < 20 else None for row in range(40)]),
    "the only image of a class in a group with others": (list("abbbbb"), ["g0", "g0", "g1", "g2", "g3", None]),
    "a class in one group that others share": (list("aabbbbbbbb"), ["g0", "g0", "g0", "g0", *"123456"]),
    "three classes": (list("accbbcac"), ["1", "1", "2", "2", "3", "1", None, "3"]),
}


@pytest.mark.parametrize("case", GROUPED)
def test_a_group_is_never_on_both_sides_of_a_fold(folds, case):
    labels, groups = GROUPED[case]

    for train, test in folds(labels, groups=groups):
        assert not {groups[row] for row in train} & {groups[row] for row in test} - {None}


def test_groups_that_are_all_alone_change_nothing():
    labels = list("ab" * 20)
    found = [
        search(rows(labels, 0.3), labels, LOGISTIC, groups=groups)
        for groups in (None, [None] * 40, [f"g{row}" for row in range(40)])
    ]

    assert len({one.head.weight.tobytes() for one in found}) == 1
    assert len({one.fold_accuracy.tobytes() for one in found}) == 1


def test_a_group_called_like_a_row_is_no_row():
    labels = list("ab" * 20)
    groups = ["row 0" if row in (5, 6) else None for row in range(40)]
    one = search(rows(labels), labels, LOGISTIC, groups=groups)
    other = search(rows(labels), labels, LOGISTIC, groups=["g" if group else None for group in groups])

    assert one.fold_accuracy.tobytes() == other.fold_accuracy.tobytes()


# --- few images -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("labels", ["aab", "abb", "aabb", "aaab", "aaaaabc", "aabbbbbbbbc", "aab" + "cdef"])
def test_a_class_with_one_image_never_breaks_it(name, labels):
    found = search(rows(list(labels), apart=50.0), list(labels), family(name))

    assert found.head.classes == tuple(sorted(set(labels)))
    assert np.isfinite(found.head.probabilities(rows(list(labels), apart=50.0))).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_small_class_is_not_given_up_for_the_large_one(name):
    # By plain accuracy a head that never says "b" would be within a standard error of the best.
    labels = list("a" * 95 + "b" * 5)
    x = rows(labels, apart=1.5)

    assert "b" in search(x, labels, family(name)).head.predict(x).tolist()


def test_the_only_image_of_a_class_is_always_trained_on(folds):
    found = folds(list("aaaaabbbbbc"))

    assert all(10 in train for train, _ in found)


# Here a fold's training rows lack a class: its two groups are both tested at once, as other classes ask for it.
LACKING = {
    "one of several": (list("bacacb"), ["2", "3", "6", None, "6", "3"]),
    "one of two": (list("bbabaaaab"), ["0", "0", "1", "0", "1", "0", "1", "0", None]),
    "one of four": (list("bcbadcadda"), ["0", "0", "2", None, "4", "4", "3", None, None, "2"]),
}


@pytest.mark.parametrize("case", LACKING)
@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_a_fold_cannot_learn_is_harmless(name, case):
    labels, groups = LACKING[case]
    x = rows(labels, apart=50.0)[:, 1:]
    head = search(x, labels, family(name), groups=groups, grid=(0.1,)).head
    right = [head.classes.index(label) for label in labels]

    assert head.predict(x).tolist() == labels
    # Images whose class could not be learnt must not turn all probabilities into 1/k.
    assert head.probabilities(x)[np.arange(len(x)), right].min() > 1.1 / len(head.classes)


@pytest.mark.parametrize("labels", [[], ["a"], ["a"] * 10])
def test_one_class_is_a_head_error(labels):
    with pytest.raises(HeadError, match="at least two classes"):
        search(np.ones((len(labels), 9), np.float32), labels, LOGISTIC)


def test_classes_of_one_image_each_are_a_head_error():
    with pytest.raises(HeadError, match="at least two training images"):
        search(rows(list("abc")), list("abc"), LOGISTIC)


def test_classes_of_one_group_each_are_a_head_error():
    with pytest.raises(HeadError, match="two groups"):
        search(rows(list("aabb")), list("aabb"), LOGISTIC, groups=["1", "1", "2", "2"])


@pytest.mark.parametrize("grid", [(), (0.0, 1.0), (-1.0,)])
def test_an_impossible_grid_is_a_head_error(grid):
    with pytest.raises(HeadError, match="values of C above 0"):
        search(rows(list("aabb")), list("aabb"), LOGISTIC, grid=grid)


def test_the_head_carries_the_fingerprint():
    assert search(rows(list("aabb")), list("aabb"), LOGISTIC, fingerprint="f" * 64).head.fingerprint == "f" * 64


# --- scaling and sharpness --------------------------------------------------------------------------------------


def test_standardisation_is_the_mean_and_the_standard_deviation():
    x = np.random.default_rng(0).normal(5, 3, (50, 4)).astype(np.float32)
    mean, scale = standardisation(x)

    assert mean.dtype == scale.dtype == np.float32
    np.testing.assert_allclose(mean, x.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(scale, x.std(axis=0, dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3, 1e-20, 1e20])
def test_a_constant_feature_has_scale_one(value):
    x = np.full((1000, 1), value, np.float32)
    mean, scale = standardisation(x)

    assert mean[0] == np.float32(value)
    assert scale[0] == 1


def test_many_rows_do_not_blur_the_mean():
    x = np.full((200_000, 1), 0.1, np.float32)
    x[::2] += 4

    assert standardisation(x)[0][0] == pytest.approx(2.1, rel=1e-6)
    assert standardisation(x)[1][0] == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("factor", [0.01, 0.3, 1.0, 4.0, 300.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_a_known_sharpness_is_recovered(factor, classes):
    random = np.random.default_rng(0)
    scores = random.normal(size=(20_000, classes)) / factor * 2
    codes = (softmax(factor * scores).cumsum(axis=1) > random.random((20_000, 1))).argmax(axis=1)

    assert fit_sharpness(scores, codes) == pytest.approx(factor, rel=0.05)


def test_scores_of_another_scale_have_another_sharpness():
    random = np.random.default_rng(0)
    scores = random.normal(size=(500, 3))
    codes = (softmax(scores).cumsum(axis=1) > random.random((500, 1))).argmax(axis=1)

    assert fit_sharpness(scores * 1000, codes) == pytest.approx(fit_sharpness(scores, codes) / 1000, rel=1e-4)


def test_the_sharpness_is_the_most_likely_one():
    random = np.random.default_rng(0)
    scores = random.normal(size=(300, 3))
    codes = (softmax(2 * scores).cumsum(axis=1) > random.random((300, 1))).argmax(axis=1)

    def likelihood(factor: float) -> float:
        logarithms = np.log(softmax(factor * scores))
        return float(logarithms[np.arange(300), codes].sum() + logarithms.mean())  # one more could be any class

    found = fit_sharpness(scores, codes)
    assert likelihood(found) > max(likelihood(found * 0.999), likelihood(found * 1.001))


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("n", [4, 80, 1000])
@pytest.mark.parametrize("margin", [1e-3, 1.0, 1e3])
def test_images_that_are_all_right_do_not_make_it_certain(classes, n, margin):
    codes = np.arange(n) % classes
    scores = margin * np.eye(classes)[codes]
    probabilities = softmax(fit_sharpness(scores, codes) * scores)[np.arange(n), codes]

    # n right ones, and one more that could be any class
    np.testing.assert_allclose(probabilities, (n + 1 / classes) / (n + 1), rtol=1e-6)


def test_classes_that_a_fold_did_not_know_do_not_count():
    random = np.random.default_rng(0)
    scores = random.normal(size=(20_000, 3)) * 2
    codes = (softmax(scores).cumsum(axis=1) > random.random((20_000, 1))).argmax(axis=1)
    wide = np.column_stack([scores, np.full(20_000, -1e30)])

    assert fit_sharpness(wide, codes) == pytest.approx(fit_sharpness(scores, codes), rel=1e-6)


def test_an_image_of_a_class_that_its_fold_did_not_know_does_not_blunt_all():
    random = np.random.default_rng(0)
    scores = random.normal(size=(1000, 3)) * 2
    codes = (softmax(scores).cumsum(axis=1) > random.random((1000, 1))).argmax(axis=1)
    expected = fit_sharpness(scores, codes)
    scores[0, codes[0]] = -1e30

    assert fit_sharpness(scores, codes) == pytest.approx(expected, rel=0.2)


def test_scores_that_are_worse_than_chance_are_blunted():
    random = np.random.default_rng(0)
    scores = random.normal(size=(500, 3))

    assert 0 < fit_sharpness(scores, scores.argmin(axis=1)) < 1e-3


@pytest.mark.parametrize("scores", [np.zeros((10, 2)), np.full((10, 2), 5.0), np.tile([1e-30, 0.0], (10, 1))])
def test_scores_that_say_nothing_have_a_finite_sharpness(scores):
    found = fit_sharpness(scores, np.array([0, 1] * 5))

    assert np.isfinite(found)
    assert found > 0
