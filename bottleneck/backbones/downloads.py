"""Weights that torchvision and timm publish: how they are fetched, and proven by their hash."""

import contextlib
import http.client
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from bottleneck.errors import ModelError, WeightsUnavailable
from bottleneck.utils.files import file_sha256

HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")  # of torch.hub: the first digits of the SHA-256
_PATIENCE = 10.0  # seconds


@dataclass(frozen=True)
class Published:
    """A file of published weights that was used.

    Parameters
    ----------
    name : str
        By which it is published: of a file, or ``repository/file`` of the hub.
    sha256 : str
        Of all its bytes.
    """

    name: str
    sha256: str


def fetch(url: str, file: Path, *, hashed: bool) -> None:
    """Download a file to where torch keeps those it downloads, with its progress; its beginning of a hash is checked.

    Raises
    ------
    OSError, RuntimeError
        If it cannot be fetched, or has another hash.
    """
    from torch.hub import download_url_to_file

    file.parent.mkdir(parents=True, exist_ok=True)
    wanted = HASH_IN_NAME.search(file.name) if hashed else None
    download_url_to_file(url, str(file), wanted[1] if wanted else None, progress=True)


def check_download(file: Path, wanted: str) -> str:
    """Check the hash of a file that a download has left: its makers look at it only when they fetch it.

    Parameters
    ----------
    file : Path
        Nothing is done where there is none.
    wanted : str
        The first digits of its SHA-256, hexadecimal, or all of them; nothing where none are known.

    Returns
    -------
    str
        Its SHA-256; nothing where there is no file.

    Raises
    ------
    ModelError
        If the file has another hash, or cannot be read.
    """
    if not file.is_file():
        return ""
    try:
        found = file_sha256(file)
    except OSError as error:
        raise ModelError(f"expected weights in {file}, cannot read them: {error.strerror or error}") from error
    if not found.startswith(wanted):
        raise ModelError(f"expected weights whose SHA-256 begins with {wanted} in {file}, found others: delete it")
    return found


def check_reachable(wanted: str, url: str, tag: str = "") -> None:
    """Ask the server of `url` for an answer, whatever it is, before a library tries for a minute.

    Raises
    ------
    WeightsUnavailable
        If there is none.
    """
    with contextlib.suppress(urllib.error.HTTPError):  # an answer
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_PATIENCE).close()
        except urllib.error.HTTPError:
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: it is no address
            raise unreachable(wanted, url, error, tag) from error


def unreachable(wanted: str, url: str, error: Exception, model: str = "") -> WeightsUnavailable:
    """Return the error that says which file from where is needed, and what can be done.

    Parameters
    ----------
    wanted : str
        The file, and whose weights it holds.
    url : str
        Where it was looked for.
    error : Exception
    model : str
        The name that the file is to be used under, where it matters.
    """
    reason = getattr(error, "reason", None) or first_line(error)
    name = f"--model {model} " if model else ""
    return WeightsUnavailable(
        f"expected {wanted}; it is not on this machine and {url} cannot be reached ({reason}). Fetch that file where "
        f"there is a network and name it with {name}--weights PATH, or use --weights none for random weights"
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its class where it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
