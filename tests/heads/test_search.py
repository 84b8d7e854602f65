import itertools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bottleneck.errors import HeadError
from bottleneck.heads import search as module
from bottleneck.heads.arrays import Arrays
from bottleneck.heads.family import NAMES, family
from bottleneck.heads.features import NORMALIZE, InMemoryFeatures
from bottleneck.heads.folds import divide
from bottleneck.heads.problem import Problem
from bottleneck.heads.search import search
from bottleneck.heads.selection import RULES
from tests.variants import each, pairwise

LOGISTIC = family("logistic")


def rows(labels: list[str], apart: float = 5.0, seed: int = 0) -> np.ndarray:
    """Return features (n, 9) of separable classes; the first is the number of the row."""
    centres = np.random.default_rng(7).normal(size=(26, 8)) * apart
    noise = np.random.default_rng(seed).normal(size=(len(labels), 8))
    x = centres[[ord(label) - ord("a") for label in labels]] + noise
    return np.column_stack([np.arange(len(labels)), x]).astype(np.float32)


# --- what is chosen ---------------------------------------------------------------------------------------------


@each("name", NAMES)
def test_the_chosen_point_is_in_the_familys_grid(name):
    labels = list("ab" * 20)
    found = search(rows(labels), labels, family(name), normalize="shrunk")

    assert found.params in found.points
    assert found.divided == 5
    assert found.fold_accuracy.shape == (len(found.points), 25)  # forty rows are divided five times


def test_the_chosen_C_is_in_the_grid_that_was_given():
    labels = list("ab" * 20)
    found = search(rows(labels), labels, LOGISTIC, grid=(1.0, 0.01, 0.1))

    assert [point["C"] for point in found.points] == [0.01, 0.1, 1.0]
    assert found.params in found.points


@each("name", ["knn", "centroid"])
def test_a_head_without_C_takes_none(name):
    labels = list("ab" * 20)
    with pytest.raises(HeadError, match="no C"):
        search(rows(labels), labels, family(name), grid=(1.0,))


@each("name", NAMES)
def test_results_are_in_the_order_of_the_rows_if_rows_are_sorted_by_fold(name, monkeypatch):
    labels = list("abc" * 100)
    features = rows(labels, apart=1.0)
    given = search(features, labels, family(name), seed=3, repeats=1)
    monkeypatch.setattr(module, "_MIN_SORTED", 1)
    ordered = search(features, labels, family(name), seed=3, repeats=1)
    one, other = (np.argsort(found.rows) for found in (given, ordered))

    np.testing.assert_array_equal(ordered.rows[other], given.rows[one])
    np.testing.assert_array_equal(ordered.folds[other], given.folds[one])
    codes = np.unique(labels, return_inverse=True)[1]
    np.testing.assert_array_equal(ordered.folds, divide(codes, None, 5, 3).tested[ordered.rows])
    agree = ordered.probabilities[other].argmax(axis=1) == given.probabilities[one].argmax(axis=1)
    assert agree.mean() > 0.95


@each("name, grid", [("logistic", (0.01, 1.0)), ("knn", None)])
def test_each_division_of_ordered_rows_keeps_groups_together(name, grid, monkeypatch):
    monkeypatch.setattr(module, "_MIN_SORTED", 1)
    random = np.random.default_rng(0)
    of_group = np.arange(300) % 100
    features = random.normal(size=(100, 40))[of_group] + 0.01 * random.normal(size=(300, 40))
    labels = random.choice(list("abc"), 100)[of_group].tolist()  # which nothing can tell but a copy
    groups = [f"g{group}" for group in of_group]
    found = search(features.astype(np.float32), labels, family(name), groups=groups, grid=grid, normalize="standard")

    assert found.fold_accuracy.shape[1] == 20
    by_division = found.fold_accuracy.reshape(len(found.points), 4, 5).mean(axis=2)
    assert by_division.max() < 0.6


def test_a_full_search_has_a_finer_and_wider_grid():
    labels = list("ab" * 20)
    fast, full = (search(rows(labels), labels, LOGISTIC, full=full, repeats=1).points for full in (False, True))

    assert full[0]["C"] < fast[0]["C"]
    assert full[-1]["C"] > fast[-1]["C"]
    assert len(full) > 3 * len(fast)


