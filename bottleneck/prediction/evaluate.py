"""Evaluate a run on labelled images that it was not trained on, and compare it with another run."""

import os
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import ImagesError, RunError
from bottleneck.evaluation.metrics import evaluate as measure
from bottleneck.evaluation.metrics import evaluate_probabilities
from bottleneck.evaluation.near_duplicates import near_duplicates
from bottleneck.evaluation.stats import accuracy_interval, mcnemar
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset
from bottleneck.images.keys import as_digests
from bottleneck.images.listing import DataFrameLike, Values
from bottleneck.images.scan import Progress
from bottleneck.prediction.evaluation import Evaluation, Misclassification, RunComparison, Summary
from bottleneck.prediction.predict import Classified, classify, run_for
from bottleneck.prediction.prediction import Predictions
from bottleneck.prediction.unseen import UnseenImages
from bottleneck.runs.images import Role
from bottleneck.runs.run import Run
from bottleneck.utils.memory import allowed
from bottleneck.utils.text import normal

_SHOWN = 8  # names that a message lists
_REASONS = 3  # of images that cannot be used
_BYTES = 3 * 4  # of a feature with its copies


def evaluate(
    images: str | os.PathLike[str] | Values | DataFrameLike | Dataset,
    *,
    run: "str | os.PathLike[str] | Run | None" = None,
    against: "str | os.PathLike[str] | Run | None" = None,
    cache: str | os.PathLike[str] = "cache",
    runs: str | os.PathLike[str] = "runs",
    path_column: str | None = None,
    label_column: str | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare the predictions of a run with the labels of images.

    Each image counts once, however many paths it has. Images that the run, or the run of `against`, was trained on are
    left out.

    Parameters
    ----------
    images : path, sequence of paths, DataFrame or Dataset
        Folders of class folders, with or without folders ``train``, ``val`` and ``test`` above them, and tables with
        columns ``path,label``.
    run : path or Run, optional
        A run's folder, or its name in `runs`; by default that of `bottleneck.runs.ranking.default_run`.
    against : path or Run, optional
        Another run, which is compared by McNemar's test on the same images.
    cache, runs : path
        Features that are cached are used; others are computed and cached.
    path_column, label_column : str, optional
        Columns of tables, by default ``path`` and ``label``.
    memory : int, optional
        Memory for images, in bytes, as for `bottleneck.extract`.
    progress : callable, optional
        As for `bottleneck.scan`.

    Returns
    -------
    Evaluation

    Raises
    ------
    ImagesError
        If the images have no labels, none of the labels is a class of the run, or all of them are training images.
    RunError
        If there is no such run, its backbone cannot be rebuilt, or both runs are the same.
    """
    chosen = run_for(run, runs).run
    other_run = None if against is None else run_for(against, runs).run
    if other_run is not None and other_run.path.resolve() == chosen.path.resolve():
        raise RunError(f"expected two different runs to compare, got {chosen.path} twice")
    columns = Columns(path=path_column, label=label_column)
    found = classify(images, run=chosen, cache=cache, runs=runs, progress=progress, columns=columns, memory=memory)
    other = None
    if other_run is not None:
        again = images if isinstance(images, Dataset) else found.given
        other = classify(again, run=other_run, cache=cache, runs=runs, progress=progress, memory=memory)
    labels = [None if label is None else normal(label) for label in found.given.labels]
    _check_labels(found, labels)
    pool = _unseen(found, other, labels)
    if not pool.rows:
        raise ImagesError(_none_left(pool, found, other))
    return _evaluation(found, other, pool)


def summary(found: Predictions) -> Summary | None:
    """Compare predictions with the labels of their images; return None if they have none.

    The class folders of a folder, and the column ``label`` of a CSV, are used as labels if at least half of the names
    are classes of the run.
    """
    classes = {normal(name) for name in found.run.head.classes}
    labels: list[str | None] = []
    used, passed_over = [], []
    for origin in found.given.origins:
        names = {normal(label) for label in origin.labels if label is not None}
        known = len(names & classes)
        taken = bool(names) and 2 * known >= len(names)
        labels += [normal(label) if taken and label is not None else None for label in origin.labels]
        if taken:
            used.append(str(origin))
        elif known or (names and origin.kind != "folder"):
            passed_over.append(
                f"{origin!s} are not compared: {known} of {len(names)} names are classes of {found.run.name}"
            )
    if not used and not passed_over:
        return None
    digests = [None if item.digest is None or item.failure else bytes.fromhex(item.digest) for item in found.items]
    pool = UnseenImages.among(digests, labels, [found.run], len(found.failures))
    right = sum(normal(found.items[row].top[0][0]) == pool.labels[row] for row in pool.rows)  # rejected or not
    return Summary(
        labels_from=tuple(used),
        n=len(pool.rows),
        right=right,
        left=pool.left,
        unrecorded=bool(pool.unrecorded),
        passed_over=tuple(passed_over),
    )


def _unseen(found: Classified, other: Classified | None, labels: Sequence[str | None]) -> UnseenImages:
    both = [one for one in (found, other) if one is not None]
    failed = {row for one in both for row in one.failures}
    digests = [None if row in failed else digest for row, digest in enumerate(found.digests)]
    return UnseenImages.among(digests, labels, [one.run for one in both], len(failed))


def _check_labels(found: Classified, labels: Sequence[str | None]) -> None:
    names = {label for label in labels if label is not None}
    source = ", ".join(origin.name for origin in found.given.origins[:_SHOWN])
    problems = [origin.problem for origin in found.given.origins if origin.problem]
    if not names and problems:
        raise ImagesError(problems[0])
    if not names:
        raise ImagesError(
            f"expected labels for the images of {source}, found none: give each class its own folder, or list the "
            f"images in a CSV with columns path,label"
        )
    classes = found.run.head.classes
    if not names & {normal(name) for name in classes}:
        raise ImagesError(
            f"expected labels among the classes of {found.run.name} ({_some(classes)}), found {_some(sorted(names))} "
            f"in {source}"
        )


def _none_left(pool: UnseenImages, found: Classified, other: Classified | None) -> str:
    left = pool.left
    if left.trained_on:
        final = [one.run.name for one in (found, other) if one is not None and one.run.is_final]
        reason = f": {final[0]} was fitted with --final, on its test images, too" if final else " (its test images)"
        return (
            f"expected images that {found.run.name} was not trained on, found none: it, or the run that it is compared "
            f"with, was trained on all {left.trained_on} labelled images. Give other images{reason}"
        )
    shown = "; ".join(f"{failure.path}: {failure.message}" for failure in list(found.failures.values())[:_REASONS])
    reasons = f": {shown}" if shown else ""
    return (
        f"expected labelled images that can be used, found none: {left.unlabelled} have no label, {left.two_labels} "
        f"have two, {left.failed} cannot be used{reasons}"
    )


def _evaluation(found: Classified, other: Classified | None, pool: UnseenImages) -> Evaluation:
    rows, classes = list(pool.rows), tuple(normal(name) for name in found.run.head.classes)
    labels, groups = [str(pool.labels[row]) for row in rows], [found.given.groups[row] for row in rows]
    probabilities = found.probabilities[found.places[rows]]
    predicted = [classes[code] for code in probabilities.argmax(axis=1)]
    failed = {**(other.failures if other else {}), **found.failures}
    unknown = Counter(label for label in labels if label not in classes)
    return Evaluation(
        run=found.run,
        labels_from=tuple(str(origin) for origin in found.given.origins if any(origin.labels)),
        metrics={
            **measure(labels, predicted, classes, groups),
            **evaluate_probabilities(labels, probabilities, classes),
        },
        errors=_errors(found, rows, labels, classes, probabilities),
        left=pool.left,
        selected_by=pool.selected_by,
        unknown_labels=dict(sorted(unknown.items())),
        unrecorded=pool.unrecorded,
        near=_near(found, rows),
        failures=tuple(failed[row] for row in sorted(failed)),
        against=_against(other, rows, labels, groups, np.array(labels) == np.array(predicted)) if other else None,
        remarks=found.remarks + (other.remarks if other else ()),
    )


def _near(found: Classified, rows: Sequence[int]) -> tuple[tuple[str, float], ...]:
    """Return near duplicates of training images; none if features of those are not cached or do not fit in memory."""
    known = found.run.images
    if known is None:
        return ()
    trained = known.digests[known.roles == Role.TRAINED]
    trained = trained[found.store.has(trained)]
    if not len(trained) or (len(trained) + len(rows)) * found.store.dim() * _BYTES > allowed(None):
        return ()
    digests = as_digests([found.digests[row] or b"" for row in rows])
    near = near_duplicates(found.store.read(trained), found.store.read(digests))
    return tuple(
        (found.given.names[rows[place]], round(float(cosine), 4))
        for place, cosine in zip(near.rows[:, 1].tolist(), near.cosines, strict=True)
    )


def _errors(
    found: Classified,
    rows: Sequence[int],
    labels: Sequence[str],
    classes: Sequence[str],
    probabilities: NDArray[np.float64],
) -> tuple[Misclassification, ...]:
    code = {name: place for place, name in enumerate(classes)}
    errors = []
    for row, label, shares in zip(rows, labels, probabilities, strict=True):
        best = int(shares.argmax())
        if classes[best] == label:
            continue
        errors.append(
            Misclassification(
                path=found.given.names[row],
                digest=(found.digests[row] or b"").hex(),
                label=label,
                predicted=classes[best],
                probability=float(shares[best]),
                label_probability=float(shares[code[label]]) if label in code else 0.0,
            )
        )
    return tuple(sorted(errors, key=lambda error: -error.probability))


def _against(
    other: Classified,
    rows: Sequence[int],
    labels: Sequence[str],
    groups: Sequence[str | None],
    right: NDArray[np.bool_],
) -> RunComparison:
    classes = [normal(name) for name in other.run.head.classes]
    predicted = [classes[code] for code in other.probabilities[other.places[rows]].argmax(axis=1)]
    other_right = np.array(labels) == np.array(predicted)
    test = mcnemar(right, other_right)
    return RunComparison(
        run=other.run,
        accuracy=float(other_right.mean()),
        accuracy_ci95=accuracy_interval(other_right, groups),
        only_run=test["only_a"],
        only_against=test["only_b"],
        p_value=test["p_value"],
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
