"""Shards with a damaged inner structure and a name that matches their bytes: HDF5 never parses them."""

import errno
import hashlib
import os
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bottleneck.cache.shard import Rows, read_shard, write_shard
from bottleneck.cache.structure import Unsound, check_structure
from bottleneck.cache.verified import verify_shard
from bottleneck.errors import CacheError, NewerShard, ShardError
from tests.cache.numbered import case
from tests.conftest import write
from tests.faults import Fault, system_error

CHUNKS = 70  # more than one node of an index holds
NUMBERS = (0, 1, 2, 7, 8, 31, 32, 63, 64, 255, 2**15, 2**16 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)


def rows(count: int, dim: int = 4, dtype: str = "float16") -> Rows:
    numbers = np.random.default_rng(0)
    return Rows(numbers.integers(0, 256, (count, 32), np.uint8), numbers.normal(size=(count, dim)).astype(dtype))


@pytest.fixture
def plain(tmp_path, spec) -> bytes:
    return write_shard(tmp_path, spec, rows(5)).read_bytes()


@pytest.fixture
def many_chunks(tmp_path, spec) -> bytes:
    return write_shard(tmp_path, spec, rows(CHUNKS), chunk_bytes=8).read_bytes()


def check(data: bytes) -> None:
    check_structure(lambda offset, size: data[offset : offset + size], len(data))


def changed(data: bytes, place: int, form: str, *values: object) -> bytes:
    found = bytearray(data)
    struct.pack_into(f"<{form}", found, place, *values)
    return bytes(found)


def header_of_root(data: bytes) -> int:
    return int(struct.unpack_from("<Q", data, 64)[0])


def first_message(data: bytes, kind: int) -> int:
    """Return where the content of the first message of a kind is in the root's header."""
    place = header_of_root(data) + 16
    while struct.unpack_from("<H", data, place)[0] != kind:
        place += 8 + struct.unpack_from("<H", data, place + 2)[0]
    return place + 8


def table_of_root(data: bytes) -> int:
    """Return where the root's header says where its tree and its heap are, as the superblock does."""
    return data.index(data[80:96], 96)


def last_tree(data: bytes) -> int:
    """Return where a node of a chunk index with nodes below it is."""
    place = -1
    while (place := data.index(b"TREE", place + 1)) and data[place + 4 : place + 6] != b"\x01\x01":
        pass
    return place


def test_every_shard_that_is_written_is_sound(tmp_path, spec):
    for count, dtype in ((1, "float16"), (5, "float32"), (2000, "float16"), (2000, "float32")):
        with case(count, dtype):
            check(write_shard(tmp_path, spec, rows(count, 33, dtype)).read_bytes())


def test_a_shard_of_many_chunks_is_sound(many_chunks):
    check(many_chunks)
    assert many_chunks.count(b"TREE") > 3


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "another signature": lambda data: changed(data, 1, "B", 0),
    "a newer superblock": lambda data: changed(data, 8, "B", 2),
    "small offsets": lambda data: changed(data, 13, "B", 4),
    "large nodes": lambda data: changed(data, 16, "H", 60_000),
    "another base": lambda data: changed(data, 24, "Q", 8),
    "an end beyond the file": lambda data: changed(data, 40, "Q", len(data) + 1),
    "an end before the file's": lambda data: data + b"\0",
    "a driver's block": lambda data: changed(data, 48, "Q", 833),  # takes gigabytes
    "a root beyond the end": lambda data: changed(data, 64, "Q", len(data) - 4),
    "a root that is nowhere": lambda data: changed(data, 64, "Q", 2**64 - 1),
    "a newer root": lambda data: changed(data, header_of_root(data), "B", 2),
    "many messages": lambda data: changed(data, header_of_root(data) + 8, "I", 2**31),
    "a message beyond its block": lambda data: changed(data, header_of_root(data) + 18, "H", 65_000),
    "a header that goes on in itself": lambda data: changed(
        data, first_message(data, 0x10), "QQ", header_of_root(data) + 16, 64
    ),
    "a header that goes on nowhere": lambda data: changed(data, first_message(data, 0x10), "QQ", 2**63, 64),
    "a tree that is a heap": lambda data: changed(data, table_of_root(data), "Q", data.index(b"HEAP")),
    "a heap that is a tree": lambda data: changed(data, table_of_root(data) + 8, "Q", data.index(b"TREE")),
    "a tree of many": lambda data: changed(data, data.index(b"TREE") + 6, "H", 33),
    "a tree of trees": lambda data: changed(data, data.index(b"TREE") + 5, "B", 1),
    "a tree that is its own neighbour": lambda data: changed(data, data.index(b"TREE") + 16, "Q", data.index(b"TREE")),
    "a table of many": lambda data: changed(data, data.index(b"SNOD") + 6, "H", 32),  # hangs
    "a newer table": lambda data: changed(data, data.index(b"SNOD") + 4, "B", 2),
    "a member that is the root": lambda data: changed(data, data.index(b"SNOD") + 16, "Q", header_of_root(data)),
    "two members in one place": lambda data: changed(
        data, data.index(b"SNOD") + 56, "Q", struct.unpack_from("<Q", data, data.index(b"SNOD") + 16)[0]
    ),
    "a large heap": lambda data: changed(data, data.index(b"HEAP") + 8, "Q", 2**40),
    "free blocks in a circle": lambda data: free_block_that_follows_itself(data),
    "a layout of many axes": lambda data: changed(data, data.index(b"\x03\x02\x03") + 2, "B", 40),
    "a root of an old form": lambda data: changed(data, table_of_root(data) - 8, "H", 0x12),
    "a damaged entry of a table": lambda data: changed(data, data.index(b"SNOD") + 8 + 16, "I", 3),
    "a heap that is not one": lambda data: changed(data, data.index(b"HEAP"), "4s", b"heap"),
    "a free block beyond the heap": lambda data: changed(data, data.index(b"HEAP") + 16, "Q", 2**30),
    "an attribute of any size": lambda data: changed(data, data.index(b"spec\0\0\0\0") + 12, "I", 2**32 - 1),
    "an attribute of many": lambda data: changed(data, data.index(b"spec\0\0\0\0") + 17, "B", 1),
    "an attribute elsewhere": lambda data: changed(data, data.index(b"spec\0\0\0\0") + 8, "B", 0x19),
}


