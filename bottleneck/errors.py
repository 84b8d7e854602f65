"""The exceptions and the warning of bottleneck.

::

    BottleneckError
    ├── PathError (ValueError)            an invalid path, or the home folder of an unknown user
    ├── OutputError (OSError)             an output file cannot be written
    ├── ImagesError (ValueError)          IMAGES contains nothing that the command can use
    ├── ImageError (ValueError)           one image cannot be used; has a code and, perhaps, a path
    ├── SplitError (ValueError)           invalid splits, or splits that leak
    ├── ModelError (ValueError)           no such backbone, or weights that do not fit it
    │   ├── WeightsUnavailable (OSError)  weights that are not on this machine and cannot be downloaded
    │   ├── NoMemory                      a device has too little memory for a batch
    │   └── WeightsMismatch               a checkpoint that does not fit the network
    ├── CacheError (OSError)              the cache cannot be read or written
    │   ├── ShardError (ValueError)       a damaged or hostile shard; it is moved to quarantine
    │   │   ├── DamagedShard              one whose bytes do not match its name
    │   │   └── NewerShard                one of a newer format; it is refused and not moved
    │   └── MissingFeatures (LookupError) requested features are not in the cache
    ├── RunError (ValueError)             a folder that is not a run, or a run of a newer format
    ├── HeadError (ValueError)            a head that cannot be fitted on, or used with, these features
    ├── TuningError (ValueError)          a network that cannot be fine-tuned as requested
    │   ├── UnknownModule (LookupError)   no module of the network has the requested name
    │   ├── Diverged (ArithmeticError)    training produced NaN or infinity; has the last good run
    │   └── OtherFailed                   another of several processes failed
    └── DownloadError (OSError)           a data set cannot be downloaded, or is not the expected one

    BottleneckWarning (UserWarning)       something the user should know; the work continues

Each message says what was expected, what was found and what to do next. The library raises; only the command line
prints and exits.
"""

from typing import Any


class BottleneckError(Exception):
    """Base class of all errors that bottleneck raises deliberately.

    Its text is safe to print: control characters in file names and other input are escaped.
    """

    def __str__(self) -> str:
        # KeyError-like parents would show the repr of the message.
        return printable(str(self.args[0])) if self.args else ""


class PathError(BottleneckError, ValueError):
    """A path that is invalid, or begins with the home folder of a user who does not exist."""


class OutputError(BottleneckError, OSError):
    """An output file cannot be written, or is not a regular file."""


class ImagesError(BottleneckError, ValueError):
    """IMAGES contains nothing that the command can use."""


class ImageError(BottleneckError, ValueError):
    """One image cannot be used.

    Parameters
    ----------
    code : str
        One of `CODES`.
    message : str
        What was expected and what was found.
    """

    CODES = (
        "unreadable",
        "empty",
        "not-an-image",
        "truncated",
        "corrupt",
        "too-large",
        "too-costly",
        "no-memory",
        "changed",
        "not-finite",
    )

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.doubtful = False  # whether the cause may be something other than the bytes, such as a lack of memory


class SplitError(BottleneckError, ValueError):
    """Splits that are invalid, or that leak."""


class ModelError(BottleneckError, ValueError):
    """No such backbone, or weights that do not fit it."""


class WeightsUnavailable(ModelError, OSError):
    """Weights that are not on this machine and cannot be downloaded."""


class NoMemory(ModelError):
    """A device does not have enough memory for a batch."""


class WeightsMismatch(ModelError):
    """A checkpoint that does not fit the network.

    Parameters
    ----------
    message : str
    found : bottleneck.backbones.restore.Restored
        Which tensors fit.
    """

    def __init__(self, message: str, found: Any) -> None:
        super().__init__(message)
        self.found = found


class CacheError(BottleneckError, OSError):
    """The cache cannot be read or written."""


class ShardError(CacheError, ValueError):
    """A shard that is damaged or hostile."""


class DamagedShard(ShardError):
    """A shard whose bytes do not match its name."""


class NewerShard(ShardError):
    """A shard of a newer format, which a newer bottleneck can read."""


class MissingFeatures(CacheError, LookupError):
    """Requested features are not in the cache."""


class RunError(BottleneckError, ValueError):
    """A folder that is not a run, or a run of a newer format."""


class HeadError(BottleneckError, ValueError):
    """A head that cannot be fitted to these features, or used with them."""


class TuningError(BottleneckError, ValueError):
    """A network that cannot be fine-tuned as requested."""


class UnknownModule(TuningError, LookupError):
    """No module of the network has the requested name.

    Parameters
    ----------
    message : str
    pattern : str
        The requested name.
    """

    def __init__(self, message: str, pattern: str) -> None:
        super().__init__(message)
        self.pattern = pattern


class Diverged(TuningError, ArithmeticError):
    """Training produced NaN or infinity.

    Parameters
    ----------
    message : str
    run : bottleneck.runs.run.Run
        Run of the best epoch so far.
    """

    def __init__(self, message: str, run: Any) -> None:
        super().__init__(message)
        self.run = run


class OtherFailed(TuningError):
    """Another of several training processes failed; that process reports the reason."""


class DownloadError(BottleneckError, OSError):
    """A data set that cannot be downloaded, or is not the expected one."""


class BottleneckWarning(UserWarning):
    """Something the user should know; the work continues. Its text is safe to print, like that of the errors."""

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str, keep: str = "") -> str:
    r"""Return a text with unprintable characters replaced by escapes such as ``\x1b`` or ``\u200d``.

    Bytes that are not UTF-8, which Python represents as lone surrogates, are shown as bytes: ``caf\xe9.jpg``.

    Parameters
    ----------
    text : str
    keep : str
        Characters that are not escaped, for example ``"\n"``.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()
