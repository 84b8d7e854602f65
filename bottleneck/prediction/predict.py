"""Classify images with a run; features are read from the cache, or computed and cached."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.scans import columns_of
from bottleneck.cache.store import Store
from bottleneck.errors import ImagesError, RunError
from bottleneck.extraction.extract import extract
from bottleneck.extraction.result import Extraction, NothingUsable
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.given import Given, given_by, given_in_memory, list_given
from bottleneck.images.keys import as_digests
from bottleneck.images.listing import DataFrameLike, Values, listed_frame
from bottleneck.images.scan import Progress
from bottleneck.runs.backbone_request import located_request, needing_weights, spec_of
from bottleneck.runs.ranking import Choice, default_run
from bottleneck.runs.run import Run, find_run
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.paths import expanded
from bottleneck.utils.text import counted, one_line


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Parameters
    ----------
    path : str
        As it was given: a cell of a CSV, an argument, or a file below a folder.
    digest : str or None
        SHA-256 of the image's bytes, hexadecimal; None if they could not be read.
    label : str or None
        The most probable class; None if the image cannot be used.
    probability : float or None
        Probability of `label`.
    top : tuple of (str, float)
        The most probable classes with their probabilities, `label` first.
    failure : Failure or None
        Why the image cannot be used.
    """

    path: str
    digest: str | None
    label: str | None
    probability: float | None
    top: tuple[tuple[str, float], ...]
    failure: Failure | None = None

    def __repr__(self) -> str:
        if self.label is None or self.probability is None:
            return one_line(self, self.path, self.failure.code if self.failure else "no label")
        return one_line(self, self.path, f"{self.label} {100 * self.probability:.1f} %")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object: with the most probable classes, or with an ``error`` that has a code and a message."""
        found = {"path": self.path, "digest": self.digest, "label": self.label, "probability": self.probability}
        if self.failure:
            return {**found, "error": {"code": self.failure.code, "message": self.failure.message}}
        return {**found, "top": [{"label": label, "probability": share} for label, share in self.top]}


@dataclass(frozen=True)
class Predictions(Sequence[Prediction]):
    """One prediction for each row and file that was given, in that order, including failures.

    A sequence of `Prediction`. An image that cannot be used has the label None and a `failure`.

    Parameters
    ----------
    run : Run
        The run whose head predicted.
    items : tuple of Prediction
    failures : tuple of Failure
        The failures of `items`, with paths as they were given.
    remarks : tuple of str
        On the engine, if features were computed, for example that they are less accurate than usual.
    given : Given
        The images as they were given, with their labels.
    top : int
        Number of classes of each image in `Prediction.top`.
    """

    run: Run
    items: tuple[Prediction, ...]
    failures: tuple[Failure, ...]
    remarks: tuple[str, ...] = ()
    given: Given = field(default_factory=lambda: Given((), (), ()), repr=False)
    top: int = 1

    @property
    def usable(self) -> tuple[Prediction, ...]:
        """The items with a prediction."""
        return tuple(item for item in self.items if item.failure is None)

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        failed = f"{len(self.failures):,} failed" if self.failures else ""
        return one_line(self, counted(len(self), "image"), failed, f"by {self.run.path}")

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Prediction, ...]: ...
    def __getitem__(self, index: int | slice) -> Prediction | tuple[Prediction, ...]:
        return self.items[index]

    def to_json(self) -> list[dict[str, Any]]:
        """Return a JSON object for each image, see `Prediction.to_json`."""
        return [item.to_json() for item in self.items]

    def to_rows(self) -> Iterator[list[object]]:
        """Yield the header and the rows of a table, one row per image; cells without a value are empty.

        Columns are path, digest, label, probability, label_2, probability_2, ..., code and message.
        """
        more = [name for place in range(2, self.top + 1) for name in (f"label_{place}", f"probability_{place}")]
        yield ["path", "digest", "label", "probability", *more, "code", "message"]
        for item in self.items:
            if item.failure:
                failure = [item.failure.code, item.failure.message]
                yield [item.path, item.digest or "", *[""] * 2 * self.top, *failure]
                continue
            cells = [cell for label, share in item.top for cell in (label, f"{share:.6f}")]
            yield [item.path, item.digest, *cells, "", ""]


def predict(
    images: str | os.PathLike[str] | Values | DataFrameLike | Dataset,
    *,
    run: "str | os.PathLike[str] | Run | None" = None,
    cache: str | os.PathLike[str] = "cache",
    runs: str | os.PathLike[str] = "runs",
    top: int = 3,
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
        If there is no such run, or its backbone cannot be rebuilt.
    ImagesError
        If there is no image.
    """
    top = Arguments(RunError).whole("top", top, least=1)
    columns = Columns(path=path_column, label=label_column)
    found = classify(
        images,
        run=run_for(run, runs).run,
        cache=cache,
        runs=runs,
        progress=progress,
        columns=columns,
        memory=memory,
    )
    items = tuple(_prediction(found, row, top) for row in range(len(found.given)))
    failures = tuple(item.failure for item in items if item.failure is not None)
    return Predictions(found.run, items, failures, found.remarks, found.given, min(top, len(found.run.classes)))


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
) -> Classified:
    """Return the probabilities of all classes; parameters and errors are those of `predict`."""
    given = _given(images, columns or Columns(), cache, runs)
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
    return Classified(
        run=run,
        given=given,
        store=done.store,
        digests=digests,
        places=np.array([-1 if row in failures else place[digests[row]] for row in range(len(given))], np.intp),
        probabilities=_probabilities(run, done.store, list(unique)),
        failures=failures,
        remarks=done.remarks,
    )


def _probabilities(run: Run, store: Store, digests: list[bytes]) -> NDArray[np.float64]:
    if not digests:
        return np.empty((0, len(run.head.classes)))
    return run.head.probabilities(store.read(as_digests(digests)))


def _given(images: Any, columns: Columns, cache: str | os.PathLike[str], runs: str | os.PathLike[str]) -> Given:
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


def _prediction(found: Classified, row: int, top: int) -> Prediction:
    path, digest = found.given.names[row], found.digests[row]
    hexadecimal = digest.hex() if digest else None
    if row in found.failures:
        return Prediction(path, hexadecimal, None, None, (), found.failures[row])
    shares, classes = found.probabilities[found.places[row]], found.run.head.classes
    best = tuple((classes[code], float(shares[code])) for code in (-shares).argsort(kind="stable")[:top])
    return Prediction(path, hexadecimal, *best[0], best)


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
