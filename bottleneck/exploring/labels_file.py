"""Edited labels on disk: a log of edits, which is the truth, and the table that is made from it."""

import codecs
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottleneck.errors import ImagesError, OutputError
from bottleneck.exploring.annotations import Annotations, Edit
from bottleneck.exploring.edit_log import EditLog
from bottleneck.exploring.labels_table import LabelsTable
from bottleneck.images.dataset import Dataset
from bottleneck.images.keys import DigestSet, as_digests
from bottleneck.utils.csv_text import parse_csv
from bottleneck.utils.files import read_whole, sha256_hex
from bottleneck.utils.output_file import check_output, write_output

_DIGEST = 32  # bytes
_LARGEST = 4 << 30  # bytes
_SUFFIX = ".log"


class LabelsFile:
    """The labels of a dataset, edited by one process and kept in a table and its log.

    An edit is appended to the log and fsynced, then the table is replaced. If the process is killed in between, the
    next one replays the log and brings the table up to date. The files are created by the first edit; a table that was
    corrected by hand meanwhile is continued.

    Parameters
    ----------
    path : Path
        The table; the log has its name with ``.log``.
    images : Dataset
        Each image once.

    Raises
    ------
    OutputError
        If the table or the log is not of this dataset, is damaged or in use, or cannot be written.
    """

    def __init__(self, path: Path, images: Dataset) -> None:
        self.path = check_output(path)
        self.annotations = Annotations(images.labels)
        self.problem: str | None = None  # why the table could not be written
        self._table = LabelsTable(images, path)
        self._images, self._digests = images, images.digests
        self._known = DigestSet(images.digests)
        self._lock = threading.RLock()
        self._signature = _signature(self.path)
        found = self._read()
        self._sha256 = None if found is None else sha256_hex(found[0])  # of the table on disk
        self._log = EditLog(path.with_name(path.name + _SUFFIX))
        try:
            self._continue(found)
        except BaseException:
            self._log.close(remove=self._log.is_empty)
            raise

    def prepare(self) -> None:
        """Format what edits cannot change, so that the first edit takes no longer than others."""
        self._table.prepare()

    def edit(self, action: object, value: object, rows: object) -> tuple[int, ...]:
        """Make an edit of untrusted values; return the rows that changed, once the edit is on disk.

        Raises
        ------
        ImagesError
            If a value is invalid.
        OutputError
            If it cannot be written; nothing is changed.
        """
        edit = Edit.checked(action, value, rows, len(self.annotations))
        with self._lock:
            by_hand = self._take_over()
            changed = self.annotations.changed_by(edit)
            if changed:
                self._make(Edit(edit.action, edit.value, changed))
                self._write()
            return tuple(sorted({*by_hand, *changed}))

    def undo(self) -> tuple[str, tuple[int, ...]] | None:
        """Take back the last edit; return what it was and the rows that changed, or None if there is none."""
        return self._step("undo")

    def redo(self) -> tuple[str, tuple[int, ...]] | None:
        """Make the last edit that was undone again; see `undo`."""
        return self._step("redo")

    def close(self) -> None:
        """Release the log; without any edit, it is deleted."""
        with self._lock:
            self._log.close(remove=self._log.is_empty)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        known = self.annotations
        return {
            "file": str(self.path),
            "count": known.count,
            "can_undo": known.count > 0,
            "can_redo": known.can_redo,
            "problem": self.problem,
        }

    def _step(self, action: str) -> tuple[str, tuple[int, ...]] | None:
        with self._lock:
            self._take_over()
            if not (self.annotations.count if action == "undo" else self.annotations.can_redo):
                return None
            self._log.append({"action": action, "csv": self._sha256})
            found = self.annotations.undo() if action == "undo" else self.annotations.redo()
            self._write()
            return found and (found[0].text, found[1])

    def _take_over(self) -> set[int]:
        """Make the corrections of the table that were made by hand since it was written; return the changed rows.

        Raises
        ------
        OutputError
            If another file has taken its place.
        """
        if self._signature == _signature(self.path):
            return set()
        signature = _signature(self.path)  # before the table, which may be written again while it is read
        found = self._read()
        changed: set[int] = set()
        if found is not None and sha256_hex(found[0]) != self._sha256:
            before, self._sha256 = self._sha256, sha256_hex(found[0])
            try:
                changed = self._make_by_hand(found[1])
            except BaseException:
                self._sha256 = before
                raise
        self._signature = signature
        return changed

    def _make_by_hand(self, rows: Sequence[dict[str, str]]) -> set[int]:
        """Make the edits of a table that was corrected by hand.

        Only the last one names the table: if the process is killed before, the next one finds the rest.
        """
        edits = [edit for edit in self._by_hand(rows) if self.annotations.changed_by(edit)]
        for number, edit in enumerate(edits, 1):
            self._make(edit, is_last=number == len(edits))
        return {row for edit in edits for row in edit.rows}

    def _make(self, edit: Edit, *, is_last: bool = True) -> None:
        """Log an edit, then apply it."""
        csv = self._sha256 if is_last else None
        digests = [self._digests[row].tobytes().hex() for row in edit.rows]
        self._log.append({"action": edit.action, "value": edit.value, "digests": digests, "csv": csv})
        self.annotations.apply(edit)

    def _write(self) -> None:
        """Replace the table; the log has everything if that fails."""
        data = self._table.to_bytes(self.annotations)
        try:
            write_output(self.path, lambda file: file.write(data))
            self._sha256, self.problem = sha256_hex(data), None
            self._signature = _signature(self.path)
        except OutputError as error:
            self.problem = f"{error}. All edits are in {self._log.path}"

    def _read(self) -> tuple[bytes, list[dict[str, str]]] | None:
        """Return the bytes and the rows of an existing table.

        Raises
        ------
        OutputError
            If it is not one of ours, or of other images.
        """
        other = "name another file with --labels FILE.csv"
        try:
            data = read_whole(self.path, _LARGEST).removeprefix(codecs.BOM_UTF8)  # spreadsheets write one
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"cannot read {self.path}: {error.strerror or error}") from error
        header = ",".join(self._table.header)
        if data.partition(b"\n")[0].decode("utf-8", "replace").strip() != header:
            raise OutputError(f"expected a table of labels from `explore` in {self.path} ({header}): {other}")
        try:
            rows = parse_csv(data)
            ours = self._rows_of([row["digest"] for row in rows])
        except ValueError as error:
            raise OutputError(f"cannot read {self.path}: {error}; {other}") from error
        if rows and max(ours) < 0:
            raise OutputError(f"expected labels of these images in {self.path}, found none of them: {other}")
        return data, rows

    def _continue(self, found: tuple[bytes, list[dict[str, str]]] | None) -> None:
        """Replay the log, take over corrections of the table that were made by hand, and write the table."""
        entries = self._log.entries
        stale = entries[-1].get("csv") if entries else None  # of the table before the last edit
        found_any = [self._replay(entry, number + 2) for number, entry in enumerate(entries)]
        if entries and not any(found_any):
            raise OutputError(
                f"expected edits of these images in {self._log.path}, found none: name another file with --labels"
            )
        if found is not None:
            now = self._table.to_bytes(self.annotations)
            if self._sha256 == sha256_hex(now):
                return
            if self._sha256 != stale:
                self._make_by_hand(found[1])
        if entries or found is not None:
            self._write()

    def _rows_of(self, digests: Sequence[str]) -> list[int]:
        """Return the row of each hexadecimal digest; -1 for another image.

        Raises
        ------
        ValueError
            If one is not a digest.
        """
        keys = [bytes.fromhex(digest) for digest in digests]
        if any(len(key) != _DIGEST for key in keys):
            raise ValueError(f"expected digests of {2 * _DIGEST} hexadecimal digits")
        return self._known.find(as_digests(keys)).tolist() if keys else []

    def _replay(self, entry: dict[str, Any], line: int) -> bool:
        """Make an edit of the log again; return whether it is of these images."""
        action, value = entry.get("action"), entry.get("value")
        if action in ("undo", "redo"):
            (self.annotations.undo if action == "undo" else self.annotations.redo)()
            return False
        try:
            rows = [row for row in self._rows_of(entry["digests"]) if row >= 0]
            edit = Edit.checked(action, value, rows, len(self.annotations))
        except (ImagesError, TypeError, ValueError, KeyError) as error:
            raise OutputError(
                f"expected an edit in {self._log.path}, line {line}, found something else ({error}): name another file "
                f"with --labels FILE.csv"
            ) from error
        self.annotations.replay(edit)
        return bool(rows)

    def _by_hand(self, rows: Sequence[dict[str, str]]) -> list[Edit]:
        """Return the edits that lead from the log's state to that of a table.

        Raises
        ------
        OutputError
            If a split or a group was changed, or a label or tag is unsuitable.
        """
        known = self.annotations
        values: dict[tuple[str, str | None], list[int]] = {}
        listed = set()
        for cells, row in zip(rows, self._rows_of([cells["digest"] for cells in rows]), strict=True):
            if row < 0:
                continue
            listed.add(row)
            self._expect_same_split(cells, row)
            label = cells["label"].strip() or None
            if label != known.labels[row]:
                values.setdefault(("label", label), []).append(row)
            tags = {tag.strip() for tag in cells["tagged"].split(";")} - {""}
            for action, changed in (("tag", tags - {*known.tags[row]}), ("untag", {*known.tags[row]} - tags)):
                for tag in sorted(changed):
                    values.setdefault((action, tag), []).append(row)
        shown = [row for row in range(len(known)) if known.labels[row] is not None and not known.excluded[row]]
        back = [row for row in sorted(listed) if known.excluded[row]]
        gone = [row for row in shown if row not in listed]
        count = len(known)
        return [
            *(self._checked_by_hand(action, value, some) for (action, value), some in values.items()),
            *([Edit.checked("include", None, back, count)] if back else []),
            *([Edit.checked("exclude", None, gone, count)] if gone else []),
        ]

    def _expect_same_split(self, cells: dict[str, str], row: int) -> None:
        for name, own in (("split", self._images.splits[row]), ("group", self._images.groups[row] or "")):
            if cells.get(name, own).strip() != own:
                raise OutputError(
                    f"expected the {name} {own!r} of {cells['path']} in {self.path}, found {cells[name]!r}: `explore` "
                    f"takes over only other labels and tags. Undo that change, or name another file"
                )

    def _checked_by_hand(self, action: str, value: str | None, rows: list[int]) -> Edit:
        try:
            return Edit.checked(action, value, rows, len(self.annotations))
        except ImagesError as error:
            path = self._images.paths[rows[0]]
            raise OutputError(f"cannot use the correction of {path} in {self.path}: {error}") from error


def _signature(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is written; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
