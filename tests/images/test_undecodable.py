import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import PIL
import pytest

from bottleneck.errors import ImageError
from bottleneck.images.decode import DECODER_VERSION
from bottleneck.images.digest import DigestMemo
from bottleneck.images.memo import Memo
from bottleneck.images.undecodable import UndecodableMemo, decoder_key
from tests.variants import each

A, B, C = (hashlib.sha256(name).digest() for name in (b"a", b"b", b"c"))
ERRORS = {
    A: ImageError("truncated", "image file is truncated"),
    B: ImageError("corrupt", "caf\xe9 \udce9 'b\"\n"),
    C: ImageError("not-an-image", "the file is an HTML page"),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return Path("digests.sqlite")


def told(
    place: Path, errors: dict[bytes, ImageError] = ERRORS, decoder: bytes | None = None
) -> dict[bytes, tuple[str, str]]:
    """Return what a memo knows that was told of these errors."""
    UndecodableMemo(place, lambda: decoder or decoder_key()).remember(errors)
    return known(place, decoder)


def known(place: Path, decoder: bytes | None = None) -> dict[bytes, tuple[str, str]]:
    memo = UndecodableMemo(place, lambda: decoder or decoder_key())
    return {digest: (error.code, str(error)) for digest, error in memo.load().items()}


def put(place: Path, *rows: tuple[bytes, bytes], table: str = "undecodable_3") -> None:
    Memo(place, table).put(rows)


EXPECTED = {digest: (error.code, str(error)) for digest, error in ERRORS.items()}


def test_why_an_image_cannot_be_decoded_is_known_by_its_digest(place: Path) -> None:
    assert known(place) == {}
    assert told(place) == EXPECTED
    assert all(isinstance(error, ImageError) for error in UndecodableMemo(place).load().values())

    settled = (10, 10**18, 10**18, 7)
    DigestMemo(place).remember([("/images/a", settled, A, 10**9 + 60.0)])
    told(place)
    assert DigestMemo(place).lookup({"/images/a": settled}) == {"/images/a": A}
    assert known(place) == EXPECTED

    told(place)
    place.write_bytes(b"no database " * 1000)
    assert known(place) == {}
    assert told(place) == EXPECTED

    odd = {digest: ERRORS[A] for digest in (bytes(32), b" " * 32, b"\xff" * 32, b"1 9.0.0 ".ljust(32))}
    assert set(told(place, odd)) == {*odd, *ERRORS}


def test_what_is_learnt_later_is_added(place: Path) -> None:
    told(place, {A: ERRORS[A]})
    assert told(place, {A: ERRORS[B], C: ERRORS[C]}) == {A: EXPECTED[B], C: EXPECTED[C]}


@each("code", ImageError.CODES)
def test_only_what_the_bytes_alone_decide_is_remembered(place: Path, code: str) -> None:
    lasting = code in ("not-an-image", "truncated", "corrupt")
    assert (A in told(place, {A: ImageError(code, "why")})) is lasting
    assert place.exists() is lasting


@each("code", ["not-an-image", "truncated", "corrupt"])
def test_what_is_in_doubt_is_not_remembered(place: Path, code: str) -> None:
    error = ImageError(code, "failed to read next frame")
    error.doubtful = True
    assert told(place, {A: error, B: ERRORS[B]}) == {B: EXPECTED[B]}


def test_what_passes_or_was_remembered_without_proof_is_not_recalled(place: Path) -> None:
    put(place, (decoder_key() + A, b'["corrupt","failed to read next frame"]'), table="undecodable_2")
    put(place, (decoder_key() + A, b'["too-large","why"]'), (decoder_key() + B, b'["no-memory","why"]'))
    assert known(place) == {}


def test_what_another_decoder_could_not_decode_is_tried_again(place: Path) -> None:
    assert decoder_key().split(b" ")[:2] == [str(DECODER_VERSION).encode(), PIL.__version__.encode()]
    told(place)
    for other in (b"3 9.0.0 JPEG,PNG ", decoder_key()[:-2] + b" ", b"1 "):
        assert known(place, other) == {}
        assert set(told(place, {A: ERRORS[A]}, other)) == {A}
    assert known(place) == EXPECTED


@each("column", ["key", "value", "seal"])
def test_a_damaged_row_is_ignored(place: Path, column: str) -> None:
    told(place)
    with closing(sqlite3.connect(place)) as connection, connection:
        connection.execute(f"update undecodable_3 set {column} = x'00' where substr(key, -32) = ?", (A,))
    assert known(place) == {B: EXPECTED[B], C: EXPECTED[C]}


@each("value", [b"", b"no JSON", b"[", b"\xff\xfe", b'["corrupt"]', b'["a","b","c"]', b'"ab"', b"{}", b"5"])
def test_a_whole_row_of_another_form_is_ignored(place: Path, value: bytes) -> None:
    put(place, (decoder_key() + A, value))
    assert told(place, {B: ERRORS[B]}) == {B: EXPECTED[B]}


@each("key", [b"", b"short", A, A[:31]])
def test_a_whole_row_of_another_key_is_ignored(place: Path, key: bytes) -> None:
    told(place)
    put(place, (key, b'["corrupt","why"]'))
    assert known(place) == EXPECTED
