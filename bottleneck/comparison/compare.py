"""Models and heads compared on the same images, splits and folds: which is best, and which differences are real."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.store import Store
from bottleneck.comparison.leaderboard import LEVEL, Comparison, LeaderboardRow
from bottleneck.comparison.sources import Source, gather
from bottleneck.errors import HeadError
from bottleneck.evaluation.leakage import find_leaks, one_label
from bottleneck.evaluation.stats import holm, mcnemar
from bottleneck.fitting.partition import LabelledFeatures, check_memory, held_out, near_copies, part, warn_of_classes
from bottleneck.fitting.train import Trained, score_head, score_on_tuned, train_head
from bottleneck.heads.curve import Curve
from bottleneck.heads.curve import learning_curve as draw_curve
from bottleneck.heads.family import NAMES
from bottleneck.heads.features import NormalizeOption
from bottleneck.heads.options import HeadOptions, values_of
from bottleneck.heads.selecting import DEFAULT
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, as_images
from bottleneck.images.scan import Progress
from bottleneck.images.splits import Shares
from bottleneck.runs.run import Run
from bottleneck.utils.arguments import Arguments

HEADS = (*NAMES, "svm-rbf")
DEFAULT_HEADS = ("logistic", "svm", "softmax")


@dataclass(frozen=True)
class _Entry:
    """A row before the tests, and what they and a learning curve need; a fine-tuned network has not been searched."""

    row: LeaderboardRow
    right: NDArray[np.bool_]
    classes: tuple[str, ...]
    trained: Trained | None
    store: Store


@dataclass(frozen=True)
class _Setting:
    """What is the same for all rows."""

    usable: Dataset
    heldout: str
    heads: tuple[str, ...]
    options: HeadOptions
    memory: int | None

    def parts(self, store: Store) -> tuple[LabelledFeatures, LabelledFeatures]:
        """Return what is trained on and what is held out, with the features of one model."""
        train, test = (part(self.usable, store, name, memory=self.memory) for name in ("train", self.heldout))
        return train, test


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
        See `bottleneck.scan`. By default what was last extracted in the current folder with this cache.
    models : sequence of str
        Models, ``MODEL@WEIGHTS`` for other than their usual weights (``resnet18@none``), specs, or fine-tuned runs
        (``run:NAME``, or the path of one), which are a row with the head that they have. What features the cache lacks
        are extracted. By default all specs that are cached for these images.
    heads : sequence of str
        Those of `bottleneck.fit`, or ``svm-rbf``.
    cache, runs, split, C, folds, normalize, select, class_weight, search, device, seed, allow_duplicates, progress
        As for `bottleneck.fit`.
    memory : int, optional
        As for `bottleneck.fit`; and as for `bottleneck.extract`, where features are extracted.
    path_column, label_column, split_column, group_column
        As for `bottleneck.fit`.
    learning_curve : bool
        Whether the best row is cross-validated on smaller parts of the training images too.

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
        _own(head, options)
    shares = Shares.parse(split) if split else None
    columns = Columns(path_column, label_column, split_column, group_column)
    found = gather(
        images,
        _listed(models),
        cache=cache,
        runs=runs,
        shares=shares,
        columns=columns,
        memory=memory,
        progress=progress,
    )
    if not allow_duplicates:
        find_leaks(found.usable).refuse()
    usable = one_label(found.usable)
    setting = _Setting(usable, held_out(usable), names, options, memory)
    done = list(_entries(found.sources, setting, progress))
    remarks = [entry for entry in done if isinstance(entry, str)]
    entries = [entry for entry in done if isinstance(entry, _Entry)]
    if not entries:
        raise HeadError(f"expected a head that can be trained, found none: {'; '.join(remarks)}")
    entries.sort(key=lambda entry: (-entry.row.cv_accuracy, entry.row.cv_spread is None, entry.row.feature_bytes))
    train, test = setting.parts(entries[0].store)
    warn_of_classes(train, test, setting.heldout)
    near_copies(train, test)
    if lost := len(found.dataset) - len(found.usable):
        remarks.append(f"{lost} image{'s are' if lost > 1 else ' is'} left out, which not all models can use")
    curve = None
    if learning_curve:
        try:
            curve = _curve(entries[0], train, options)
        except HeadError as error:
            remarks.append(f"no learning curve: {error}")
    return Comparison(
        rows=_judged(entries),
        curve=curve,
        source=str(found.dataset.source),
        classes=entries[0].classes,
        heldout=setting.heldout,
        n_train=len(train),
        n_heldout=len(test),
        failures=(*found.dataset.failures, *found.failures),
        remarks=tuple(remarks),
    )


def _listed(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a sequence, each once; one alone may be several with commas."""
    parts = names[0].split(",") if len(names) == 1 else names
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _own(head: str, options: HeadOptions) -> tuple[str, HeadOptions]:
    """Return the family that a head is of, with its options.

    Raises
    ------
    HeadError
        If there is no such head.
    """
    if head not in HEADS:
        raise HeadError(f"expected heads of {', '.join(HEADS)}, got {head!r}")
    return ("svm", replace(options, kernel="rbf")) if head == "svm-rbf" else (head, options)


