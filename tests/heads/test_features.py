import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bottleneck.errors import HeadError
from bottleneck.heads.features import (
    NORMALIZE,
    InMemoryFeatures,
    ScaledFeatures,
    Scaling,
    StreamedFeatures,
    as_float32,
    equal_rows,
    scaled,
    scalings,
)
from tests.variants import each


def standardisation(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale by all rows."""
    found = scalings(InMemoryFeatures(x), np.ones((len(x), 1), bool), "standard")[0]
    return found.mean, found.scale


class FakeStream:
    """Features (n, d) float16 that come in two pieces, the last rows first."""

    def __init__(self, features: np.ndarray) -> None:
        self.features, self.shape = features.astype(np.float16), features.shape

    def blocks(self):
        rows = np.arange(len(self.features))
        for part in (rows[len(rows) // 2 :], rows[: len(rows) // 2]):
            yield part, self.features[part]

    def mixed(self, random, *, batch):
        rows = random.permutation(len(self.features))
        for start in range(0, len(rows), batch):
            yield rows[start : start + batch], self.features[rows[start : start + batch]]


X = np.random.default_rng(3).normal(2, 3, (23, 4)).astype(np.float16).astype(np.float32)
READERS = {
    "in memory": InMemoryFeatures,
    "in memory, with cuts": lambda x: InMemoryFeatures(x, [cut for cut in (3, 4, 17) if cut < len(x)]),
    "streamed": lambda x: StreamedFeatures(FakeStream(x)),
    "scaled": lambda x: ScaledFeatures(
        StreamedFeatures(FakeStream(x)), Scaling(mean=np.zeros(4, np.float32), scale=np.ones(4, np.float32))
    ),
}


# --- the contract of a reader -----------------------------------------------------------------------------------


@pytest.fixture(params=READERS, scope="module")
def reader(request):
    return READERS[request.param]


@given(n=st.integers(1, 40), limit=st.integers(1, 50))
@example(n=23, limit=23)
def test_blocks_hold_each_row_once_and_always_in_one_order(reader, n, limit):
    x = X[np.arange(n) % 23]
    table = reader(x)
    orders = []
    for _ in range(2):
        seen, order = np.zeros_like(x), []
        for rows, features in table.blocks(limit):
            assert len(features) <= limit
            assert features.dtype == np.float32
            seen[rows] = features
            order += np.arange(n)[rows].tolist()
        np.testing.assert_array_equal(seen, x)
        orders.append(order)

    assert sorted(orders[0]) == list(range(n))
    assert orders[0] == orders[1]
    assert table.shape == x.shape


@given(size=st.integers(1, 30), seed=st.integers(0, 2**32))
def test_batches_hold_each_row_once_in_an_order_of_the_generator(reader, size, seed):
    found = [list(reader(X).batches(np.random.default_rng(one), size)) for one in (seed, seed, seed + 1)]
    orders = [np.concatenate([rows for rows, _ in batches]).tolist() for batches in found]

    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(len(X)))
    for rows, features in found[0]:
        assert len(rows) <= size
        np.testing.assert_array_equal(features, X[rows])


@given(rows=st.lists(st.integers(0, 22), unique=True, max_size=23))
@example(rows=[7, 0, 22, 3])
def test_some_rows_are_taken_in_the_requested_order(reader, rows):
    np.testing.assert_array_equal(reader(X).take(np.array(rows, np.intp)), X[rows])


@each("normalize", NORMALIZE)
def test_a_reader_is_scaled_as_features_in_memory(reader, normalize):
    trained = np.random.default_rng(0).random((len(X), 3)) > 0.3
    table, expected = reader(X), InMemoryFeatures(X)
    for one, other in zip(scalings(expected, trained, normalize), scalings(table, trained, normalize), strict=True):
        np.testing.assert_allclose(one.mean, other.mean, atol=1e-6)
        np.testing.assert_allclose(one.scale, other.scale, rtol=1e-6)
        seen = scaled(table, other).take(np.arange(len(X)))
        np.testing.assert_allclose(scaled(expected, one).take(np.arange(len(X))), seen, atol=1e-5)


def test_a_new_block_starts_at_each_cut():
    blocks = list(InMemoryFeatures(X[:10], [3, 4]).blocks(4))

    assert [(rows.start, rows.stop) for rows, _ in blocks] == [(0, 3), (3, 4), (4, 8), (8, 10)]


# --- scaling ----------------------------------------------------------------------------------------------------


def test_every_finite_half_is_widened_to_the_very_number():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]

    assert as_float32(halves).tobytes() == halves.astype(np.float32).tobytes()
    assert as_float32(halves[::3][None]).tobytes() == halves[::3].astype(np.float32).tobytes()


def test_each_fold_is_scaled_by_the_rows_it_is_trained_on():
    trained = np.random.default_rng(0).random((len(X), 3)) > 0.3
    whole, *folds = scalings(InMemoryFeatures(X), trained, "standard")

    np.testing.assert_allclose(whole.mean, X.mean(axis=0), rtol=1e-5)
    for fold, rows in zip(folds, trained.T, strict=True):
        np.testing.assert_allclose(fold.mean, X[rows].mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(fold.scale, X[rows].std(axis=0), rtol=1e-5)


def test_rows_get_one_length_by_l2_and_rows_of_zeros_stay():
    x = np.concatenate([X, np.zeros((1, 4), np.float32)])
    found = scalings(InMemoryFeatures(x), np.ones((len(x), 1), bool), "l2")[0](x)

    np.testing.assert_allclose(np.linalg.norm(found[:-1], axis=1), 2, rtol=1e-6)  # sqrt(d)
    assert not found[-1].any()


def test_features_are_left_alone_by_none():
    np.testing.assert_array_equal(scalings(InMemoryFeatures(X), np.ones((len(X), 1), bool), "none")[0](X), X)


def test_another_way_to_normalize_is_an_error():
    with pytest.raises(HeadError, match="standard, l2, none"):
        scalings(InMemoryFeatures(X), np.ones((len(X), 1), bool), "max")


def test_standardisation_is_the_mean_and_the_standard_deviation():
    x = np.random.default_rng(0).normal(5, 3, (50, 4)).astype(np.float32)
    mean, scale = standardisation(x)

    assert mean.dtype == scale.dtype == np.float32
    np.testing.assert_allclose(mean, x.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(scale, x.std(axis=0, dtype=np.float64), rtol=1e-6)


@each("value", [0.0, 0.1, -3.3, 1e-20, 1e20])
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


def test_a_feature_that_is_constant_in_a_fold_alone_has_scale_one_there():
    # As a unit of a network that only some images wake. Sums of squares leave a remainder of rounding, not 0.
    random = np.random.default_rng(0)
    x = random.normal(size=(90, 50)).astype(np.float32)
    x[:60] = 0
    x[60:, :] += np.float32(0.3)
    trained = np.stack([np.arange(90) < 60, np.arange(90) >= 30], axis=1)
    _, constant, other = scalings(InMemoryFeatures(x), trained, "standard")

    assert constant.scale.tolist() == [1] * 50
    np.testing.assert_allclose(constant.mean, 0, atol=1e-6)
    np.testing.assert_allclose(other.scale, x[30:].std(axis=0), rtol=1e-4)


def test_each_scaling_divides_by_what_it_says():
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32) * np.array([1, 2, 3, 1e-3], np.float32)
    variance = x.astype(np.float64).var(axis=0)
    trained = np.ones((50, 1), bool)
    found = {name: scalings(InMemoryFeatures(x), trained, name)[0] for name in ("standard", "shrunk", "global")}

    np.testing.assert_allclose(found["standard"].scale, np.sqrt(variance), rtol=1e-5)
    np.testing.assert_allclose(found["global"].scale, [np.sqrt(variance.mean())] * 4, rtol=1e-5)
    np.testing.assert_allclose(found["shrunk"].scale, np.sqrt(variance / 2 + variance.mean() / 2), rtol=1e-5)
    for scaling in found.values():
        np.testing.assert_allclose(scaling.mean, x.mean(axis=0), atol=1e-6)


@each("normalize", ["shrunk", "global"])
def test_a_feature_that_hardly_varies_is_not_blown_up(normalize):
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    x[:, 0] *= 1e-4
    scaled = scalings(InMemoryFeatures(x), np.ones((50, 1), bool), normalize)[0](x)

    assert np.abs(scaled[:, 0]).max() < 1e-3
    assert scaled[:, 1:].std() > 0.5


@each("normalize", ["shrunk", "global"])
def test_a_huge_constant_feature_changes_no_scale_of_others(normalize):
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    x[:, 3] = 1e20 * (1 + 1e-7 * np.sign(x[:, 3]))  # constant but for rounding
    trained = np.ones((50, 1), bool)
    scaled = scalings(InMemoryFeatures(x), trained, normalize)[0]
    without = scalings(InMemoryFeatures(x[:, :3]), trained, normalize)[0]

    np.testing.assert_allclose(scaled.scale[:3], without.scale * np.sqrt([0.875] * 3), rtol=0.2)
    assert np.abs(scaled(x)[:, 3]).max() < 10


def test_equal_rows_have_the_number_of_the_first():
    rows = np.array([[1, 2], [0, 2], [1, 2], [1, 3]], np.float32)
    assert equal_rows(rows).tolist() == [0, 1, 0, 2]
    assert equal_rows(rows[:0]).tolist() == []
