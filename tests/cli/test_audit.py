import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import ImageError
from bottleneck.images.undecodable import UndecodableMemo
from bottleneck.utils.csv_text import read_csv
from tests.auditing.conftest import cache_features, class_features, with_wrong_labels
from tests.cli.conftest import run
from tests.conftest import photo, write
from tests.variants import case

QUICK = ("--no-pictures", "--no-refit")
WRONG = {"images/bee/010.jpg", "images/bee/020.jpg", "images/ant/050.jpg"}


@pytest.fixture
def flipped(spec):
    return cache_features(spec, *with_wrong_labels(40))


def test_a_report_with_the_evidence(flipped):
    out, err = run("audit", *QUICK)
    assert "3 probable label errors" in out
    assert "bee/010.jpg" in out
    assert "1 outlier" in out
    assert "images: " in err


def test_the_first_findings_are_printed_and_the_others_counted(flipped):
    out, _ = run("audit", "images", *QUICK, "--top", 1)
    assert "... and 2 more" in out


def test_json_is_one_object_with_all_findings(flipped):
    out, _ = run("audit", "images", *QUICK, "--json")
    found = json.loads(out)
    assert {one["path"] for one in found["findings"] if one["kind"] == "label error"} == WRONG
    assert found["counts"]["outlier"] == 1


def test_the_table_to_correct(flipped):
    _, err = run("audit", "images", *QUICK, "--out", "corrected.csv")
    assert "Correct the column label" in err
    rows = read_csv("corrected.csv")
    assert len(rows) == 80
    assert {row["path"] for row in rows if row["suggested"]} == WRONG
    assert all(row["suggested"] != row["label"] for row in rows)


def test_strict_exits_with_1_if_anything_is_found(flipped):
    out, _ = run("audit", "images", *QUICK, "--strict", "--json", code=1)
    assert json.loads(out)["counts"]["label error"] == 3


def test_without_features_the_command_to_run_is_named(flipped):
    _, err = run("audit", "images", "--model", "resnet50", code=1)
    assert "error:" in err


def test_a_table_has_every_path_and_is_never_another_file(flipped):
    for out in ("notes.md", "images/ant/000.jpg", "-"):
        with case(out):
            _, err = run("audit", "images", *QUICK, "--out", out, code=2)
            assert "expected --out FILE.csv" in err


def test_images_that_cannot_be_used_are_listed_and_marked(flipped):
    write(Path("images/ant/broken.jpg"), photo(77)[:300])
    digest = hashlib.sha256(Path("images/ant/broken.jpg").read_bytes()).digest()
    UndecodableMemo("cache/digests.sqlite").remember({digest: ImageError("truncated", "it ends early")})
    _, err = run("audit", "images", *QUICK, "--out", "all.csv", "--strict", code=1)
    assert "broken.jpg: it ends early" in err
    (row,) = [row for row in read_csv("all.csv") if "broken" in row["path"]]
    assert (row["finding"], row["reason"]) == ("unusable", "it ends early")


def test_what_cannot_be_learned_is_not_called_clean(spec):
    labels = np.random.default_rng(0).permutation(["a", "b"] * 40)
    names = [f"{label}/{row:03d}.jpg" for row, label in enumerate(labels.tolist())]
    cache_features(spec, names, class_features([0] * 80))
    out, _ = run("audit", *QUICK)
    assert "label errors were not searched for" in out
    (clean,) = [line for line in out.splitlines() if line.startswith("searched for, and not found")]
    assert "label errors" not in clean
    assert "classes that overlap" not in clean
