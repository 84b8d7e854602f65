import numpy as np
import pytest

from bottleneck.engines.parity import lowest_cosine, shortfall
from bottleneck.engines.records import Check
from tests.variants import each


def rows(*values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


@each(
    "features, reference, cosine",
    [
        (rows([1, 2]), rows([1, 2]), 1.0),
        (rows([2, 4]), rows([1, 2]), 1.0),
        (rows([1, 0]), rows([0, 1]), 0.0),
        (rows([-1, -2]), rows([1, 2]), -1.0),
        (rows([1, 0], [3, 4], [1, 1]), rows([1, 0], [5, 0], [1, 1]), 0.6),
        (rows([0, 0]), rows([0, 0]), 1.0),
        (rows([0, 0]), rows([1, 0]), 0.0),
        (rows([1, 0]), rows([0, 0]), 0.0),
        (rows([np.nan, 0], [1, 0]), rows([1, 0], [1, 0]), None),
        (rows([np.inf, 0]), rows([1, 0]), None),
        (rows([np.nan, 0], [1, 0]), rows([np.nan, 0], [1, 0]), 1.0),
        (rows([1, 0], [3, 4]), rows([np.inf, 0], [5, 0]), None),
        (rows([np.nan, 1]), rows([np.nan, 1]), 1.0),
        (rows([1e30, 1e30]), rows([1e30, 1e30]), 1.0),
        (rows([1e-30, 0]), rows([0, 1e-30]), 0.0),
    ],
)
def test_the_lowest_cosine(features, reference, cosine):
    found = lowest_cosine(features, reference)

    assert found is cosine if cosine is None else found == pytest.approx(cosine, abs=2e-7)


def test_the_lowest_cosine_is_rounded_down():
    assert lowest_cosine(rows([1.0, 0.0]), rows([1.0, 0.001])) == 0.9999995
    slightly = rows([1.0, 0.0]), rows([1.0, 3e-4])  # 1 - 4.5e-8
    assert lowest_cosine(*slightly) == 0.9999999
    limit = np.float32(np.tan(np.arccos(0.999)))
    assert Check("x", "bf16", lowest_cosine(rows([1, 0]), rows([1, limit * 1.001]))).passed is False
    assert Check("x", "bf16", lowest_cosine(rows([1, 0]), rows([1, limit * 0.999]))).passed is True


@each(
    "cosine, words",
    [(None, "some features are not finite"), (0.5, "lowest cosine 0.50000"), (-1.0, "lowest cosine -1.00000")],
)
def test_a_cosine_that_is_too_low_is_reported(cosine, words):
    assert shortfall(cosine) == f"{words}, expected 0.999 or more against torch in fp32"
