"""What torchvision and timm download, and keep on this machine: its hashes, and what to say when it is out of reach."""

import contextlib
import http.client
import re
import urllib.error
import urllib.request
from pathlib import Path

from bottleneck.errors import ModelError, WeightsUnavailable
from bottleneck.files import file_sha256

HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")  # of torch.hub: the first digits of the SHA-256
_PATIENCE = 10.0  # seconds


def check_kept(file: Path, wanted: str) -> None:
    """Check the hash of a file that an earlier download has left: its makers look at it only when they fetch it.

    Parameters
    ----------
    file : Path
        Nothing is done where there is none.
    wanted : str
        The first digits of its SHA-256, hexadecimal.

    Raises
    ------
    ModelError
        If the file has another hash.
    """
    if file.is_file() and not file_sha256(file).startswith(wanted):
        raise ModelError(f"expected weights whose SHA-256 begins with {wanted} in {file}, found others: delete it")


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
