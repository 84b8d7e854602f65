"""Prepare the images of the demo, and select example predictions of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bottleneck.demo.digits import write_digits
from bottleneck.demo.download import ARCHIVES, Archive, fetch_images, placing
from bottleneck.images.scan import Progress
from bottleneck.runs.run import Run

DATASETS = ("digits", *ARCHIVES)


@dataclass(frozen=True)
class Example:
    """One held-out image and the prediction of the best head."""

    path: str
    label: str
    predicted: str
    probability: float


def prepare(
    dataset: str, folder: Path, progress: Progress | None = None, *, archives: Mapping[str, Archive] = ARCHIVES
) -> Path:
    """Put the images of `dataset`, one of `DATASETS`, into `folder`, and return their folder.

    Raises
    ------
    DownloadError
        If they cannot be downloaded, or a link is in their place.
    """
    if dataset == "digits":
        with placing(folder):
            return write_digits(folder / "digits")
    return fetch_images(archives[dataset], folder, progress)


def examples(run: Run, count: int) -> list[Example]:
    """Return `count` evenly spaced held-out images of a run, and one misclassified image, if any."""
    rows = [Example(row["path"], row["label"], row["predicted"], float(row["probability"])) for row in run.predictions]
    chosen = rows[:: max(1, len(rows) // count)][:count]
    wrong = [row for row in rows if row.label != row.predicted and row not in chosen]
    return chosen + wrong[:1]
