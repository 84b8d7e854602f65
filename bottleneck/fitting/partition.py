"""The training split and the held-out split of labelled images, with their features."""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from bottleneck.cache.store import Store
from bottleneck.errors import HeadError, ImagesError, SplitError
from bottleneck.evaluation.near_duplicates import NearDuplicates, find_near_duplicates
from bottleneck.evaluation.perceptual_hash import Hashes, hashes_of
from bottleneck.extraction.thumbnails import remembered_thumbnails
from bottleneck.heads.family import Family
from bottleneck.heads.features import FeatureTable, InMemoryFeatures, StreamedFeatures
from bottleneck.images.dataset import Dataset
from bottleneck.images.keys import DigestSet
from bottleneck.images.naming import examples
from bottleneck.images.thumbnail_memo import NAME
from bottleneck.utils.memory import allowed
from bottleneck.utils.warn import warn

_COPIES = 3  # of the features in float32: as read, scaled, and a working copy


@dataclass(frozen=True)
class LabelledFeatures:
    """The images of one split with their features, each image once.

    They are in the order of their digests, so that the order of the paths has no effect on results.

    Parameters
    ----------
    dataset : Dataset
    table : FeatureTable
        Row i contains the features of image i.
    """

    dataset: Dataset
    table: FeatureTable

    @property
    def labels(self) -> list[str]:
        """The label of each image."""
        return [label for label in self.dataset.labels if label is not None]

    def __len__(self) -> int:
        return len(self.dataset)


def check_labels(dataset: Dataset) -> None:
    """Check that images have labels.

    Raises
    ------
    ImagesError
        If there are no labels.
    """
    if not dataset.labelled:
        raise ImagesError(
            f"expected labels for the images of {dataset.source}, found none: give each class its own folder, or "
            f"list the images in a CSV with columns path,label, or name other IMAGES"
        )


def held_out(dataset: Dataset) -> str:
    """Return the held-out split: ``test`` if there is one, else ``val``.

    Raises
    ------
    SplitError
        If there is neither, or no training image.
    """
    counts = Counter(dataset.splits)
    for split in ("test", "val"):
        if counts["train"] and counts[split]:
            return split
    raise SplitError(
        f"expected images to train on and images to hold out, found {dict(counts)}. Give more images, other shares "
        f"(for example --split 60/0/40), or folders train/ and val/"
    )


def part(dataset: Dataset, store: Store, split: str, *, memory: int | None = None) -> LabelledFeatures:
    """Return the images of a split with their features: in memory, or streamed from the cache if they do not fit.

    Parameters
    ----------
    dataset : Dataset
    store : Store
    split : str
    memory : int, optional
        Bytes that features and their copies may take; by default half of the free memory.
    """
    own = dataset.subset(row for row, found in enumerate(dataset.splits) if found == split)
    return part_of(once(own), store, memory=memory)


def part_of(images: Dataset, store: Store, *, memory: int | None = None) -> LabelledFeatures:
    """Return images, each of which occurs once (see `once`), with their features, as `part` does."""
    if _bytes(len(images), store.dim()) <= allowed(memory):
        return LabelledFeatures(images, InMemoryFeatures(store.read(images.digests)))
    return LabelledFeatures(images, StreamedFeatures(store.stream(images.digests)))


def once(dataset: Dataset) -> Dataset:
    """Return each image once, in the order of digests; an image of several groups stays in the first by name."""
    rows: list[int] = DigestSet(dataset.digests).sorted_rows.tolist()
    if len(rows) < len(dataset):
        named = sorted(range(len(dataset)), key=lambda row: (dataset.groups[row] or "", dataset.paths[row]))
        rows = [named[place] for place in DigestSet(dataset.digests[named]).sorted_rows.tolist()]
    return dataset.subset(rows)


