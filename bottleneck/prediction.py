"""Images without labels, a run, and what it says of them; the cache is used and filled."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from bottleneck.errors import ImagesError, RunError
from bottleneck.extraction import Extraction, extract
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.scan import Progress
from bottleneck.runs import Run, best_run, find_run
from bottleneck.utils.paths import expanded


@dataclass(frozen=True)
class Prediction:
    """What a head says of one image.

    Parameters
    ----------
    path : str
    digest : str
        SHA-256 of the image's bytes, hexadecimal.
    label : str
        The most probable class.
    probability : float
        Of `label`.
    top : tuple of (str, float)
        The most probable classes with their probabilities, `label` first.
    """

    path: str
    digest: str
    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Predictions(Sequence[Prediction]):
    """The predictions of one call, in the order of the paths; behaves as a sequence of `Prediction`.

    Parameters
    ----------
    run : Run
        Whose head spoke.
    items : tuple of Prediction
    failures : tuple of Failure
        The images that could not be used.
    remarks : tuple of str
        On the engine, where features were computed: that they are less exact than they should be, say.
    """

    run: Run
    items: tuple[Prediction, ...]
    failures: tuple[Failure, ...]
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Prediction, ...]: ...
    def __getitem__(self, index: int | slice) -> Prediction | tuple[Prediction, ...]:
        return self.items[index]


def predict(
    images: "str | os.PathLike[str] | Dataset",
    *,
    run: "str | os.PathLike[str] | Run | None" = None,
    cache: str | os.PathLike[str] = "cache",
    runs: str | os.PathLike[str] = "runs",
    top: int = 3,
    progress: Progress | None = None,
) -> Predictions:
    """Classify images with the head of a run.

    Parameters
    ----------
    images : path or Dataset
        Any folder, image or CSV with a column ``path``.
    run : path or Run, optional
        A run's folder, or its name below `runs`; by default `bottleneck.runs.best_run`.
    cache, runs : path
        Features that are cached are used; others are computed and cached.
    top : int
        How many classes to tell of each image.
    progress : callable, optional
        As for `bottleneck.scan`.

    Returns
    -------
    Predictions

    Raises
    ------
    RunError
        If there is no such run, or its backbone is not to be had as it was.
    ImagesError
        If there is no image, or none that can be used.
    """
    chosen = _run(run, expanded(runs))
    done = _features(chosen, images, expanded(cache), expanded(runs), progress)
    dataset = done.dataset
    failed = {failure.digest for failure in done.failures}
    rows = [row for row, digest in enumerate(dataset.digests) if digest.tobytes().hex() not in failed]
    if not rows:
        raise ImagesError(f"none of the {done.images} images of {dataset.source} can be used")
    usable = dataset.subset(rows)
    probabilities = chosen.head.probabilities(done.store.read(usable.digests))
    items = []
    for path, digest, shares in zip(usable.paths, usable.digests, probabilities, strict=True):
        best = tuple(
            (chosen.head.classes[code], float(shares[code])) for code in (-shares).argsort(kind="stable")[:top]
        )
        items.append(Prediction(path, digest.tobytes().hex(), *best[0], best))
    return Predictions(chosen, tuple(items), done.failures, done.remarks)


def _run(run: "str | os.PathLike[str] | Run | None", runs: Path) -> Run:
    if isinstance(run, Run):
        return run
    if run is None:
        return best_run(runs)
    return find_run(runs, run)


def _features(
    run: Run, images: "str | os.PathLike[str] | Dataset", cache: Path, runs: Path, progress: Progress | None
) -> Extraction:
    """Fill the cache for `images` with the run's own backbone."""
    request = run.request
    done = extract(
        images,
        labels=False,
        **request.options(),
        cache=cache,
        runs=runs,
        remember=False,
        progress=progress,
    )
    if done.store.spec.fingerprint != run.card["fingerprint"]:
        raise RunError(
            f"expected features of spec {run.card['fingerprint'][:16]}, on which the head of {run.path} was trained; "
            f"{request.model} with weights {request.weights} now gives "
            f"{done.store.spec.fingerprint[:16]}. The weights or the libraries have changed: extract and fit again"
        )
    return done
