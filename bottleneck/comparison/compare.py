"""Compare models and heads on the same images, splits and folds, and test which differences are real."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.store import Store
from bottleneck.comparison.leaderboard import Comparison
from bottleneck.comparison.leaderboard_row import LEVEL, LeaderboardRow
from bottleneck.comparison.sources import ComparedImages, Source, collect_features
from bottleneck.errors import HeadError
from bottleneck.evaluation.leakage import find_leaks, one_label
from bottleneck.evaluation.stats import holm, mcnemar
from bottleneck.fitting.inputs import ImageQuery
from bottleneck.fitting.partition import (
    LabelledFeatures,
    check_memory,
    held_out,
    part,
    warn_of_classes,
    warn_of_near_duplicates,
)
from bottleneck.fitting.train import Trained, score_head, score_on_tuned, train_head
from bottleneck.heads.family import NAMES
from bottleneck.heads.features import NormalizeOption
from bottleneck.heads.learning_curve import Curve
from bottleneck.heads.learning_curve import learning_curve as draw_curve
from bottleneck.heads.options import HeadOptions, values_of
from bottleneck.heads.selection import DEFAULT
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, as_images
from bottleneck.images.scan import Progress
from bottleneck.images.splits import Shares
from bottleneck.runs.run import Run
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.paths import expanded

HEADS = (*NAMES, "svm-rbf")
DEFAULT_HEADS = ("logistic", "svm", "softmax")


@dataclass(frozen=True, kw_only=True)
class ComparisonContext:
    """The data and options that all rows of a comparison share.

    Parameters
    ----------
    found : ComparedImages
    usable : Dataset
        The images that all models have features of and that have one label each.
    heldout : str
        The held-out split.
    heads : tuple of str
    options : HeadOptions
    memory : int, optional
        Bytes that features may take.
    progress : callable, optional
    """

    found: ComparedImages
    usable: Dataset
    heldout: str
    heads: tuple[str, ...]
    options: HeadOptions
    memory: int | None
    progress: Progress | None

    def parts(self, store: Store) -> tuple[LabelledFeatures, LabelledFeatures]:
        """Return the training split and the held-out split with the features of one model."""
        train, test = (part(self.usable, store, name, memory=self.memory) for name in ("train", self.heldout))
        return train, test


@dataclass(frozen=True)
class Candidate:
    """A row of the leaderboard before the tests, and what the tests and a learning curve need.

    Parameters
    ----------
    row : LeaderboardRow
    right : ndarray of bool, shape (m,)
        Whether it is right about each held-out image.
    classes : tuple of str
    trained : Trained or None
        The head and its search; None for a fine-tuned network, whose head was not searched.
    store : Store
        The features that it takes.
    """

    row: LeaderboardRow
    right: NDArray[np.bool_]
    classes: tuple[str, ...]
    trained: Trained | None
    store: Store


def compare(
    images: "str | os.PathLike[str] | Dataset | None" = None,
    *,
    models: str | Sequence[str] = (),
    heads: str | Sequence[str] = DEFAULT_HEADS,
    cache: str | os.PathLike[str] = "cache",
    runs: str | os.PathLike[str] = "runs",
    split: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    C: float | Sequence[float] | None = None,
    folds: int = 5,
    normalize: NormalizeOption = "auto",
    select: str = DEFAULT,
    class_weight: str | None = None,
    search: str = "fast",
    device: str = "cpu",
    memory: int | None = None,
    seed: int = 0,
    learning_curve: bool = False,
    allow_duplicates: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Train each head on the features of each model, on the same images, splits and folds.

    Parameters
    ----------
    images : path or Dataset, optional
        See `bottleneck.scan`. By default the images that were last extracted in the current folder with this cache.
    models : sequence of str
        Models, ``MODEL@WEIGHTS`` for weights other than the default (``resnet18@none``), specs, or fine-tuned runs
        (``run:NAME``, or the path of one). A fine-tuned run is one row, with its own head. Features that the cache
        lacks are extracted. By default all specs that are cached for these images.
    heads : sequence of str
        Those of `bottleneck.fit`, or ``svm-rbf``.
    cache, runs, split, C, folds, normalize, select, class_weight, search, device, seed, allow_duplicates, progress
        As for `bottleneck.fit`.
    memory : int, optional
        As for `bottleneck.fit`, and as for `bottleneck.extract` if features must be extracted.
    path_column, label_column, split_column, group_column
        As for `bottleneck.fit`.
    learning_curve : bool
        Whether the best row is also cross-validated on smaller parts of the training images.

    Returns
    -------
    Comparison

    Raises
    ------
    HeadError
        If there is no such head, or no head can be trained.
    ModelError
        If there is no such model.
    ImagesError, SplitError, CacheError
        As for `bottleneck.fit`.
    """
    check = Arguments(HeadError)
    images, runs, models = as_images(images), check.path("runs", runs), check.texts("models", models)
    split, memory = check.optional(check.text, "split", split), check.optional(check.whole, "memory", memory)
    learning_curve = check.flag("learning_curve", learning_curve)
    allow_duplicates = check.flag("allow_duplicates", allow_duplicates)
    options = HeadOptions(
        C=values_of(C),
        folds=folds,
        normalize=normalize,
        select=select,
        class_weight=class_weight,
        search=search,
        device=device,
        seed=seed,
    )
    names = _listed(check.texts("heads", heads))
    for head in names:
        _family(head, options)
    query = ImageQuery(
        images=images,
        cache=FeatureCache(cache),
        runs=expanded(runs),
        labels=True,
        shares=Shares.parse(split) if split else None,
        columns=Columns(path_column, label_column, split_column, group_column),
        progress=progress,
    )
    found = collect_features(query, _listed(models), memory=memory)
    if not allow_duplicates:
        find_leaks(found.usable).refuse()
    usable = one_label(found.usable)
    context = ComparisonContext(
        found=found,
        usable=usable,
        heldout=held_out(usable),
        heads=names,
        options=options,
        memory=memory,
        progress=progress,
    )
    return _comparison(context, learning_curve=learning_curve)


