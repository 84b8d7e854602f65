"""Bytes that are nearly those of a file: what any format can suffer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

Mutator = Callable[[Random, bytes, Sequence[bytes]], bytes]  # the file, and others of its kind

_WIDTHS = (1, 2, 2, 4, 4, 4, 8)
_INTERESTING = (
    *(0, 1, 2, 3, 4, 7, 8, 16, 32, 64, 100, 127, 128, 255, 256, 1000, 4096),
    *(2**bits + offset for bits in (15, 16, 24, 31, 32, 63, 64) for offset in (-1, 0, 1)),
)
_MOST_AT_ONCE = 4  # mutations of one file
_LONGEST_RUN = 64


@dataclass(frozen=True)
class Mutated:
    """A file, and the names of what was done to it."""

    data: bytes
    how: tuple[str, ...]


def mutated(random: Random, data: bytes, others: Sequence[bytes], special: Sequence[Mutator]) -> Mutated:
    """Return a file after one to four mutations, half of them by what knows its format."""
    how = []
    while not how or (len(how) < _MOST_AT_ONCE and random.random() < 0.35):
        mutate = random.choice(special) if special and random.random() < 0.5 else random.choice(GENERIC)
        data = mutate(random, data, others)
        how.append(mutate.__name__)
    return Mutated(data, tuple(how))


def interesting(random: Random, near: int = 0) -> int:
    """Return a number that programs are often wrong about, or one near another."""
    if random.random() < 0.3:
        return near + random.choice((-2, -1, 1, 2, 8))
    return random.choice(_INTERESTING) * random.choice((1, 1, 1, -1))


def packed(random: Random, value: int, width: int) -> bytes:
    """Return the lowest bytes of a number, in either order."""
    return (value % 256**width).to_bytes(width, random.choice(("little", "big")))


def with_bytes(data: bytes, place: int, new: bytes) -> bytes:
    """Return the data with some bytes replaced."""
    return data[:place] + new + data[place + len(new) :]


def flip_bits(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 8)) if changed else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def set_byte(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return with_bytes(data, random.randrange(len(data)), bytes([random.randrange(256)])) if data else data


def set_integer(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    width = random.choice(_WIDTHS)
    if len(data) < width:
        return data
    place = random.randrange(min(len(data) - width + 1, random.choice((32, 128, len(data)))))
    near = int.from_bytes(data[place : place + width], random.choice(("little", "big")))
    return with_bytes(data, place, packed(random, interesting(random, near), width))


def truncate(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def delete_block(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start, end = _block(random, data)
    return data[:start] + data[end:]


def duplicate_block(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start, end = _block(random, data)
    return data[:end] + data[start:end] * random.choice((1, 1, 2, 10)) + data[end:]


def swap_blocks(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    first, second, third, fourth = sorted(random.randrange(len(data) + 1) for _ in range(4))
    return data[:first] + data[third:fourth] + data[second:third] + data[first:second] + data[fourth:]


def fill_run(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start, end = _block(random, data)
    return data[:start] + bytes([random.choice((0, 0, 0xFF, 0x20, 0x30))]) * (end - start) + data[end:]


def insert_noise(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    place = random.randrange(len(data) + 1)
    return data[:place] + random.randbytes(random.choice((1, 2, 4, 64))) + data[place:]


def splice(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = random.choice(others)
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


def append(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return data + random.choice((b"\0" * 100, random.randbytes(16), data, random.choice(others)))


GENERIC: tuple[Mutator, ...] = (
    flip_bits,
    flip_bits,
    set_byte,
    set_integer,
    set_integer,
    truncate,
    delete_block,
    duplicate_block,
    swap_blocks,
    fill_run,
    insert_noise,
    splice,
    append,
)
IN_PLACE = {"flip_bits", "set_byte", "set_integer"}  # of which a checksum knows


def _block(random: Random, data: bytes) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    longest = random.choice((4, _LONGEST_RUN, len(data)))
    return start, min(len(data), start + random.randrange(longest + 1))
