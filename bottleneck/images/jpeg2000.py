"""The tiles of a JPEG 2000: completeness and memory.

OpenJPEG rejects a truncated tile, but leaves a missing tile black.
"""

import struct
from dataclasses import dataclass

from bottleneck.errors import ImageError

CODESTREAM, FILE = b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"

_COD, _COC, _SOT, _SOD, _EOC = 0x52, 0x53, 0x90, 0x93, 0xD9
_BOXES, _PARTS = 10_000, 1_000_000
_PACKETS = 4_000_000
_BLOCKS = 4_000_000  # code blocks, usually of 64 x 64 coefficients
_PACKET_BYTES, _BLOCK_BYTES, _TILE_BYTES = 256, 256, 6144  # upper bounds of OpenJPEG's memory for each


@dataclass
class CodestreamLayout:
    """Size, tiles and blocks of a codestream.

    Parameters
    ----------
    tile : (int, int)
        Width and height in pixels.
    tiles : int
    components : int
    depth : int
        Bytes of a sample.
    packets, blocks : int
        In one tile.
    """

    tile: tuple[int, int] = (1, 1)
    tiles: int = 1
    components: int = 1
    depth: int = 4
    packets: int = 0
    blocks: int = 0

    @property
    def held_bytes(self) -> int:
        """OpenJPEG's memory without the pixels: coefficients and bytes of a tile, and the tables of all tiles."""
        samples = self.tile[0] * self.tile[1] * self.components
        tables = self.packets * _PACKET_BYTES + self.blocks * _BLOCK_BYTES
        return samples * (4 + 3 * self.depth) + tables + self.tiles * _TILE_BYTES

    def record_coding(self, layers: int, levels: int, block: tuple[int, int], precincts: bytes) -> None:
        """Record coding parameters of tiles; the most expensive ones count."""
        packets = blocks = 0
        for level in range(levels + 1):
            size = precincts[levels - level] if levels - level < len(precincts) else 0xFF
            across, down = (max(1, -(-side >> level)) for side in self.tile)
            parts = max(1, across >> (size & 15)) * max(1, down >> (size >> 4))
            wide, high = min(1 << (size & 15), block[0]), min(1 << (size >> 4), block[1])
            packets += parts
            blocks += max(parts, across * down // max(1, wide * high))
        self.packets = max(self.packets, packets * self.components)
        self.blocks = max(self.blocks, blocks * self.components)
        if self.packets * self.tiles * max(1, layers) > _PACKETS or self.blocks * self.tiles > _BLOCKS:
            raise ImageError("too-costly", "expected a photograph, found millions of blocks (JPEG 2000)")


def layout_of(data: bytes) -> CodestreamLayout | None:
    """Return the layout of a JPEG 2000; None if it cannot be parsed, which is left for the decoder to report.

    Raises
    ------
    ImageError
        With code ``truncated``, if a tile is missing; ``too-costly``, if there are too many parts.
    """
    start = _codestream(data)
    try:
        return _follow(data, start) if start >= 0 else None
    except struct.error:
        return None


def _codestream(data: bytes) -> int:
    """Return the offset of the codestream; -1 if there is none."""
    if data.startswith(CODESTREAM):
        return 0
    place = 0
    for _ in range(_BOXES):
        if place + 8 > len(data):
            return -1
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        header = 16 if length == 1 else 8
        if kind == b"jp2c":
            return place + header
        length = int.from_bytes(data[place + 8 : place + 16], "big") if length == 1 else length
        if length < header:
            return -1
        place += length
    raise ImageError("too-costly", f"expected at most {_BOXES:,} boxes before the image (JPEG 2000), found more")


def _follow(data: bytes, start: int) -> CodestreamLayout | None:
    if data[start : start + 4] != CODESTREAM:
        return None
    width, height, left, top, across, down, tile_left, tile_top, components = struct.unpack_from(
        ">IIIIIIIIH", data, start + 8
    )
    if not across or not down or tile_left > left or tile_top > top or width <= left or height <= top:
        return None
    tiles = -(-(width - tile_left) // across) * -(-(height - tile_top) // down)
    if tiles > 65_535:
        raise ImageError("too-costly", f"expected at most 65,535 tiles (JPEG 2000), found {tiles:,}")
    bits = max(((value & 127) + 1 for value in data[start + 42 : start + 42 + 3 * components : 3]), default=32)
    depth = 1 if bits <= 8 else 2 if bits <= 16 else 4
    found = CodestreamLayout((min(across, width - left), min(down, height - top)), tiles, components, depth)
    place = _header(data, start + 2, found)
    seen: dict[int, tuple[int, int]] = {}  # tile -> parts found, parts expected
    for _ in range(_PARTS):
        if data[place : place + 2] != bytes([0xFF, _SOT]):
            break
        number, length, _, parts = struct.unpack_from(">HIBB", data, place + 4)
        had, wanted = seen.get(number, (0, 0))
        seen[number] = (had + 1, max(wanted, parts))
        _header(data, place + 12, found)
        if not length:  # up to the end
            break
        if length < 14 or place + length > len(data):
            raise ImageError("truncated", "a tile is truncated (JPEG 2000)")
        place += length
    else:
        raise ImageError("too-costly", f"expected at most {_PARTS:,} parts of tiles (JPEG 2000), found more")
    there = sum(had >= wanted for number, (had, wanted) in seen.items() if number < tiles)
    if there < tiles:
        raise ImageError("truncated", f"expected {tiles:,} tiles (JPEG 2000), found {there:,}")
    return found


def _header(data: bytes, place: int, found: CodestreamLayout) -> int:
    """Read a header, and return the offset of the marker after it."""
    for _ in range(_BOXES):
        marker = data[place + 1] if data[place : place + 1] == b"\xff" and place + 1 < len(data) else _EOC
        if marker in (_SOT, _SOD, _EOC):
            return place
        (length,) = struct.unpack_from(">H", data, place + 2)
        body = data[place + 4 : place + 2 + length]
        if marker == _COD and len(body) >= 10:
            layers = int.from_bytes(body[2:4], "big")
            _record_coding(found, layers, body[5:], bool(body[0] & 1))
        elif marker == _COC:
            narrow = 1 if found.components < 257 else 2
            if len(body) >= narrow + 6:
                _record_coding(found, 1, body[narrow + 1 :], bool(body[narrow] & 1))
        place += 2 + max(2, length)
    raise ImageError("too-costly", f"expected at most {_BOXES:,} segments (JPEG 2000), found more")


def _record_coding(found: CodestreamLayout, layers: int, style: bytes, own: bool) -> None:
    block = 1 << min(10, (style[1] & 15) + 2), 1 << min(10, (style[2] & 15) + 2)
    found.record_coding(layers, min(style[0], 32), block, style[5:] if own else b"")