def test_the_head_is_the_familys_at_the_chosen_C():
    labels = list("abc" * 20)
    x = rows(labels, apart=0.5)
    found = search(x, labels, LOGISTIC)
    codes = np.array([ord(label) - ord("a") for label in labels])
    folds = divide(codes, None, 5, 0)
    task = Problem(table=InMemoryFeatures(x), codes=codes, count=3, folds=folds, arrays=Arrays())
    fitted = LOGISTIC.fit(task, found.params)

    np.testing.assert_allclose(found.head.weight, fitted.parts["weight"], atol=1e-3)
    np.testing.assert_allclose(found.head.bias, fitted.parts["bias"], atol=1e-3)


def test_the_accuracy_is_the_mean_over_folds_at_the_chosen_C():
    labels = list("abc" * 20)
    found = search(rows(labels, apart=0.5), labels, LOGISTIC)
    row = found.points.index(found.params)

    assert found.accuracy == pytest.approx(found.fold_accuracy[row].mean())
    assert found.spread == pytest.approx(found.fold_accuracy[row].std(ddof=1))
    mean, spread = found.fold_accuracy.mean(axis=1), found.fold_accuracy[found.fold_accuracy.mean(axis=1).argmax()]
    near = np.flatnonzero(mean >= mean.max() - spread.std(ddof=1) / np.sqrt(5) - 1e-12)  # each class has as many images
    assert row == near[found.losses[near].argmin()]


def test_the_guesses_of_each_division_give_the_accuracy():
    labels = [*"abc" * 20, "d"]  # the only row of a class is never tested
    found = search(rows(labels, apart=0.5), labels, LOGISTIC, grid=(0.01, 0.1))
    codes = np.unique(labels, return_inverse=True)[1]

    np.testing.assert_array_equal(found.tested_rows, np.arange(60))
    assert found.guesses.shape == (5, 60)
    right = found.guesses == codes[found.tested_rows]
    assert found.accuracy == pytest.approx(right.mean())
    assert 0.2 < found.accuracy < 0.95
    np.testing.assert_allclose(right.mean(axis=1), found.chosen.reshape(5, 5).mean(axis=1))


@each("name", NAMES)
def test_the_guesses_are_those_of_the_probabilities_in_the_first_division(name, monkeypatch):
    monkeypatch.setattr(module, "_MIN_SORTED", 1)  # rows in the order of their folds
    labels = list("abc" * 100)
    found = search(rows(labels, apart=1.0), labels, family(name), repeats=2)
    order = np.argsort(found.rows)

    np.testing.assert_array_equal(np.sort(found.tested_rows), np.arange(300))
    guesses = found.guesses[0, np.argsort(found.tested_rows)]
    np.testing.assert_array_equal(guesses, found.probabilities[order].argmax(axis=1))


