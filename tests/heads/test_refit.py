"""A tested head trained again on more rows: what it keeps, what it learns, and how sure it is."""

from dataclasses import replace

import numpy as np
import pytest

from bottleneck.errors import BottleneckWarning, HeadError
from bottleneck.heads.family import Family, family
from bottleneck.heads.features import NORMALIZE
from bottleneck.heads.head import Head
from bottleneck.heads.kernel import KernelHead
from bottleneck.heads.linear import LinearHead
from bottleneck.heads.neighbours import NeighbourHead
from bottleneck.heads.refit import refit
from bottleneck.heads.search import Search, search
from tests.heads.test_family import FAMILIES, accuracy, blobs, every_family, family_of, parts
from tests.variants import each, pairwise


def again(found: Search, some: Family, x: np.ndarray, labels: np.ndarray, first: int, **options: object) -> Head:
    """Return the head of all rows, of which `found` has seen the first ones."""
    seen = np.arange(len(x)) < first
    return refit(found.head, some, found.params, x, labels.tolist(), seen=seen, **{"normalize": "standard", **options})


def parted(classes: int, each: int = 20, **options: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Return blobs in a random order, and how many rows of them are seen first."""
    x, labels = blobs(classes, each=each, **options)
    order = np.random.default_rng(5).permutation(len(x))
    return x[order], labels[order], int(0.7 * len(x))


@each("name, normalize, balanced", pairwise(list(FAMILIES), NORMALIZE, [False, True]))
def test_on_the_same_rows_it_is_the_same_head(name, normalize, balanced):
    some = family_of(name)
    x, labels, _ = parted(3, apart=3.0)
    found = search(x, labels.tolist(), some, folds=3, repeats=1, normalize=normalize, balanced=balanced)
    head = again(found, some, x, labels, len(x), folds=3, normalize=normalize, balanced=balanced)

    assert (head.family, head.classes, head.fingerprint) == (some.name, found.head.classes, found.head.fingerprint)
    assert np.array_equal(head.mean, found.head.mean)
    assert np.array_equal(head.scale, found.head.scale)
    same = replace(head, inverse_temperature=found.head.inverse_temperature)
    np.testing.assert_allclose(same.probabilities(x), found.head.probabilities(x), atol=0.02)  # as near as solvers come
    assert 0.75 < head.inverse_temperature / found.head.inverse_temperature < 1.001


@every_family
def test_on_more_rows_it_is_as_right_and_as_sure_as_a_head_should_be(some):
    x, labels, first = parted(4, each=80, apart=2.5)
    new, wanted = blobs(4, seed=1, apart=2.5, each=1000)
    found = search(x[:first], labels[:first].tolist(), some, folds=3, repeats=1, seed=3)
    head = again(found, some, x, labels, first, seed=3)

    assert accuracy(head, new, wanted) >= accuracy(found.head, new, wanted) - 0.01
    assert head.probabilities(new).max(axis=1).mean() == pytest.approx(accuracy(head, new, wanted), abs=0.07)
    assert 0 < head.inverse_temperature <= found.head.inverse_temperature


def test_the_point_is_kept_and_the_rows_that_it_holds_are_all():
    x, labels, first = parted(3)
    for name, options in (("knn", {}), ("svm", {"kernel": "rbf"})):
        some = family(name, **options)
        found = search(x[:first], labels[:first].tolist(), some, folds=3, repeats=1)
        head = again(found, some, x, labels, first)
        if isinstance(head, NeighbourHead):
            assert head.neighbours == found.params["neighbours"]
            assert len(head.rows) == len(x) > len(found.head.rows)
        else:
            assert isinstance(head, KernelHead)
            assert head.gamma == found.params["gamma"]
            assert len(head.vectors) > len(found.head.vectors)


def test_features_are_scaled_by_all_rows():
    x, labels, first = parted(2)
    x[first:] += 7
    some = family("centroid")
    found = search(x[:first], labels[:first].tolist(), some)
    head = again(found, some, x, labels, first)

    np.testing.assert_allclose(head.mean, x.mean(axis=0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(found.head.mean, x[:first].mean(axis=0, dtype=np.float64), rtol=1e-5)


@each("balanced", [False, True])
@every_family
def test_after_constant_training_features_new_rows_get_the_class_shares(some, balanced):
    x, labels = np.full((60, 5), 3, np.float32), np.array(list("aaab" * 15))
    labels[40:50] = "b"
    with pytest.warns(BottleneckWarning, match="the same in all 40 training rows"):
        found = search(x[:40], labels[:40].tolist(), some, balanced=balanced)
    x[40:] = np.random.default_rng(0).normal(size=(20, 5))
    head = again(found, some, x, labels, 40, balanced=balanced)

    shares = [1 / 2, 1 / 2] if balanced else [37 / 60, 23 / 60]
    np.testing.assert_allclose(head.probabilities(x), [shares] * 60, atol=1e-6)
    assert head.inverse_temperature == 1


def sureness(head: Head, x: np.ndarray) -> float:
    return float(head.probabilities(x).max(axis=1).mean())


def test_scores_that_grow_with_the_rows_make_it_no_surer():
    x, labels, _ = parted(2, each=200, apart=3.0)
    some = family("logistic")
    found = search(x[:40], labels[:40].tolist(), some, grid=[1e-3])
    head = again(found, some, x, labels, 40)

    assert sureness(head, x[:40]) == pytest.approx(sureness(found.head, x[:40]), abs=0.02)
    as_sure = replace(head, inverse_temperature=found.head.inverse_temperature)
    assert sureness(as_sure, x[:40]) > sureness(head, x[:40]) + 0.1


def test_it_is_no_surer_than_cross_validation_on_all_rows_makes_it():
    # Of classes of one size a head of next to no weights has no bias, and may have a large factor; of unequal ones its
    # bias says the larger class of all images.
    x, labels = blobs(2, each=20, apart=6.0)
    some = family("logistic")
    tested = np.r_[0:4, 20:24]
    found = search(x[tested], labels[tested].tolist(), some, grid=[1e-5])
    found = replace(found, head=replace(found.head, inverse_temperature=1e4))
    more = np.r_[tested, 4:8]
    head = again(found, some, x[more], labels[more], len(tested))

    assert set(head.predict(x)) == {"ant"}
    assert sureness(found.head, x[tested]) > 0.9
    assert sureness(head, x) < 0.75, "the larger class has two thirds of the rows"


def test_scores_that_shrink_make_it_less_sure():
    x, labels, _ = parted(2, each=200, apart=3.0)
    some = family("logistic")
    found = search(x[:100], labels[:100].tolist(), some, grid=[1.0])
    labels[100:] = np.random.default_rng(0).permutation(labels[100:])  # which say nothing of the features
    head = again(found, some, x, labels, 100)

    assert head.inverse_temperature <= found.head.inverse_temperature
    assert sureness(head, x[:100]) < sureness(found.head, x[:100]) - 0.05


@every_family
def test_equal_seeds_give_equal_heads_bit_for_bit(some):
    x, labels, first = parted(3)
    found = search(x[:first], labels[:first].tolist(), some, folds=3, repeats=1, seed=4)

    assert list(parts(again(found, some, x, labels, first, seed=4))) == list(
        parts(again(found, some, x, labels, first, seed=4))
    )


def test_what_cannot_be_solved_is_an_error_of_ours():
    x, labels, first = parted(2)
    some = family("logistic")
    found = search(x[:first], labels[:first].tolist(), some, grid=[0.1], repeats=1)
    assert isinstance(found.head, LinearHead)
    x[first:] = 1e36
    with pytest.raises(HeadError, match="expected features up to"):
        again(found, some, x, labels, first)
