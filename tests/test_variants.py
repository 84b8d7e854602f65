"""The helpers of tests: a variant that fails is named, and rows of pairs have all pairs."""

import itertools
import os
import sys
from pathlib import Path

import pytest

from tests.variants import case, each, pairwise

SEEN: list[object] = []


@each("value", [1, 2, 3])
def remember(value: int) -> None:
    SEEN.append(value)


def test_each_variant_is_run_in_order(tmp_path: Path) -> None:
    SEEN.clear()
    remember(tmp_path=tmp_path)
    assert SEEN == [1, 2, 3]


def test_every_failing_variant_is_named_and_the_others_run(tmp_path: Path) -> None:
    @each("a, b", [(1, "one"), (2, "two"), (3, "three")])
    def test(a: int, b: str) -> None:
        SEEN.append(a)
        assert a != 2
        if a == 3:
            pytest.fail("three")

    SEEN.clear()
    with pytest.raises(AssertionError, match=r"2 of 3 variants failed: a=2, b='two'; a=3, b='three'\nthe first: Ass"):
        test(tmp_path=tmp_path)
    assert SEEN == [1, 2, 3]


def test_an_id_is_what_a_failure_shows(tmp_path: Path) -> None:
    @each("value", ["x"], ids=lambda value: f"the {value}")
    def failing(value: str) -> None:
        raise ValueError(value)

    with pytest.raises(AssertionError, match="1 of 1 variants failed: the x\nthe first: ValueError: x"):
        failing(tmp_path=tmp_path)


def test_a_test_is_skipped_only_if_all_of_its_variants_are(tmp_path: Path) -> None:
    @each("value", [1, 2])
    def some(value: int) -> None:
        if value == 1:
            pytest.skip("no")

    @each("value", [1, 2])
    def all_of_them(value: int) -> None:
        pytest.skip("no")

    (tmp_path / "some").mkdir()
    some(tmp_path=tmp_path / "some")
    with pytest.raises(pytest.skip.Exception):
        all_of_them(tmp_path=tmp_path)


def test_no_variants_are_an_error() -> None:
    with pytest.raises(ValueError, match="got none"):
        each("value", [])


@each("one", [1, 2])
@each("two", [3, 4])
def test_variants_are_multiplied_with_folders_and_patches_of_their_own(
    one: int, two: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(tmp_path.iterdir()) == []
    assert Path.cwd() == tmp_path
    assert "VARIANT" not in os.environ
    (tmp_path / "file").touch()
    monkeypatch.setenv("VARIANT", f"{one} {two}")


@each("shape", [(3,), (2, 2), (2, 2, 2), (9, 3, 2), (5, 4, 4, 3), (2,) * 7])
def test_rows_have_all_pairs_and_are_few(shape: tuple[int, ...]) -> None:
    choices = [[f"{column}{place}" for place in range(size)] for column, size in enumerate(shape)]
    rows = pairwise(*choices)

    assert len(set(rows)) == len(rows) <= 1.5 * max([a * b for a, b in itertools.combinations(shape, 2)] or shape) + 4
    for (i, one), (j, other) in itertools.combinations(enumerate(choices), 2):
        assert {(row[i], row[j]) for row in rows} == set(itertools.product(one, other))
    assert pairwise(*choices) == rows


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes of exceptions")
def test_a_failing_case_of_a_loop_is_named() -> None:
    def loop() -> None:
        for value in ("one", "two"):
            with case(value, 1):
                if value == "two":
                    raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong") as caught:
        loop()
    assert caught.value.__notes__ == ["in the case 'two', 1"]
