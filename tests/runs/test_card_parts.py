"""Runs of many classes and failures: small cards, and every part as it was."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck.errors import RunError
from bottleneck.evaluation.metrics import evaluate
from bottleneck.images.dataset import Failure
from bottleneck.runs.card_parts import INLINE, store_parts
from bottleneck.runs.images import IMAGES, RunImages
from bottleneck.runs.run import Run, list_runs, load_run
from bottleneck.runs.save import save_run, write_run
from bottleneck.utils.files import LARGEST_TEXT, sha256_hex
from bottleneck.utils.tree import Tree
from tests.runs.test_run import card, head
from tests.variants import each

ODD = ("=1+1", "'tis", 'a "b", c', "two\nlines", "\u00e9", "caf\udce9", " x")


LONG = tuple(f"{n:03d}" + "x" * 1_500 for n in range(200))  # whose list is too long for a card


def large_card(names: tuple[str, ...], failures: int = 0, leaks: int = 0) -> dict:
    """Return a card whose held-out image of each class is taken for one of the next class."""
    metrics = evaluate(names, names[1:] + names[:1], names)
    return {
        **card(),
        "classes": list(names),
        "metrics": metrics,
        "search": {"cv_accuracy": 0.5, "cv": {"per_class": metrics["per_class"]}},
        "dataset": {"digest": "today", "labels": dict.fromkeys(names, 3)},
        "failures": [vars(Failure(f"=photos/{n}.jpg", "empty", "it's empty", None)) for n in range(failures)],
        "leaks": {"near_threshold": None, "duplicates_allowed": [["a.jpg"] * leaks]},
    }


def save(names: tuple[str, ...], **sizes: int) -> tuple[dict, Run]:
    made = large_card(names, **sizes)
    return made, save_run("runs", "x", head(classes=names), made, ["path", "label"], [["p", name] for name in names])


@each(
    "names, sizes",
    [
        (tuple(f"c{n:05d}" for n in range(2_600)), {}),
        (tuple(f"c{n:05d}" for n in range(8_000)), {}),
        (LONG, {}),
        (ODD + LONG, {}),
        (("a", "b"), {"failures": 20_000}),
        (("a", "b"), {"leaks": 50_000}),
    ],
)
def test_a_run_of_any_size_has_a_small_card_and_is_read_back(names, sizes):
    made, run = save(names, **sizes)
    assert (run.path / "card.json").stat().st_size < 5 * INLINE

    again = load_run(run.path)
    assert again.classes == names == again.head.classes
    assert again.metrics == made["metrics"]
    assert [vars(failure) for failure in again.failures] == made["failures"]
    assert again.part("search", "cv", "per_class") == made["search"]["cv"]["per_class"]
    assert again.part("dataset", "labels") == made["dataset"]["labels"]
    assert again.part("leaks") == made["leaks"]
    assert [row["label"] for row in again.predictions] == list(names)


def test_a_run_of_usual_size_is_its_card_alone():
    made, run = save(("a", "b", "c"), failures=100, leaks=10)
    assert json.loads((run.path / "card.json").read_text())["failures"] == made["failures"]
    assert sorted(os.listdir(run.path)) == ["card.json", "head.safetensors", "predictions.csv"]


def test_a_card_of_an_earlier_version_has_all_parts():
    names = tuple(f"c{n:03d}" for n in range(150))
    made = large_card(names, failures=3)
    run = Run(
        Path("nowhere"), {**made, "metrics": {**made["metrics"], "confusion": list(made["metrics"]["confusion"])}}
    )
    assert run.metrics["confusion"] == made["metrics"]["confusion"]
    assert len(run.failures) == 3
    assert Run(Path("nowhere"), {}).part("leaks") is None


def test_a_class_may_have_the_name_of_a_key_of_a_reference():
    made, run = save(("file", "sha256"))
    assert load_run(run.path).metrics == made["metrics"]
    assert load_run(run.path).part("dataset", "labels") == {"file": 3, "sha256": 3}


@pytest.fixture(scope="module")
def long_run(tmp_path_factory) -> Run:
    """Return a run with all parts in files; do not change it."""
    home = tmp_path_factory.mktemp("runs")
    return save_run(home, "x", head(classes=LONG), large_card(LONG, failures=4_000), ["path"], [["p"]])


@each("file", ["classes.csv", "per_class.csv", "confusion.csv", "labels.csv", "failures.csv"])
@each("damage", ["missing", "changed", "a folder"])
def test_a_changed_part_is_a_run_error(long_run, tmp_path, file, damage):
    run = load_run(shutil.copytree(long_run.path, tmp_path / "run"))
    path = run.path / file
    if damage == "changed":
        path.write_bytes(path.read_bytes().replace(b"\n", b"\n\n", 1))
    else:
        path.unlink()
    if damage == "a folder":
        path.mkdir()
    reads = {"classes": lambda run: run.classes, "failures": lambda run: run.failures}
    reads["labels"] = lambda run: run.part("dataset", "labels")
    with pytest.raises(RunError, match=file):
        reads.get(path.stem, lambda run: run.metrics)(run)


def test_a_reference_leads_to_no_other_file(long_run, tmp_path):
    (tmp_path / "secret").write_text("class\nx\n")
    value = {**long_run.card["classes"], "file": str(tmp_path / "secret")}
    assert len(Run(long_run.path, {**long_run.card, "classes": value}).classes) == len(LONG)


def replaced(run: Run, part: str, data: bytes) -> Run:
    """Return a run of a stranger, whose file has these bytes and whose card has their hash."""
    (run.path / f"{part}.csv").write_bytes(data)
    reference = {"file": f"{part}.csv", "sha256": sha256_hex(data)}
    metrics = {**run.card["metrics"], part: reference} if part in ("confusion", "per_class") else run.card["metrics"]
    return Run(run.path, {**run.card, "metrics": metrics, **({} if part in metrics else {part: reference})})


@each(
    "part, data",
    [
        ("confusion", b"label,predicted,images\na,nobody,1\n"),
        ("confusion", b"label,predicted,images\na,b,-1\n"),
        ("confusion", b"label,predicted,images\na,b,1\na,b,1\n"),
        ("confusion", b"label,predicted,images\na,b,99999999999999999999\n"),
        ("per_class", b"class,precision,recall,f1,n\na,much,1,1,1\n"),
        ("per_class", b"class\na\n"),
        ("failures", b"path\nx\n"),
        ("failures", b""),
    ],
)
def test_an_invalid_part_of_a_foreign_run_is_a_run_error(part, data):
    _, run = save(("a", "b"))
    found = replaced(run, part, data)
    with pytest.raises(RunError, match=f"{part}.csv"):
        _ = found.failures if part == "failures" else found.metrics


def test_invalid_failures_of_a_card_are_a_run_error():
    with pytest.raises(RunError, match="expected failures"):
        _ = Run(Path("nowhere"), {"failures": [{"place": "x"}]}).failures


def test_parts_are_written_only_where_they_are_large(tmp_path):
    made = large_card(("a", "b"), failures=1)
    assert store_parts(Tree(tmp_path), tmp_path, made) == made
    assert os.listdir(tmp_path) == []


# What cannot be read back


def images() -> RunImages:
    return RunImages(digests=np.zeros((1, 32), np.uint8), roles=np.zeros(1, np.uint8), right=np.zeros(1, np.int8))


SPOILED = {  # what is written to which file
    "head": ("head.safetensors", b"no head"),
    "images": (IMAGES, b"no images"),
    "predictions": ("predictions.csv", b'path\n"p\n'),
    "fewer predictions": ("predictions.csv", b"path\n"),
    "card": ("card.json", b"{}"),
    "large card": ("card.json", (LARGEST_TEXT + 1) * b" "),
    "a part": ("failures.csv", b"path,code,message,digest\n"),
}


def spoiling(part: str) -> type[Tree]:
    """Return a class that writes one file other than it was given."""

    class Spoiling(Tree):
        def write(self, path: Path, data: bytes, *, durable: bool = True) -> None:
            name, spoiled = SPOILED[part]
            super().write(path, spoiled if path.name == name else data, durable=durable)

    return Spoiling


@pytest.fixture(scope="module")
def with_parts() -> dict[str, Any]:
    return large_card(("a", "b"), failures=4_000)


@each("part", SPOILED)
def test_a_run_that_cannot_be_read_back_is_an_error_and_leaves_nothing(part, tmp_path, with_parts):
    with pytest.raises(RunError, match=r"new run as it was written|cannot read its card"):
        save_run("runs", "x", head(), with_parts, ["path"], [["p"]], images(), tree=spoiling(part))

    assert os.listdir("runs") == []


@each("part", SPOILED)
def test_a_folder_whose_run_cannot_be_read_back_does_not_become_a_run(part, tmp_path, with_parts):
    folder = tmp_path / "runs" / "tuned"
    folder.mkdir(parents=True)
    with pytest.raises(RunError):
        write_run(folder, head(), with_parts, ["path"], [["p"]], images(), tree=spoiling(part))

    assert list_runs("runs") == []
    write_run(folder, head(), with_parts, ["path"], [["p"]], images())
    assert [run.name for run in list_runs("runs")] == ["tuned"]


def test_a_part_that_its_file_cannot_hold_is_an_error(with_parts):
    failures = [{**failure, "digest": ""} for failure in with_parts["failures"]]  # which is read as None
    with pytest.raises(RunError, match="found failures changed"):
        save_run("runs", "x", head(), {**with_parts, "failures": failures}, ["path"], [["p"]])
