"""Where the images of a run are now, found by digest; and what they are called on a page."""

import os
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.errors import BottleneckError
from bottleneck.fitting.inputs import ImageQuery
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset
from bottleneck.images.naming import from_images
from bottleneck.images.scan import Progress
from bottleneck.images.splits import Shares
from bottleneck.runs.backbone_request import located_source
from bottleneck.runs.run import Run

_PARTS = 2  # of the path of an image outside of the dataset's folder; the rest may be private


@dataclass(frozen=True)
class LocatedImages:
    """The images of a run on this machine.

    Parameters
    ----------
    source : Path
        The folder or table.
    dataset : Dataset or None
        None if the images cannot be found.
    names : dict of str to str
        By hexadecimal digest, names of images that are no longer in the dataset.
    """

    source: Path
    dataset: Dataset | None
    names: dict[str, str] = field(default_factory=dict)

    def paths(self, digest: str) -> list[str]:
        """Return the paths of an image, given its hexadecimal digest."""
        return [self._paths[row] for row in self._rows_of.get(digest, ())]

    def label(self, digest: str) -> str | None:
        """Return the label of an image; None if it has none, or is unknown."""
        rows = self._rows_of.get(digest)
        return self.dataset.labels[rows[0]] if rows and self.dataset else None

    def digest(self, path: str) -> str | None:
        """Return the digest of the image at a path, which another command may have recorded in another folder."""
        parts, home = PurePath(os.path.abspath(path)).parts, self.source.name
        below = (place + 1 for place, part in enumerate(parts[:-1]) if part == home)  # the folder may have moved
        named = (PurePath(*parts[start:]).as_posix() for start in (0, *below))
        return next((self._digest_of[name] for name in named if name in self._digest_of), None)

    def name(self, digest: str) -> str:
        """Return the path of an image relative to the dataset's folder, for a page that others may read."""
        paths = self.paths(digest)
        return self.shown(paths[0]) if paths else self.names.get(digest, digest[:12])

    def shown(self, path: str) -> str:
        """Return a path relative to the dataset's folder; of one elsewhere, its last two parts."""
        found = from_images(path, self.source)
        is_inside = found != path and not os.path.isabs(found) and ".." not in PurePath(found).parts
        return found if is_inside else last_parts(path)

    @property
    def _paths(self) -> tuple[str, ...]:
        return self.dataset.paths if self.dataset else ()

    @cached_property
    def _rows_of(self) -> dict[str, list[int]]:
        found: defaultdict[str, list[int]] = defaultdict(list)
        for row, digest in enumerate(self.dataset.digests if self.dataset else ()):
            found[digest.tobytes().hex()].append(row)
        return dict(found)

    @cached_property
    def _digest_of(self) -> dict[str, str]:
        """The digest of each path, relative to the dataset's folder and absolute."""
        found = {}
        for digest, rows in self._rows_of.items():
            for row in rows:
                full = os.path.abspath(self._paths[row])
                for name in (full, from_images(full, self.source)):
                    found[PurePath(name).as_posix()] = digest
        return found


def locate(run: Run, cache: Path, runs: Path, progress: Progress | None = None) -> LocatedImages:
    """Find the images of a run, also if they have moved with it, or only the cache still knows them."""
    names = {row["digest"]: last_parts(row["path"]) for row in run.predictions}
    described = run.card["dataset"]
    try:
        source = located_source(run.path, run.card)
        query = ImageQuery(
            images=source,
            cache=FeatureCache(cache),
            runs=runs,
            labels=True,
            shares=Shares.parse(described["shares"]) if "shares" in described else None,
            columns=Columns.from_json(described.get("columns", {})) or None,
            progress=progress,
        )
        return LocatedImages(source, query.find(), names)
    except (BottleneckError, OSError):
        return LocatedImages(Path(described.get("source", "images")), None, names)


def last_parts(path: str) -> str:
    """Return the end of a path, which names an image without the folders above."""
    return os.path.join(*PurePath(path).parts[-_PARTS:])
