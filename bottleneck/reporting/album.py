"""The pictures of a page: small JPEGs in its text, each there once however often it is shown."""

import base64
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bottleneck.charts.markup import Markup
from bottleneck.errors import ImageError
from bottleneck.extraction.loading import Loader
from bottleneck.extraction.memory import MemoryBudget, usual_memory
from bottleneck.images.decode import Decoded
from bottleneck.images.scan import Progress
from bottleneck.images.small_picture import as_jpeg, fitted, without_border

SIDE = 160  # pixels of the longer side
MOST_BYTES = 8_000_000  # of all pictures as text, so that a page stays below 10 MB
STAGE = "thumbnails"
_QUALITY = 75
_BATCH = 64  # pictures that are decoded at once


@dataclass(frozen=True)
class SmallPicture:
    """A small version of a picture in a page.

    Parameters
    ----------
    number : int
        Its rule in `stylesheet` is that of the class ``p<number>``.
    width, height : int
        In pixels.
    data : str
        The JPEG in Base64.
    """

    number: int
    width: int
    height: int
    data: str


class Album:
    """The pictures that a page shows, at most a given number.

    Parameters
    ----------
    most : int
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._wanted: dict[str, None] = {}
        self._found: dict[str, SmallPicture | str] = {}

    @property
    def wanted(self) -> tuple[str, ...]:
        """The hexadecimal digests of the pictures, the most important first."""
        return tuple(self._wanted)

    @property
    def pictures(self) -> list[SmallPicture]:
        """The pictures that could be made."""
        return [one for one in self._found.values() if isinstance(one, SmallPicture)]

    def reserve(self, digests: Iterable[str]) -> None:
        """Reserve places for pictures, as long as there are any."""
        for digest in digests:
            if len(self._wanted) < self.most:
                self._wanted.setdefault(digest)

    def has(self, digest: str) -> bool:
        """Return whether there is a place for a picture."""
        return digest in self._wanted

    def picture(self, digest: str) -> SmallPicture | str:
        """Return a picture, or why there is none."""
        return self._found.get(digest, "")

    def develop(self, paths: Callable[[str], list[str]], progress: Progress | None = None) -> None:
        """Make all pictures that have a place.

        Parameters
        ----------
        paths : callable
            Returns the paths of an image, given its digest; those whose bytes have changed are passed over.
        progress : callable, optional
            As for `bottleneck.scan`.
        """
        loader = Loader(MemoryBudget(usual_memory()), fitted(SIDE))
        left, wanted = MOST_BYTES, self.wanted
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for start in range(0, len(wanted), _BATCH):
                some = wanted[start : start + _BATCH]
                made = pool.map(lambda digest: _made(loader, digest, paths(digest)), some)
                for place, (digest, one) in enumerate(zip(some, made, strict=True), start):
                    left -= 0 if isinstance(one, str) else len(one.data)
                    picture = one if isinstance(one, str) or left >= 0 else "left out, to keep this page small"
                    self._found[digest] = picture if isinstance(picture, str) else _numbered(picture, place)
                if progress:
                    progress(STAGE, start + len(some), len(wanted))

    def stylesheet(self) -> Markup:
        """Return the rules that show the pictures: data of a rule is in a page once, however often it applies."""
        rules = (f".p{one.number}{{background-image:url(data:image/jpeg;base64,{one.data})}}" for one in self.pictures)
        return Markup("\n".join(rules))


def _made(loader: Loader, digest: str, paths: list[str]) -> SmallPicture | str:
    """Return a picture, from the first of its paths that has its bytes, or why there is none."""
    key, problem = bytes.fromhex(digest), "missing: the file was deleted or has changed"
    for path in paths:
        try:
            found = loader.load(path, lambda read: read == key).found
        except ImageError as error:
            problem = "missing: the file cannot be read" if error.code == "unreadable" else f"missing: {error.code}"
            continue
        if isinstance(found, Decoded):
            pixels = without_border(found, SIDE)
            height, width = pixels.shape[:2]
            return SmallPicture(0, width, height, base64.b64encode(as_jpeg(pixels, _QUALITY, optimize=True)).decode())
        problem = f"missing: {found.code}" if found else "missing: the file has changed"
    return problem


def _numbered(picture: SmallPicture, number: int) -> SmallPicture:
    return SmallPicture(number, picture.width, picture.height, picture.data)


def in_turn(groups: Iterable[list[str]], most: int) -> Iterator[str]:
    """Yield the first of each group, then the second of each, and so on: at most `most` of each."""
    lists = list(groups)
    for place in range(most):
        for group in lists:
            if place < len(group):
                yield group[place]