def check_memory(train: LabelledFeatures, family: Family, memory: int | None = None, *, more: int = 0) -> None:
    """Warn if features do not fit in memory; reject a head that needs them in memory.

    Parameters
    ----------
    train : LabelledFeatures
    family : Family
    memory : int, optional
        As for `part`.
    more : int
        The number of images of a final head that are not in `train`.

    Raises
    ------
    HeadError
        If the head needs all features in memory, and they do not fit.
    """
    n, d = len(train) + more, train.table.shape[1]
    if isinstance(train.table, InMemoryFeatures) and not (more and _bytes(n, d) > allowed(memory)):
        if family.working_bytes(n) > allowed(memory):
            raise HeadError(
                f"the distances between {n:,} images take {family.working_bytes(n) / 1e9:.1f} GB, more than "
                f"may be used: use a linear kernel, or allow more with --memory"
            )
        return
    size = f"the features of {n:,} images take {_bytes(n, d) / 1e6:,.0f} MB with their copies, more than may be used"
    if not family.streams:
        raise HeadError(
            f"{size}, and {family.title} needs them all at once: use logistic, svm with a linear kernel, softmax or "
            f"ridge, which read them in blocks, or allow more with --memory"
        )
    warn(f"{size}: {family.name} reads them from the cache in each pass")


def warn_of_near_duplicates(
    train: LabelledFeatures, test: LabelledFeatures, cache: Path | None = None
) -> NearDuplicates:
    """Return the held-out images with a near duplicate in the training split, and warn if there are any.

    Streamed features are not searched, because every held-out image is compared with every training image.

    Parameters
    ----------
    train, test : LabelledFeatures
    cache : Path, optional
        A cache whose thumbnails are compared, too, as far as it has them; no image is decoded.
    """
    if not isinstance(train.table, InMemoryFeatures) or not isinstance(test.table, InMemoryFeatures):
        return NearDuplicates((), None)
    hashes = None if cache is None else _hashes(train.dataset, test.dataset, cache)
    near = find_near_duplicates(train.dataset, train.table.features, test.dataset, test.table.features, hashes)
    if message := near.message(train.dataset.source):
        warn(message)
    return near


def _hashes(train: Dataset, test: Dataset, cache: Path) -> tuple[Hashes, Hashes] | None:
    """Return the perceptual hashes of the images that have a thumbnail in the cache; None if it has none."""
    if not (cache / NAME).exists():
        return None
    parts = [remembered_thumbnails(dataset, cache) for dataset in (train, test)]
    first, second = (hashes_of(part.pixels, part.known) for part in parts)
    return first, second


def warn_of_classes(train: LabelledFeatures, test: LabelledFeatures, split: str) -> None:
    """Warn of classes that cannot be trained, cross-validated or tested."""
    for message in _problems(train, test, split):
        warn(message)


def _problems(train: LabelledFeatures, test: LabelledFeatures, split: str) -> Iterator[str]:
    tested = sorted(set(test.labels))
    missing = sorted(set(train.labels) - set(tested))
    unknown = sorted(set(tested) - set(train.labels))
    single = sorted(name for name, count in Counter(train.labels).items() if count == 1)
    if single:
        yield f"only one training image of {examples(single)}: {_pronoun(single)} cannot be cross-validated"
    if missing and len(tested) == 1:
        more = f"give {split} images of more classes" if None not in test.dataset.given_splits else "--split 60/0/40"
        yield (
            f"the {split} images are all of {examples(tested)}: held-out scores do not show how well classes are "
            f"separated; {more} may help"
        )
    elif missing:
        yield f"no {split} image of {examples(missing)}: held-out scores do not cover {_pronoun(missing, 'it', 'them')}"
    if unknown:
        its = _pronoun(unknown, "its", "their")
        yield f"no training image of {examples(unknown)}: {its} {split} images cannot be classified correctly"


def _pronoun(names: Collection[str], one: str = "it", several: str = "they") -> str:
    return one if len(names) == 1 else several


def _bytes(n: int, d: int) -> int:
    return 4 * n * d * _COPIES