@each("count, repeats, expected", [(30, None, 5), (300, None, 4), (1000, None, 1), (1000, 2, 2), (30, 1, 1)])
def test_few_images_are_divided_several_times_and_many_once(count, repeats, expected):
    labels = list("ab" * (count // 2))
    found = search(rows(labels, apart=0.3), labels, LOGISTIC, grid=(0.1,), repeats=repeats, seed=3)

    assert found.guesses.shape == (expected, count)
    assert len({guesses.tobytes() for guesses in found.guesses}) == expected, "each division is another"
    assert found.fold_accuracy.shape == (1, 5 * expected)


def test_the_probabilities_of_a_row_are_of_heads_that_have_not_seen_it():
    # A head that has seen the row is certain of it; these labels are noise.
    labels = list("ab" * 100)
    x = np.random.default_rng(0).normal(size=(200, 400)).astype(np.float32)
    found = search(x, labels, LOGISTIC, grid=(10.0,), repeats=1)
    right = found.probabilities[np.arange(200), [int(label == "b") for label in labels]]

    assert found.rows.tolist() == list(range(200))
    assert sorted(set(found.folds.tolist())) == [0, 1, 2, 3, 4]
    assert right.mean() == pytest.approx(0.5, abs=0.07)
    assert found.head.predict(x).tolist() == labels


def test_very_many_images_are_searched_on_some_of_each_class(monkeypatch):
    monkeypatch.setattr(module, "_FAST_ROWS", 200)
    labels = list("a" * 900 + "b" * 90 + "c" * 10)
    found, full = (search(rows(labels), labels, LOGISTIC, full=full, grid=(0.1,)) for full in (False, True))

    assert (found.searched, full.searched) == (208, 1000)  # 180, 18 and, of the smallest class, two a fold
    assert set(found.head.predict(rows(labels)).tolist()) == set("abc")
    assert [labels[row] for row in found.rows.tolist()].count("c") == 10
    np.testing.assert_allclose(found.head.weight, full.head.weight, atol=1e-3)  # fitted on all either way


OPTIONS = [{}, {"normalize": "l2", "repeats": 1}, {"normalize": "none", "balanced": True, "repeats": 1}]


@each("name, options", zip([*NAMES, *NAMES[1:], NAMES[0]], itertools.cycle(OPTIONS)))
def test_one_seed_gives_one_head_bit_for_bit(name, options):
    labels = list("abc" * 15)
    one, other = (search(rows(labels, 0.5), labels, family(name), seed=3, **options) for _ in range(2))

    for tensor in one.head.tensors:
        assert getattr(one.head, tensor).tobytes() == getattr(other.head, tensor).tobytes()
    assert (one.params, one.head.inverse_temperature) == (other.params, other.head.inverse_temperature)


@each("name", ["logistic", "svm", "softmax", "ridge"])
def test_balanced_classes_weigh_the_same(name):
    labels = list("a" * 190 + "b" * 10)
    x = rows(labels, apart=0.35)
    plain, balanced = (
        search(x, labels, family(name), grid=(0.001,), balanced=which, repeats=1) for which in (False, True)
    )
    found = [(one.head.predict(x) == "b").sum() for one in (plain, balanced)]

    assert found[0] < 20 < found[1]


def test_the_accuracy_of_noise_is_that_of_chance():
    labels = list("ab" * 100)
    x = np.random.default_rng(0).normal(size=(200, 50)).astype(np.float32)

    assert search(x, labels, LOGISTIC, repeats=2).accuracy == pytest.approx(0.5, abs=0.12)


# --- the rows that are looked at --------------------------------------------------------------------------------


def test_the_heads_scaling_is_that_of_the_training_rows():
    labels = list("ab" * 20)
    x = rows(labels)
    head = search(x, labels, LOGISTIC, normalize="standard").head

    np.testing.assert_allclose(head.mean, x.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(head.scale, x.std(axis=0), rtol=1e-5)


def test_groups_that_are_all_alone_change_nothing():
    labels = list("ab" * 20)
    found = [
        search(rows(labels, 0.3), labels, LOGISTIC, groups=groups, repeats=2)
        for groups in (None, [None] * 40, [f"g{row}" for row in range(40)])
    ]

    assert len({one.head.weight.tobytes() for one in found}) == 1
    assert len({one.fold_accuracy.tobytes() for one in found}) == 1


def test_a_group_called_like_a_row_is_no_row():
    labels = list("ab" * 20)
    groups = ["row 0" if row in (5, 6) else None for row in range(40)]
    one = search(rows(labels), labels, LOGISTIC, groups=groups, repeats=1)
    other = search(rows(labels), labels, LOGISTIC, groups=["g" if group else None for group in groups], repeats=1)

    assert one.fold_accuracy.tobytes() == other.fold_accuracy.tobytes()


# --- few images -------------------------------------------------------------------------------------------------


FEW = ["aab", "abb", "aabb", "aaab", "aaaaabc", "aabbbbbbbbc", "aab" + "cdef"]


@each("name, labels, options", pairwise(NAMES, FEW, [{"repeats": 1}, {"repeats": 2, "normalize": "shrunk"}]))
def test_a_class_with_one_image_never_breaks_it(name, labels, options):
    found = search(rows(list(labels), apart=50.0), list(labels), family(name), **options)

    assert found.head.classes == tuple(sorted(set(labels)))
    assert np.isfinite(found.head.probabilities(rows(list(labels), apart=50.0))).all()


@each("name", [name for name in NAMES if name != "ridge"])  # whose line lies nearer to the few
def test_a_small_class_is_not_given_up_for_the_large_one(name):
    # By plain accuracy a head that never says "b" would be within a standard error of the best.
    labels = list("a" * 95 + "b" * 5)
    x = rows(labels, apart=1.5)

    assert "b" in search(x, labels, family(name), repeats=2).head.predict(x).tolist()


# Here a fold's training rows lack a class: its two groups are both tested at once, as other classes ask for it.
LACKING = {
    "one of several": (list("bacacb"), ["2", "3", "6", None, "6", "3"]),
    "one of two": (list("bbabaaaab"), ["0", "0", "1", "0", "1", "0", "1", "0", None]),
    "one of four": (list("bcbadcadda"), ["0", "0", "2", None, "4", "4", "3", None, None, "2"]),
}


@each("case", LACKING)
@each("name", NAMES)
def test_a_class_that_a_fold_cannot_learn_is_harmless(name, case):
    labels, groups = LACKING[case]
    x = rows(labels, apart=50.0)[:, 1:]
    grid = None if name in ("knn", "centroid") else (0.1,)
    head = search(x, labels, family(name), groups=groups, grid=grid, repeats=2).head
    right = [head.classes.index(label) for label in labels]

    assert head.predict(x).tolist() == labels
    # Images whose class could not be learnt must not turn all probabilities into 1/k.
    if name != "knn":  # it asks others of the few than itself
        assert head.probabilities(x)[np.arange(len(x)), right].min() > 1.1 / len(head.classes)


@each("labels", [[], ["a"], ["a"] * 10])
def test_one_class_is_a_head_error(labels):
    with pytest.raises(HeadError, match="at least two classes"):
        search(np.ones((len(labels), 9), np.float32), labels, LOGISTIC)


def test_classes_of_one_image_each_are_a_head_error():
    with pytest.raises(HeadError, match="at least two training images"):
        search(rows(list("abc")), list("abc"), LOGISTIC)


def test_classes_of_one_group_each_are_a_head_error():
    with pytest.raises(HeadError, match="two groups"):
        search(rows(list("aabb")), list("aabb"), LOGISTIC, groups=["1", "1", "2", "2"])


@each("grid", [(), (0.0, 1.0), (-1.0,)])
def test_an_impossible_grid_is_a_head_error(grid):
    with pytest.raises(HeadError, match="values of C above 0"):
        search(rows(list("aabb")), list("aabb"), LOGISTIC, grid=grid)


def test_the_head_carries_the_fingerprint():
    assert search(rows(list("aabb")), list("aabb"), LOGISTIC, fingerprint="f" * 64).head.fingerprint == "f" * 64


@each("balanced", [False, True])
@each("name", ["svm", "logistic", "ridge"])
def test_the_accuracy_is_that_of_the_labels_that_the_head_would_give(name, balanced):
    labels = list("a" * 900 + "b" * 150)
    found = search(rows(labels, apart=0.4), labels, family(name), balanced=balanced, grid=(0.001,))
    right = found.probabilities.argmax(axis=1) == np.array([int(label == "b") for label in labels])[found.rows]

    assert found.accuracy == pytest.approx(np.mean([right[found.folds == fold].mean() for fold in range(5)]))


def test_equations_without_a_solution_are_a_head_error(monkeypatch):
    def singular(*_):
        raise np.linalg.LinAlgError("Singular matrix")

    labels = list("ab" * 20)
    with monkeypatch.context() as patch:  # whether a matrix is singular is a matter of rounding
        patch.setattr(np.linalg, "solve", singular)
        with pytest.raises(HeadError) as caught:
            search(rows(labels), labels, family("ridge"), normalize="none")
    assert str(caught.value) == (
        "the equations of ridge cannot be solved (Singular matrix): use a smaller C, or normalize the features"
    )


@each("seed", [0, 2**32 - 1])
def test_any_seed_divides_groups(seed):
    labels = list("ab" * 20)

    groups = [f"g{row // 2}" for row in range(40)]
    found = search(rows(labels), labels, LOGISTIC, groups=groups, grid=(0.1,), repeats=2, seed=seed)

    assert found.accuracy > 0.5


def test_each_fold_is_scikit_learns_on_features_that_are_mostly_zero():
    # As those of a network: some are constant in a fold, and not in all.
    random = np.random.default_rng(0)
    codes = np.arange(90) % 3
    x = np.maximum(random.normal(size=(90, 400)) - 2 + random.normal(size=(3, 400))[codes], 0).astype(np.float32)
    folds = divide(codes, None, 5, 0)
    for C in (1e-3, 1.0):
        found = search(x, [str(code) for code in codes], LOGISTIC, grid=(C,), normalize="standard").chosen[:5]
        for fold, accuracy in enumerate(found):
            train, test = folds.trained[:, fold], folds.tested == fold
            model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=5000)).fit(x[train], codes[train])
            assert accuracy == pytest.approx(model.score(x[test], codes[test]), abs=1.01 / test.sum())


def test_features_are_shrunk_unless_another_scaling_is_better_by_more_than_chance():
    labels = list("ab" * 60)
    x = rows(labels, apart=2.0)[:, 1:]
    noise = 1000 * np.random.default_rng(5).normal(size=(len(labels), 4)).astype(np.float32)
    both = np.column_stack([x, noise])
    usual, drowned = (search(features, labels, LOGISTIC, repeats=2) for features in (x, both))

    assert (usual.normalize, list(usual.scalings)) == ("shrunk", ["shrunk", "standard"])
    assert drowned.normalize == "standard"  # beside the noise, shrunk scales leave nothing of the others
    assert drowned.scalings["standard"] > drowned.scalings["shrunk"] + 0.1
    assert drowned.accuracy == search(both, labels, LOGISTIC, repeats=2, normalize="standard").accuracy


def test_a_scaling_that_is_named_is_the_only_one_that_is_tried():
    labels = list("ab" * 20)
    for normalize in NORMALIZE:
        found = search(rows(labels), labels, LOGISTIC, normalize=normalize, repeats=1)
        assert (found.normalize, list(found.scalings)) == (normalize, [normalize])


def test_each_rule_chooses_among_the_same_points():
    labels = list("abc" * 30)
    found = {rule: search(rows(labels, apart=0.7)[:, 1:], labels, LOGISTIC, rule=rule, repeats=1) for rule in RULES}

    assert found["simplest"].params["C"] <= found["log-loss"].params["C"]
    np.testing.assert_array_equal(found["simplest"].losses, found["log-loss"].losses)
    mean = found["accuracy"].fold_balanced.mean(axis=1)
    assert found["accuracy"].balanced_accuracy == pytest.approx(mean.max())


def test_the_losses_are_those_of_calibrated_scores_out_of_fold():
    labels = list("ab" * 600)  # many enough to be divided once
    found = search(rows(labels, apart=1.0)[:, 1:], labels, LOGISTIC)
    right = found.probabilities[np.arange(len(found.rows)), (np.array(labels)[found.rows] == "b").astype(int)]

    own = found.losses[found.points.index(found.params)]
    assert own == pytest.approx(-np.log(right).mean(), rel=0.01)  # these by the factors of the other folds


# --- classes of unequal sizes -----------------------------------------------------------------------------------


def unequal(n, d, apart, seed=0):
    """Return rows of two classes that overlap, of which the first is nine times as frequent."""
    random = np.random.default_rng(seed)
    codes = (random.random(n) < 0.1).astype(int)
    x = random.normal(size=(n, d)).astype(np.float32)
    x[:, 0] += apart * codes
    return x, codes


@each(
    "name, n, d, apart, loss, accuracy",
    [("svm", 100, 300, 3.0, 0.30, 0.88), ("ridge", 300, 8, 2.0, 0.195, 0.92), ("centroid", 300, 8, 2.0, 0.2, 0.91)],
)
def test_a_linear_head_knows_how_frequent_a_class_is(name, n, d, apart, loss, accuracy):
    (x, codes), (other, truth) = unequal(n, d, apart), unequal(4000, d, apart, seed=1)
    found = search(x, np.array(["often", "seldom"])[codes].tolist(), family(name), repeats=2)
    probabilities = found.head.probabilities(other)

    assert -np.log(probabilities[np.arange(4000), truth]).mean() < loss
    assert probabilities[:, 1].mean() == pytest.approx(0.1, abs=0.025)
    assert (probabilities.argmax(axis=1) == truth).mean() > accuracy
    assert (found.head.scores(other).argmax(axis=1) == probabilities.argmax(axis=1)).all()


@each("labels, balanced, same", [("ab" * 30, False, True), ("aab" * 20, True, True), ("aab" * 20, False, False)])
def test_classes_that_weigh_the_same_are_left_as_they_are(labels, balanced, same):
    codes = np.unique(list(labels), return_inverse=True)[1]
    problem = Problem(
        table=InMemoryFeatures(rows(list(labels), apart=0.3)),
        codes=codes,
        count=2,
        folds=divide(codes, None, 5, 0),
        balanced=balanced,
        arrays=Arrays(),
    )
    offsets = LOGISTIC.cross_validate(problem, LOGISTIC.grid(problem, full=False)).offsets

    assert offsets.any() != same
