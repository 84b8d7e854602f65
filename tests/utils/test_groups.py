import numpy as np

from bottleneck.utils.groups import group_codes, places_within


def test_images_without_a_group_are_alone():
    assert group_codes(["x", None, "x", None], 4).tolist() == [0, 1, 0, 2]
    assert group_codes(None, 3).tolist() == [0, 1, 2]


def test_places_within_a_code_in_an_order():
    codes = np.array([1, 0, 1, 1, 0])
    assert places_within(codes).tolist() == [0, 0, 1, 2, 1]
    assert places_within(codes, np.array([3, 4, 2, 1, 0])).tolist() == [2, 1, 1, 0, 0]
    assert places_within(codes[:0]).tolist() == []
