import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bottleneck.images.keys import Digests, DigestSet, as_digests
from tests.variants import each


def rows_of(*digests: bytes) -> Digests:
    return as_digests([digest.ljust(32, b"\0") for digest in digests])


def random_digests(count: int, seed: int = 0) -> Digests:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)


def alike(count: int, kinds: int, seed: int = 0) -> Digests:
    """Return digests of which all begin with the same 8 bytes, and each other 4 bytes stand in `kinds` ways."""
    digests = np.zeros((count, 32), np.uint8)
    digests[:, :8] = 200
    digests[:, [8, 15, 16, 31]] = np.random.default_rng(seed).integers(0, kinds, (count, 4), np.uint8) * 85
    return digests


def first_rows(digests: Digests) -> dict[bytes, int]:
    """Return the first row of each digest, found in the plainest way."""
    first: dict[bytes, int] = {}
    for row, digest in enumerate(digests):
        first.setdefault(digest.tobytes(), row)
    return first


def check(digests: Digests, asked: Digests) -> None:
    """Hold a set of digests against a dict of them."""
    first, found = first_rows(digests), DigestSet(digests)
    assert len(found) == len(first)
    assert found.rows.tolist() == sorted(first.values())
    assert found.sorted_rows.tolist() == [first[key] for key in sorted(first)]
    assert found.find(asked).tolist() == [first.get(digest.tobytes(), -1) for digest in asked]
    assert found.find(digests).tolist() == [first[digest.tobytes()] for digest in digests]


ZEROS, ONES = bytes(32), b"\xff" * 32
SETS = {
    "none": random_digests(0),
    "one": random_digests(1),
    "many": random_digests(1000),
    "each twice": np.concatenate([random_digests(500), random_digests(500)[::-1]]),
    "all the same": np.repeat(random_digests(1), 7, axis=0),
    "few of many": random_digests(9)[np.random.default_rng(1).integers(0, 9, 300)],
    "alike": alike(40, 4),
    "alike and repeated": alike(400, 2),
    "alike beside others": np.concatenate([random_digests(50), alike(50, 2), random_digests(50)]),
    "parted twins": rows_of(b"prefix..B", b"prefix..A", b"prefix..B", b"prefix..A"),
    "ends in zeros": rows_of(b"", b"a", b"a\0b", b"a\0", b"ab", b"\0a"),
    "begins with zeros": rows_of(bytes(8) + b"b", bytes(31) + b"\1", ZEROS, bytes(8) + b"a", bytes(7) + b"\1"),
    "the least and the greatest": rows_of(ONES, ZEROS, ONES, b"\x80", b"\x7f" + ONES[1:], ZEROS),
    "differ in the last byte": rows_of(*(ONES[:31] + bytes([byte]) for byte in (3, 1, 255, 0, 1))),
}


@each("digests", SETS.values())
def test_a_set_of_digests_is_that_of_a_dict(digests: Digests) -> None:
    near = digests.copy()  # which differ from those of the set in one bit
    near[:, 31] ^= 1
    far = digests.copy()
    far[:, 0] ^= 128
    asked = np.concatenate([digests[::-1], near, far, random_digests(20, seed=7), rows_of(ZEROS, ONES)])
    check(digests, asked)


# Bytes at the ends of a digest, and at those of the words that it is compared by.
ALIKE = st.dictionaries(st.sampled_from([0, 7, 8, 15, 31]), st.sampled_from([1, 128, 255]), max_size=3).map(
    lambda values: bytes(values.get(place, 0) for place in range(32))
)


@settings(max_examples=60)
@given(members=st.lists(ALIKE, min_size=1, max_size=40), others=st.lists(ALIKE, max_size=10))
def test_random_sets_of_digests_that_are_alike_are_those_of_a_dict(members: list[bytes], others: list[bytes]) -> None:
    digests = rows_of(*members)
    check(digests, np.concatenate([digests[:30], rows_of(ONES, *others), digests[:30] ^ np.uint8(1)]))


def test_no_digests_and_digests_that_do_not_lie_together_are_found() -> None:
    assert DigestSet(random_digests(0)).find(random_digests(3)).tolist() == [-1, -1, -1]
    assert DigestSet(random_digests(3)).find(random_digests(0)).tolist() == []

    for taken in [np.s_[:, ::2], np.s_[::-1, 32:]]:
        wide = np.random.default_rng(0).integers(0, 256, (20, 64), np.uint8)
        digests: NDArray[np.uint8] = wide[taken]
        assert not digests.flags.c_contiguous
        check(digests, digests[::-1])

    digests = np.concatenate([alike(50, 2), random_digests(50)])
    before = digests.copy()
    DigestSet(digests).find(digests)
    assert np.array_equal(digests, before)


def test_keys_become_rows_and_a_set_has_the_order_of_their_bytes() -> None:
    digests = rows_of(b"\1\0\0\0\0\0\0\2", b"\2\0\0\0\0\0\0\1", b"\0\0\0\0\0\0\0\3")
    assert DigestSet(digests).sorted_rows.tolist() == [2, 0, 1]

    digests = as_digests([ONES, ZEROS, bytes(range(32))])
    assert digests.dtype == np.uint8
    assert [row.tobytes() for row in digests] == [ONES, ZEROS, bytes(range(32))]
    assert as_digests([]).shape == (0, 32)
