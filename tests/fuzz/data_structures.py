"""Mutations that know JSON, CSV, safetensors, and files with small numbers at known places."""

import json
import struct
from collections.abc import Sequence
from random import Random
from typing import Any

from tests.fuzz.mutate import interesting, set_integer, with_bytes

_TEXTS = ("", "..", "../../etc/passwd", "/dev/zero", "~nobody/x", "\x1b[2J", "a\0b", "\ud800", "é" * 300, "=1+1", "nan")
_NUMBERS = (0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 10**40, 0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"))
_DEEP = 3000


def values(random: Random) -> Any:
    """Return something that a field may be instead of what it should be."""
    deep: Any = []
    match random.randrange(12):
        case 0 | 1:
            return random.choice(_TEXTS)
        case 2 | 3 | 4:
            return random.choice(_NUMBERS)
        case 5:
            return random.choice((True, False))
        case 6 | 7:
            return None
        case 8:
            return random.choice(([], {}, [[]], [None], {"": None}, {"a": {"a": {}}}))
        case 9:
            return list(range(random.choice((1, 3, 100))))
        case 10:
            return "x" * random.choice((10, 1000, 100_000))
        case _:
            for _ in range(random.choice((3, 50, 400))):
                deep = [deep]
            return deep


def json_value(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change, leave out, repeat, rename or move a value."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return data
    return _dumped(_changed(random, tree))


def json_twice(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Give a key twice, or nest the whole."""
    if random.random() < 0.5:
        return data.replace(b"{", b"{" + _dumped({str(values(random))[:50]: values(random)})[1:-1] + b",", 1)
    return random.choice((b"[" * _DEEP + data, b'{"a":' * _DEEP, data + data, b"\xef\xbb\xbf" + data, b"\0" + data))


def table_cell(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Put what tables are wrong about between two cells, or in place of one."""
    lines = data.split(b"\n")
    number = random.randrange(len(lines))
    cells = lines[number].split(b",")
    new = random.choice(
        (b"", b'"', b'""', b'"a\nb"', b"\0", b"\r", b"\xff\xfe", b"a;b", b"\t", b"../x.jpg", b"=1+1", b"train", b" ",
         "é\u202e".encode(), b"x" * 200_000, b"\xef\xbb\xbf", b",", b"'", b"\x1b]0;x\x07", b"label", b"path")
    )  # fmt: skip
    place = random.randrange(len(cells))
    cells[place : place + random.choice((0, 1, 1))] = [new]
    lines[number] = b",".join(cells)
    return b"\n".join(lines * random.choice((1, 1, 1, 2)))


def table_text(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change the separator, the ends of the lines or the encoding."""
    return random.choice(
        (
            data.replace(b",", b";"),
            data.replace(b",", b"\t"),
            data.replace(b"\n", b"\r\n"),
            data.replace(b"\n", b"\r"),
            b"\xef\xbb\xbf" + data,
            data.decode("utf-8", "replace").encode("utf-16"),
            data.decode("utf-8", "replace").encode("latin-1", "replace"),
        )
    )


def safetensors_header(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change the header, whose length is told rightly or not."""
    if len(data) < 8:
        return data
    size = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + size], data[8 + size :]
    header = json_value(random, header, others)
    told = len(header) if random.random() < 0.9 else interesting(random, len(header)) % 2**64
    return told.to_bytes(8, "little") + header + body


def offsets(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change one of the numbers of 2, 4 or 8 bytes that files are made of: those that are small, or point into it."""
    for _ in range(50):
        width = random.choice((2, 4, 8))
        place = random.randrange(0, max(1, len(data) - width + 1), random.choice((1, 2, 4)))
        value = int.from_bytes(data[place : place + width], "little")
        if 0 < value <= len(data) and place + width <= len(data):
            new = interesting(random, value) % 256**width
            return with_bytes(data, place, new.to_bytes(width, "little"))
    return set_integer(random, data, others)


def floats(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Put a number that is none, or infinite, or very large, somewhere."""
    value = random.choice((float("nan"), float("inf"), -float("inf"), 3e38, 1e-45))
    place = 4 * random.randrange(max(1, len(data) // 4))
    return with_bytes(data, place, struct.pack("<f", value)) if place + 4 <= len(data) else data


def _dumped(tree: Any) -> bytes:
    text = json.dumps(tree)  # NaN and Infinity as Python writes them
    return text.encode("utf-8", "surrogatepass")


def _changed(random: Random, tree: Any) -> Any:
    """Return the tree with one of its values changed."""
    if not isinstance(tree, dict | list) or not tree or random.random() < 0.15:
        return values(random)
    keys: list[Any] = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = random.choice(keys)
    match random.randrange(8):
        case 0:
            del tree[key]
        case 1:
            other = random.choice(keys)
            tree[key], tree[other] = tree[other], tree[key]
        case 2 if isinstance(tree, dict):
            tree[random.choice((*_TEXTS[:-2], f"{key}2"))] = tree.pop(key)
        case 2 if isinstance(tree, list):
            tree += [tree[key]] * random.choice((1, 2, 100))
        case _:
            tree[key] = _changed(random, tree[key])
    return tree
