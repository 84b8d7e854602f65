"""Folders that operating systems, NAS devices, archivers and editors leave among images."""

import os
import re

# By lower case. Those whose names begin with a dot are hidden, and passed over for that.
_FOLDERS = frozenset(
    {
        # Synology, QNAP, NetApp
        *("@eadir", "#recycle", "#snapshot", "@tmp", "@recycle", "@recently-snapshot", "@syncthing", "~snapshot"),
        # Windows
        *("$recycle.bin", "recycler", "recycled", "system volume information", "$extend"),
        # macOS, also in archives and on foreign disks
        *("__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder"),
        # Linux, Python
        *("lost+found", "__pycache__"),
    }
)
_NUMBERED = re.compile(r"found\.\d{3}$")  # what chkdsk saves


def is_system_folder(name: str) -> bool:
    """Whether a folder of that name holds no images of the user's, but thumbnails, deleted files and the like."""
    return name.lower() in _FOLDERS or bool(_NUMBERED.match(name.lower()))


def count_files(folder: str | os.PathLike[str]) -> int:
    """Return how many files a folder holds, at any depth; what cannot be listed counts as nothing."""
    return sum(len(files) for _, _, files in os.walk(folder))
