"""Download an archive, resumably, verify its hash, and unpack it without trusting it."""

import re
import shutil
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from bottleneck.errors import DownloadError
from bottleneck.utils.files import NotRegularError, file_sha256, temporary_path
from bottleneck.utils.folder import Folder, LinkError, is_temporary
from bottleneck.utils.owned import Layout, any_content, delete, is_ours
from bottleneck.utils.tree import Tree

Progress = Callable[[str, int, int], None]  # stage, done, total

_BLOCK = 1 << 20
_TIMEOUT = 30  # seconds without a byte
_STALE = 86_400.0  # seconds; older leftovers belong to a killed process


@dataclass(frozen=True)
class Archive:
    """The address of a data set, and the size and hash of its file.

    Parameters
    ----------
    url : str
    size : int
        Size in bytes.
    sha256 : str
        SHA-256, hexadecimal.
    folder : str
        The folder in the archive that contains the classes or splits.
    """

    url: str
    size: int
    sha256: str
    folder: str

    @property
    def file_name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]


ARCHIVES = {
    "flowers": Archive(
        "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
        228_813_984,
        "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
        "flower_photos",
    ),
    "hymenoptera": Archive(
        "https://download.pytorch.org/tutorial/hymenoptera_data.zip",
        47_286_322,
        "fbc41b31d544714d18dd1230b1e2b455e1557766e13e67f9f5a7a23af7c02209",
        "hymenoptera_data",
    ),
}


def fetch_images(archive: Archive, folder: Path, progress: Progress | None = None) -> Path:
    """Download and unpack a data set into `folder`, unless it is there, and return the folder of its images.

    Raises
    ------
    DownloadError
        If the server cannot be reached, or the file is not the expected one; or if a link is in the place of the images
        or the archive.
    """
    tree, images, file = Tree(folder), folder / archive.folder, folder / archive.file_name
    with placing(folder):
        with suppress(FileNotFoundError):
            tree.at(images).close()
            return images
        if not (tree.exists(file) and file_sha256(file, tree.open) == archive.sha256):
            _download(archive, file, progress)
        unpack(file, folder, archive.folder)
        return images


@contextmanager
def placing(folder: Path) -> Iterator[None]:
    """Convert errors about links and special files in a folder to DownloadError."""
    try:
        yield
    except (LinkError, NotRegularError) as error:
        raise DownloadError(f"cannot put the images into {folder}: {error}") from error


def _download(archive: Archive, file: Path, progress: Progress | None) -> None:
    """Download a file, resuming an earlier attempt; it is renamed to its final name after verification."""
    part = file.with_name(file.name + ".part")
    with Tree(file.parent).at(file.parent, make=True) as home:
        home.expect_regular(file.name)
        have = _size(home, part.name)
        if have < archive.size:
            try:
                with urlopen(Request(archive.url, headers={"Range": f"bytes={have}-"}), timeout=_TIMEOUT) as answer:
                    resumed = answer.status == 206
                    with open(part, "ab" if resumed else "wb", opener=_opener(home)) as target:
                        _copy(answer, target, have if resumed else 0, archive.size, progress)
            except HTTPError as error:
                raise DownloadError(f"{archive.url} answered {error.code} {error.reason}; {_advice(file)}") from error
            except (URLError, OSError) as error:
                reason = getattr(error, "reason", None) or error
                raise DownloadError(f"{archive.url} cannot be reached ({reason}); {_advice(file)}") from error
        size, digest = _size(home, part.name), file_sha256(part, _opener(home))
        if size < archive.size:
            raise DownloadError(f"{archive.url} stopped at {size:,} of {archive.size:,} bytes; run the command again")
        if digest != archive.sha256:
            home.unlink(part.name)
            raise DownloadError(
                f"expected {archive.size:,} bytes with SHA-256 {archive.sha256} from {archive.url}, found {size:,} "
                f"bytes with {digest}; they were deleted. Run the command again; if it happens twice, the file on "
                f"the server has changed"
            )
        home.rename(part.name, file.name)


