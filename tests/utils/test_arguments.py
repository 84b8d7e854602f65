"""Numbers, flags, texts and lists of whatever library become Python's own, or are refused by name."""

import pathlib
from fractions import Fraction

import numpy as np
import pytest

from bottleneck.errors import HeadError
from bottleneck.utils.arguments import Arguments, abbreviated
from tests.variants import each

check = Arguments(HeadError)
pandas = pytest.importorskip("pandas")
torch = pytest.importorskip("torch")

THREES = [3, 3.0, np.int64(3), np.uint8(3), np.float32(3), np.array(3), np.array(3.0), Fraction(3), torch.tensor(3)]
THREES += [
    pandas.Series([3])[0],
    pandas.array([3], "Int64")[0],
    np.longdouble(3),
    pandas.DataFrame({"a": [3]}).at[0, "a"],
]
NO_NUMBERS = [
    "3",
    None,
    True,
    np.bool_(True),
    np.nan,
    np.inf,
    -np.inf,
    3j,
    pandas.NA,
    pandas.NaT,
    [3],
    np.array([3]),
    b"3",
]


@each("value", THREES, ids=lambda value: type(value).__name__)
def test_an_integer_of_any_kind_is_an_int(value):
    found = check.whole("folds", value, least=2, most=3)

    assert (type(found), found) == (int, 3)


@each("value", [*NO_NUMBERS, 2.5, np.float16(2.5), Fraction(7, 2)])
def test_what_is_not_an_integer_is_refused_by_name(value):
    with pytest.raises(HeadError, match="expected folds to be an integer, 2 or more, got"):
        check.whole("folds", value, least=2)


@each("value, words", [(1, "from 2 to 9, got 1"), (np.int32(10), "from 2 to 9, got")])
def test_an_integer_out_of_range_is_refused(value, words):
    with pytest.raises(HeadError, match=words):
        check.whole("folds", value, least=2, most=9)


def test_a_large_integer_is_exact():
    assert check.whole("seed", np.uint64(2**64 - 1)) == 2**64 - 1
    assert check.whole("seed", 10**30) == 10**30


@each("value", [0.25, np.float16(0.25), np.float32(0.25), np.array(0.25), Fraction(1, 4)])
def test_a_number_of_any_kind_is_a_float(value):
    found = check.number("dropout", value, below=1)

    assert (type(found), found) == (float, 0.25)


@each("value", NO_NUMBERS)
def test_what_is_not_a_finite_number_is_refused(value):
    with pytest.raises(HeadError, match=r"expected C to be .*above 0.*, got"):
        check.number("C", value, above=0)


@each(
    "bounds, value, words",
    [
        ({"above": 0}, 0, "above 0, got 0"),
        ({"above": 0, "below": 1}, np.float64(1), "between 0 and 1"),
        ({"below": 1}, -0.1, "from 0 to below 1, got -0.1"),
        ({}, -1, "0 or more, got -1"),
    ],
)
def test_a_number_out_of_range_is_refused(bounds, value, words):
    with pytest.raises(HeadError, match=words):
        check.number("it", value, **bounds)


@each("value, right", [(True, True), (np.True_, True), (np.array(False), False), (0, False),
                                              (np.int8(1), True), (pandas.Series([True])[0], True),
                                              (pandas.array([False], "boolean")[0], False)])  # fmt: skip
def test_a_flag_of_any_kind_is_a_bool(value, right):
    assert check.flag("flip", value) is right


@each("value", ["no", "True", 2, None, pandas.NA, np.nan, [True], np.array([True]), 1.5])
def test_what_is_not_a_flag_is_refused(value):
    with pytest.raises(HeadError, match="expected flip to be True or False, got"):
        check.flag("flip", value)


@each("value", ["ridge", np.str_("ridge"), np.array("ridge"), pandas.Series(["ridge"])[0]])
def test_a_text_of_any_kind_is_a_str(value):
    assert type(check.text("head", value)) is str
    assert check.text("head", value) == "ridge"


