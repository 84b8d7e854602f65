"""The kinds of files that come from strangers, and the product's own readers of them."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import features

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.index import _read_entry, save_entry
from bottleneck.cache.recent import ShardEntry
from bottleneck.cache.shard import Rows, read_shard
from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckError, ImageError, MissingFeatures, ShardError
from bottleneck.images.decode import decode
from bottleneck.images.digest import DigestMemo, signature
from bottleneck.images.memo import Memo
from bottleneck.images.table import find_listed
from bottleneck.images.undecodable import UndecodableMemo
from tests.fuzz.data_structures import floats, offsets, table_cell, table_text
from tests.fuzz.image_seeds import image_seeds
from tests.fuzz.image_structures import mutators_of
from tests.fuzz.mutate import IN_PLACE, Mutator
from tests.fuzz.target import Case, Target, Wrong
from tests.tiny import PREPROCESSING, SPEC

_ROOM = 1 << 30  # bytes that one image may take, as `extract --memory` would let it
_ACCEPTED = "accepted"
_AGAIN = 16  # every so many images are decoded twice
_LIBTIFF = tuple(map(int, re.findall(r"\d+", features.version("libtiff") or "")))
# Rows of damaged fax images that old versions of libtiff leave unwritten have random pixels.
_RANDOM = ("tiff-fax",) if _LIBTIFF < (4, 7, 2) else ()


class Images(Target):
    name, cases, short = "images", 200_000, 7000

    @cached_property
    def seeds(self) -> dict[str, bytes]:
        return image_seeds()

    @cached_property
    def _pixels(self) -> dict[str, np.ndarray]:
        return {name: decode(data, PREPROCESSING).pixels for name, data in self.seeds.items()}

    def special(self, seed: str, data: bytes) -> Sequence[Mutator]:
        return mutators_of(data)

    def read(self, case: Case) -> str:
        try:
            pixels = decode(case.data, PREPROCESSING, reserve=_room).pixels
        except ImageError as error:
            return error.code
        if pixels.shape != (12, 12, 3) or pixels.dtype != np.uint8:
            raise Wrong(f"pixels {pixels.shape} {pixels.dtype}")
        if hashlib.sha256(case.data).digest()[0] % _AGAIN == 0 and case.seed not in _RANDOM:
            _decoded_again(case.data, pixels)
        checked = case.seed.startswith("png") and set(case.how) <= IN_PLACE
        if checked and not np.array_equal(pixels, self._pixels[case.seed]):
            raise Wrong("other pixels than the original's, though no checksum fits")
        return _ACCEPTED


def _decoded_again(data: bytes, pixels: np.ndarray) -> None:
    try:
        again = decode(data, PREPROCESSING, reserve=_room).pixels
    except ImageError as error:
        raise Wrong(f"an error at a second look: {error}") from error
    if not np.array_equal(again, pixels):
        raise Wrong("other pixels at a second look: some were never written")


@contextmanager
def _room(size: int) -> Iterator[None]:
    """Stand for the memory of `extract`: what an image takes is reserved before it is decoded."""
    if size > _ROOM:
        raise ImageError("no-memory", f"{size:,} bytes are more than may be taken")
    yield


class Shards(Target):
    """Shards under the name of their bytes, which must be parsed with care, and every fifth under its old name."""

    name, short = "shards", 1800

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._sound: dict[str, tuple[Store, Path, Rows]] = {}

    @cached_property
    def seeds(self) -> dict[str, bytes]:
        random = np.random.default_rng(0)
        found = {}
        for count, dim, dtype in ((1, 1, "float32"), (3, 16, "float16"), (40, 64, "float32"), (700, 2, "float16")):
            digests = random.integers(0, 256, (count, 32)).astype(np.uint8)
            rows = Rows(digests, random.normal(size=(count, dim)).astype(dtype))
            name = f"{count}x{dim} {dtype}"
            store = FeatureCache(self.folder / name).store(SPEC)
            path = store.folder / "shards" / f"{store.commit(rows)}.h5"
            self._sound[name] = store, path, rows
            found[name] = path.read_bytes()
        return found

    def special(self, seed: str, data: bytes) -> Sequence[Mutator]:
        return (offsets, offsets, floats)

    def read(self, case: Case) -> str:
        if hashlib.sha256(case.data).digest()[0] % 5:
            return self._renamed(case)
        return self._in_its_place(case)

    def _renamed(self, case: Case) -> str:
        path = self.folder / f"{hashlib.sha256(case.data).hexdigest()}.h5"
        path.write_bytes(case.data)
        try:
            rows = read_shard(path, SPEC)
        except ShardError as error:  # a CacheError would leave it where it is, for ever
            return type(error).__name__
        finally:
            path.unlink()
        if rows.digests.shape != (len(rows.features), 32) or rows.features.ndim != 2 or not len(rows.features):
            raise Wrong(f"rows {rows.digests.shape} {rows.features.shape}")
        if rows.features.nbytes + rows.digests.nbytes > len(case.data):
            raise Wrong("more rows than bytes")
        return _ACCEPTED

    def _in_its_place(self, case: Case) -> str:
        """Write over a shard that was proven and is remembered: it serves its rows, or none."""
        store, path, rows = self._sound[case.seed]
        status = path.stat()
        path.write_bytes(case.data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        try:
            found = store.read(rows.digests, as_stored=True)
        except MissingFeatures:
            if case.data == self.seeds[case.seed]:
                raise Wrong("a sound shard was taken out of use") from None
            return "quarantined"
        finally:
            path.unlink(missing_ok=True)
            for moved in (store.folder / "quarantine").glob("*"):
                moved.unlink()
            path.write_bytes(self.seeds[case.seed])
            entry = ShardEntry(rows.digests, rows.features.shape[1], rows.features.dtype.name)
            save_entry(store.folder / "index" / path.stem, signature(os.stat(path)), entry)
        if not np.array_equal(found, rows.features):
            raise Wrong("other rows than the original's")
        return _ACCEPTED


class Tables(Target):
    name, short = "csv", 3000

    @cached_property
    def seeds(self) -> dict[str, bytes]:
        rows = [(f"img/{number}.jpg", "ab"[number % 2], ("train", "test")[number % 3 > 1], "g") for number in range(9)]
        lines = [",".join(row) for row in rows]
        whole = "path,label,split,group\n" + "\n".join(lines) + "\n"
        return {
            "plain": whole.encode(),
            "quoted": b'path,label,note\n"a ""b"".jpg","two; words",x\nc.jpg,d,"1,5"\n',
            "semicolons": whole.replace(",", ";").encode(),
            "tabs": whole.replace(",", "\t").encode(),
            "unicode": "\ufeffpath,label\né.jpg,naïve\n漢字.png,日本\n".encode(),
            "paths": b"path\n/a/b.jpg\n../c.jpg\n~/d.jpg\n",
        }

    def special(self, seed: str, data: bytes) -> Sequence[Mutator]:
        return (table_cell, table_cell, table_text)

    def read(self, case: Case) -> str:
        path = self.folder / ("t.tsv" if case.seed == "tabs" else "t.csv")
        path.write_bytes(case.data)
        try:
            found = find_listed(path, labelled=case.seed != "paths")
        except BottleneckError as error:
            return type(error).__name__
        if any(not isinstance(one, str) for one in found.paths):
            raise Wrong("a path that is no text")
        return _ACCEPTED


class Memos(Target):
    """Databases and sealed files: whatever is read from them is what was written."""

    name, short = "sqlite", 2400

    @cached_property
    def _values(self) -> dict[bytes, bytes]:
        return {f"key {number}".encode(): (f"value {number} " * (1 + number % 30)).encode() for number in range(120)}

    @cached_property
    def seeds(self) -> dict[str, bytes]:
        path = self.folder / "seed"
        files = {"memo": path / "memo.sqlite", "digests": path / "d.sqlite", "undecodable": path / "u.sqlite"}
        Memo(files["memo"], "things_1").put(self._values.items())
        DigestMemo(files["digests"]).remember((name, file, digest, 1e12) for name, file, digest in _digests())
        UndecodableMemo(files["undecodable"]).remember(_errors())
        found = {name: file.read_bytes() for name, file in files.items()}
        save_entry(self.folder / "entry", _SHARD, _ENTRY)
        found["entry"] = (self.folder / "entry").read_bytes()
        return found

    def special(self, seed: str, data: bytes) -> Sequence[Mutator]:
        return () if seed == "entry" else (offsets, offsets)

    def read(self, case: Case) -> str:
        path = self.folder / "case"
        path.unlink(missing_ok=True)
        path.write_bytes(case.data)
        found: Any
        if case.seed == "memo":
            found, right = Memo(path, "things_1").get(list(self._values)[::3]), self._values
        elif case.seed == "digests":
            files = {name: file for name, file, _ in _digests()}
            found, right = DigestMemo(path).lookup(files), {name: digest for name, _, digest in _digests()}
        elif case.seed == "undecodable":
            found = {key: str(error) for key, error in UndecodableMemo(path).load().items()}
            right = {key: str(error) for key, error in _errors().items()}
        else:
            entry = _read_entry(path, _SHARD)
            found = {} if entry is None else {"entry": (entry.digests.tobytes(), entry.dim, entry.dtype)}
            right = {"entry": (_ENTRY.digests.tobytes(), _ENTRY.dim, _ENTRY.dtype)}
        wrong = [key for key, value in found.items() if right.get(key) != value]
        if wrong:
            raise Wrong(f"what was never written: {wrong[:3]!r}")
        if case.seed == "memo":
            self._write_too(path)
        return _ACCEPTED if found else "nothing"

    def _write_too(self, path: Path) -> None:
        memo = Memo(path, "things_1")
        memo.put([(b"new", b"value")])
        if memo.get([b"new"]) not in ({}, {b"new": b"value"}):
            raise Wrong("another value than was just written")


_SHARD = 1, 2, 3, 4  # the signature of a shard's file
_ENTRY = ShardEntry(np.arange(96, dtype=np.uint8).reshape(3, 32), 7, "float32")


def _digests() -> list[tuple[str, tuple[int, int, int, int], bytes]]:
    """Return paths, signatures and digests of files."""
    return [
        (f"/images/{number}.jpg", (number, 1, 2, 3), hashlib.sha256(b"%d" % number).digest()) for number in range(90)
    ]


def _errors() -> dict[bytes, ImageError]:
    found = {}
    for number in range(60):
        found[hashlib.sha256(bytes([number])).digest()] = error = ImageError("corrupt", f"broken {number}")
        error.proven = True
    return found