def _comparison(context: ComparisonContext, *, learning_curve: bool) -> Comparison:
    found, remarks = context.found, list[str]()
    candidates = _candidates(context, remarks)
    if not candidates:
        raise HeadError(f"expected a head that can be trained, found none: {'; '.join(remarks)}")
    train, test = context.parts(candidates[0].store)
    warn_of_classes(train, test, context.heldout)
    warn_of_near_duplicates(train, test)
    if lost := len(found.dataset) - len(found.usable):
        remarks.append(f"{lost} image{'s are' if lost > 1 else ' is'} left out: not usable with all models")
    curve = None
    if learning_curve:
        try:
            curve = _curve(candidates[0], train, context.options)
        except HeadError as error:
            remarks.append(f"no learning curve: {error}")
    return Comparison(
        rows=_tested(candidates),
        curve=curve,
        source=str(found.dataset.source),
        classes=candidates[0].classes,
        heldout=context.heldout,
        n_train=len(train),
        n_heldout=len(test),
        failures=(*found.dataset.failures, *found.failures),
        remarks=tuple(remarks),
    )


def _listed(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a sequence, each once; a single one may contain several names separated by commas."""
    parts = names[0].split(",") if len(names) == 1 else names
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _family(head: str, options: HeadOptions) -> tuple[str, HeadOptions]:
    """Return the family of a head and the options that it is trained with.

    Raises
    ------
    HeadError
        If there is no such head.
    """
    if head not in HEADS:
        raise HeadError(f"expected heads of {', '.join(HEADS)}, got {head!r}")
    return ("svm", replace(options, kernel="rbf")) if head == "svm-rbf" else (head, options)


def _candidates(context: ComparisonContext, remarks: list[str]) -> list[Candidate]:
    """Return a candidate for each model and head, the best first; report in `remarks` why others are left out."""
    found, done = [], 0
    for source in context.found.sources:
        train, test = context.parts(source.store)
        if source.run:
            found += _tuned(source, source.run, test, context, len(train) + len(test), remarks)
        for head in () if source.run else context.heads:
            try:
                found.append(_trained(source, head, train, test, context))
            except HeadError as error:
                remarks.append(f"{head} on {source.name} is left out: {error}")
            done += 1
            if context.progress:
                context.progress("train", done, len(context.found.sources) * len(context.heads))
    return sorted(found, key=lambda one: (-one.row.cv_accuracy, one.row.cv_spread is None, one.row.feature_bytes))


def _trained(
    source: Source, head: str, train: LabelledFeatures, test: LabelledFeatures, context: ComparisonContext
) -> Candidate:
    """Train a head on the features of one model.

    Raises
    ------
    HeadError
        If it cannot be trained.
    """
    family, options = _family(head, context.options)
    check_memory(train, options.family(family), context.memory)
    trained = train_head(family, options, train, test, source.store.spec.fingerprint)
    row = LeaderboardRow(
        head=head,
        params=trained.search.params,
        cv_accuracy=trained.search.accuracy,
        cv_ci95=trained.cv_ci95,
        cv_spread=trained.search.spread,
        fit_seconds=trained.seconds,
        **_measured(source, trained.metrics, len(train) + len(test)),
    )
    if (score := score_on_tuned(source.store, context.usable, row.cv_accuracy)) is not None:
        row = replace(row, cv_accuracy=score, cv_ci95=None)
    return Candidate(row, trained.right, trained.head.classes, trained, source.store)


def _tuned(
    source: Source, run: Run, test: LabelledFeatures, context: ComparisonContext, images: int, remarks: list[str]
) -> list[Candidate]:
    """Return the candidate of a fine-tuned network with its own head; an empty list if it cannot be compared."""
    if run.card["dataset"]["digest"] != context.usable.fingerprint():
        remarks.append(
            f"{source.name} is left out: it was fine-tuned on other images, labels or splits, possibly on some that "
            f"are held out here"
        )
        return []
    scored = score_head(run.head, test)
    row = LeaderboardRow(
        head=run.recorded("head"),
        params=run.recorded("params"),
        cv_accuracy=run.score,
        cv_ci95=None,
        cv_spread=None,
        fit_seconds=run.recorded("seconds"),
        **_measured(source, scored.metrics, images),
    )
    return [Candidate(row, scored.right, run.head.classes, None, source.store)]


def _measured(source: Source, metrics: dict[str, Any], images: int) -> dict[str, Any]:
    """Return the fields of a row that describe its features and its held-out scores."""
    entry = next(iter(source.store.index().entries.values()))
    low, high = metrics["accuracy_ci95"]
    return dict(
        model=source.name,
        spec=source.store.short_name,
        accuracy_ci95=(low, high),
        **{name: metrics[name] for name in ("accuracy", "resolution", "balanced_accuracy", "log_loss", "ece")},
        extracted=source.extracted,
        extract_seconds=source.seconds,
        dim=entry.dim,
        feature_bytes=images * entry.dim * np.dtype(entry.dtype).itemsize,
    )


def _tested(candidates: Sequence[Candidate]) -> tuple[LeaderboardRow, ...]:
    """Return the rows, each tested against the first on the same held-out images."""
    best, *others = candidates
    tests = [mcnemar(best.right, other.right) for other in others]
    rows = [best.row]
    for other, test, p_value in zip(others, tests, holm([test["p_value"] for test in tests]), strict=True):
        verdict = "not told apart"
        if p_value < LEVEL:
            verdict = "worse" if test["only_a"] > test["only_b"] else "better"
        rows.append(replace(other.row, p_value=p_value, verdict=verdict))
    return tuple(rows)


def _curve(best: Candidate, train: LabelledFeatures, options: HeadOptions) -> Curve:
    """Draw the learning curve of a head.

    Raises
    ------
    HeadError
        If it is that of a fine-tuned network, or cannot be trained on fewer images.
    """
    if best.trained is None:
        raise HeadError(f"{best.row.model} is fine-tuned; learning curves are only computed for heads")
    name, options = _family(best.row.head, options)
    family = options.family(name)
    return draw_curve(train.table, train.labels, train.dataset.groups, best.trained.search, family, options)
