"""The images of an extraction, its limits, and the outcome of each image so far."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bottleneck.errors import ImageError, ImagesError
from bottleneck.extraction.collaborators import Collaborators
from bottleneck.extraction.memory import LEAST_MEMORY, usual_memory
from bottleneck.images.decode import MAX_PIXELS
from bottleneck.images.file_index import FileIndex
from bottleneck.images.scan import Progress
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.memory import free_memory


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The threads, pixels and memory that reading and decoding may take.

    Parameters
    ----------
    threads : int, optional
        Threads that decode; by default one for each core.
    max_pixels : int
        Larger images are rejected.
    memory : int, optional
        Bytes for files, pixels and features together, at least `LEAST_MEMORY`; by default `usual_memory`.

    Raises
    ------
    ImagesError
        If a number is out of range.
    """

    threads: int | None = None
    max_pixels: int = MAX_PIXELS
    memory: int | None = None

    def __post_init__(self) -> None:
        check = Arguments(ImagesError)
        memory = check.optional(check.whole, "--memory", self.memory, least=LEAST_MEMORY)
        object.__setattr__(self, "memory", memory)
        object.__setattr__(self, "threads", check.optional(check.whole, "--threads", self.threads, least=1))
        object.__setattr__(self, "max_pixels", check.whole("--max-pixels", self.max_pixels, least=1))

    def divided(self, processes: int, free_memory: Callable[[], int] = free_memory) -> "Limits":
        """Return the limits of each of several processes on this machine, which share the memory."""
        each = usual_memory(processes, free_memory) if self.memory is None else self.memory // processes
        return replace(self, memory=max(LEAST_MEMORY, each))


@dataclass(frozen=True, kw_only=True)
class ExtractionJob:
    """The images of an extraction, and how they are read.

    Parameters
    ----------
    images : FileIndex
        The digests of the files that are read are added to it.
    limits : Limits
    undecodable : dict of bytes to ImageError
        Digests of images that are known not to decode; they are not tried again.
    share : (int, int)
        ``(i, n)``: this is process i, from 0, of n processes that divide the images.
    progress : callable, optional
        See `bottleneck.extract`.
    collaborators : Collaborators
    """

    images: FileIndex
    limits: Limits = field(default_factory=Limits)
    undecodable: dict[bytes, ImageError] = field(default_factory=dict)
    share: tuple[int, int] = (0, 1)
    progress: Progress | None = None
    collaborators: Collaborators = field(default_factory=Collaborators)

    def divided(self, number: int, count: int) -> "ExtractionJob":
        """Return the job of process `number`, from 0, of several that share the images and the memory."""
        return replace(self, limits=self.limits.divided(count), share=(number, count))


@dataclass
class Outcomes:
    """The outcomes of the images so far, by digest.

    Parameters
    ----------
    computed : set of bytes
        Images whose features were computed.
    undecodable : dict of bytes to ImageError
        Images that cannot be decoded.
    unread : dict of bytes to ImageError
        Images with a known digest whose files could not be read.
    notes : dict of bytes to str
        Remarks on images that were used.
    """

    computed: set[bytes] = field(default_factory=set)
    undecodable: dict[bytes, ImageError] = field(default_factory=dict)
    unread: dict[bytes, ImageError] = field(default_factory=dict)
    notes: dict[bytes, str] = field(default_factory=dict)
