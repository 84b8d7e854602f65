"""Classify images with a run; features are read from the cache, or computed and cached."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.scans import columns_of
from bottleneck.cache.store import Store
from bottleneck.errors import ImagesError, RunError
from bottleneck.evaluation.conformal import needed
from bottleneck.extraction.extract import extract
from bottleneck.extraction.result import Extraction, NothingUsable
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.given import Given, given_by, given_in_memory, list_given
from bottleneck.images.keys import as_digests
from bottleneck.images.listing import DataFrameLike, Values, listed_frame
from bottleneck.images.scan import Progress
from bottleneck.prediction.prediction import Prediction, Predictions
from bottleneck.runs.backbone_request import located_request, needing_weights, spec_of
from bottleneck.runs.ranking import Choice, default_run
from bottleneck.runs.run import Run, find_run
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.paths import expanded
from bottleneck.utils.text import counted

THRESHOLD = 0.01  # familiarity at and below which an image is unfamiliar


def predict(
    images: str | os.PathLike[str] | Values | DataFrameLike | Dataset,
    *,
    run: "str | os.PathLike[str] | Run | None" = None,
    cache: str | os.PathLike[str] = "cache",
    runs: str | os.PathLike[str] = "runs",
    top: int = 3,
    unfamiliar: float = THRESHOLD,
    reject: bool = False,
    coverage: float | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Predictions:
    """Classify images with the head of a run.

    Parameters
    ----------
    images : path, sequence of paths, DataFrame or Dataset
        Folders, images, and tables with a column ``path``, relative to the table. Labels do not change predictions.
    run : path or Run, optional
        A run's folder, or its name in `runs`; by default that of `bottleneck.runs.ranking.default_run`.
    cache, runs : path
        Features that are cached are used; others are computed and cached.
    top : int
        The number of classes to return for each image.
    unfamiliar : float
        From 0 to below 1. Images with a familiarity of at most this are unfamiliar; of images like those of the
        training set, about this share is.
    reject : bool
        Whether unfamiliar images have no label.
    coverage : float, optional
        The probability, above 0 and below 1, with which the label of a new image is in its prediction set.
    path_column, label_column : str, optional
        Columns of tables, by default ``path`` and ``label``.
    memory : int, optional
        Memory for images, in bytes, as for `bottleneck.extract`.
    progress : callable, optional
        As for `bottleneck.scan`.

    Returns
    -------
    Predictions
        One for each row of a CSV, each file of a folder and each other path, in the order of `images`; the files of a
        folder are sorted.

    Raises
    ------
    RunError
        If there is no such run, or its backbone cannot be rebuilt; or if an earlier version wrote it, and `reject` or
        `coverage` is given.
    ImagesError
        If there is no image.
    """
    check = Arguments(RunError)
    top, reject = check.whole("top", top, least=1), check.flag("reject", reject)
    unfamiliar = check.number("unfamiliar", unfamiliar, below=1)
    coverage = None if coverage is None else check.number("coverage", coverage, above=0, below=1)
    chosen = run_for(run, runs).run
    _check_recorded(chosen, reject=reject, coverage=coverage)
    columns = Columns(path=path_column, label=label_column)
    found = classify(
        images,
        run=chosen,
        cache=cache,
        runs=runs,
        progress=progress,
        columns=columns,
        memory=memory,
        familiarity=True,
    )
    sets = _sets(found, coverage)
    items = tuple(_prediction(found, row, top, sets) for row in range(len(found.given)))
    items = tuple(_marked(item, unfamiliar, reject=reject) for item in items)
    failures = tuple(item.failure for item in items if item.failure is not None)
    return Predictions(
        found.run,
        items,
        failures,
        found.remarks,
        found.given,
        min(top, len(found.run.classes)),
        threshold=unfamiliar,
        reject=reject,
        coverage=coverage,
        cautions=tuple(_cautions(chosen, unfamiliar, coverage)),
    )


def run_for(run: "str | os.PathLike[str] | Run | None", runs: str | os.PathLike[str]) -> Choice:
    """Return a run by its name, by default that of `bottleneck.runs.ranking.default_run`, and why it is chosen.

    Raises
    ------
    RunError
        If there is none.
    """
    if isinstance(run, Run):
        return Choice(run, "the given run")
    if run is None:
        return default_run(runs)
    return Choice(find_run(runs, run), "the named run")


@dataclass(frozen=True, kw_only=True)
class Classified:
    """Images with the probabilities that a run predicts.

    Parameters
    ----------
    run : Run
    given : Given
        n images.
    digests : tuple of bytes or None, length n
        None for a file that could not be read.
    places : ndarray of int, shape (n,)
        The row of each image in `probabilities`; -1 if it cannot be used.
    probabilities : ndarray of float64, shape (m, k)
    familiarity : ndarray of float64, shape (m,), or None
        None if it was not requested, or the run does not record it.
    store : Store
        The store of their features.
    failures : dict of int to Failure
        By the row of the image, with its path as it is given.
    remarks : tuple of str
    """

    run: Run
    given: Given
    store: Store
    digests: tuple[bytes | None, ...]
    places: NDArray[np.intp]
    probabilities: NDArray[np.float64]
    familiarity: NDArray[np.float64] | None
    failures: dict[int, Failure]
    remarks: tuple[str, ...]


def classify(
    images: str | os.PathLike[str] | Values | DataFrameLike | Dataset | Given,
    *,
    run: Run,
    cache: str | os.PathLike[str],
    runs: str | os.PathLike[str],
    progress: Progress | None,
    columns: Columns | None = None,
    memory: int | None = None,
    familiarity: bool = False,
) -> Classified:
    """Return the probabilities of all classes, and the familiarity if requested.

    The other parameters and errors are those of `predict`.
    """
    given = given_images(images, columns or Columns(), cache, runs)
    named = images if isinstance(images, Dataset) else given
    done = _features(run, named, expanded(cache), expanded(runs), memory, progress)
    failed = {failure.path: failure for failure in done.failures}
    digest_of = dict(zip(done.dataset.paths, (row.tobytes() for row in done.dataset.digests), strict=True))
    digests = tuple(digest_of.get(file) for file in given.files)
    failures = {
        row: Failure(name, failed[file].code, failed[file].message, failed[file].digest)
        for row, (name, file) in enumerate(zip(given.names, given.files, strict=True))
        if file in failed
    }
    unique = dict.fromkeys(digest for row, digest in enumerate(digests) if digest and row not in failures)
    place = {digest: number for number, digest in enumerate(unique)}
    features = _read(run, done.store, list(unique))
    return Classified(
        run=run,
        given=given,
        store=done.store,
        digests=digests,
        places=np.array([-1 if row in failures else place[digests[row]] for row in range(len(given))], np.intp),
        probabilities=run.head.probabilities(features),
        familiarity=run.uncertainty.familiarity.p_values(features) if familiarity and run.uncertainty else None,
        failures=failures,
        remarks=done.remarks,
    )


def _read(run: Run, store: Store, digests: list[bytes]) -> NDArray[np.float32]:
    if not digests:
        return np.empty((0, len(run.head.mean)), np.float32)
    return store.read(as_digests(digests))


def given_images(images: Any, columns: Columns, cache: str | os.PathLike[str], runs: str | os.PathLike[str]) -> Given:
    """Return images in the order in which they are given; parameters are those of `classify`."""
    if isinstance(images, Given):
        return images
    if isinstance(images, Dataset):
        return given_by(images)
    if hasattr(images, "columns"):
        return given_in_memory(listed_frame(images, columns))

    def columns_at(table: Path) -> Columns:
        """Return the named columns, else those that were named when the table was extracted."""
        known = columns_of(expanded(cache), table)
        return Columns(path=columns.path or known.path, label=columns.label or known.label)

    paths = Arguments(ImagesError).paths("images", os.fsdecode(images) if isinstance(images, bytes) else images)
    return list_given(list(paths), columns=columns_at, exclude=(cache, runs))


def _prediction(found: Classified, row: int, top: int, sets: NDArray[np.bool_] | None) -> Prediction:
    path, digest = found.given.names[row], found.digests[row]
    hexadecimal = digest.hex() if digest else None
    if row in found.failures:
        return Prediction(path, hexadecimal, None, None, (), found.failures[row])
    place, classes = found.places[row], found.run.head.classes
    shares = found.probabilities[place]
    order = (-shares).argsort(kind="stable")
    best = tuple((classes[code], float(shares[code])) for code in order[:top])
    return Prediction(
        path,
        hexadecimal,
        *best[0],
        best,
        familiarity=None if found.familiarity is None else float(found.familiarity[place]),
        set=None if sets is None else tuple(classes[code] for code in order if sets[place, code]),
    )


def _marked(item: Prediction, threshold: float, *, reject: bool) -> Prediction:
    """Mark an unfamiliar image, and remove its label if it is rejected."""
    if item.familiarity is None or item.familiarity > threshold:
        return item
    if reject:
        item = replace(item, label=None, probability=None)
    return replace(item, unfamiliar=True)


def _check_recorded(run: Run, *, reject: bool, coverage: float | None) -> None:
    """Refuse options that need what runs of earlier versions do not record."""
    if run.uncertainty is None and (reject or coverage is not None):
        option, what = ("reject", "how familiar images are") if reject else ("coverage", "prediction sets")
        raise RunError(
            f"expected {run.path} to record {what}, which {option} needs; an earlier version wrote it: fit again"
        )


def _sets(found: Classified, coverage: float | None) -> NDArray[np.bool_] | None:
    """Return whether each class is in the set of each image, ``(m, k)``; None without a coverage."""
    known = found.run.uncertainty
    return known.conformal.sets(found.probabilities, coverage) if known and coverage is not None else None


def _cautions(run: Run, threshold: float, coverage: float | None) -> Iterator[str]:
    """Yield what limits familiarity and sets."""
    known = run.uncertainty
    if known is None:
        yield f"{run.path} is of an earlier version: fit again to see how familiar images are"
        return
    calibrated, scored = len(known.familiarity.calibration), len(known.conformal.scores)
    if 0 < threshold < known.familiarity.least:
        yield (
            f"no image can be unfamiliar at {threshold:g}: familiarity is calibrated on "
            f"{counted(calibrated, 'image')}, so it is at least {known.familiarity.least:.3g}"
        )
    if coverage is not None and scored < needed(coverage):
        yield (
            f"each set has all classes: sets of coverage {coverage:g} need {counted(needed(coverage), 'image')} to be "
            f"calibrated, {run.path} has {scored:,}"
        )
    if (run.card.get("uncertainty") or {}).get("optimistic"):
        yield (
            "the backbone was trained on the images that calibrate familiarity and sets: more images are unfamiliar, "
            "and fewer sets contain the label, than stated"
        )


def _features(
    run: Run, images: Dataset | Given, cache: Path, runs: Path, memory: int | None, progress: Progress | None
) -> Extraction:
    """Extract the features of `images` with the backbone of the run, even if no image can be used."""
    request = located_request(run.path, run.card, cache)
    try:
        with needing_weights(run.path, run.card):
            done = extract(
                images,
                labels=False,
                **request.options(),
                cache=cache,
                runs=runs,
                memory=memory,
                remember=False,
                spec=spec_of(run.card),
                progress=progress,
            )
    except NothingUsable as error:
        done = error.done
    if done.store.spec.fingerprint != run.card["fingerprint"]:
        raise RunError(
            f"expected features of spec {run.card['fingerprint'][:16]}, on which the head of {run.path} was trained; "
            f"{request.model} with weights {request.weights} now has the spec "
            f"{done.store.spec.fingerprint[:16]}. The weights or the libraries have changed: extract and fit again"
        )
    return done
