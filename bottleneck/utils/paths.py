"""Expand paths of users, and find files that were moved together with a folder."""

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bottleneck.errors import PathError
from bottleneck.utils.arguments import Arguments, abbreviated

_SUSPICIOUS = 255  # bytes; longer names are tried, since most file systems refuse them


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with a leading ``~`` or ``~user`` expanded to the home folder, as in a shell.

    An existing file whose name begins with ``~`` (``~backup.jpg``) is not expanded.

    Raises
    ------
    PathError
        If there is neither such a user nor such a file, or the path is invalid.
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
        reason = f"user {home[1:]} has no home folder" if home != "~" else "you have no home folder"
        raise PathError(
            f"expected a path, found {text}: {reason}. To use a file or folder of that name, write ./{text}"
        ) from error
    _check(str(found))
    return found


def _check(text: str) -> None:
    """Refuse an invalid path.

    Raises
    ------
    PathError
        If it has a null character, characters that the file system cannot encode, or a name that is too long.
    """
    if "\0" in text:
        raise PathError(f"expected a path, found a null character in {abbreviated(text)}")
    try:
        name = os.fsencode(text)
    except UnicodeEncodeError as error:
        raise PathError(
            f"expected a path, found characters in {abbreviated(text)} that file names cannot contain"
        ) from error
    if len(name) > _SUSPICIOUS:
        long = [part for part in Path(text).parts if len(os.fsencode(part)) > _SUSPICIOUS]
        if any(_is_too_long(one) for one in (text, *long)):  # a missing folder would hide a name that is too long
            raise PathError(f"expected a path, found one that is too long: {abbreviated(text)}")


def _is_too_long(text: str) -> bool:
    try:
        os.lstat(text)
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


def relative_to(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> str | None:
    """Return a path relative to a folder; None if they are on different drives of Windows."""
    with suppress(ValueError):
        return Path(os.path.relpath(path, folder)).as_posix()
    return None


def moved(recorded: str, place: object, folder: Path, elsewhere: Iterable[Path] = ()) -> Path:
    """Return the present path of something whose path was recorded in a folder; both may have been moved together.

    Parameters
    ----------
    recorded : str
        Its recorded path.
    place : object
        The recorded result of `relative_to`; not a text in old records, which lack it.
    folder : Path
        Present path of the folder with the record.
    elsewhere : iterable of Path
        Other folders to search for the same name.

    Returns
    -------
    Path
        The recorded path, if it is not found.
    """
    candidates = [Path(recorded), *(other / Path(recorded).name for other in elsewhere)]
    if isinstance(place, str):
        candidates.insert(0, Path(os.path.normpath(folder.absolute() / place)))
    return next((one for one in candidates if os.path.exists(one)), Path(recorded))
