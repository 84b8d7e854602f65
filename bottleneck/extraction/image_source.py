"""The images of an extraction: a path, a list, a dataset, or by default those that were extracted last."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottleneck.cache.last import Remembered, load_last
from bottleneck.cache.scans import columns_of
from bottleneck.errors import ImagesError
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset
from bottleneck.images.file_index import FileIndex, index_files, index_listed
from bottleneck.images.given import Given
from bottleneck.images.listing import Images, Listing, listed
from bottleneck.images.splits import Shares
from bottleneck.utils.paths import expanded


@dataclass(frozen=True)
class ImageSource:
    """The images of an extraction: a path with the columns of its table, a list, or a dataset."""

    images: "str | os.PathLike[str] | Listing | Dataset | Given"
    labels: bool
    columns: Columns

    @classmethod
    def of(
        cls, images: Images | Listing | Given | None, cache: Path, *, labels: bool, columns: Columns
    ) -> "ImageSource":
        """Return the source; by default the images that were extracted last, with the columns that were named then."""
        if images is None:
            last = load_last(cache)
            images, labels = (last.source, labels and last.labels) if last else (".", labels)
        if isinstance(images, Listing | Dataset | Given):
            return cls(images, labels, columns)
        if not isinstance(images, str | os.PathLike):
            raise ImagesError(f"expected a path, a table or a dataset, got {type(images).__name__}")
        return cls(images, labels, columns or columns_of(cache, expanded(images)))

    @property
    def source(self) -> "str | os.PathLike[str]":
        """The path or name of the images."""
        return self.images.source if isinstance(self.images, Listing | Dataset | Given) else expanded(self.images)

    def index(self, cache: Path, runs: Path) -> FileIndex:
        """Return the index of the images, with the digests known from the cache."""
        if isinstance(self.images, Dataset):
            return FileIndex.of(self.images)
        if isinstance(self.images, Given):
            return self.images.index(cache)
        if isinstance(self.images, Listing):
            return index_listed(self.images, shares=Shares(), cache=cache)
        return index_files(
            self.images, labels=self.labels, shares=Shares(), cache=cache, exclude=(runs,), columns=self.columns
        )


def listing_of(
    cache: Path, images: Images | None, lists: Mapping[str, Any], columns: Columns, *, remember: bool
) -> Listing | None:
    """Return the images that are listed in memory; if the lists are invalid, record a failed extraction."""
    try:
        return listed(images, **lists, columns=columns, cache=cache)
    except ImagesError:
        with remembered(cache, "a list of images", labels=False, remember=remember):
            raise


def remembered(
    cache: Path, source: str | os.PathLike[str], *, labels: bool, remember: bool
) -> AbstractContextManager[Remembered | None]:
    """Remember the images for the current folder if `remember`; see `bottleneck.cache.last.Remembered`."""
    return Remembered(cache, source, labels) if remember else nullcontext()
