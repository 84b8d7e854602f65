"""Check the inner structure of an HDF5 file before the HDF5 library reads it.

The library trusts its files: a few wrong bytes make it loop for ever in a circular list, or allocate gigabytes for a
block that does not exist. A shard has the oldest and simplest form of HDF5 (superblock 0, symbol tables, B-trees of
version 1) and few objects. These checks ensure that every block is inside the file, has a plausible size, and is
reached once; `bottleneck.cache.shard` checks what the objects mean.

References
----------
The HDF5 Group, "HDF5 File Format Specification Version 3.0".
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Read = Callable[[int, int], bytes | memoryview]  # (offset, size) -> bytes of the file

_UNDEFINED = 2**64 - 1
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK = struct.Struct("<8s8B2HI4Q2QII2Q")
_SIZES = (0, 0, 0, 0, 0, 8, 8, 0)  # versions of the parts, bytes of an offset and of a length
_LEAF, _INNER = 4, 16  # half the entries of a node of a symbol table, and of its tree
_CHUNKS = 32  # half the entries of a node of a chunk index
_HEADER = struct.Struct("<BxHII4x")
_MESSAGE = struct.Struct("<HHB3x")
_ATTRIBUTE_HEAD = struct.Struct("<BB3H")
_NODE = struct.Struct("<4sBBH2Q")
_SYMBOLS = struct.Struct("<4sBxH")
_SYMBOL = struct.Struct("<2QII2Q")
_HEAP = struct.Struct("<4sB3x3Q")
_PAIR = struct.Struct("<2Q")
_LAYOUT, _ATTRIBUTE, _CONTINUATION, _TABLE = 0x08, 0x0C, 0x10, 0x11  # kinds of messages
_DENSE = (0x02, 0x06, 0x0A, 0x0F, 0x15)  # messages of newer groups and attributes, which a shard never has
_CHUNKED = 2  # class of a layout
_NO_FREE = (1, _UNDEFINED)  # end of the list of a heap's free blocks
_NUMBER, _STRING = 0, 3  # classes of an attribute's type
_DEEPEST = 4  # levels of a chunk index: 64 to the power of 5 chunks
_MOST = 1 << 16  # messages or nodes: far more than any shard has
_LARGEST_HEAP = 1 << 16  # bytes of names


class Unsound(Exception):
    """The file has a structure that no shard has."""


def check_structure(read: Read, size: int) -> None:
    """Refuse a file of `size` bytes that the HDF5 library cannot parse safely.

    Raises
    ------
    Unsound
        If the structure is damaged.
    """
    _BlockWalk(read, size).file()


@dataclass
class _BlockWalk:
    """Visits all blocks of a file once."""

    read: Read
    size: int
    visited: set[int] = field(default_factory=set)

    def file(self) -> None:
        found = self.unpack(_SUPERBLOCK, 0)
        if found[:12] != (_SIGNATURE, *_SIZES, _LEAF, _INNER, 0):
            raise Unsound("a superblock of another kind")
        if found[12:16] != (0, _UNDEFINED, self.size, _UNDEFINED):  # base, free space, end, driver
            raise Unsound("a superblock that refers to more than this file")
        for header in self.group(self.symbol(found[16:])):
            self.object(header)

    def group(self, header: int) -> list[int]:
        """Return the offsets of the headers of a group's members."""
        tables = [body for kind, body in self.messages(header) if kind == _TABLE]
        if len(tables) != 1 or len(tables[0]) < _PAIR.size:
            raise Unsound("a root that is not a group")
        tree, heap = _PAIR.unpack_from(tables[0])
        self.heap(heap)
        _, level, used, left, right = self.node(tree, 0)
        if level or used > 2 * _INNER or (left, right) != (_UNDEFINED, _UNDEFINED):
            raise Unsound("a group of too many members")
        keys = self.bytes(tree + _NODE.size, 16 * used + 8)
        members: list[int] = []
        for number in range(used):
            members += self.symbols(_PAIR.unpack_from(keys, 16 * number)[1])
        return members

    def symbols(self, offset: int) -> Iterator[int]:
        self.visit(offset)
        mark, version, count = self.unpack(_SYMBOLS, offset)
        if mark != b"SNOD" or version != 1 or count > 2 * _LEAF:
            raise Unsound("a damaged symbol table")
        for number in range(count):
            yield self.symbol(self.unpack(_SYMBOL, offset + _SYMBOLS.size + number * _SYMBOL.size))

    def symbol(self, entry: tuple[int, ...]) -> int:
        """Return the offset of the header of a symbol table's entry."""
        if entry[2] > 2:  # kind of the cached information
            raise Unsound("a damaged symbol table")
        return entry[1]

    def heap(self, offset: int) -> None:
        self.visit(offset)
        mark, version, size, free, data = self.unpack(_HEAP, offset)
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
        """Return the kind and the content of each message in an object's header."""
        self.visit(header)
        version, count, _, size = self.unpack(_HEADER, header)
        if version != 1 or count > _MOST:
            raise Unsound("an object of another kind")
        blocks: list[tuple[int, int]] = [(header + _HEADER.size, size)]
        found: list[tuple[int, bytes]] = []
        for offset, length in blocks:
            self.visit(offset)
            data, done = self.bytes(offset, length), 0
            while done + _MESSAGE.size <= length and len(found) < count:
                kind, width, _ = _MESSAGE.unpack_from(data, done)
                body = bytes(data[done + _MESSAGE.size : done + _MESSAGE.size + width])
                if len(body) < width:
                    raise Unsound("a message beyond its block")
                done += _MESSAGE.size + width
                found.append((kind, body))
                if kind == _CONTINUATION:
                    continued_at, continued_size = _PAIR.unpack_from(body.ljust(_PAIR.size, b"\xff"))
                    blocks.append((continued_at, continued_size))
                _check_message(kind, body)
        return found

    def chunks(self, offset: int, rank: int, level: int | None = None) -> None:
        """Check a chunk index, whose nodes have an entry for each chunk or each node below."""
        _, depth, used, _, _ = self.node(offset, 1)
        if depth > _DEEPEST or used > 2 * _CHUNKS or level not in (None, depth + 1):
            raise Unsound("a damaged index of chunks")
        key = 8 + 8 * rank
        entries = self.bytes(offset + _NODE.size, used * (key + 8) + key)
        for number in range(used):
            child = int.from_bytes(entries[number * (key + 8) + key :][:8], "little")
            if depth:
                self.chunks(child, rank, depth)
            elif child >= self.size:
                raise Unsound("a chunk beyond the end of the file")

    def node(self, offset: int, kind: int) -> tuple[int, ...]:
        self.visit(offset)
        mark, *found = self.unpack(_NODE, offset)
        if mark != b"TREE" or found[0] != kind:
            raise Unsound("a damaged tree")
        return tuple(found)

    def unpack(self, form: struct.Struct, offset: int) -> tuple[Any, ...]:
        return form.unpack(self.bytes(offset, form.size))

    def bytes(self, offset: int, length: int) -> bytes | memoryview:
        if length < 0 or offset + length > self.size:
            raise Unsound("a block beyond the end of the file")
        data = self.read(offset, length)
        if len(data) < length:
            raise Unsound("a truncated file")
        return data

    def visit(self, offset: int) -> None:
        """Record the offset of a block; each block is visited once, so there are no cycles."""
        if offset in self.visited or len(self.visited) >= _MOST:
            raise Unsound("blocks that form a cycle")
        self.visited.add(offset)


def _check_message(kind: int, body: bytes) -> None:
    """Refuse messages that need further structures: attributes are single numbers or strings inside the header."""
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
        raise Unsound("an attribute that is neither a number nor a string")
    width, rank = int.from_bytes(body[type_at + 4 : type_at + 8], "little"), body[space_at + 1]
    if rank or width > len(body) - value_at:
        raise Unsound("an attribute that is neither a single number nor a single string")


def _padded(size: int) -> int:
    return -(-size // 8) * 8
