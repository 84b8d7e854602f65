"""Find the images of a folder, with the classes and splits given by its subfolders."""

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bottleneck.errors import ImagesError
from bottleneck.images.dataset import Failure
from bottleneck.images.splits import split_named
from bottleneck.images.system_folders import count_files, is_system_folder
from bottleneck.utils.text import Spellings

# The suffixes of torchvision's ImageFolder. A GIF in a folder is nearly always a placeholder of a web page; a GIF that
# is named in a CSV, or as IMAGES, is used.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp"})


@dataclass
class Found:
    """The images found in a source: rows of (path, label, split, group), failures, and counts of skipped files.

    Labels and groups are normalized (Unicode), paths are not.
    """

    paths: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    splits: list[str | None] = field(default_factory=list)
    groups: list[str | None] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    empty_classes: list[str] = field(default_factory=list)
    spellings: Spellings = field(default_factory=Spellings)  # of labels and groups
    remarks: list[str] = field(default_factory=list)

    def add(self, path: str, label: str | None, split: str | None = None, group: str | None = None) -> None:
        """Append one image."""
        self.paths.append(path)
        self.labels.append(None if label is None else self.spellings.normal(label))
        self.splits.append(split)
        self.groups.append(None if group is None else self.spellings.normal(group))


def find_unlabelled(root: Path, exclude: Collection[Path]) -> Found:
    """Return all images below `root`, without labels."""
    found = Found()
    for path in _images(root, exclude, found):
        found.add(path, None)
    return found


def find_labelled(root: Path, exclude: Collection[Path]) -> Found:
    """Return the images of a folder of class folders, or of train/val/test folders of class folders.

    The first level of subfolders gives the class of a file at any depth. Without class folders, images have no labels.

    Raises
    ------
    ImagesError
        If there are both split folders and other folders of images.
    """
    folders = _subfolders(root, exclude)
    if not folders:
        return find_unlabelled(root, exclude)
    found = Found()
    divided = _split_folders(root, folders, exclude)
    for folder, split in divided.items():
        # If there is only train/, nothing is held out, so its images are split as if no split were given.
        _add_classes(found, folder, split if len(divided) > 1 else None, exclude, above=(root.resolve(),))
        _count_loose(found, folder)
    if divided:
        for folder in folders:
            if folder not in divided:
                _count_loose(found, folder)
    else:
        _add_classes(found, root, None, exclude)
    _count_loose(found, root)
    return found


def _split_folders(root: Path, folders: list[Path], exclude: Collection[Path]) -> dict[Path, str]:
    """Return folder -> split if `root` consists of split folders; "train" or "test" may also be classes."""
    named = {folder: split for folder in folders if (split := split_named(folder.name))}
    holding = {folder: split for folder, split in named.items() if _subfolders(folder, exclude)}
    others = [folder.name for folder in folders if folder not in named and _holds_image(folder, exclude)]
    if "train" not in holding.values() or (others and len(holding) == 1):
        return holding if len(holding) == len(folders) == 1 else {}
    if others:
        raise ImagesError(
            f"expected {root} to contain either splits (train, val, test) or classes; found the splits "
            f"{_list(folder.name for folder in holding)} and also {_list(others)}. Move one kind elsewhere, or "
            f"list the images in a CSV with columns path,label,split"
        )
    return holding


def _add_classes(
    found: Found, root: Path, split: str | None, exclude: Collection[Path], above: tuple[Path, ...] = ()
) -> None:
    for folder in _subfolders(root, exclude):
        before = len(found.paths) + len(found.failures)
        for path in _images(folder, exclude, found, (*above, root.resolve())):
            found.add(path, folder.name, split)
        if len(found.paths) + len(found.failures) == before:
            found.empty_classes.append(str(folder))


def _count_loose(found: Found, root: Path) -> None:
    """Count the files next to the class folders, which belong to no class."""
    for entry in _entries(root, found):
        if _is_system_entry(entry):
            _count_system(found, entry)
        elif _is_hidden(entry.name) or not _is_folder(entry):
            reason = _why_ignored(entry.name)
            found.ignored[reason or "outside any class folder"] += 1


def _subfolders(root: Path, exclude: Collection[Path]) -> list[Path]:
    return [
        Path(entry.path)
        for entry in _entries(root)
        if _is_folder(entry)
        and not _is_hidden(entry.name)
        and not is_system_folder(entry.name)
        and Path(entry.path).resolve() not in exclude
    ]


def _holds_image(folder: Path, exclude: Collection[Path]) -> bool:
    return next(_images(folder, exclude, Found()), None) is not None


def _images(root: Path, exclude: Collection[Path], found: Found, above: tuple[Path, ...] = ()) -> Iterator[str]:
    """Yield the image files below `root`, sorted; links are followed, except for loops."""
    here = root.resolve()
    if here in exclude or here in above:
        return
    for entry in _entries(root, found):
        if _is_hidden(entry.name):
            found.ignored["hidden"] += 1
        elif _is_system_entry(entry):
            _count_system(found, entry)
        elif _is_folder(entry):
            yield from _images(Path(entry.path), exclude, found, (*above, here))
        elif reason := _why_ignored(entry.name):
            found.ignored[reason] += 1
        elif problem := _why_unreadable(entry):
            found.failures.append(Failure(entry.path, "unreadable", problem))
        else:
            yield entry.path


def _entries(root: Path, found: Found | None = None) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if found is not None:
            found.failures.append(Failure(str(root), "unreadable", f"folder: {error.strerror or error}"))
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _is_system_entry(entry: os.DirEntry[str]) -> bool:
    return is_system_folder(entry.name) and _is_folder(entry)


def _count_system(found: Found, entry: os.DirEntry[str]) -> None:
    if files := count_files(entry.path):
        found.ignored[f"in {entry.name}"] += files


def _is_hidden(name: str) -> bool:
    return name.startswith(".")  # includes "._x", which macOS leaves on other file systems


def _why_ignored(name: str) -> str | None:
    if _is_hidden(name):
        return "hidden"
    suffix = os.path.splitext(name)[1].lower()
    return None if suffix in IMAGE_SUFFIXES else suffix or "no suffix"


def _why_unreadable(entry: os.DirEntry[str]) -> str | None:
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        return f"broken link ({error.strerror})" if entry.is_symlink() else error.strerror
    return None if stat.S_ISREG(mode) else "not a regular file"


def _list(names: Iterator[str] | list[str]) -> str:
    return ", ".join(f"{name}/" for name in names)