def _entries(sources: Sequence[Source], setting: _Setting, progress: Progress | None) -> Iterator[_Entry | str]:
    """Yield an entry for each model and head; of a head that cannot be trained, why."""
    heads, done = setting.heads, 0
    for source in sources:
        train, test = setting.parts(source.store)
        if source.run:
            yield _tuned(source, source.run, test, setting, len(train) + len(test))
        for head in () if source.run else heads:
            family, options = _own(head, setting.options)
            try:
                check_memory(train, options.family(family), setting.memory)
                trained = train_head(family, options, train, test, source.store.spec.fingerprint)
            except HeadError as error:
                yield f"{head} on {source.name} is left out: {error}"
            else:
                row = _row(source, head, trained, len(train) + len(test))
                if (score := score_on_tuned(source.store, setting.usable, row.cv_accuracy)) is not None:
                    row = replace(row, cv_accuracy=score, cv_ci95=None)
                yield _Entry(row, trained.right, trained.head.classes, trained, source.store)
            done += 1
            if progress:
                progress("train", done, len(sources) * len(heads))


def _row(source: Source, head: str, trained: Trained, images: int) -> LeaderboardRow:
    return LeaderboardRow(
        head=head,
        params=trained.search.params,
        cv_accuracy=trained.search.accuracy,
        cv_ci95=trained.cv_ci95,
        cv_spread=trained.search.spread,
        fit_seconds=trained.seconds,
        **_measured(source, trained.metrics, images),
    )


def _tuned(source: Source, run: Run, test: LabelledFeatures, setting: _Setting, images: int) -> _Entry | str:
    """Return the entry of a fine-tuned network, with the head that it has; or why it does not compare."""
    if run.card["dataset"]["digest"] != setting.usable.fingerprint():
        return (
            f"{source.name} is left out: it was fine-tuned on other images, labels or splits, perhaps on some that are "
            f"held out here"
        )
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
    return _Entry(row, scored.right, run.head.classes, None, source.store)


def _measured(source: Source, metrics: dict[str, Any], images: int) -> dict[str, Any]:
    """Return the fields of a row on features and the held-out part."""
    held = next(iter(source.store.index().entries.values()))
    low, high = metrics["accuracy_ci95"]
    return dict(
        model=source.name,
        spec=source.store.short_name,
        accuracy=metrics["accuracy"],
        accuracy_ci95=(low, high),
        resolution=metrics["resolution"],
        balanced_accuracy=metrics["balanced_accuracy"],
        log_loss=metrics["log_loss"],
        ece=metrics["ece"],
        extracted=source.extracted,
        extract_seconds=source.seconds,
        dim=held.dim,
        feature_bytes=images * held.dim * np.dtype(held.dtype).itemsize,
    )


def _judged(entries: Sequence[_Entry]) -> tuple[LeaderboardRow, ...]:
    """Return the rows, each tested against the first on the same held-out images."""
    best, *others = entries
    tests = [mcnemar(best.right, other.right) for other in others]
    rows = [best.row]
    for other, test, p_value in zip(others, tests, holm([test["p_value"] for test in tests]), strict=True):
        verdict = "not told apart"
        if p_value < LEVEL:
            verdict = "worse" if test["only_a"] > test["only_b"] else "better"
        rows.append(replace(other.row, p_value=p_value, verdict=verdict))
    return tuple(rows)


def _curve(best: _Entry, train: LabelledFeatures, options: HeadOptions) -> Curve:
    if best.trained is None:
        raise HeadError(f"{best.row.model} is fine-tuned, and only heads are trained in seconds")
    name, own = _own(best.row.head, options)
    return draw_curve(train.table, train.labels, train.dataset.groups, best.trained.search, own.family(name), own)
