import itertools

import numpy as np
import torch

from bottleneck.engines.speed import measured, seeded_backbone, torch_speed
from tests.tiny import TinyEngine


def test_the_speed_counts_all_images_of_whole_batches():
    ticks = itertools.count()  # the clock is read before, after each batch but the last, and in the end
    engine = TinyEngine(batch_size=8)
    found = measured(engine, seconds=2.5, clock=lambda: float(next(ticks)))

    assert engine.batches == [8] * 4  # one that warms up, and three until the clock shows more than 2.5
    assert (found.name, found.precision) == ("tiny", "fp32")
    assert found.images_per_second == 3 * 8 / 4


def test_the_network_is_always_the_same_and_leaves_the_seed_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = seeded_backbone(), seeded_backbone()

    assert torch.rand(1) == expected
    pixels = torch.zeros(1, 3, 32, 32)
    assert np.array_equal(first.network(pixels), second.network(pixels))


def test_torch_is_measured():
    assert torch_speed(seconds=0.0).images_per_second > 0
