import hashlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import BottleneckWarning, ImagesError
from bottleneck.images import digest
from bottleneck.images.dataset import Dataset, two_labels
from bottleneck.images.digest import DigestMemo, signature
from bottleneck.images.file_index import index_files
from bottleneck.images.scan import read_unknown, scan
from bottleneck.images.splits import Shares
from tests.conftest import photo, write
from tests.variants import each

Make = Callable[..., Path]


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files be remembered at once: no test can set a ctime back."""
    monkeypatch.setattr("bottleneck.images.digest.FRESH_SECONDS", -1.0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by the name of each file that is read."""
    names: list[str] = []
    whole = digest.ImageFile

    def watch(path: str | Path, *limits: int) -> object:
        names.append(os.path.basename(path))
        return whole(path, *limits)

    monkeypatch.setattr(digest, "ImageFile", watch)
    return names


def animals(folder: Make, name: str = "images") -> Path:
    return folder({"cat/1.jpg": 1, "cat/2.jpg": 2, "dog/3.jpg": 3, "dog/4.jpg": 4}, name)


def hexadecimal(dataset: Dataset) -> list[str]:
    return [row.tobytes().hex() for row in dataset.digests]


def tick(path: Path) -> None:
    """Wait until a change of `path` would have another time than its last one."""
    probe = path.with_name("probe")
    while write(probe, b"").stat().st_ctime_ns <= path.stat().st_ctime_ns:
        time.sleep(0.001)
    probe.unlink()


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


# What a scan returns


def test_a_folder_of_classes_becomes_a_dataset(folder: Make) -> None:
    root = animals(folder)
    dataset = scan(root)
    assert dataset.source == root.absolute()
    assert dataset.paths == tuple(str(root / name) for name in ("cat/1.jpg", "cat/2.jpg", "dog/3.jpg", "dog/4.jpg"))
    assert hexadecimal(dataset) == [hashlib.sha256(photo(seed)).hexdigest() for seed in (1, 2, 3, 4)]
    assert dataset.digests.dtype == np.uint8
    assert dataset.digests.shape == (4, 32)
    assert dataset.labels == ("cat", "cat", "dog", "dog")
    assert dataset.classes == ("cat", "dog")
    assert dataset.labelled
    assert dataset.given_splits == (None,) * 4
    assert dataset.failures == ()
    assert dataset.ignored == {}


def test_a_row_keeps_its_digest_when_others_cannot_be_read_or_are_no_images(folder: Make) -> None:
    root = animals(folder)
    write(root / "cat" / "0.jpg", b"")
    (root / "cat" / "11.jpg").symlink_to("nowhere")
    write(root / "dog" / "35.jpg", b"")
    dataset = scan(root)
    for path, found in zip(dataset.paths, hexadecimal(dataset), strict=True):
        assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == found
    assert len(dataset) == 4
    assert {(os.path.basename(failure.path), failure.code) for failure in dataset.failures} == {
        ("0.jpg", "empty"),
        ("11.jpg", "unreadable"),
        ("35.jpg", "empty"),
    }

    dataset = scan(folder({"cat/1.jpg": b"<html>", "dog/2.jpg": 2}, name="second"))
    assert len(dataset) == 2
    assert dataset.failures == ()


def test_split_folders_give_the_splits_and_a_single_one_is_divided(folder: Make) -> None:
    root = folder({"train/cat/1.jpg": 1, "train/dog/2.jpg": 2, "valid/cat/3.jpg": 3, "testing/dog/4.jpg": 4})
    dataset = scan(root, split="34/33/33")
    assert dict(zip((Path(path).name for path in dataset.paths), dataset.splits, strict=True)) == {
        "1.jpg": "train",
        "2.jpg": "train",
        "3.jpg": "val",
        "4.jpg": "test",
    }

    images = {f"train/{'cat' if seed % 2 else 'dog'}/{seed}.jpg": seed for seed in range(60)}
    dataset = scan(folder(images, name="second"), split="50/25/25")
    assert dataset.classes == ("cat", "dog")
    assert set(dataset.splits) == {"train", "val", "test"}

    assert scan(animals(folder, "third"), split="60/30/10").shares == Shares(60, 30, 10)


