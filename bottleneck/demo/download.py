"""Fetch an archive from its public address: resumable, checked, and unpacked without trusting it."""

import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from bottleneck.errors import DownloadError
from bottleneck.files import TEMPORARY

Progress = Callable[[str, int, int], None]  # stage, done, total

_BLOCK = 1 << 20
_TIMEOUT = 30  # seconds without a byte


@dataclass(frozen=True)
class Archive:
    """Where a data set is, and what its file must be.

    Parameters
    ----------
    url : str
    size : int
        Bytes.
    sha256 : str
        Hexadecimal.
    folder : str
        The folder inside the archive that holds the classes or splits.
    """

    url: str
    size: int
    sha256: str
    folder: str

    @property
    def file_name(self) -> str:
        """The last part of the address."""
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
    """Fetch and unpack a data set below `folder`, and return the folder of its images; what is there is kept.

    Raises
    ------
    DownloadError
        If the address cannot be reached, or gives something else than expected.
    """
    images = folder / archive.folder
    if images.is_dir():
        return images
    file = folder / archive.file_name
    if not (file.is_file() and _digest(file) == archive.sha256):
        _download(archive, file, progress)
    unpack(file, folder, archive.folder)
    return images


def _download(archive: Archive, file: Path, progress: Progress | None) -> None:
    """Fetch the rest of a file that an earlier try may have begun; only a checked file gets its name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    if have < archive.size:
        try:
            with urlopen(Request(archive.url, headers={"Range": f"bytes={have}-"}), timeout=_TIMEOUT) as answer:
                resumed = answer.status == 206
                with open(part, "ab" if resumed else "wb") as target:
                    _copy(answer, target, have if resumed else 0, archive.size, progress)
        except HTTPError as error:
            raise DownloadError(f"{archive.url} answered {error.code} {error.reason}; {_advice(file)}") from error
        except (URLError, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise DownloadError(f"{archive.url} cannot be reached ({reason}); {_advice(file)}") from error
    size, digest = part.stat().st_size, _digest(part)
    if size < archive.size:
        raise DownloadError(f"{archive.url} broke off at {size:,} of {archive.size:,} bytes; run the command again")
    if digest != archive.sha256:
        part.unlink()
        raise DownloadError(
            f"expected {archive.size:,} bytes with SHA-256 {archive.sha256} from {archive.url}, found {size:,} bytes "
            f"with {digest}; they were deleted. Run the command again; if it happens twice, the file has changed"
        )
    part.replace(file)


def _copy(source: IO[bytes], target: IO[bytes], have: int, size: int, progress: Progress | None) -> None:
    while have <= size and (block := source.read(_BLOCK)):
        target.write(block)
        have += len(block)
        if progress:
            progress("download", have, size)


def _advice(file: Path) -> str:
    return (
        f"fetch it where there is a network and put it at {file}, then run the command again. "
        f"Without a network, `bottleneck demo` uses digits that are on this machine"
    )


def unpack(file: Path, folder: Path, wanted: str) -> None:
    """Unpack the regular files below ``wanted/`` of a .zip or .tgz into `folder`, whole or not at all.

    Links, devices and names that lead elsewhere are refused.

    Raises
    ------
    DownloadError
        If the archive is damaged, holds such a name, or has no such folder.
    """
    temporary = folder / f"{TEMPORARY}{wanted}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for name, source in _members(file):
            target = temporary / _safe(name, file)
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as out:
                shutil.copyfileobj(source, out)
        if not (temporary / wanted).is_dir():
            raise DownloadError(f"expected a folder {wanted}/ in {file}, found none")
        (temporary / wanted).rename(folder / wanted)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(f"cannot unpack {file}: {error}; delete it and run the command again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _members(file: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name and content of each regular file in an archive."""
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                if not entry.is_dir():
                    with archive.open(entry) as source:
                        yield entry.filename, source
        return
    with tarfile.open(file) as bundle:
        for member in bundle:
            if member.isdir():
                continue
            opened = bundle.extractfile(member) if member.isreg() else None
            if opened is None:
                raise DownloadError(f"{file} holds {member.name!r}, which is no regular file; it was not unpacked")
            with opened as source:
                yield member.name, source


def _safe(name: str, file: Path) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise DownloadError(f"{file} holds the name {name!r}, which leads elsewhere; it was not unpacked")
    return name


def _digest(file: Path) -> str:
    hasher = hashlib.sha256()
    with open(file, "rb") as source:
        while block := source.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()
