import hashlib
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from bottleneck.images.memo import Memo
from bottleneck.images.thumbnail_memo import NAME, ThumbnailMemo
from bottleneck.images.thumbnails import SIDE, Thumbnail

KEYS = [hashlib.sha256(b"%d" % number).digest() for number in range(700)]


@pytest.fixture
def thumbnails():
    rng = np.random.default_rng(0)
    return {
        key: Thumbnail(rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8), 10 + number, 20)
        for number, key in enumerate(KEYS)
    }


def as_bytes(found):
    return {key: one.to_bytes() for key, one in found.items()}


def test_what_is_stored_is_found_by_digest(tmp_path, thumbnails):
    memo = ThumbnailMemo.in_cache(tmp_path / "cache")
    assert memo.get(KEYS) == {}
    assert not (tmp_path / "cache").exists()
    memo.put(thumbnails)
    assert as_bytes(ThumbnailMemo(tmp_path / "cache" / NAME).get(KEYS)) == as_bytes(thumbnails)
    assert memo.get([b"?" * 32]) == {}
    assert len(memo.get(KEYS[:3])) == 3


def test_a_row_fits_on_a_page_of_the_database(tmp_path, thumbnails):
    ThumbnailMemo(tmp_path / NAME).put(thumbnails)
    assert (tmp_path / NAME).stat().st_size < 1500 * len(KEYS)


def test_another_decoder_has_other_thumbnails(tmp_path, thumbnails):
    ThumbnailMemo(tmp_path / NAME, lambda: b"older").put(thumbnails)
    assert ThumbnailMemo(tmp_path / NAME).get(KEYS) == {}
    assert len(ThumbnailMemo(tmp_path / NAME, lambda: b"older").get(KEYS)) == len(KEYS)


def test_damage_is_not_returned_and_a_memo_that_is_none_is_made_anew(tmp_path, thumbnails):
    place = tmp_path / NAME
    memo = ThumbnailMemo(place)
    memo.put(thumbnails)
    with closing(sqlite3.connect(place)) as connection, connection:
        connection.execute("update thumbnails_1 set value = zeroblob(776) where substr(key, 9) = ?", (KEYS[1],))
    assert as_bytes(memo.get(KEYS[:3])) == as_bytes({key: thumbnails[key] for key in (KEYS[0], KEYS[2])})
    prefix = bytes.fromhex(hashlib.sha256(b"this").hexdigest())[:8]
    Memo(place, "thumbnails_1").put([(prefix + KEYS[0], b"no thumbnail")])
    assert ThumbnailMemo(place, lambda: b"this").get(KEYS) == {}

    place.write_bytes(b"no database")
    assert memo.get(KEYS) == {}
    memo.put(thumbnails)
    assert len(memo.get(KEYS)) == len(KEYS)


def test_a_full_memo_keeps_what_it_has(tmp_path, thumbnails):
    memo = ThumbnailMemo(tmp_path / NAME, full=1)
    memo.put({KEYS[0]: thumbnails[KEYS[0]]})
    memo.put({KEYS[1]: thumbnails[KEYS[1]]})
    assert list(memo.get(KEYS)) == [KEYS[0]]
