"""Images listed in a CSV: ``path,label[,split][,group]``, paths relative to the CSV."""

import csv
from pathlib import Path

from bottleneck.errors import ImagesError
from bottleneck.images.folders import SPLIT_FOLDERS, Found


def find_listed(path: Path, *, labelled: bool) -> Found:
    """Return the images that the CSV at `path` lists, each once, in the order of their paths.

    Parameters
    ----------
    path : Path
        UTF-8, with a header. Columns may come in any order; others are left alone.
    labelled : bool
        Whether labels are used; if not, only the column ``path`` is read.

    Raises
    ------
    ImagesError
        If a column is missing, a row has no path or (with labels) no label, or a split is unknown; the line is named.
    """
    found = Found()
    seen: set[tuple[str, str | None, str | None, str | None]] = set()
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            rows = csv.DictReader(file)
            columns = [name.strip().lower() for name in rows.fieldnames or []]
            rows.fieldnames = columns
            _check_columns(path, columns, labelled)
            for row in rows:
                seen.add(_row(path, rows.line_num, row, labelled))
    except csv.Error as error:
        raise ImagesError(f"expected a CSV with columns path,label; {path} is none: {error}") from error
    for name, label, split, group in sorted(seen, key=lambda row: tuple(cell or "" for cell in row)):
        found.add(name, label, split, group)
    return found


def _check_columns(path: Path, columns: list[str], labelled: bool) -> None:
    bare = columns == ["path"]  # a list of images; a column that is misspelt must not make it one
    if "path" not in columns or (labelled and not bare and "label" not in columns):
        raise ImagesError(
            f"{path}: expected the columns path,label[,split][,group] in the first line (without labels, path and "
            f"--no-labels), found {','.join(columns)!r}"
        )


def _row(
    path: Path, line: int, row: dict[str, str | None], labelled: bool
) -> tuple[str, str | None, str | None, str | None]:
    cells = {name: (row.get(name) or "").strip() for name in ("path", "label", "split", "group")}
    if not cells["path"]:
        raise ImagesError(f"{path}, line {line}: expected a path, found none")
    name = str(path.parent / cells["path"])
    if not labelled or "label" not in row:
        return name, None, None, None
    if not cells["label"]:
        raise ImagesError(f"{path}, line {line}: expected a label for {cells['path']}, found none")
    if not (cells["label"] + cells["group"]).isprintable():  # lone surrogates: bytes that are no UTF-8
        raise ImagesError(f"{path}, line {line}: expected UTF-8, found other bytes; save the table as CSV UTF-8")
    split = SPLIT_FOLDERS.get(cells["split"].lower()) if cells["split"] else None
    if cells["split"] and split is None:
        raise ImagesError(f"{path}, line {line}: expected a split train, val or test, found {cells['split']!r}")
    return name, cells["label"], split, cells["group"] or None
