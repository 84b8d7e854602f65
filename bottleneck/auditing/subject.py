"""What is audited: the images of a run, or of a dataset, each once, with the store of their features."""

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.auditing.selection import Selected
from bottleneck.backbones.tuned import recorded_tuned
from bottleneck.cache.store import Store
from bottleneck.evaluation.leakage import one_label
from bottleneck.fitting.inputs import CachedImages, select
from bottleneck.fitting.partition import once
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, two_labels
from bottleneck.images.scan import Progress
from bottleneck.images.splits import Shares
from bottleneck.prediction.predict import run_for
from bottleneck.runs.backbone_request import located_source, spec_of
from bottleneck.runs.run import Run

HEADS = ("logistic", "svm", "softmax", "ridge")  # whose out-of-fold probabilities may be used
_HEAD = "logistic"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The images of an audit.

    Parameters
    ----------
    cached : CachedImages
    images : Dataset
        The usable images of all splits, each once, in the order of their digests.
    ambiguous : ndarray of bool, shape (n,)
        Whether each of `images` has more than one label.
    head : str
        One of `HEADS`.
    selected : Selected or None
        The hyperparameters of a run; None if they are searched.
    remarks : tuple of str
    """

    cached: CachedImages
    images: Dataset
    ambiguous: NDArray[np.bool_]
    head: str
    selected: Selected | None
    remarks: tuple[str, ...]


def subject_of(
    images: "str | os.PathLike[str] | Dataset | None",
    *,
    run: "str | os.PathLike[str] | Run | None",
    model: str | None,
    head: str | None,
    cache: str | os.PathLike[str],
    runs: str | os.PathLike[str],
    labels: bool | None = None,
    columns: Columns,
    progress: Progress | None,
) -> Subject:
    """Return the images that a user names, by default those of the run, or those that were last extracted.

    Raises
    ------
    RunError
        If there is no such run, or it does not record its images.
    ImagesError, CacheError, MissingFeatures
        See `bottleneck.fitting.inputs.select`.
    """
    chosen, named = None if run is None else run_for(run, runs).run, model is not None
    shares = None
    if chosen is not None:
        card = chosen.card
        images = located_source(chosen.path, card) if images is None else images
        model = model or f"{spec_of(card).backbone.replace('/', '_')}-{card['fingerprint'][:8]}"
        shares = Shares.parse(card["dataset"]["shares"]) if "shares" in card["dataset"] else None
    cached = select(
        images, model=model, cache=cache, runs=runs, labels=labels, shares=shares, columns=columns, progress=progress
    )
    own = _head_of(chosen) if head is None and not named else None
    images_once, ambiguous = once(cached.usable), two_labels(cached.usable)
    return Subject(
        cached=cached,
        images=images_once,
        ambiguous=np.array([digest.tobytes() in ambiguous for digest in images_once.digests], np.bool_),
        head=head or (own[0] if own else _HEAD),
        selected=own[1] if own else None,
        remarks=(*_remarks(cached.store), *(_run_remarks(chosen, cached, own, head) if chosen else ())),
    )


def _head_of(run: Run | None) -> tuple[str, Selected] | None:
    """Return the family of a run's head with its hyperparameters, if an audit can use it."""
    if run is None or run.is_tuned or run.card.get("head") not in HEADS or run.card["params"].get("kernel"):
        return None
    card = run.card
    names = {name: value for name, value in card["params"].items() if name in card["search"]["points"][0]}
    return card["head"], Selected(names, card["normalize"])


def _remarks(store: Store) -> list[str]:
    if recorded_tuned(store.folder) is None:
        return []
    return [
        f"{store.short_name} are features of a network that was fine-tuned on labels: they hide errors in the labels "
        f"that it was trained on. Audit features of the original network, too"
    ]


def _run_remarks(run: Run, cached: CachedImages, own: tuple[str, Selected] | None, head: str | None) -> list[str]:
    """Return in what an audit differs from the run that was named."""
    remarks = []
    if own is None and head is None:
        remarks.append(f"{_HEAD} is used, because an audit cannot use the head of {run.name}")
    if one_label(cached.usable).fingerprint() != run.card["dataset"]["digest"]:
        remarks.append(
            f"the images, labels or splits of {cached.dataset.source} have changed since {run.name} was fitted"
        )
    return remarks
