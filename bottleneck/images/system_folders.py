"""Folders that operating systems, NAS devices, archivers and editors create among images."""

import os
import re

# In lower case. Names that begin with a dot are skipped as hidden.
_FOLDERS = frozenset(
    {
        # Synology, QNAP, NetApp
        *("@eadir", "#recycle", "#snapshot", "@tmp", "@recycle", "@recently-snapshot", "@syncthing", "~snapshot"),
        # Windows
        *("$recycle.bin", "recycler", "recycled", "system volume information", "$extend"),
        # macOS, also in archives and on other file systems
        *("__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder"),
        # Linux, Python
        *("lost+found", "__pycache__"),
    }
)
_NUMBERED = re.compile(r"found\.\d{3}$")  # created by chkdsk


def is_system_folder(name: str) -> bool:
    """Return whether a folder of this name contains thumbnails, deleted files and the like, not the user's images."""
    return name.lower() in _FOLDERS or bool(_NUMBERED.match(name.lower()))


def count_files(folder: str | os.PathLike[str]) -> int:
    """Return the number of files in a folder, at any depth; unreadable folders count as empty."""
    return sum(len(files) for _, _, files in os.walk(folder))
