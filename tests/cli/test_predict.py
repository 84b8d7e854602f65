"""Rows for what cannot be used, and how the command ends, with a network that sees nothing."""

import csv
import io
import json
import os
import re

import pytest
from PIL import Image

from tests import tiny
from tests.cli.conftest import run
from tests.variants import each

IMAGES = {f"{name}/{number}.jpg": 100 * ord(name) + number for name in "ab" for number in range(20)}


@pytest.fixture(autouse=True)
def fitted(folder, monkeypatch):
    tiny.use(monkeypatch)
    run("extract", folder(IMAGES), "--model", "resnet18")
    run("fit", "--head", "centroid")


@each("good", [0, 1])
def test_a_row_for_each_path_even_where_none_can_be_used(folder, tmp_path, good):
    os.chdir(tmp_path.parent)
    new = folder({"bad.jpg": b"<html>", **dict.fromkeys(["good.jpg"][:good], 7)}, name=f"new{good}")
    given = [new, "nowhere.jpg", new / "bad.jpg"]

    out, err = run("predict", *given, "--format", "csv", code=0 if good else 1)
    rows = list(csv.DictReader(out.splitlines()))
    assert [row["path"] for row in rows] == [
        f"{new}/bad.jpg", *[f"{new}/good.jpg"][:good], "nowhere.jpg", f"{new}/bad.jpg",
    ]  # fmt: skip
    assert [row["code"] for row in rows] == ["not-an-image", *[""][:good], "unreadable", "not-an-image"]
    assert ("error: none of the 3 images can be used" in err) is not good

    out, _ = run("predict", *given, "--json", code=0 if good else 1)
    assert [json.loads(line)["path"] for line in out.splitlines()] == [row["path"] for row in rows]


def test_one_image_that_cannot_be_used_is_one_row(folder):
    bad = folder({"bad.jpg": b"<html>"}, name="new") / "bad.jpg"
    out, err = run("predict", bad, "--json", code=1)
    assert json.loads(out)["error"]["code"] == "not-an-image"
    assert err.endswith("error: the image cannot be used\n")


def test_an_unfamiliar_image_is_marked_and_counted_or_rejected(folder):
    black = io.BytesIO()
    Image.new("RGB", (32, 32)).save(black, "PNG")
    new = folder({"a.jpg": 9800, "black.png": black.getvalue()}, name="new")
    out, err = run("predict", new, "--unfamiliar", "0.05", "--coverage", "0.5")
    header, _, usual, odd, _ = out.splitlines()
    assert header.split() == ["path", "label", "probability", "familiarity", "set", "next"]
    assert "(unfamiliar)" not in usual
    assert re.search(r"black.png +[ab] \(unfamiliar\) +0\.\d+ +0\.0", odd)
    assert "1 image is unfamiliar (familiarity at most 0.05): its label is a guess\n" in err

    out, err = run("predict", new, "--unfamiliar", "0.05", "--reject")
    assert re.search(r"black.png +\(unfamiliar\) +0\.0\d+$", out.splitlines()[3])
    assert "it has no label\n" in err
    assert "2 predicted, 0 failed" in err

    _, err = run("predict", new)
    assert "no image can be unfamiliar at 0.01: familiarity is calibrated on " in err


def test_an_extraction_without_usable_images_is_a_public_error(folder):
    out, err = run("extract", folder({"bad.jpg": b"<html>"}, name="new"), "--no-labels", "--json", code=1)
    assert json.loads(out)["error"]["type"] == "ImagesError"
    assert "error: the image cannot be used (1 not-an-image)" in err
