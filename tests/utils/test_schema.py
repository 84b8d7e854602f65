import math
from dataclasses import dataclass
from typing import Any, TypedDict

import pytest

from bottleneck.utils.schema import Finite, Number, Share, Whole, checked, expect_canonical
from tests.variants import each


@dataclass(frozen=True, kw_only=True)
class Thing:
    name: str
    counts: tuple[Whole, ...] = ()
    share: Share | None = None
    inside: "Thing | None" = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("expected a name")


class Table(TypedDict):
    rows: list[tuple[str, Finite]]


def test_a_dataclass_is_made_of_an_object_and_a_tuple_of_an_array() -> None:
    value = {"name": "a", "counts": [1, 2], "share": 1, "inside": {"name": "b"}}
    assert checked(value, Thing) == Thing(name="a", counts=(1, 2), share=1.0, inside=Thing(name="b"))
    assert checked({"rows": [["x", 0]]}, Table) == {"rows": [("x", 0.0)]}


@each(
    "value, message",
    [
        (5, "expected `object`, got `int`"),
        ({}, "missing required field `name`"),
        ({"name": None}, r"expected `str`, got `null` - at `\$\.name`"),
        ({"name": ""}, "expected a name"),
        ({"name": "a", "counts": [1, True]}, r"got `bool` - at `\$\.counts\[1\]`"),
        ({"name": "a", "counts": [1.0]}, "got `float`"),
        ({"name": "a", "counts": [-1]}, ">= 0"),
        ({"name": "a", "counts": [10**400]}, "<="),
        ({"name": "a", "share": math.nan}, ">= 0"),
        ({"name": "a", "share": 1.5}, "<= 1"),
        ({"name": "a", "inside": {"name": 5}}, r"at `\$\.inside\.name`"),
        ({"name": "a", "\udc80": 1}, "not a string"),
    ],
)
def test_what_is_of_another_type_is_refused_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked(value, Thing)


@each("value", [math.nan, math.inf, -math.inf, True, "1", None])
def test_what_is_not_a_finite_number_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="rows"):
        checked({"rows": [["x", value]]}, Table)


def test_the_text_of_a_number_stays() -> None:
    assert [repr(checked(value, Number)) for value in (0, 0.0, 1e300)] == ["0", "0.0", "1e+300"]  # type: ignore[arg-type]


def test_later_versions_may_add_keys_unless_they_may_not() -> None:
    assert checked({"name": "a", "colour": "red"}, Thing) == Thing(name="a")
    with pytest.raises(ValueError, match="unknown: colour"):
        checked({"name": "a", "colour": "red"}, Thing, closed=True)


def test_a_message_is_one_line_of_a_few_words() -> None:
    with pytest.raises(ValueError, match="unknown") as caught:
        checked({"name": "a", **{f"{number}" * 99: 1 for number in range(999)}}, Thing, closed=True)
    assert len(str(caught.value)) < 400


@each("value", [{"a": 1, "b": 2}, {"a": 1.0}, {}, {"a": [1]}])
def test_what_would_be_written_otherwise_is_refused(value: dict[str, Any]) -> None:
    expect_canonical({"a": 1}, {"a": 1})
    with pytest.raises(ValueError, match="unusual"):
        expect_canonical(value, {"a": 1})
