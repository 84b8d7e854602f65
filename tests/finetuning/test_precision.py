import numpy as np

from bottleneck.finetuning.precision import ActivationStats
from tests.variants import each

SHAPES = [(5,), (5, 3, 4), (7, 5), (3, 4, 5)]  # features, channels first, tokens, channels last


def values(shape, count=12, seed=0):
    random = np.random.default_rng(seed)
    return np.maximum(random.normal(size=(count, *shape)), 0).astype(np.float32)


def channel(shape):
    """Return the index of one channel."""
    return (slice(None), 2) if shape in ((5,), (5, 3, 4)) else (..., 2)


def measured(found):
    return ActivationStats.of(found.reshape(len(found), -1), found.shape[1:])


@each("shape", SHAPES)
@each("scale", [1e-3, 1.0, 1e3])
def test_usual_numbers_are_stored_as_float16(shape, scale):
    found = measured(scale * values(shape))
    assert (found.wide, found.width) == (False, 2)
    rows = scale * values(shape, seed=1).reshape(12, -1)
    assert found.stored(rows).dtype == np.float16
    np.testing.assert_allclose(found.stored(rows), rows, rtol=1e-3, atol=1e-7)


def tiny(found, at):
    found[at] *= 1e-9


def subnormal(found, at):
    found[at] *= 1e-6


def huge(found, at):
    found[at] *= 1e6


def one_huge(found, at):
    found.reshape(-1)[17] = 1e5


def steady(found, at):
    found[at] = 1 + 1e-5 * found[at]


@each("shape", SHAPES)
@each("change", [tiny, subnormal, huge, one_huge, steady])
def test_one_channel_that_loses_information_makes_all_float32(shape, change):
    found = values(shape)
    change(found, channel(shape))
    here = measured(found)
    assert (here.wide, here.width) == (True, 4)
    rows = found.reshape(12, -1)
    assert here.stored(rows) is rows


@each("shape", SHAPES)
@each("count", [1, 2, 12])
def test_a_batch_with_larger_numbers_than_the_sample_is_float32(shape, count):
    here = measured(values(shape))
    rows = values(shape, count, seed=1).reshape(count, -1)
    rows[-1, 3] = 1e5
    assert here.stored(rows).dtype == np.float32


@each("shape", SHAPES)
def test_an_image_with_a_tiny_channel_stays_float16(shape):
    found = values(shape)
    found[3][channel(shape)[1:] if shape in ((5,), (5, 3, 4)) else channel(shape)] *= 1e-9
    assert not measured(found).wide


@each("value", [0.0, 6.0, 0.3])
@each("shape", SHAPES)
def test_a_constant_channel_stays_float16(shape, value):
    found = values(shape)
    found[channel(shape)] = value
    assert not measured(found).wide


@each("count", [1, 2, 3, 8])
def test_a_small_batch_is_judged_by_the_sample(count):
    """Two numbers may be alike by chance, and a rare one small."""
    here = measured(values((512,), 16))
    for seed in range(20):
        rows = values((512,), count, seed + 1)
        rows[:, 3] = 1e-5
        assert here.stored(rows).dtype == np.float16


def test_a_channel_that_was_zero_in_the_sample_is_kept():
    found = values((5,), 16)
    found[:, 2] = 0
    here = measured(found)
    later = values((5,), 4, seed=1)
    assert here.stored(later).dtype == np.float16
    later[:, 2] *= 1e-8
    assert here.stored(later).dtype == np.float32


def test_overflow_is_found_in_each_row_of_a_large_batch():
    here = measured(values((5,), 16))
    rows = values((5,), 128)
    rows[77, 1] = 1e6
    assert here.stored(rows).dtype == np.float32


@each("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_left_to_the_cache(value):
    found = values((5,))
    found[3, 2] = value
    here = measured(found)
    assert not here.wide
    assert not np.isfinite(here.stored(found)).all()


def test_an_empty_sample_is_not_wide():
    here = ActivationStats.of(np.empty((0, 5), np.float32), (5,))
    assert not here.wide
    assert here.stored(values((5,))).dtype == np.float16
    assert here.stored(1e9 * values((5,))).dtype == np.float32