def test_without_labels_every_image_is_taken_as_it_is(folder: Make) -> None:
    dataset = scan(folder({"1.jpg": 1, "2.jpg": 2}))
    assert dataset.labels == (None, None)
    assert not dataset.labelled

    root = folder({"1.jpg": 1, "only/2.jpg": 2, "only/deep/3.jpg": 3}, name="second")
    dataset = scan(root, labels=False)
    assert len(dataset) == 3
    assert set(dataset.labels) == {None}


@each("name", ["one.jpg", "one.gif", "one", ".one.png"])
@each("labels", [True, False])
def test_one_file_of_any_name_is_a_dataset_of_one_image(tmp_path: Path, name: str, labels: bool) -> None:
    path = write(tmp_path / name, photo(1))
    dataset = scan(path, labels=labels)
    assert dataset.paths == (str(path),)
    assert dataset.labels == (None,)
    assert hexadecimal(dataset) == [hashlib.sha256(photo(1)).hexdigest()]


@each("make, code", [(os.mkfifo, "unreadable"), (Path.touch, "empty"), (dangling, "unreadable")])
def test_one_file_that_cannot_be_used_is_a_failure(tmp_path: Path, make: Callable[[Path], None], code: str) -> None:
    make(tmp_path / "one.jpg")
    dataset = scan(tmp_path / "one.jpg")
    assert len(dataset) == 0
    assert dataset.digests.shape == (0, 32)
    assert [failure.code for failure in dataset.failures] == [code]


def test_a_gif_is_ignored_and_progress_ends_with_every_file(folder: Make) -> None:
    dataset = scan(folder({"cat/1.jpg": 1, "dog/2.jpg": 2, "dog/3.gif": photo(3, kind="GIF")}))
    assert len(dataset) == 2
    assert dataset.ignored == {".gif": 1}

    seen: list[tuple[str, int, int]] = []
    scan(animals(folder, "second"), progress=lambda *step: seen.append(step))
    assert seen[-1] == ("scan", 4, 4)


