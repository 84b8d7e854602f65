import json
import shutil

import pytest

from bottleneck.utils.csv_text import read_csv
from tests.cli.conftest import run
from tests.conftest import photo, write


@pytest.fixture
def pool(fitted):
    for number in range(6):
        write(fitted / "pool" / f"{number}.jpg", photo(900 + number))
    return fitted / "pool"


def test_images_to_label_with_a_run(pool):
    out, err = run("next", pool, "--budget", 3, "--out", "next.csv", "--with-labelled")
    assert "likely" in out
    assert "3 of 6 images chosen with" in err
    rows = read_csv("next.csv")
    assert [row["label"] for row in rows[:3]] == [""] * 3
    assert {row["suggested"] for row in rows[:3]} <= {"a", "b"}
    assert len(rows) == 3 + 16
    assert {row["label"] for row in rows[3:]} == {"a", "b"}


def test_json_is_one_object(pool):
    out, _ = run("next", pool, "--budget", 2, "--json")
    found = json.loads(out)
    assert len(found["suggestions"]) == 2
    assert found["strategy"] == "margin_sampling"


def test_without_a_run_and_with_too_small_a_pool(pool):
    shutil.rmtree("runs")
    out, err = run("next", pool, "--budget", 10)
    assert "likely" not in out
    assert "the pool has only 6 new images" in err
    assert "without a run, by typi_clust" in err


def test_an_impossible_budget_is_a_usage_error(pool):
    _, err = run("next", pool, "--budget", 0, code=2)
    assert "--budget" in err
