"""A cache that several users of a group share."""

import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from bottleneck.errors import BottleneckWarning
from bottleneck.extraction.extract import extract
from bottleneck.fitting.fit import fit
from bottleneck.images import scan as scanning
from bottleneck.images.digest import DigestMemo
from bottleneck.images.scan import scan
from tests import tiny

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")


def two_classes(count: int, first: int = 0) -> dict[str, int]:
    """Return the paths and seeds of images of two classes."""
    return {f"{label}/{k}.png": first + 20 * place + k for place, label in enumerate("ab") for k in range(count)}


@pytest.fixture(params=[0o002, 0o007, 0o027], ids=oct)
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_every_file_takes_the_umask_and_the_group_of_the_folder(folder, monkeypatch, mask):
    tiny.use(monkeypatch)
    group = os.getgid()
    if os.getuid() == 0:  # who may give a folder to any group
        group = 54321
        for name in ("cache", "runs"):
            Path(name).mkdir()
            os.chown(name, -1, group)
            Path(name).chmod(0o2775)
    images = folder({f"{split}/{name}": seed for k, split in enumerate(("train", "test"))
                     for name, seed in two_classes(6, 50 * k).items()})  # fmt: skip
    (images / "train" / "a" / "broken.png").write_bytes(b"\x89PNG broken")
    extract(images)
    fit(head="centroid")

    written = [path for home in ("cache", "runs") for path in Path(home).rglob("*")]
    assert {"digests.sqlite", "spec.json", "card.json"} <= {path.name for path in written}
    for path in written:
        wanted = (0o777 if path.is_dir() else 0o666) & ~mask
        assert stat.S_IMODE(path.stat().st_mode) & 0o777 == wanted, path
        assert path.stat().st_gid == group, path


def test_digests_that_cannot_be_remembered_are_warned_of_once(folder, monkeypatch):
    images = folder(two_classes(10))
    scan(images, cache="cache")
    monkeypatch.setattr(DigestMemo, "remember", lambda *_: None)
    monkeypatch.setattr(DigestMemo, "is_writable", False)
    more = folder(two_classes(10, 100), "more")
    monkeypatch.setattr("bottleneck.images.file_index._BATCH", 3)

    for _ in range(2):
        with pytest.warns(
            BottleneckWarning, match=r"digests\.sqlite cannot be written by this user.*chmod g\+w"
        ) as told:
            found = scan(more, cache="cache")
        assert len(told) == 1
        assert len(found) == 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scan(images, cache="cache")  # nothing is to be kept


def test_a_user_who_may_not_write_the_memo_reads_it(folder, monkeypatch):
    images = folder(two_classes(3))
    scan(images, cache="cache")
    monkeypatch.setattr(DigestMemo, "is_writable", False)
    monkeypatch.setattr(scanning, "_try_digest", None)
    assert len(scan(images, cache="cache")) == 6
