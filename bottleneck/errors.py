"""What can go wrong, as one family of exceptions.

::

    BottleneckError
    ├── PathError (ValueError)            a path that begins with the home of a user who does not exist
    ├── OutputError (OSError)             a file that a user names for results cannot be written
    ├── ImagesError (ValueError)          IMAGES holds nothing that the command can use
    ├── ImageError (ValueError)           one image cannot be used; has a code and, perhaps, a path
    ├── SplitError (ValueError)           splits that cannot be made, or that leak
    ├── ModelError (ValueError)           no such backbone, or weights that do not fit it
    │   ├── WeightsUnavailable (OSError)  weights that are not on this machine and cannot be fetched
    │   └── WeightsMismatch               a checkpoint that does not fit the network; knows what goes where
    ├── CacheError (OSError)              the cache cannot be read or written
    │   ├── ShardError (ValueError)       a shard that is damaged or hostile: it is moved to quarantine
    │   │   ├── DamagedShard              one whose bytes do not match its name
    │   │   └── NewerShard                one of a newer format: it is refused and left where it is
    │   └── MissingFeatures (LookupError) features that were asked for are not in the cache
    ├── RunError (ValueError)             a folder that is no run, or one of a newer format
    ├── HeadError (ValueError)            a head that cannot be fitted on, or used with, these features
    ├── TuningError (ValueError)          a network that cannot be fine-tuned as asked
    │   ├── UnknownModule (LookupError)   no part of the network has the name that was to be trained
    │   ├── Diverged (ArithmeticError)    training gave NaN or infinity; knows the last good state
    │   └── OtherFailed                   of several processes another cannot go on
    └── DownloadError (OSError)           a data set that could not be fetched or is not what was expected

    BottleneckWarning (UserWarning)       work goes on, and the user should know

Each message says what was expected, what was found and what to do next. The library raises; only the command line
prints and exits.
"""

from typing import Any


class BottleneckError(Exception):
    """Base of every error that bottleneck raises on purpose.

    Its text is safe to print: what a name from outside would do to a terminal is escaped.
    """

    def __str__(self) -> str:
        # KeyError-like parents would show the repr of the message.
        return printable(str(self.args[0])) if self.args else ""


class PathError(BottleneckError, ValueError):
    """A path that begins with the home of a user who does not exist, or that is no path at all."""


class OutputError(BottleneckError, OSError):
    """A file that a user names for results cannot be written, or is none."""


class ImagesError(BottleneckError, ValueError):
    """IMAGES holds nothing that the command can use."""


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
    FINAL = (  # as long as the bytes stay the same
        "empty",
        "not-an-image",
        "truncated",
        "corrupt",
        "too-large",
        "too-costly",
    )

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.doubtful = False  # whether something else than the bytes may be the reason, such as a lack of memory


class SplitError(BottleneckError, ValueError):
    """Splits that cannot be made, or that leak."""


class ModelError(BottleneckError, ValueError):
    """No such backbone, or weights that do not fit it."""


class WeightsUnavailable(ModelError, OSError):
    """Weights that are not on this machine and cannot be fetched."""


class NoMemory(ModelError):
    """A device has no memory for so many images at once."""


class WeightsMismatch(ModelError):
    """A checkpoint that does not fit the network.

    Parameters
    ----------
    message : str
    found : bottleneck.backbones.restore.Restored
        What of it goes where.
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
    """Features that were asked for are not in the cache."""


class RunError(BottleneckError, ValueError):
    """A folder that is no run, or one of a newer format."""


class HeadError(BottleneckError, ValueError):
    """A head that cannot be fitted on, or used with, these features."""


class TuningError(BottleneckError, ValueError):
    """A network that cannot be fine-tuned as asked."""


class UnknownModule(TuningError, LookupError):
    """No part of the network has the name that was to be trained.

    Parameters
    ----------
    message : str
    pattern : str
        The name.
    """

    def __init__(self, message: str, pattern: str) -> None:
        super().__init__(message)
        self.pattern = pattern


class Diverged(TuningError, ArithmeticError):
    """Training gave NaN or infinity.

    Parameters
    ----------
    message : str
    run : bottleneck.runs.run.Run
        Of the best epoch before.
    """

    def __init__(self, message: str, run: Any) -> None:
        super().__init__(message)
        self.run = run


class OtherFailed(TuningError):
    """Of several processes that train together another cannot go on; it is the one that says why."""


class DownloadError(BottleneckError, OSError):
    """A data set that could not be fetched or is not what was expected."""


class BottleneckWarning(UserWarning):
    """Work goes on, and the user should know. Its text is safe to print, as that of an error is."""

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str, keep: str = "") -> str:
    r"""Return a text for a screen: characters that are not printable become escapes such as ``\x1b`` or ``\u200d``.

    Bytes that are no UTF-8, which Python keeps as lone surrogates, are shown as what they are: ``caf\xe9.jpg``.

    Parameters
    ----------
    text : str
    keep : str
        Characters that stay, ``"\n"`` for instance.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()