def free_block_that_follows_itself(data: bytes) -> bytes:
    heap = data.index(b"HEAP")
    free, names = struct.unpack_from("<QQ", data, heap + 16)
    return changed(data, names + free, "Q", free)


def named(folder: Path, data: bytes) -> Path:
    return write(folder / f"{hashlib.sha256(data).hexdigest()}.h5", data)


def test_a_damaged_structure_is_refused(plain, tmp_path, spec):
    for name, damage in DAMAGE.items():
        data = damage(plain)
        with case(name):
            assert data != plain
            with pytest.raises(Unsound):
                check(data)
            for read in (read_shard, verify_shard):
                with pytest.raises(ShardError, match="not a shard"):
                    read(named(tmp_path, data), spec)


def test_a_damaged_index_of_chunks_is_refused(many_chunks):
    tree = last_tree(many_chunks)
    for change in ((5, "B", 9), (5, "B", 2), (6, "H", 65), (24 + 8 + 24, "Q", tree), (0, "4s", b"SNOD")):
        place, form, value = change
        with case(*change), pytest.raises(Unsound):
            check(changed(many_chunks, tree + place, form, value))


def test_a_truncated_file_is_refused(plain):
    for length in range(0, len(plain), 37):
        with case(length), pytest.raises(Unsound):
            check(plain[:length])


@st.composite
def change(draw: st.DrawFn) -> tuple[float, int, str, int]:
    """Draw a place among the bytes that are used, a format, and a value."""
    aligned = draw(st.booleans())
    form = draw(st.sampled_from("BHIQ" if aligned else "BH"))
    offset = 0 if aligned else draw(st.sampled_from((2, 4, 6)))
    return draw(st.floats(0, 1, exclude_max=True)), offset, form, draw(st.sampled_from(NUMBERS) | st.integers(0, 9000))


def test_a_file_with_changed_bytes_is_a_shard_error_or_a_shard(plain, many_chunks, tmp_path, spec):
    used = [place for place, byte in enumerate(plain) if byte and place < 8000]
    outcomes: Counter[str] = Counter()

    @settings(max_examples=100)
    @given(st.sampled_from([plain, many_chunks]), st.lists(change(), min_size=1, max_size=4))
    def read_changed(original: bytes, changes: list[tuple[float, int, str, int]]) -> None:
        data = bytearray(original)
        for share, offset, form, value in changes:
            place = used[int(share * len(used))] // 8 * 8 + offset
            struct.pack_into(f"<{form}", data, place, value % 256 ** struct.calcsize(form))
        path = named(tmp_path, bytes(data))
        for read in (read_shard, verify_shard):
            try:
                read(path, spec)
                outcomes["read"] += 1
            except (ShardError, NewerShard):
                outcomes["refused"] += 1
        path.unlink()

    read_changed()
    assert min(outcomes["read"], outcomes["refused"]) >= 5


def test_a_disk_that_fails_is_no_damage(plain, tmp_path, spec, wrap):
    path: Path = next(tmp_path.glob("*.h5"))
    wrap(os, "pread", Fault(system_error(errno.EIO)))

    with pytest.raises(CacheError, match="cannot read") as caught:
        verify_shard(path, spec)
    assert not isinstance(caught.value, ShardError)