@each("value", [b"ridge", 3, None, ["ridge"], np.array(["ridge"]), pathlib.Path("ridge")])
def test_what_is_not_a_text_is_refused(value):
    with pytest.raises(HeadError, match="expected head to be a string"):
        check.text("head", value)


@each("value", ["a/b", pathlib.Path("a/b"), pathlib.PurePosixPath("a/b"), np.str_("a/b")])
def test_a_path_of_any_kind_is_a_str(value):
    assert type(check.path("cache", value)) is str
    assert check.path("cache", value) == "a/b"


@each("value", [3, None, b"a", ["a"], np.array(["a"]), pandas.NA])
def test_what_is_not_a_path_is_refused(value):
    with pytest.raises(HeadError, match="expected cache to be a path"):
        check.path("cache", value)


SEVERAL = [[0.5, 2], (0.5, 2.0), np.array([0.5, 2]), np.array([0.5, 2], np.float16), iter([0.5, 2])]
SEVERAL += [pandas.Series([0.5, 2], index=[7, 8]), pandas.Index([0.5, 2]), torch.tensor([0.5, 2.0])]


@each("value", SEVERAL, ids=lambda value: type(value).__name__)
def test_numbers_of_any_kind_are_a_tuple_of_floats(value):
    found = check.numbers("C", value)

    assert found == (0.5, 2.0)
    assert {type(one) for one in found} == {float}


@each("value", [0.5, np.float32(0.5), np.array(0.5)])
def test_one_number_is_a_tuple_too(value):
    assert check.numbers("C", value) == (0.5,)


NOT_SEVERAL = ["0.5", b"0.5", {0.5: 1}, np.ones((2, 2)), [1, "2"], [[1]], [1, np.nan], [True]]
NOT_SEVERAL += [pandas.DataFrame({"a": [1]}), pandas.Series([1, None])]


@each("value", NOT_SEVERAL)
def test_what_are_not_numbers_is_refused(value):
    with pytest.raises(HeadError, match="expected C to be"):
        check.numbers("C", value)


@each("value", ["a", np.str_("a"), ["a"], ("a",), np.array(["a"]), np.array(["a"], object),
                                   pandas.Series(["a"]), np.array("a")])  # fmt: skip
def test_texts_of_any_kind_are_a_tuple_of_str(value):
    assert check.texts("layer", value) == ("a",)
    assert type(check.texts("layer", value)[0]) is str


@each("value", [3, b"a", ["a", 3], {"a": 1}, np.array([["a"]]), [None]])
def test_what_are_not_texts_is_refused(value):
    with pytest.raises(HeadError, match="expected layer to be"):
        check.texts("layer", value)


@each("value", ["a", pathlib.Path("a"), np.str_("a"), ["a"], (pathlib.Path("a"),), np.array(["a"])])
def test_paths_of_any_kind_are_a_tuple_of_str(value):
    assert check.paths("exclude", value) == ("a",)


@each("value", [3, b"a", None, ["a", None], {"a": 1}])
def test_what_are_not_paths_is_refused(value):
    with pytest.raises(HeadError, match="expected exclude to be"):
        check.paths("exclude", value)


def test_none_is_none_where_it_may_be():
    assert check.optional(check.whole, "epochs", None, least=1) is None
    assert check.optional(check.whole, "epochs", np.int8(4), least=1) == 4
    with pytest.raises(HeadError, match="epochs"):
        check.optional(check.whole, "epochs", 0, least=1)


def test_what_is_shown_is_one_short_line():
    assert abbreviated("\x1b[31m") == r"'\x1b[31m'"
    assert "\n" not in abbreviated(np.ones((40, 40)))
    assert len(abbreviated("a" * 1000)) == 60


@each("value", [1e31, 1e308, 10**31, 10**400])
def test_a_number_that_overflows_with_the_next_product_is_refused(value):
    with pytest.raises(HeadError, match="expected x to be"):
        check.number("x", value)


def test_an_integer_that_no_float_holds_is_refused():
    with pytest.raises(HeadError, match="expected x to be an integer"):
        check.whole("x", 10**400)