def test_the_folder_may_be_given_as_text_relatively_or_below_the_home(
    folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    animals(folder)
    dataset = scan("images")
    assert dataset.source == tmp_path / "images"
    assert dataset.paths[0] == os.path.join("images", "cat", "1.jpg")

    animals(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert scan("~/images", cache="~/kept").classes == ("cat", "dog")
    assert scan("~/images", cache=None, exclude=["~/images/dog"], labels=False).paths[0].endswith("cat/1.jpg")
    assert not os.path.lexists("~")


def test_a_name_that_is_not_utf_8_is_scanned_and_remembered(folder: Make, settled: None, reads: list[str]) -> None:
    name = os.fsdecode(b"caf\xe9")
    root = folder({f"{name}/{name}.jpg": 1, "b/2.jpg": 2})
    dataset = scan(root)
    assert dataset.labels == ("b", name)
    assert len(reads) == 2
    assert hexadecimal(scan(root)) == hexadecimal(dataset)
    assert len(reads) == 2
    assert len(dataset.fingerprint()) == 64


# What is never scanned


@each("labels", [True, False])
def test_the_cache_and_the_runs_are_never_scanned(tmp_path: Path, labels: bool) -> None:
    for name in ("cat/1.jpg", "dog/2.jpg", "cache/x/3.jpg", "runs/a/4.jpg"):
        write(tmp_path / name, photo(int(name[-5])))
    assert [Path(path).name for path in scan(".", labels=labels).paths] == ["1.jpg", "2.jpg"]


def test_the_cache_the_runs_and_excluded_folders_are_not_scanned(folder: Make, tmp_path: Path) -> None:
    root = folder({"cat/1.jpg": 1, "dog/2.jpg": 2, "dog/features/3.jpg": 3})
    assert len(scan(root, cache=root / "dog" / "features")) == 2
    assert len(scan(root, cache=None)) == 3

    root = folder({"cat/1.jpg": 1, "dog/2.jpg": 2, "results/3.jpg": 3}, name="second")
    assert scan(root, exclude=["second/results"]).classes == ("cat", "dog")

    assert scan(folder({"runs/1.jpg": 1, "walks/2.jpg": 2}, name="third")).classes == ("runs", "walks")


# Errors


@each("name", ["nowhere", "nowhere.csv", "nowhere/1.jpg"])
def test_a_path_that_does_not_exist_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImagesError, match=f"{name} does not exist"):
        scan(tmp_path / name)


def test_a_folder_without_two_classes_of_images_is_an_error(folder: Make) -> None:
    root = folder({"cat/a.txt": b"x", "cat/b.txt": b"x", "dog/c.gif": 1, "dog/.d.jpg": 2, "e.jpg": 3})
    with pytest.raises(ImagesError, match="found none; skipped") as error:
        scan(root)
    for words in ("2 .txt", "1 .gif", "1 hidden", "1 outside any class folder", str(root)):
        assert words in str(error.value)

    with pytest.raises(ImagesError, match="found none"):
        scan(folder({}, name="second"))

    with pytest.raises(ImagesError, match=r"at least two classes .*, found one: 'cat'.*--no-labels"):
        scan(folder({"cat/1.jpg": 1, "cat/2.jpg": 2}, name="third"))

    with pytest.raises(ValueError, match="80/10/10"):
        scan(animals(folder), split="80/20")


# Warnings (a test in which any other warning appears fails)


def test_an_empty_class_folder_warns(folder: Make) -> None:
    root = animals(folder)
    (root / "cow").mkdir()
    with pytest.warns(BottleneckWarning, match="empty class folder: .*cow"):
        assert scan(root).classes == ("cat", "dog")


def test_an_image_under_two_labels_warns_once_with_the_first_path_of_each(folder: Make, tmp_path: Path) -> None:
    root = folder({"cat/1.jpg": 1, "cat/2.jpg": 2, "dog/3.jpg": 3, "dog/4.jpg": 1})
    with pytest.warns(BottleneckWarning, match="one image with two labels") as caught:
        dataset = scan(root)
    [warning] = caught
    assert ": cat/1.jpg (cat) and dog/4.jpg (dog). " in str(warning.message)
    assert list(two_labels(dataset)) == [hashlib.sha256(photo(1)).digest()]

    with pytest.warns(BottleneckWarning, match=r"cat/0\.jpg \(cat\) and dog/7\.jpg \(dog\)\. "):
        dataset = scan(
            folder({**{f"cat/{number}.jpg": 1 for number in range(7)}, "dog/7.jpg": 1, "dog/8.jpg": 2}, name="second")
        )
    assert list(two_labels(dataset)) == [hashlib.sha256(photo(1)).digest()]

    name = "a photograph with a rather long name"
    root = folder(
        {f"{label}/{name} {number}.jpg": number for label in ("cat", "dog") for number in range(30)}, name="third"
    )
    with pytest.warns(BottleneckWarning, match=r"^30 images with two labels each, .* and 29 more\. ") as caught:
        scan(root)
    assert len(caught) == 1
    assert len(str(caught[0].message)) <= 240

    write(tmp_path / "a.jpg", photo(1))
    write(tmp_path / "list.csv", b"path,label\na.jpg,dog\na.jpg,cat\n")
    with pytest.warns(BottleneckWarning, match=r": a\.jpg \(cat, dog\)\."):
        dataset = scan(tmp_path / "list.csv")
    assert list(two_labels(dataset)) == [hashlib.sha256(photo(1)).digest()]


@each(
    "names, said",
    [
        (("Cat", "cat"), "classes that differ only by case or spaces: Cat and cat"),
        (("red fox", "red_fox"), "red fox and red_fox"),
        (("snow leopard", "Snow-Leopard"), "Snow-Leopard and snow leopard"),
        (("a\u00a0b", "a b"), r"a b and a\\xa0b"),
    ],
)
def test_classes_with_nearly_equal_names_warn_and_stay_separate(
    folder: Make, names: tuple[str, str], said: str
) -> None:
    root = folder({f"{names[0]}/1.jpg": 1, f"{names[1]}/2.jpg": 2})
    with pytest.warns(BottleneckWarning, match=said) as caught:
        assert scan(root).classes == tuple(sorted(names))
    assert len(caught) == 1


@each(
    "composed, decomposed",
    [
        ("Caf\u00e9", "Cafe\u0301"),
        ("\u1eaa", "A\u0302\u0303"),
        ("\uac00", "\u1100\u1161"),
    ],
)
def test_classes_of_one_name_in_two_forms_of_unicode_are_one(folder: Make, composed: str, decomposed: str) -> None:
    root = folder(
        {f"train/{composed}/1.jpg": 1, "train/dog/2.jpg": 2, f"val/{decomposed}/3.jpg": 3, "val/dog/4.jpg": 4}
    )
    with pytest.warns(BottleneckWarning, match=f"count as one: {composed}$"):
        dataset = scan(root)
    assert dataset.classes == tuple(sorted((composed, "dog")))
    assert any(decomposed in path for path in dataset.paths)  # as it is on the disk


def test_groups_of_one_name_are_merged_and_nearly_equal_names_warn(tmp_path: Path) -> None:
    rows = ["a.jpg,x,Zo\u00eb", "b.jpg,y,Zoe\u0308", "c.jpg,x,P 1", "d.jpg,y,p_1"]
    write(tmp_path / "list.csv", "\n".join(["path,label,group", *rows]).encode())
    for seed, row in enumerate(rows):
        write(tmp_path / row[:5], photo(seed))
    with pytest.warns(BottleneckWarning) as caught:
        dataset = scan(tmp_path / "list.csv")
    assert dataset.groups == ("Zo\u00eb", "Zo\u00eb", "P 1", "p_1")
    assert dataset.splits[0] == dataset.splits[1]
    assert ["groups that differ only by case or spaces: P 1 and p_1" in str(one.message) for one in caught] == [
        False,
        True,
    ]


def test_copies_without_a_contradiction_do_not_warn(folder: Make) -> None:
    dataset = scan(folder({"cat/1.jpg": 1, "cat/2.jpg": 1, "cat/deep/3.jpg": 1, "dog/4.jpg": 4}))
    assert len(dataset) == 4
    assert len(dataset.first_rows()) == 2
    assert two_labels(dataset) == {}

    assert len(scan(folder({"cat/1.jpg": 1, "dog/2.jpg": 1}, name="second"), labels=False)) == 2

    root = animals(folder, "third")
    (root / "cat" / "all").symlink_to(root)
    assert len(scan(root)) == 4

    assert scan(folder({"Cafe\u0301/1.jpg": 1, "dog/2.jpg": 2}, name="fourth")).classes == ("Caf\u00e9", "dog")


# The memo


@pytest.mark.usefixtures("settled")
def test_rehash_reads_every_file_again_and_mends_the_memo(folder: Make, reads: list[str]) -> None:
    root = animals(folder)
    right = scan(root)
    memo = DigestMemo("cache/digests.sqlite")
    path = str(root / "cat" / "1.jpg")
    memo.remember([(path, signature(os.stat(path)), bytes(32), time.time())])
    assert scan(root).digests[0].tobytes() == bytes(32)
    reads.clear()

    assert hexadecimal(scan(root, rehash=True)) == hexadecimal(right)
    assert len(reads) == 4
    assert hexadecimal(scan(root)) == hexadecimal(right)
    assert len(reads) == 4


@pytest.mark.usefixtures("settled")
def test_scanning_again_reads_only_new_files_and_writes_nothing_else(folder: Make, reads: list[str]) -> None:
    root = animals(folder)
    first = scan(root)
    memo = Path("cache/digests.sqlite")
    before = memo.stat().st_mtime_ns, memo.read_bytes()
    reads.clear()
    assert hexadecimal(scan(root)) == hexadecimal(first)
    assert hexadecimal(scan("images", labels=False)) == hexadecimal(first)
    assert reads == []
    assert (memo.stat().st_mtime_ns, memo.read_bytes()) == before
    assert os.listdir("cache") == ["digests.sqlite"]

    write(root / "cat" / "5.jpg", photo(5))
    assert len(scan(root)) == 5
    assert reads == ["5.jpg"]
    write(Path("file"), b"")
    assert len(scan(root, cache="file/cache")) == 5  # a cache that cannot be written changes no result


@pytest.mark.usefixtures("settled")
def test_without_a_cache_nothing_is_remembered(folder: Make, tmp_path: Path, reads: list[str]) -> None:
    root = animals(folder)
    scan(root, cache=None)
    scan(root, cache=None)
    assert len(reads) == 8
    assert not (tmp_path / "cache").exists()


def test_a_file_just_written_is_read_again(folder: Make, reads: list[str]) -> None:
    root = animals(folder)
    scan(root)
    scan(root)
    assert len(reads) == 8


def test_files_that_were_too_young_can_be_remembered_later(folder: Make, reads: list[str]) -> None:
    root = animals(folder)
    found = index_files(root, labels=True, shares=Shares(), cache="cache", exclude=())
    read_unknown(found)
    assert len(reads) == 4
    later = time.time() + 60
    part = found.recent(later)
    for row, known in enumerate(found.digests):
        part.record_digest(row, known, signature(os.stat(part.paths[row])), later)
    part.save()
    reads.clear()
    assert hexadecimal(scan(root)) == hexadecimal(found.dataset())
    assert reads == []


def rewritten(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def rewritten_with_the_old_mtime(path: Path, data: bytes) -> None:
    status = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced_with_the_old_mtime(path: Path, data: bytes) -> None:
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(data)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


@pytest.mark.usefixtures("settled")
@each("change", [rewritten, rewritten_with_the_old_mtime, replaced_with_the_old_mtime])
def test_changed_bytes_are_detected_for_any_time_stamps(
    folder: Make, reads: list[str], change: Callable[[Path, bytes], None]
) -> None:
    root = animals(folder)
    before = scan(root)
    path = root / "cat" / "1.jpg"
    data = bytes(reversed(photo(1)))
    tick(path)
    reads.clear()
    change(path, data)
    after = scan(root)
    assert hexadecimal(after) == [hashlib.sha256(data).hexdigest(), *hexadecimal(before)[1:]]
    assert reads == ["1.jpg"]


@pytest.mark.usefixtures("settled")
def test_a_file_that_became_longer_or_vanished_is_noticed(folder: Make, tmp_path: Path) -> None:
    root = animals(folder)
    before = hexadecimal(scan(root))
    with open(root / "cat" / "1.jpg", "ab") as file:
        file.write(b"more")
    assert hexadecimal(scan(root)) == [hashlib.sha256(photo(1) + b"more").hexdigest(), *before[1:]]

    write(tmp_path / "a.jpg", photo(1))
    write(tmp_path / "b.jpg", photo(2))
    table = write(tmp_path / "images.csv", b"path\na.jpg\nb.jpg\n")
    assert len(scan(table)) == 2
    (tmp_path / "a.jpg").unlink()
    dataset = scan(table)
    assert [Path(path).name for path in dataset.paths] == ["b.jpg"]
    assert [Path(failure.path).name for failure in dataset.failures] == ["a.jpg"]


def test_renaming_files_keeps_their_digests_and_splits(folder: Make, tmp_path: Path) -> None:
    images = {f"{'cat' if seed % 2 else 'dog'}/{seed}.jpg": seed for seed in range(40)}
    root = folder(images)
    before = scan(root, split="50/25/25")
    for number, path in enumerate(sorted(root.rglob("*.jpg"), reverse=True)):
        path.rename(path.with_name(f"renamed {number}.JPEG"))
    root.rename(tmp_path / "moved")
    after = scan(tmp_path / "moved", split="50/25/25")
    assert not set(before.paths) & set(after.paths)
    assert dict(zip(hexadecimal(after), after.splits, strict=True)) == dict(
        zip(hexadecimal(before), before.splits, strict=True)
    )
    assert after.fingerprint() == before.fingerprint()


def no_database(path: Path) -> None:
    path.write_bytes(b"no database " * 500)


def half_a_database(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def nulls(path: Path) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("update digests_2 set value = null")
    connection.close()


@pytest.mark.usefixtures("settled")
@each("damage", [Path.unlink, no_database, half_a_database, nulls])
def test_a_lost_or_damaged_memo_changes_no_result(
    folder: Make, reads: list[str], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    root = animals(folder)
    before = scan(root)
    damage(tmp_path / "cache" / "digests.sqlite")
    assert hexadecimal(scan(root)) == hexadecimal(before)
    reads.clear()
    assert hexadecimal(scan(root)) == hexadecimal(before)
    assert reads == []  # it was made anew


@pytest.mark.shared
def test_the_real_photographs_are_scanned(hymenoptera: Path) -> None:
    dataset = scan(hymenoptera, cache=None)
    assert dataset.classes == ("ants", "bees")
    assert len(dataset) > 200
    assert not dataset.failures
