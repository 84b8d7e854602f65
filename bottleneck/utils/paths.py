"""Paths as users write them."""

import os
from pathlib import Path

from bottleneck.errors import PathError
from bottleneck.utils.arguments import Arguments


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path whose leading ``~`` or ``~user`` is that home folder, as a shell would have it.

    A file whose own name begins so (``~backup.jpg``) is taken as it is.

    Raises
    ------
    PathError
        If there is neither such a user nor such a file, or it is no path at all.
    """
    text = Arguments(PathError).path("a folder or file", path)
    if not text.startswith("~"):
        return Path(text)
    home, *_ = text.replace(os.sep, "/").split("/", 1)
    if home != "~" and os.path.lexists(text):
        return Path(text)
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise PathError(
            f"expected a path, found {text}: there is no home folder of {home[1:] or 'yours'}. "
            f"A file or folder of that name is ./{text}"
        ) from error
