import hashlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import BottleneckWarning, ImageError, ImagesError
from bottleneck.images import digest
from bottleneck.images.clock import FileClock
from bottleneck.images.digest import DigestMemo, Signature, signature
from bottleneck.images.file_index import FileIndex, conflicts, index_files
from bottleneck.images.scan import read_unknown, scan
from bottleneck.images.splits import Shares
from tests.conftest import photo, write

Make = Callable[..., Path]
NOW = 2e9  # seconds since the epoch, long after any file of a test was made


@pytest.fixture
def root(folder: Make) -> Path:
    return folder({"cat/1.jpg": 1, "cat/2.jpg": 2, "dog/3.jpg": 3, "dog/4.jpg": 4})


def index(
    source: str | Path, *, labels: bool = True, shares: Shares | None = None, cache: str | Path | None = "cache"
) -> FileIndex:
    return index_files(source, labels=labels, shares=shares or Shares(), cache=cache, exclude=("runs",))


def sha(seed: int) -> bytes:
    return hashlib.sha256(photo(seed)).digest()


def learn(found: FileIndex, row: int, seed: int, when: float = NOW) -> None:
    found.record_digest(row, sha(seed), signature(os.stat(found.paths[row])), when)


def recalled(found: FileIndex) -> dict[str, bytes]:
    """Return what the memo knows of the files of an index, by name."""
    full = [os.path.abspath(path) for path in found.paths]
    known = DigestMemo("cache/digests.sqlite").lookup({path: signature(os.stat(path)) for path in full})
    return {os.path.basename(path): value for path, value in known.items()}


# What is found


def test_an_index_finds_the_files_and_reads_none(root: Path) -> None:
    os.truncate(root / "cat" / "1.jpg", digest.LARGEST_FILE + 1)  # which reading it would refuse
    found = index(root)
    assert found.dataset().failures == ()
    assert [Path(path).relative_to(root).as_posix() for path in found.paths] == [
        "cat/1.jpg",
        "cat/2.jpg",
        "dog/3.jpg",
        "dog/4.jpg",
    ]
    assert found.digests == [None] * 4
    assert found.unknown() == [0, 1, 2, 3]
    assert not Path("cache").exists()


def test_a_survey_refuses_what_a_scan_refuses(tmp_path: Path, folder: Make) -> None:
    with pytest.raises(ImagesError, match="does not exist"):
        index(tmp_path / "nowhere")
    with pytest.raises(ImagesError, match="at least two classes"):
        index(folder({"cat/1.jpg": 1}, name="one"))
    with pytest.raises(ImagesError, match="found none"):
        index(folder({}, name="none"))
    root = folder({"cat/1.jpg": 1, "dog/2.jpg": 2}, name="three")
    (root / "cow").mkdir()
    with pytest.warns(BottleneckWarning, match="empty class folder: .*cow"):
        index(root)


# What is learnt


def test_a_dataset_keeps_its_order_when_learnt_in_any(root: Path) -> None:
    found = index(root, shares=Shares(60, 30, 10))
    for row in (2, 0, 3, 1):
        learn(found, row, row + 1)
    assert found.unknown() == []
    dataset = found.dataset()
    assert [row.tobytes() for row in dataset.digests] == [sha(seed) for seed in (1, 2, 3, 4)]
    assert dataset.paths == tuple(found.paths)
    assert dataset.labels == ("cat", "cat", "dog", "dog")
    assert dataset.shares == Shares(60, 30, 10)
    assert dataset.source == root
    assert dataset.failures == ()

    found = index(root)
    for row, seed in enumerate((1, 2, 3, 1)):
        learn(found, row, seed)
    message = conflicts(found.dataset(), "Here")
    assert message == "one image with two labels, left out by fit: cat/1.jpg (cat) and dog/4.jpg (dog). Here"


def test_reading_what_is_unknown_gives_the_dataset_of_a_scan(root: Path) -> None:
    write(root / "cat" / "0.jpg", b"")
    (root / "dog" / "5.jpg").symlink_to("nowhere")
    found = index(root)
    read_unknown(found)
    by_survey, by_scan = found.dataset(), scan(root)
    assert by_survey.paths == by_scan.paths
    assert np.array_equal(by_survey.digests, by_scan.digests)
    assert by_survey.labels == by_scan.labels
    assert by_survey.failures == by_scan.failures
    assert {failure.code for failure in by_scan.failures} == {"empty", "unreadable"}