def _size(home: Folder, name: str) -> int:
    """Return the size of a regular file; 0 if there is none."""
    home.expect_regular(name)
    with suppress(FileNotFoundError):
        return home.status(name).st_size
    return 0


def _opener(home: Folder) -> Callable[[str, int], int]:
    return lambda path, flags: home.open(Path(path).name, flags)


def _copy(source: IO[bytes], target: IO[bytes], have: int, size: int, progress: Progress | None) -> None:
    while have <= size and (block := source.read(_BLOCK)):
        target.write(block)
        have += len(block)
        if progress:
            progress("download", have, size)


def _advice(file: Path) -> str:
    return (
        f"download it on a machine with a network and put it at {file}, then run the command again. "
        f"Without a network, `bottleneck demo` uses digits that are on this machine"
    )


def unpack(file: Path, folder: Path, wanted: str) -> None:
    """Unpack the regular files of ``wanted/`` in a .zip or .tgz into `folder`, completely or not at all.

    Links, devices and names that lead outside are refused.

    Raises
    ------
    DownloadError
        If the archive is damaged, contains such an entry, or has no such folder.
    """
    tree, temporary = Tree(folder), temporary_path(folder / wanted)
    made: dict[str, Any] = {}  # the layout of the unpacked files
    try:
        for name, source in _members(file):
            target = temporary / _safe(name, file)
            _note(made, name)
            with tree.at(target.parent, make=True) as home, open(target, "wb", opener=_opener(home)) as out:
                shutil.copyfileobj(source, out)
        if wanted not in tree.folders(temporary):
            raise DownloadError(f"expected a folder {wanted}/ in {file}, found none")
        _drop_leftovers(tree, made)
        tree.rename(temporary / wanted, folder / wanted)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(f"cannot unpack {file}: {error}; delete it and run the command again") from error
    finally:
        with suppress(OSError):
            delete(tree, temporary, made)


def _note(layout: dict[str, Any], name: str) -> None:
    """Add a file and its parent folders to a layout."""
    *above, last = PurePosixPath(name).parts
    for part in above:
        inner = layout.setdefault(re.escape(part), {})
        layout = inner if isinstance(inner, dict) else {}
    layout.setdefault(re.escape(last), any_content)


def _drop_leftovers(tree: Tree, layout: Layout) -> None:
    """Delete what killed processes have unpacked from the same archive; skip recent files of running ones."""
    before = time.time() - _STALE
    with tree.at(tree.root) as home:
        old = [name for name in home.names() if is_temporary(name) and home.status(name).st_mtime < before]
        old = [name for name in old if is_ours(home, name, layout)]
    for name in old:
        delete(tree, tree.root / name, layout)


def _members(file: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name and content of each regular file in an archive."""
    with open(file, "rb", opener=Tree.above(file, 1).open) as data:
        yield from _in_zip(file, data) if file.suffix == ".zip" else _in_tar(file, data)


def _in_zip(file: Path, data: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(data) as archive:
        for entry in archive.infolist():
            if entry.is_dir():
                continue
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):  # 0 if the packing system recorded none
                raise _not_unpacked(file, entry.filename)
            with archive.open(entry) as source:
                yield entry.filename, source


def _in_tar(file: Path, data: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(fileobj=data) as bundle:
        for member in bundle:
            if member.isdir():
                continue
            opened = bundle.extractfile(member) if member.isreg() else None
            if opened is None:
                raise _not_unpacked(file, member.name)
            with opened as source:
                yield member.name, source


def _not_unpacked(file: Path, name: str) -> DownloadError:
    return DownloadError(f"{file} contains {name!r}, which is not a regular file; it was not unpacked")


def _safe(name: str, file: Path) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise DownloadError(f"{file} contains the name {name!r}, which leads outside; it was not unpacked")
    return name
