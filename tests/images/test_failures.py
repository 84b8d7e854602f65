import csv
import os
from pathlib import Path

import pytest

from bottleneck.images.dataset import Failure
from bottleneck.images.failures import COLUMNS, Limit, by_reason, write_table
from tests.variants import each

# How many may fail


def test_a_limit_is_a_number_or_a_share() -> None:
    for text, value, percent in [
        ("10%", 10, True),
        ("0", 0, False),
        ("25", 25, False),
        ("0%", 0, True),
        ("100%", 100, True),
        ("2.5%", 2.5, True),
        (" 25 ", 25, False),
        (" 10% ", 10, True),
        ("10 %", 10, True),
        ("1e3", 1000, False),
    ]:
        assert Limit.parse(text) == Limit(value, percent)

    for text in [
        "",
        " ",
        "%",
        "ten",
        "10%%",
        "%10",
        "-1",
        "-1%",
        "101%",
        "2.5",
        "nan",
        "nan%",
        "inf",
        "inf%",
        "1e999",
        "1/2",
    ]:
        with pytest.raises(ValueError, match=r"such as 25, or a share, such as 10%; got") as error:
            Limit.parse(text)
        assert str(error.value).endswith(repr(text))

    for text in ["10%", "0", "25", "2.5%", "100%", "0%"]:
        assert str(Limit.parse(text)) == text
        assert Limit.parse(str(Limit.parse(text))) == Limit.parse(text)


def test_so_many_may_fail_and_no_more() -> None:
    for text, most, total in [
        ("0", 0, 100),
        ("0%", 0, 100),
        ("25", 25, 1000),
        ("25", 25, 30),
        ("10%", 10, 100),
        ("10%", 9, 99),
        ("10%", 0, 9),
        ("100%", 7, 7),
        ("2.5%", 5, 200),
        ("33%", 33, 100),
        ("0.57%", 57, 10_000),  # 0.57 * 10000 / 100 is a little less than 57 in floats
    ]:
        limit = Limit.parse(text)
        assert [limit.exceeded(failed, total) for failed in (0, most, most + 1)] == [False, False, True]

    for text in ["0", "0%", "10%", "100%"]:
        assert not Limit.parse(text).exceeded(0, 0)


def test_the_problem_names_the_limit_the_counts_the_table_and_the_way_out() -> None:
    limit = Limit.parse("10%")
    assert limit.problem(10, 100) is None
    assert limit.problem(10, 100, Path("failures.csv")) is None
    said = limit.problem(11, 100, Path("cache/failures.csv"))
    assert said is not None
    for words in ("at most 10% of the images", "11 of 100 did", "cache/failures.csv lists them", "--max-failures"):
        assert words in said
    assert "lists" not in (limit.problem(11, 100) or "lists")


# By reason


def failure(path: str, code: str = "corrupt", digest: str | None = None) -> Failure:
    return Failure(path, code, f"why {path}", digest)


def test_failures_are_grouped_the_most_frequent_reason_first() -> None:
    codes = ["empty", "truncated", "corrupt", "truncated", "unreadable", "corrupt", "truncated"]
    failures = [failure(str(row), code) for row, code in enumerate(codes)]
    groups = by_reason(iter(failures))
    assert list(groups) == ["truncated", "corrupt", "empty", "unreadable"]
    assert [each.path for each in groups["truncated"]] == ["1", "3", "6"]
    assert sum(map(len, groups.values())) == len(failures)

    assert list(by_reason([failure("1", "empty"), failure("2", "corrupt"), failure("3", "changed")])) == [
        "changed",
        "corrupt",
        "empty",
    ]
    assert by_reason([]) == {}


# The table


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))


def test_the_table_lists_every_failure_in_the_order_given(tmp_path: Path) -> None:
    path = tmp_path / "made" / "failures.csv"
    write_table(path, [failure("b.jpg", digest="ab" * 32), failure("a.jpg", "empty")])
    assert COLUMNS == ("path", "code", "message", "digest")
    assert read(path) == [
        list(COLUMNS),
        ["b.jpg", "corrupt", "why b.jpg", "ab" * 32],
        ["a.jpg", "empty", "why a.jpg", ""],
    ]
    assert os.listdir(path.parent) == ["failures.csv"]


@each(
    "name",
    [os.fsdecode(b"caf\xe9.jpg"), "caf\xe9.jpg", 'a,b "c".jpg', "two\nlines.jpg", "a\rb.jpg", "\u4e2d.jpg", " .jpg"],
)
def test_the_table_stores_any_path_and_returns_its_bytes(tmp_path: Path, name: str) -> None:
    path = tmp_path / "failures.csv"
    write_table(path, [failure(name)])
    assert [os.fsencode(row[0]) for row in read(path)[1:]] == [os.fsencode(name)]
    if "\n" not in name and '"' not in name:
        assert os.fsencode(name) in path.read_bytes()


def test_where_nothing_failed_an_old_table_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "failures.csv"
    write_table(path, [failure("a.jpg")])
    write_table(path, [])
    assert os.listdir(tmp_path) == []
    write_table(path, [])
    write_table(tmp_path / "nowhere" / "failures.csv", [])
    assert os.listdir(tmp_path) == []

    (tmp_path / "file").write_bytes(b"")
    write_table(tmp_path / "file" / "failures.csv", [])
    assert os.listdir(tmp_path) == ["file"]


def test_a_table_that_is_up_to_date_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "failures.csv"
    failures = [failure(os.fsdecode(b"caf\xe9.jpg")), failure("b.jpg")]
    write_table(path, failures)
    os.utime(path, ns=(10**18, 10**18))
    before = path.stat()
    write_table(path, failures)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, 10**18)
    write_table(path, failures[:1])
    assert len(read(path)) == 2
    assert path.stat().st_mtime_ns > 10**18
