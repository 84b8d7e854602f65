"""Download published weights of torchvision and timm, and verify their hash."""

import contextlib
import http.client
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from bottleneck.errors import ModelError, WeightsUnavailable
from bottleneck.utils.files import file_sha256

HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")  # as torch.hub does: the first digits of the SHA-256


@dataclass(frozen=True)
class Published:
    """A file of published weights.

    Parameters
    ----------
    name : str
        Published name: a file name, or ``repository/file`` on the hub.
    sha256 : str
        Hash of the whole file.
    """

    name: str
    sha256: str


def fetch(url: str, file: Path, *, hashed: bool) -> None:
    """Download a file with torch's own function, which shows progress and checks the hash digits in the name.

    Raises
    ------
    OSError, RuntimeError
        If it cannot be downloaded, or has another hash.
    """
    from torch.hub import download_url_to_file

    file.parent.mkdir(parents=True, exist_ok=True)
    wanted = HASH_IN_NAME.search(file.name) if hashed else None
    download_url_to_file(url, str(file), wanted[1] if wanted else None, progress=True)


def check_download(file: Path, wanted: str) -> str:
    """Check the hash of a downloaded file; torch and timm check it only once, when they download it.

    Parameters
    ----------
    file : Path
        Nothing is checked if it does not exist.
    wanted : str
        The first digits of its SHA-256, hexadecimal, or all of them; empty if unknown.

    Returns
    -------
    str
        Its SHA-256; empty if there is no file.

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
        raise ModelError(
            f"expected weights whose SHA-256 begins with {wanted} in {file}, found other weights: delete the file"
        )
    return found


def check_reachable(wanted: str, url: str, model: str = "", *, timeout: float = 10.0) -> None:
    """Check that the server of `url` answers, so that no library retries for a minute.

    Parameters
    ----------
    wanted, url, model : str
        As for `unreachable`.
    timeout : float
        Seconds to wait for an answer.

    Raises
    ------
    WeightsUnavailable
        If it does not.
    """
    with contextlib.suppress(urllib.error.HTTPError):  # the server has answered
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()
        except urllib.error.HTTPError:
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: not an address
            raise unreachable(wanted, url, error, model) from error


def unreachable(wanted: str, url: str, error: Exception, model: str = "") -> WeightsUnavailable:
    """Return the error for weights that cannot be downloaded, with the file, its address and what to do.

    Parameters
    ----------
    wanted : str
        The file and the model it belongs to.
    url : str
        Its address.
    error : Exception
    model : str
        The name of the model that the file must be used with, if it matters.
    """
    reason = getattr(error, "reason", None) or first_line(error)
    name = f"--model {model} " if model else ""
    return WeightsUnavailable(
        f"expected {wanted}; it is not on this machine and {url} cannot be reached ({reason}). Download that file on "
        f"a machine with a network and pass it with {name}--weights PATH, or use --weights none for random weights"
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it is empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
