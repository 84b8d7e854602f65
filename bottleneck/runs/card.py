"""Parts that all runs have in common: the card, predictions, names and numbers."""

import platform
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck._version import __version__
from bottleneck.backbones.spec import Spec
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.given import names_in_table
from bottleneck.images.keys import DigestSet
from bottleneck.utils.tree import Tree

SETTINGS = "finetune.json"  # of a fine-tuning that has begun
COLUMNS = ("path", "digest", "split", "label", "predicted", "probability")  # of predictions.csv
_DATASET = 32  # characters of the dataset's name in a run's name: at most 128 of the 255 bytes of a folder's name
_LAST = 2**53  # a foreign run with a larger number would leave none for new runs
_PACKAGES = ("torch", "torchvision", "timm", "openvino", "scikit-learn", "h5py", "numpy", "pillow")


def common_card(
    kind: str, spec: Spec, classes: Sequence[str], dataset: Dataset, usable: Dataset, failures: Sequence[Failure]
) -> dict[str, Any]:
    """Return the entries that the cards of all runs have.

    Parameters
    ----------
    kind : str
        ``fit`` or ``finetune``.
    spec : Spec
        Spec of the features that the head takes.
    classes : sequence of str
    dataset : Dataset
        All images that could be read.
    usable : Dataset
        The images that were used.
    failures : sequence of Failure
        The images that could not be used.
    """
    return {
        "kind": kind,
        "bottleneck": __version__,
        "model": spec.backbone,
        "classes": list(classes),
        "dataset": dataset_card(dataset, usable),
        "failures": [vars(failure) for failure in failures],
        "spec": spec.to_json(),
        "fingerprint": spec.fingerprint,
        "versions": versions(),
    }


def dataset_card(dataset: Dataset, usable: Dataset) -> dict[str, Any]:
    """Return the part of a card about the images: all that could be read, and those that were used."""
    return {
        "source": str(dataset.source),
        "digest": usable.fingerprint(),
        "images_digest": usable.content_digest(),
        "images": len(dataset),
        "used": len(usable),
        "splits": dict(Counter(usable.splits)),
        "split_given": all(split is not None for split in dataset.given_splits),
        "shares": str(dataset.shares),
        "columns": dataset.columns.to_json(),
        "labels": dict(Counter(label for label in usable.labels if label is not None)),
    }


def run_name(source: Path, model: str, kind: str) -> str:
    """Return the name of a run without its time: dataset, backbone and head.

    Parameters
    ----------
    source : Path
        The folder of images, or a table, whose name is used without its ending.
    model : str
    kind : str
        The head, or ``finetuned``.
    """
    dataset = source.stem if source.suffix and not source.is_dir() else source.name
    short = unicodedata.normalize("NFC", dataset)[:_DATASET].strip(".-") or "images"
    return re.sub(r"[^\w.-]", "_", f"{short}-{model}-{kind}")


def prediction_rows(
    part: Dataset, dataset: Dataset, predicted: Sequence[str], probabilities: NDArray[np.float64]
) -> Iterator[tuple[object, ...]]:
    """Yield the rows of ``predictions.csv``: every path of every held-out image, as written in its table.

    Parameters
    ----------
    part : Dataset
        The held-out images, each once.
    dataset : Dataset
        All images.
    predicted : sequence of str, length m
    probabilities : ndarray of float64, shape (m, k)
    """
    names = names_in_table(dataset)
    rows = DigestSet(part.digests).find(dataset.digests).tolist()
    for path, row, digest, split, label in zip(
        dataset.paths, rows, dataset.digests, dataset.splits, dataset.labels, strict=True
    ):
        if row >= 0 and split == part.splits[row]:
            best = f"{probabilities[row].max():.6f}"
            yield names.get(path, path), digest.tobytes().hex(), split, label, predicted[row], best


def params_text(params: dict[str, Any]) -> str:
    """Return the parameters of a head as text: ``C 0.01, kernel rbf``."""
    named = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in params.items()}
    return ", ".join(f"{name} {value}" for name, value in named.items()) or "no parameters"


def number_in(value: object) -> int:
    """Return the number in a card or in the settings of a fine-tuning; 0 if an earlier version wrote them."""
    number = value.get("number") if isinstance(value, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) and 0 < number < _LAST else 0


def next_number(folder: Path) -> int:
    """Return the number of a new run, 1 more than the largest, so that the order of runs does not depend on a clock.

    Two runs that are written at once may have the same number; they are then ordered by time.
    """
    numbers, tree, names = [0], Tree(folder), list[str]()
    with suppress(OSError):
        names = tree.folders(folder)
    for name in names:
        for file in ("card.json", SETTINGS):
            with suppress(OSError, ValueError):
                numbers.append(number_in(tree.read_json(folder / name / file)))
    return 1 + max(numbers)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results."""
    found = {"python": platform.python_version(), "platform": sys.platform, "bottleneck": __version__}
    for package in _PACKAGES:
        found[package] = _version(package)
    return found


@cache
def _version(package: str) -> str:
    """Return the version of a package; reading all its metadata for it takes a millisecond."""
    return metadata.version(package)
