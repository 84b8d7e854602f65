"""Whether the inner structure of an HDF5 file is sound, checked before the HDF5 library reads it.

The library trusts its files: a few wrong bytes make it loop for ever in a list that leads back to itself, or take
gigabytes for a block that is not there. A shard has the oldest and simplest form of HDF5 (superblock 0, symbol tables,
B-trees of version 1), and few objects. What is checked is that every block lies in the file, has a sane size, and is
reached once; what the objects mean is for `bottleneck.cache.shard`.

References
----------
The HDF5 Group, "HDF5 File Format Specification Version 3.0".
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Read = Callable[[int, int], bytes | memoryview]  # some bytes of the file, from an offset on

_UNDEFINED = 2**64 - 1
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK = struct.Struct("<8s8B2HI4Q2QII2Q")
_SIZES = (0, 0, 0, 0, 0, 8, 8, 0)  # versions of the parts, bytes of an offset and of a length
_LEAF, _INNER = 4, 16  # half of the entries of a symbol table's node, and of its tree's
_CHUNKS = 32  # half of the entries of a node of a chunk index
_HEADER = struct.Struct("<BxHII4x")
_MESSAGE = struct.Struct("<HHB3x")
_ATTRIBUTE_HEAD = struct.Struct("<BB3H")
_NODE = struct.Struct("<4sBBH2Q")
_SYMBOLS = struct.Struct("<4sBxH")
_SYMBOL = struct.Struct("<2QII2Q")
_HEAP = struct.Struct("<4sB3x3Q")
_PAIR = struct.Struct("<2Q")
_LAYOUT, _ATTRIBUTE, _CONTINUATION, _TABLE = 0x08, 0x0C, 0x10, 0x11  # kinds of messages
_DENSE = (0x02, 0x06, 0x0A, 0x0F, 0x15)  # those of newer groups and attributes, of which a shard has none
_CHUNKED = 2  # a layout's class
_NO_FREE = (1, _UNDEFINED)  # where the list of a heap's free blocks ends
_NUMBER, _STRING = 0, 3  # classes of an attribute's type
_DEEPEST = 4  # levels of a chunk index: 64 to the power of 5 chunks
_MOST = 1 << 16  # messages, nodes or free blocks in one object: far more than any shard has
_LARGEST_HEAP = 1 << 16  # bytes of names


class Unsound(Exception):
    """A structure that no shard has."""


def check_structure(read: Read, size: int) -> None:
    """Refuse a file of `size` bytes whose inner structure the HDF5 library would not survive.

    Raises
    ------
    Unsound
    """
    _BlockWalk(read, size).file()


@dataclass
class _BlockWalk:
    """One look at all blocks of a file."""

    read: Read
    size: int
    seen: set[int] = field(default_factory=set)

    def file(self) -> None:
        found = self.unpack(_SUPERBLOCK, 0)
        if found[:12] != (_SIGNATURE, *_SIZES, _LEAF, _INNER, 0):
            raise Unsound("a superblock of another kind")
        if found[12:16] != (0, _UNDEFINED, self.size, _UNDEFINED):  # base, free space, end, driver
            raise Unsound("a superblock that speaks of more than this file")
        for header in self.group(self.symbol(found[16:])):
            self.object(header)

    def group(self, header: int) -> list[int]:
        """Return where the headers of a group's members are."""
        tables = [body for kind, body in self.messages(header) if kind == _TABLE]
        if len(tables) != 1 or len(tables[0]) < _PAIR.size:
            raise Unsound("a root that is no group")
        tree, heap = _PAIR.unpack_from(tables[0])
        self.heap(heap)
        _, level, used, left, right = self.node(tree, 0)
        if level or used > 2 * _INNER or (left, right) != (_UNDEFINED, _UNDEFINED):
            raise Unsound("a group of too many members")
        keys = self.bytes(tree + _NODE.size, 16 * used + 8)
        members: list[int] = []
        for place in range(used):
            members += self.symbols(_PAIR.unpack_from(keys, 16 * place)[1])
        return members

    def symbols(self, place: int) -> Iterator[int]:
        self.reach(place)
        mark, version, count = self.unpack(_SYMBOLS, place)
        if mark != b"SNOD" or version != 1 or count > 2 * _LEAF:
            raise Unsound("a damaged symbol table")
        for number in range(count):
            yield self.symbol(self.unpack(_SYMBOL, place + _SYMBOLS.size + number * _SYMBOL.size))

    def symbol(self, entry: tuple[int, ...]) -> int:
        """Return where the header of an entry of a symbol table is."""
        if entry[2] > 2:  # what is cached of the object
            raise Unsound("a damaged symbol table")
        return entry[1]

    def heap(self, place: int) -> None:
        self.reach(place)
        mark, version, size, free, data = self.unpack(_HEAP, place)
        if mark != b"HEAP" or version or not 0 < size <= _LARGEST_HEAP:
            raise Unsound("a damaged heap")
        names = self.bytes(data, size)
        before = -1
        while free not in _NO_FREE:
            if not before < free <= size - _PAIR.size or free % 8:
                raise Unsound("a damaged list of free blocks")
            before, (free, length) = free, _PAIR.unpack_from(names, free)
            if not _PAIR.size <= length <= size - before:
                raise Unsound("a damaged list of free blocks")

    def object(self, header: int) -> None:
        for kind, body in self.messages(header):
            if kind == _LAYOUT and len(body) >= 11 and (body[0], body[1]) == (3, _CHUNKED):
                rank, tree = body[2], int.from_bytes(body[3:11], "little")
                if not 2 <= rank <= 33:
                    raise Unsound("a damaged layout")
                if tree != _UNDEFINED:
                    self.chunks(tree, rank)

    def messages(self, header: int) -> list[tuple[int, bytes]]:
        """Return the kind and the content of each message of an object's header."""
        self.reach(header)
        version, count, _, size = self.unpack(_HEADER, header)
        if version != 1 or count > _MOST:
            raise Unsound("an object of another kind")
        blocks: list[tuple[int, int]] = [(header + _HEADER.size, size)]
        found: list[tuple[int, bytes]] = []
        for place, length in blocks:
            self.reach(place)
            data, done = self.bytes(place, length), 0
            while done + _MESSAGE.size <= length and len(found) < count:
                kind, width, _ = _MESSAGE.unpack_from(data, done)
                body = bytes(data[done + _MESSAGE.size : done + _MESSAGE.size + width])
                if len(body) < width:
                    raise Unsound("a message beyond its block")
                done += _MESSAGE.size + width
                found.append((kind, body))
                if kind == _CONTINUATION:
                    place_of, size_of = _PAIR.unpack_from(body.ljust(_PAIR.size, b"\xff"))
                    blocks.append((place_of, size_of))
                _check_message(kind, body)
        return found

    def chunks(self, place: int, rank: int, level: int | None = None) -> None:
        """Look at a chunk index, whose nodes have an entry for each chunk or each node below."""
        _, depth, used, _, _ = self.node(place, 1)
        if depth > _DEEPEST or used > 2 * _CHUNKS or level not in (None, depth + 1):
            raise Unsound("a damaged index of chunks")
        key = 8 + 8 * rank
        entries = self.bytes(place + _NODE.size, used * (key + 8) + key)
        for number in range(used):
            child = int.from_bytes(entries[number * (key + 8) + key :][:8], "little")
            if depth:
                self.chunks(child, rank, depth)
            elif child >= self.size:
                raise Unsound("a chunk beyond the end")

    def node(self, place: int, kind: int) -> tuple[int, ...]:
        self.reach(place)
        mark, *found = self.unpack(_NODE, place)
        if mark != b"TREE" or found[0] != kind:
            raise Unsound("a damaged tree")
        return tuple(found)

    def unpack(self, form: struct.Struct, place: int) -> tuple[Any, ...]:
        return form.unpack(self.bytes(place, form.size))

    def bytes(self, place: int, length: int) -> bytes | memoryview:
        if length < 0 or place + length > self.size:
            raise Unsound("a block beyond the end")
        data = self.read(place, length)
        if len(data) < length:
            raise Unsound("a file that is cut short")
        return data

    def reach(self, place: int) -> None:
        """Note that a block is there; each is reached once, so that nothing leads in a circle."""
        if place in self.seen or len(self.seen) >= _MOST:
            raise Unsound("blocks that lead in a circle")
        self.seen.add(place)


def _check_message(kind: int, body: bytes) -> None:
    """Refuse what would need more structures: attributes are single numbers or texts, in the header itself."""
    if kind in _DENSE:
        raise Unsound("links or attributes of a newer form")
    if kind != _ATTRIBUTE:
        return
    version, _, name, form, space = _ATTRIBUTE_HEAD.unpack_from(body.ljust(_ATTRIBUTE_HEAD.size, b"\0"))
    if version != 1:
        raise Unsound("an attribute of another form")
    type_at = _ATTRIBUTE_HEAD.size + _padded(name)
    space_at = type_at + _padded(form)
    value_at = space_at + _padded(space)
    if min(form, space) < 8 or value_at > len(body) or body[type_at] & 0xF not in (_NUMBER, _STRING):
        raise Unsound("an attribute that is no number or text")
    width, rank = int.from_bytes(body[type_at + 4 : type_at + 8], "little"), body[space_at + 1]
    if rank or width > len(body) - value_at:
        raise Unsound("an attribute that is no single number or text")


def _padded(size: int) -> int:
    return -(-size // 8) * 8
