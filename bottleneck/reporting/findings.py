"""The findings of an audit of the images of a run, for a page."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottleneck.auditing.audit import audit
from bottleneck.auditing.findings import KINDS
from bottleneck.auditing.result import Audit
from bottleneck.backbones.spec import Spec
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.errors import BottleneckError, MissingFeatures
from bottleneck.extraction.thumbnails import remembered_thumbnails
from bottleneck.images.dataset import Dataset
from bottleneck.images.scan import Progress

if TYPE_CHECKING:
    from bottleneck.reporting.located import LocatedImages
    from bottleneck.runs.run import Run

DECODED = 5_000  # pictures that are decoded only to look for bad ones; of more, the memo must have them
_HEADINGS = {
    "label error": ("Probable label errors", "A head that never saw these images prefers another label."),
    "exact duplicate": ("Exact duplicates", "Files with the same bytes."),
    "near duplicate": ("Near copies", "Pictures that are almost the same as another one."),
    "outlier": ("Outliers", "Pictures that are far from all others."),
    "bad picture": ("Bad pictures", "Pictures that are too dark, too bright, of one colour, or tiny."),
}
"""The heading and the explanation of each kind of finding."""


@dataclass(frozen=True)
class AuditOfRun:
    """An audit of the images of a run, or why there is none.

    Parameters
    ----------
    found : Audit or None
    remark : str
        Why there is none; empty if there is one.
    """

    found: Audit | None
    remark: str = ""


def audit_of(
    run: "Run",
    located: "LocatedImages",
    *,
    cache: Path,
    runs: Path,
    progress: Progress | None,
    search: Callable[..., Audit] = audit,
) -> AuditOfRun:
    """Audit the images of a run without training heads again.

    The features before a fine-tuning are used, which do not hide errors in the labels that it was trained on.

    Parameters
    ----------
    run : Run
    located : LocatedImages
    cache, runs : Path
    progress : callable, optional
    search : callable
        `bottleneck.auditing.audit.audit`, or one in its place.
    """
    if located.dataset is None:
        return AuditOfRun(None, "The images were not audited, because they were not found.")
    try:
        subject = _subject(run, located.dataset, cache)
        pictures = _decodes(located.dataset, cache)
        return AuditOfRun(search(**subject, cache=cache, runs=runs, pictures=pictures, refit=False, progress=progress))
    except MissingFeatures:
        return AuditOfRun(None, "The images were not audited, because features of some are not in the cache.")
    except (BottleneckError, KeyError, MemoryError):
        return AuditOfRun(None, "The images could not be audited: `bottleneck audit` says why.")


def heading_of(kind: str) -> tuple[str, str]:
    """Return the heading of a kind of finding, and what it means."""
    return _HEADINGS[kind]


def clean_kinds(found: Audit) -> list[str]:
    """Return the kinds that were searched for, and of which there is none."""
    skipped = {"label error": not found.has_labels, "bad picture": not found.has_pictures}
    if found.near_threshold is None and found.thumbnail_threshold is None:
        skipped["near duplicate"] = True
    return [_HEADINGS[kind][0].lower() for kind in KINDS if not skipped.get(kind) and not found.of_kind(kind)]


def _subject(run: "Run", dataset: Dataset, cache: Path) -> dict[str, Any]:
    """Return the arguments that name the images and features."""
    if not run.is_tuned:
        return {"images": dataset, "run": run}
    spec = Spec.from_json(run.card["from"]["features"])
    return {"images": dataset, "model": FeatureCache(cache).store(spec).short_name}


def _decodes(dataset: Dataset, cache: Path) -> bool:
    return len(dataset) <= DECODED or bool(remembered_thumbnails(dataset, FeatureCache(cache).root).known.all())
