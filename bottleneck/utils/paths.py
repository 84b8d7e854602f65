"""Paths as users write them, and paths of things that may be moved together."""

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bottleneck.errors import PathError
from bottleneck.utils.arguments import Arguments, shown

_SUSPICIOUS = 255  # bytes; most file systems have no longer names, and the system tells whether this one has


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path whose leading ``~`` or ``~user`` is that home folder, as a shell would have it.

    A file whose own name begins so (``~backup.jpg``) is taken as it is.

    Raises
    ------
    PathError
        If there is neither such a user nor such a file, or it is no path that the system can have.
    """
    text = Arguments(PathError).path("a folder or file", path)
    _check(text)
    if not text.startswith("~"):
        return Path(text)
    home, *_ = text.replace(os.sep, "/").split("/", 1)
    if home != "~" and os.path.lexists(text):
        return Path(text)
    try:
        found = Path(text).expanduser()
    except RuntimeError as error:
        raise PathError(
            f"expected a path, found {text}: there is no home folder of {home[1:] or 'yours'}. "
            f"A file or folder of that name is ./{text}"
        ) from error
    _check(str(found))
    return found


def _check(text: str) -> None:
    """Refuse a path that no file can have.

    Raises
    ------
    PathError
        If it has a null character, characters that the file system cannot encode, or a name that is too long.
    """
    if "\0" in text:
        raise PathError(f"expected a path, found a null character in {shown(text)}")
    try:
        name = os.fsencode(text)
    except UnicodeEncodeError as error:
        raise PathError(f"expected a path, found characters in {shown(text)} that no file name can have") from error
    if len(name) > _SUSPICIOUS:
        long = [part for part in Path(text).parts if len(os.fsencode(part)) > _SUSPICIOUS]
        if any(_is_too_long(one) for one in (text, *long)):  # folders that are missing hide the names in them
            raise PathError(f"expected a path, found one that is too long: {shown(text)}")


def _is_too_long(text: str) -> bool:
    try:
        os.lstat(text)
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


def relative_to(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> str | None:
    """Return a path relative to a folder, for both to be moved together; None between two drives of Windows."""
    with suppress(ValueError):
        return Path(os.path.relpath(path, folder)).as_posix()
    return None


def moved(recorded: str, place: object, folder: Path, elsewhere: Iterable[Path] = ()) -> Path:
    """Return where something is now whose path was recorded in a folder; both may have been moved together.

    Parameters
    ----------
    recorded : str
        Its path then.
    place : object
        What `relative_to` gave; anything but a text of older versions, which recorded none.
    folder : Path
        Where it was recorded, wherever that is now.
    elsewhere : iterable of Path
        Folders in which a file or folder of that name may be meant.

    Returns
    -------
    Path
        The recorded one, if it is nowhere.
    """
    candidates = [Path(recorded), *(other / Path(recorded).name for other in elsewhere)]
    if isinstance(place, str):
        candidates.insert(0, Path(os.path.normpath(folder.absolute() / place)))
    return next((one for one in candidates if os.path.exists(one)), Path(recorded))
