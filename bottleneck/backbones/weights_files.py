"""Record how a backbone was requested, and find its weights file again if it has moved. No torch is imported."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bottleneck.backbones.request import Request, looks_like_file
from bottleneck.errors import ModelError, PathError, WeightsUnavailable
from bottleneck.utils.files import file_sha256
from bottleneck.utils.paths import relative_to

_KEY = "weights_file"
_TAIL = 4  # last parts of an old path to search for elsewhere
_SUBFOLDERS = ("", "weights", "models", "checkpoints")  # folders to search


@dataclass(frozen=True)
class RecordedRequest:
    """How a backbone was requested, recorded as JSON in a folder.

    Parameters
    ----------
    value : dict
        Written by `described`; older versions recorded nothing about the file.
    home : Path
        The folder at its present place.
    """

    value: Mapping[str, Any]
    home: Path

    @property
    def request(self) -> Request:
        """The request as recorded, with the path that the file had then.

        Raises
        ------
        ModelError
            If it is not a request.
        """
        try:
            found = Request(**{name: value for name, value in self.value.items() if name != _KEY})
            _ = found.file  # expands the home folder in the path
        except (TypeError, AttributeError, PathError) as error:
            raise ModelError(f"expected the request of a backbone, found {self.value!r:.200}: {error}") from error
        return found

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the file."""
        found = self._file.get("sha256")
        return found if isinstance(found, str) else None

    @property
    def size(self) -> int | None:
        """Size of the file in bytes."""
        found = self._file.get("bytes")
        return found if isinstance(found, int) else None

    @property
    def place(self) -> Path | None:
        """Path of the file if it has moved together with the folder."""
        found = self._file.get("place")
        return Path(os.path.normpath(self.home.absolute() / found)) if isinstance(found, str) else None

    @property
    def _file(self) -> Mapping[str, Any]:
        found = self.value.get(_KEY)
        return found if isinstance(found, dict) else {}

    def at(self, home: Path) -> dict[str, Any]:
        """Return the JSON for another folder."""
        file = self.request.file
        if file is None or not self._file:
            return dict(self.value)
        now = self.place if self.place and os.path.exists(self.place) else file
        return {**self.value, _KEY: {**self._file, "place": relative_to(now, home)}}

    def located(self, folders: Iterable[Path] = ()) -> Request:
        """Return the request with the present path of its file.

        The file is looked up at its position relative to `home`, at its old path, and then in some folders by the end
        of its path or by its hash. If several files are found, the one with the recorded hash is used. The tensors are
        verified when the network is built.

        Parameters
        ----------
        folders : iterable of Path

        Returns
        -------
        Request
            The recorded request, if the file is not found.
        """
        request = self.request
        if request.file is None:
            return request
        folders = [Path.cwd(), *folders]
        direct = [self.place, request.file]
        found = self._sound(path for path in direct if path) or self._sound(_tails(request.file, folders))
        if len(found) > 1 and self.sha256:
            found = [path for path in found if self._has_hash(path)] or found
        if not found and self.sha256 and self.size:
            found = [path for path in self._sound(_weights_in(folders)) if self._has_hash(path)]
        return replace(request, weights=str(found[0])) if found else request

    def missing(self) -> WeightsUnavailable:
        """Return the error for a missing file, with how to pass its new path."""
        request = self.request
        known = [f"SHA-256 {self.sha256}"] if self.sha256 else []
        known += [f"{self.size:,} bytes"] if self.size else []
        which = f" ({', '.join(known)})" if known else ""
        again = replace(request, weights="./PATH").command()
        return WeightsUnavailable(
            f"expected the weights file {request.weights}{which} for images without cached features, found it neither "
            f"there nor near {self.home}: put it back, or pass its new path with `bottleneck extract IMAGES {again}`"
        )

    def _sound(self, paths: Iterable[Path]) -> list[Path]:
        """Return the paths of files with the recorded size, each file once."""
        found: dict[str, Path] = {}
        for path in paths:
            with suppress(OSError, ValueError):
                if path.is_file() and self.size in (None, path.stat().st_size):
                    found.setdefault(os.path.realpath(path), path)
        return list(found.values())

    def _has_hash(self, path: Path) -> bool:
        with suppress(OSError):
            return file_sha256(path) == self.sha256
        return False


def recorded_request(
    value: dict[str, Any] | None, home: Path, folders: Iterable[Path], precision: str
) -> Request | None:
    """Return the request recorded in a folder, located and with another precision; None if there is none."""
    with suppress(ModelError):
        return None if value is None else replace(RecordedRequest(value, home).located(folders), precision=precision)
    return None


def recorded_at(value: dict[str, Any] | None, before: Path, after: Path) -> dict[str, Any] | None:
    """Return the JSON of a request recorded in one folder for recording it in another."""
    with suppress(ModelError):
        return value and RecordedRequest(value, before).at(after)
    return value


def checked_request(value: Any) -> dict[str, Any]:
    """Return the JSON of a request after checking it.

    Raises
    ------
    ModelError
        If it is not a request.
    """
    _ = RecordedRequest(value, Path()).request
    return dict(value)


def described(request: Request, sha256: str | None, home: Path) -> dict[str, Any]:
    """Return the JSON that records a request in a folder, with what identifies its weights file.

    Parameters
    ----------
    request : Request
    sha256 : str or None
        Hash of its weights file, if any.
    home : Path
        The folder.
    """
    file = request.file
    if file is None or sha256 is None:
        return request.to_json()
    known = {"sha256": sha256, "bytes": file.stat().st_size, "place": relative_to(file, home)}
    return {**request.to_json(), _KEY: known}


def _tails(file: Path, folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the last parts of a path in some folders, the longest first."""
    parts = file.parts[1:]
    for count in range(min(_TAIL, len(parts)), 0, -1):
        for folder in folders:
            yield folder.joinpath(*parts[-count:])


def _weights_in(folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the files in some folders that have the extensions of weights files."""
    for folder in folders:
        for name in _SUBFOLDERS:
            with suppress(OSError):
                inside = sorted(entry.path for entry in os.scandir(folder / name) if entry.is_file())
                yield from (Path(path) for path in inside if looks_like_file(os.path.basename(path)))