def test_what_failed_or_is_unknown_is_no_part_of_the_dataset(root: Path) -> None:
    found = index(root)
    found.record_failure(3, ImageError("unreadable", "second"))
    learn(found, 0, 1)
    found.record_failure(1, ImageError("changed", "first"))
    assert found.unknown() == [2]
    learn(found, 2, 3)
    dataset = found.dataset()
    assert [(failure.path, failure.code, failure.message) for failure in dataset.failures] == [
        (found.paths[1], "changed", "first"),
        (found.paths[3], "unreadable", "second"),
    ]
    assert dataset.paths == (found.paths[0], found.paths[2])
    assert dataset.labels == ("cat", "dog")

    found = index(root)
    assert len(found.dataset()) == 0
    assert found.dataset().digests.shape == (0, 32)
    learn(found, 2, 3)
    assert found.dataset().paths == (found.paths[2],)
    assert found.unknown() == [0, 1, 3]


def test_failures_are_in_order_and_splits_and_groups_stay_with_their_rows(root: Path, tmp_path: Path) -> None:
    (root / "dog" / "9.jpg").symlink_to("nowhere")
    found = index(root)
    found.record_failure(0, ImageError("empty", "why"))
    assert [Path(failure.path).name for failure in found.dataset().failures] == ["9.jpg", "1.jpg"]

    for seed in (1, 2, 3):
        write(tmp_path / f"{seed}.jpg", photo(seed))
    lines = ["path,label,split,group", "3.jpg,x,test,g3", "1.jpg,y,train,g1", "2.jpg,y,val,g2"]
    found = index(write(tmp_path / "images.csv", "\n".join(lines).encode()))
    found.record_failure(0, ImageError("empty", "why"))
    learn(found, 2, 3)
    learn(found, 1, 2)
    dataset = found.dataset()
    assert dataset.given_splits == ("val", "test")
    assert dataset.groups == ("g2", "g3")


# What is remembered


def test_what_was_learnt_is_known_to_the_next_survey_until_a_file_changes(root: Path) -> None:
    found = index(root)
    learn(found, 1, 2)
    learn(found, 2, 3)
    assert recalled(found) == {}
    found.save()
    assert recalled(found) == {"2.jpg": sha(2), "3.jpg": sha(3)}
    again = index(root)
    assert again.digests == [None, sha(2), sha(3), None]
    assert again.unknown() == [0, 3]
    assert index(root, cache=None).digests == [None] * 4
    assert index(root, cache="another").digests == [None] * 4

    found = index(root)
    for row in range(4):
        learn(found, row, row + 1)
    found.save()
    write(root / "dog" / "3.jpg", photo(9) + b"longer")
    assert index(root).unknown() == [2]


def test_a_file_is_recalled_by_another_way_to_it(root: Path, tmp_path: Path) -> None:
    found = index("images")
    learn(found, 0, 1)
    found.save()
    assert index(root).digests == [sha(1), None, None, None]
    table = write(tmp_path / "images.csv", b"path\nimages/cat/1.jpg\nimages/cat/2.jpg\n")
    assert index(table).digests == [sha(1), None]


def test_digests_are_saved_in_batches(tmp_path: Path) -> None:
    for seed in range(7):
        write(tmp_path / "images" / f"{seed}.jpg", photo(seed))
    found = replace(index(tmp_path / "images"), batch=3)
    known = []
    for row in range(7):
        learn(found, row, row)
        known.append(len(recalled(found)))
    assert known == [0, 0, 3, 3, 3, 6, 6]
    found.save()
    assert len(recalled(found)) == 7


def test_what_was_saved_is_not_written_again(root: Path) -> None:
    written: list[int] = []

    class Watched(DigestMemo):
        def remember(self, read: Iterable[tuple[str, Signature, bytes, float]]) -> None:
            written.append(len(list(read)))

    found = replace(index(root), memo=Watched("cache/digests.sqlite"))
    learn(found, 0, 1)
    learn(found, 1, 2)
    found.save()
    learn(found, 2, 3)
    found.save()
    found.save()
    assert [count for count in written if count] == [2, 1]


