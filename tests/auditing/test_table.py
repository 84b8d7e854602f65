from pathlib import Path

import numpy as np
import pytest

from bottleneck.auditing.audit import audit
from bottleneck.auditing.findings import Finding
from bottleneck.auditing.table import correction_rows, path_in_table
from bottleneck.images.scan import scan
from bottleneck.utils.csv_text import csv_bytes, parse_csv
from tests.auditing.conftest import class_features
from tests.conftest import photo, write


def finding(path: str, digest: str, **fields: object) -> Finding:
    values = {"kind": "outlier", "split": "train", "label": "ant", "score": 1.0, "reason": "why", **fields}
    return Finding(path=path, digest=digest, **values)


@pytest.fixture
def dataset():
    for number, name in enumerate(("ant/1.jpg", "ant/=2.jpg", "bee/3.jpg", "bee/4.jpg")):
        write(Path("images") / name, photo(number))
    return scan("images")


def test_the_table_is_the_same_dataset(dataset):
    digests = {path: row.tobytes().hex() for path, row in zip(dataset.paths, dataset.digests, strict=True)}
    found = [
        finding("images/bee/4.jpg", digests["images/bee/4.jpg"], kind="label error", suggested="ant", label="bee"),
        finding("images/bee/4.jpg", digests["images/bee/4.jpg"], reason="far away"),
        finding("images/ant/=2.jpg", digests["images/ant/=2.jpg"]),
    ]
    table = Path("tables/corrected.csv")
    write(table, csv_bytes(correction_rows(dataset, found, (), table)))
    rows = parse_csv(table.read_bytes())
    assert [Path(row["path"]).name for row in rows] == ["4.jpg", "=2.jpg", "1.jpg", "3.jpg"]
    assert rows[0]["suggested"] == "ant"
    assert (rows[0]["finding"], rows[0]["reason"]) == ("label error; outlier", "why; far away")
    assert rows[2]["finding"] == ""
    again = scan(table)
    known = [(row.tobytes(), label, split) for row, label, split in zip(
        dataset.digests, dataset.labels, dataset.splits, strict=True)]  # fmt: skip
    assert sorted(zip((row.tobytes() for row in again.digests), again.labels, again.splits, strict=True)) == sorted(
        known
    )


def test_a_corrected_label_is_the_label_of_the_image(extracted):
    codes = np.repeat([0, 1], 40)
    labels = np.array(["ant", "bee"])[codes]
    labels[10] = "bee"
    dataset = extracted([f"{label}/{row}.jpg" for row, label in enumerate(labels.tolist())], class_features(codes))
    found = audit(dataset, pictures=False, refit=False)
    table = Path("corrected.csv")
    rows = list(correction_rows(dataset, found.findings, (), table))
    header, first = rows[:2]
    assert first[header.index("path")] == "images/bee/10.jpg"
    first[header.index("label")] = first[header.index("suggested")]
    table.write_bytes(csv_bytes(rows))
    assert audit("corrected.csv", pictures=False, refit=False).of_kind("label error") == ()


def test_paths_below_the_table_are_relative(tmp_path):
    assert path_in_table("images/a.jpg", Path("all.csv")) == "images/a.jpg"
    assert path_in_table(str(tmp_path / "images/a.jpg"), Path("all.csv")) == "images/a.jpg"
    assert path_in_table("images/a.jpg", Path("tables/all.csv")) == str(Path("images/a.jpg").absolute())
