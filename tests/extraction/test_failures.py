"""What `extract` says of images and shards that are not as they should be; no image passes a real network here."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottleneck.errors import BottleneckWarning, ImageError, ImagesError
from bottleneck.extraction.commits import CommitPace
from bottleneck.extraction.extract import extract
from bottleneck.extraction.result import Note
from bottleneck.images.scan import scan
from bottleneck.images.undecodable import UndecodableMemo
from tests import tiny
from tests.cache.numbered import overwrite
from tests.conftest import photo, write
from tests.variants import each

CLASSES = {f"{name}/{number}.jpg": 100 * place + number for place, name in enumerate("ab") for number in range(5)}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch) -> None:
    tiny.use(monkeypatch)


def cut(seed: int) -> bytes:
    """Return the beginning of a photograph."""
    return photo(seed, size=(300, 200))[:2000]


def gif(*levels: int) -> bytes:
    """Return a GIF with a frame a grey level."""
    first, *others = (Image.fromarray(np.full((20, 20, 3), level, np.uint8)) for level in levels)
    buffer = BytesIO()
    first.save(buffer, "GIF", save_all=bool(others), append_images=others)
    return buffer.getvalue()


def table_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


# --- the table of failures --------------------------------------------------------------------------------------


def test_the_table_lists_every_failure_with_code_message_and_digest(folder):
    images = folder({**CLASSES, "a/cut.jpg": cut(1), "b/empty.jpg": b"", 'b/page, "quoted".jpg': b"<html>"})
    (images / "b/gone.jpg").symlink_to("nowhere.jpg")
    done = extract(images)

    assert done.failures_table.parent == Path("cache/datasets")
    assert done.failures_table.match("images-*.failures.csv")
    rows = {Path(row["path"]).name: row for row in table_of(done.failures_table)}
    assert {name: row["code"] for name, row in rows.items()} == {
        "cut.jpg": "truncated",
        "empty.jpg": "empty",
        'page, "quoted".jpg': "not-an-image",
        "gone.jpg": "unreadable",
    }
    assert rows["cut.jpg"]["digest"] == tiny.digest(cut(1)).tobytes().hex()
    assert rows["gone.jpg"]["digest"] == ""
    assert "HTML" in rows['page, "quoted".jpg']["message"]
    assert [tuple(row.values()) for row in table_of(done.failures_table)] == [
        (failure.path, failure.code, failure.message, failure.digest or "") for failure in done.failures
    ]


def test_without_failures_there_is_no_table(folder):
    assert extract(folder(CLASSES)).failures_table is None
    assert not list(Path("cache").rglob("*.failures.csv"))


def test_the_table_goes_when_everything_is_mended_and_shrinks_before(folder):
    images = folder({**CLASSES, "a/cut.jpg": cut(1), "b/page.jpg": b"<html>"})
    table = extract(images).failures_table
    write(images / "a/cut.jpg", photo(50))
    assert extract(images).failures_table == table
    assert [Path(row["path"]).name for row in table_of(table)] == ["page.jpg"]
    (images / "b/page.jpg").unlink()

    assert extract(images).failures_table is None
    assert not table.exists()


def test_an_up_to_date_table_is_not_written_again_and_a_deleted_one_is(folder):
    images = folder({**CLASSES, "a/cut.jpg": cut(1)})
    table = extract(images).failures_table
    before, text = table.stat(), table.read_bytes()
    extract(images)
    assert (table.stat().st_ino, table.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    table.unlink()
    extract(images)

    assert table.read_bytes() == text


def test_paths_that_are_no_utf_8_stand_in_the_table(folder):
    images = folder(CLASSES)
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    write(images / "a" / name, b"<html>")

    (row,) = table_of(extract(images).failures_table)

    assert os.fsencode(row["path"]).endswith(b"caf\xe9.jpg")


def test_an_image_that_fails_under_several_names_is_listed_under_each(folder):
    images = folder({**CLASSES, "a/cut.jpg": cut(1), "b/cut.jpg": cut(1), "b/cut-too.jpg": cut(1)})
    with pytest.warns(BottleneckWarning, match="with two labels"):
        done = extract(images)

    names = ["a/cut.jpg", "b/cut-too.jpg", "b/cut.jpg"]
    assert [Path(failure.path) for failure in done.failures] == [images / name for name in names]
    assert (done.images, done.unique, done.computed, done.copies) == (13, 11, 10, 0)


def test_where_nothing_can_be_used_the_error_counts_the_reasons_and_names_the_table(folder):
    images = folder({"a/x.jpg": b"<html>", "b/y.jpg": b"", "b/z.jpg": b"<html><p>"})

    with pytest.raises(ImagesError, match=r"none of the 3 images can be used \(2 not-an-image, 1 empty\)") as caught:
        extract(images)

    (table,) = Path("cache/datasets").glob("*.failures.csv")
    assert str(table) in str(caught.value)
    assert len(table_of(table)) == 3


def test_where_nothing_is_remembered_the_error_names_no_table(folder):
    images = folder({"a/x.jpg": b"<html>", "b/y.jpg": b""})

    with pytest.raises(ImagesError) as caught:
        extract(images, remember=False)

    assert not list(Path("cache").rglob("*.failures.csv"))
    assert ".failures.csv" not in str(caught.value)


def test_what_is_not_to_be_remembered_leaves_no_table(folder):
    done = extract(folder({**CLASSES, "a/cut.jpg": cut(1)}), remember=False)

    assert len(done.failures) == 1
    assert done.failures_table is None
    assert not Path("cache/datasets").exists()


def test_a_failure_is_remembered_by_its_bytes_under_any_name(folder):
    images = folder({**CLASSES, "a/cut.jpg": cut(1)})
    extract(images)
    (images / "a/cut.jpg").rename(images / "b/renamed.jpg")
    done = extract(images)

    assert [(Path(failure.path).name, failure.code) for failure in done.failures] == [("renamed.jpg", "truncated")]


def test_remembered_failures_are_those_of_the_first_time_without_reading(folder, monkeypatch, reads, tools):
    images = folder({**CLASSES, "a/cut.jpg": cut(1), "b/page.jpg": b"<html>"})
    first = extract(images)
    tiny.use(monkeypatch, **tools)
    second = extract(images)

    assert second.failures == first.failures
    assert not reads
    Path("cache/digests.sqlite").unlink()
    assert extract(images).failures == first.failures
    assert sum(reads.values()) == 12


def test_an_image_with_features_is_no_failure_even_if_it_is_remembered_as_one(folder):
    images = folder(CLASSES)
    extract(images)
    wrong = {tiny.digest(photo(3)).tobytes(): ImageError("corrupt", "not by this decoder")}
    UndecodableMemo("cache/digests.sqlite").remember(wrong)
    done = extract(images)

    assert (done.reused, done.failures) == (10, ())


# --- notes and limits -------------------------------------------------------------------------------------------


def test_a_listed_gif_of_several_frames_is_used_and_noted(folder, tmp_path):
    images = folder({"a/0.jpg": 1, "a/1.gif": gif(0, 255), "b/2.jpg": 2, "b/3.gif": gif(9)})
    (tmp_path / "list.csv").write_text(
        "path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in sorted(images.rglob("*.*")))
    )
    done = extract(tmp_path / "list.csv")

    assert done.computed == 4
    assert done.notes == (Note(str(images / "a/1.gif"), "several frames (GIF); the first is used"),)
    assert np.array_equal(done.store.read(tiny.digest(gif(0, 255))), tiny.features(gif(0, 255)))
    assert extract(tmp_path / "list.csv").notes == ()  # of images that were computed now


def test_larger_images_than_allowed_are_failures_until_they_are_allowed(folder):
    images = folder({**CLASSES, "a/large.jpg": photo(50, size=(400, 300)), "b/edge.jpg": photo(51, size=(300, 200))})
    done = extract(images, max_pixels=60_000)
    assert [(Path(failure.path).name, failure.code) for failure in done.failures] == [("large.jpg", "too-large")]
    assert "--max-pixels" in done.failures[0].message
    done = extract(images, max_pixels=120_000)

    assert (done.computed, done.reused, done.failures) == (1, 11, ())
    assert extract(images, max_pixels=10).failures == ()  # its features are there


# --- shards that were changed or deleted ------------------------------------------------------------------------


def test_a_shard_that_was_changed_in_place_is_found_quarantined_and_computed_again(folder, monkeypatch):
    tiny.use(monkeypatch, pace=CommitPace(rows=4))
    images = folder(CLASSES)
    first = extract(images)
    features = first.store.read(first.dataset.digests)
    entries = first.store.index().entries
    damaged = next(path for path in first.store.shards() if len(entries[path.stem]) == 4)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    overwrite(damaged, bytes(data))

    with pytest.warns(BottleneckWarning, match=r"damaged.*quarantine"):
        second = extract(images)

    assert len(first.store.shards()) >= 3
    assert (second.computed, second.reused) == (4, 6)
    assert [path.read_bytes() for path in (first.store.folder / "quarantine").iterdir()] == [bytes(data)]
    assert np.array_equal(second.store.read(first.dataset.digests), features)
    assert extract(images).computed == 0


@each("damage", ["deleted", "all deleted", "cut short", "emptied"])
def test_features_that_were_lost_are_computed_again(folder, damage):
    images = folder(CLASSES)
    first = extract(images)  # into the cache of this variant
    features = first.store.read(first.dataset.digests)
    (shard,) = first.store.shards()
    if damage == "deleted":
        shard.unlink()
    elif damage == "all deleted":
        shutil.rmtree(first.store.folder)
    else:
        overwrite(shard, shard.read_bytes()[:500] if damage == "cut short" else b"")

    if damage in ("cut short", "emptied"):
        with pytest.warns(BottleneckWarning, match="quarantine"):
            second = extract(images)
    else:
        second = extract(images)

    assert (second.computed, second.reused) == (10, 0)
    assert np.array_equal(second.store.read(first.dataset.digests), features)


@pytest.fixture
def losing(monkeypatch) -> Callable[[str, int, int], None]:
    """Return a callback for the progress of `extract` that once deletes a shard which it has just committed."""
    tiny.use(monkeypatch, pace=CommitPace(rows=4))
    lost: list[Path] = []

    def lose(stage: str, done: int, total: int) -> None:
        if done >= 8 and not lost:
            lost.extend(Path("cache").glob("features/*/shards/*.h5"))
            lost[0].unlink()

    return lose


def test_features_that_are_lost_while_others_are_computed_are_computed_again_and_count_once(folder, losing):
    done = extract(folder(CLASSES), progress=losing)

    assert (len(done.usable), done.computed, done.reused) == (10, 10, 0)
    assert np.array_equal(done.store.read(tiny.digest(photo(104))), tiny.features(photo(104)))


def test_a_failure_is_listed_once_however_many_passes_there_are(folder, losing):
    images = folder(CLASSES)
    dataset = scan(images)
    (images / "a/0.jpg").unlink()

    done = extract(dataset, progress=losing)

    assert [Path(failure.path).name for failure in done.failures] == ["0.jpg"]


# --- what is kept -----------------------------------------------------------------------------------------------


def test_the_scan_that_is_kept_has_the_failures_too(folder):
    images = folder({**CLASSES, "a/cut.jpg": cut(1), "b/empty.jpg": b""})
    extract(images)
    (kept,) = (path for path in Path("cache/datasets").glob("*.json") if path.name != "last.json")

    failures = json.loads(kept.read_bytes())["failures"]

    assert sorted(failure["code"] for failure in failures) == ["empty", "truncated"]