def test_without_a_cache_nothing_is_saved(root: Path, tmp_path: Path) -> None:
    found = index(root, cache=None)
    learn(found, 0, 1)
    found.save()
    assert os.listdir(tmp_path) == ["images"]


# Files too young to be remembered


def test_young_files_are_indexed_again_and_the_others_are_not(root: Path) -> None:
    found = index(root)
    young = max(status.st_ctime for status in map(os.stat, found.paths)) + 1  # seconds; a second old
    for row, when in enumerate((NOW, young, NOW, young)):
        learn(found, row, row + 1, when)
    found.save()
    assert recalled(found) == {"1.jpg": sha(1), "3.jpg": sha(3)}
    assert found.recent().paths == []  # they still are too young
    part = found.recent(NOW)
    assert part.paths == [found.paths[1], found.paths[3]]
    assert part.unknown() == [0, 1]
    learn(part, 0, 2)
    learn(part, 1, 4)
    part.save()
    assert len(recalled(found)) == 4
    assert index(root).unknown() == []
    assert part.recent().paths == []


def test_a_file_that_is_old_failed_or_unknown_is_not_recent(root: Path) -> None:
    memo = DigestMemo("cache/digests.sqlite", FileClock(Path("cache"), now=lambda: NOW))
    found = replace(index(root), memo=memo)
    for row in range(4):
        learn(found, row, row + 1, time.time())
    assert found.recent(NOW).paths == []

    found = index(root)
    learn(found, 0, 1)
    found.record_failure(1, ImageError("empty", "why"))
    assert found.recent().paths == []
    assert found.recent().unknown() == []


# Nothing is recalled


def test_a_survey_that_forgets_reads_all_and_replaces_what_was_remembered(root: Path) -> None:
    found = index(root)
    for row in range(4):
        learn(found, row, 9)  # wrong for good
    found.save()
    assert index(root).digests == [sha(9)] * 4

    found = index(root)
    found.forget()
    assert found.unknown() == [0, 1, 2, 3]
    assert recalled(found) == {}
    learn(found, 0, 1)
    found.save()
    assert index(root).digests == [sha(1), None, None, None]


def test_what_is_forgotten_and_read_too_young_stays_forgotten(root: Path) -> None:
    found = index(root)
    learn(found, 0, 9)
    found.save()
    found = index(root)
    found.forget()
    read_unknown(found)  # all files are younger than two seconds
    assert index(root).digests == [None] * 4


def test_forgetting_what_is_not_known_changes_nothing(root: Path) -> None:
    index(root).forget()
    index(root, cache=None).forget()
    assert not Path("cache").exists()

    found = FileIndex.of(scan(root))
    found.forget()
    assert found.unknown() == []


def test_a_young_file_that_changed_since_is_remembered_as_it_is_now(root: Path) -> None:
    found = index(root)
    read_unknown(found)
    before = found.dataset().digests.copy()
    write(root / "dog" / "4.jpg", photo(9) + b"longer")
    part = found.recent(NOW)
    row = part.paths.index(str(root / "dog" / "4.jpg"))
    part.record_digest(row, *digest.digest_file(part.paths[row])[:2], NOW)
    part.save()
    assert recalled(found)["4.jpg"] == hashlib.sha256(photo(9) + b"longer").digest()
    assert np.array_equal(found.dataset().digests, before)  # which goes on as it began


# The index of a dataset


def test_of_a_dataset_nothing_is_unknown_and_it_is_given_back(root: Path) -> None:
    write(root / "cat" / "0.jpg", b"")
    dataset = scan(root, split="60/30/10", cache=None).subset([3, 1])
    found = FileIndex.of(dataset)
    assert found.paths == list(dataset.paths)
    assert found.digests == [row.tobytes() for row in dataset.digests]
    assert found.unknown() == []
    assert found.recent().paths == []
    found.save()
    assert found.dataset() is dataset
    assert not Path("cache").exists()


def test_a_signature_is_that_of_when_the_file_was_read(root: Path) -> None:
    found = index(root)
    old: Signature = (1, 10**18, 10**18, 7)
    found.record_digest(0, sha(1), old, NOW)
    found.save()
    assert recalled(found) == {}
