"""Choose which images of a pool to label next."""

import os

import numpy as np
from numpy.typing import NDArray

from bottleneck.auditing.diversity import far_apart, typical_rows
from bottleneck.auditing.pool import Images, Pool, read_pool
from bottleneck.auditing.suggestions import Suggestion, Suggestions
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.errors import ImagesError
from bottleneck.evaluation.neighbours import nearest_neighbours
from bottleneck.fitting.inputs import ImageQuery
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset
from bottleneck.images.scan import Progress
from bottleneck.images.splits import Shares
from bottleneck.prediction.predict import THRESHOLD, run_for
from bottleneck.runs.backbone_request import located_source
from bottleneck.runs.run import Run, list_runs
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.paths import expanded
from bottleneck.utils.text import counted

STRATEGIES = ("margin_sampling", "entropy", "core_set", "typi_clust", "random_sampling")
UNCERTAIN = STRATEGIES[:2]  # which need a head
_FEWEST_CALIBRATED = 0.1  # the smallest possible familiarity, above which there are too few training images to tell
_PREFERRED = 20  # of the most uncertain images for each suggestion, those that are far apart are chosen
_FEWEST = 1000
_UNKNOWN = 10  # one suggestion in so many may be of images unlike the training images, but like each other
_ALIKE = 5  # such images that are like each other
_SEEDS = 2**32 - 1


def suggest(
    pool: Images,
    *,
    budget: int,
    run: "str | os.PathLike[str] | Run | None" = None,
    model: str | None = None,
    strategy: str | None = None,
    cache: str | os.PathLike[str] = "cache",
    runs: str | os.PathLike[str] = "runs",
    path_column: str | None = None,
    memory: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Suggestions:
    """Choose the images to label next.

    Images of the run, which have labels, and copies are never suggested. Names of strategies are those of
    scikit-activeml.

    Parameters
    ----------
    pool : path, sequence of paths, DataFrame or Dataset
        Unlabelled images, as for `bottleneck.predict`; labels are ignored.
    budget : int
        The number of images, at least 1.
    run : path or Run, optional
        The run whose head predicts; by default that of `bottleneck.predict`, if there is one in `runs` and no `model`
        is named.
    model : str, optional
        Without a run: the backbone, or a spec of the cache; by default that of the last extraction in the current
        folder, or the default of `bottleneck.extract`.
    strategy : str, optional
        ``margin_sampling``: images whose two most probable classes are nearly equally probable, and which are far from
        each other and from labelled images. ``entropy``: the same, by the entropy of the probabilities. ``core_set``:
        images that are far from each other and from labelled images. ``typi_clust``: the most typical image of each of
        the largest clusters without a labelled image. ``random_sampling``. The default is ``margin_sampling`` with a
        run, and ``typi_clust`` without.
    cache, runs : path
        Features that are cached are used; others are computed and cached.
    path_column : str, optional
        Column of tables, by default ``path``.
    memory : int, optional
        Memory for images, in bytes, as for `bottleneck.extract`.
    seed : int
        Equal seeds give equal suggestions, whatever the order of the files.
    progress : callable, optional
        As for `bottleneck.scan`.

    Returns
    -------
    Suggestions
        Fewer than `budget` if the pool has fewer new images.

    Raises
    ------
    ImagesError
        If there is no image, a value is invalid, or the strategy needs a run and there is none.
    RunError
        If there is no such run, or its backbone cannot be rebuilt.

    Notes
    -----
    Of the 20 most uncertain images per suggestion, at least 1,000, each step takes the one with the largest product of
    its squared uncertainty (1 minus the margin, or the entropy divided by the log of the number of classes) and its
    squared distance to the nearest image that is labelled or chosen. With a run, images with a familiarity of at most
    0.01, or with fewer than 99 training images the smallest possible one, come last, because most of them are of no
    class. But if five of them are as similar to each other as images of the pool usually are, they may be of a new
    class: up to a tenth of the budget is spent on the most typical of such images.
    """
    check = Arguments(ImagesError)
    budget, seed = check.whole("budget", budget, least=1), check.whole("a seed", seed, most=_SEEDS)
    model = check.optional(check.text, "model", model)
    chosen = _run(run, model, runs)
    strategy = check.optional(check.text, "strategy", strategy) or ("margin_sampling" if chosen else "typi_clust")
    _check_strategy(strategy, chosen)
    images = read_pool(
        pool,
        run=chosen,
        model=model,
        cache=cache,
        runs=runs,
        columns=Columns(path=path_column),
        memory=memory,
        progress=progress,
    )
    if not len(images):
        raise ImagesError(
            f"expected images to label, found none: {counted(images.known, 'image')} of the pool "
            f"{'is an image' if images.known == 1 else 'are images'} of the run, and the rest are copies or failed"
        )
    return Suggestions(
        pool=images,
        strategy=strategy,
        budget=budget,
        items=_suggestions(images, strategy, min(budget, len(images)), seed),
    )


def labelled_images(
    run: "str | os.PathLike[str] | Run | None", cache: str | os.PathLike[str], runs: str | os.PathLike[str]
) -> Dataset:
    """Return the labelled images of a run, by default that of `suggest`.

    Raises
    ------
    RunError
        If there is no run, or it does not record its images.
    """
    chosen = run_for(run, runs).run
    return ImageQuery(
        images=located_source(chosen.path, chosen.card),
        cache=FeatureCache(cache),
        runs=expanded(runs),
        labels=True,
        shares=Shares.parse(chosen.card["dataset"]["shares"]),
    ).find()


def _run(run: "str | os.PathLike[str] | Run | None", model: str | None, runs: str | os.PathLike[str]) -> Run | None:
    """Return the run to use; None without a head.

    Raises
    ------
    ImagesError
        If both a run and a model are named.
    """
    if run is not None and model is not None:
        raise ImagesError("expected a run or a model, got both: a run has its own model")
    if model is not None or (run is None and not list_runs(runs)):
        return None
    return run_for(run, runs).run


def _check_strategy(strategy: str, run: Run | None) -> None:
    if strategy not in STRATEGIES:
        raise ImagesError(f"expected a strategy among {', '.join(STRATEGIES)}, got {strategy!r}")
    if strategy in UNCERTAIN and run is None:
        others = ", ".join(one for one in STRATEGIES if one not in UNCERTAIN)
        raise ImagesError(
            f"expected a run, whose probabilities {strategy} needs, found none: fit one, name no model, or use another "
            f"strategy ({others})"
        )


def _suggestions(pool: Pool, strategy: str, count: int, seed: int) -> tuple[Suggestion, ...]:
    chosen, familiar = choose(pool, strategy, count, seed), _familiar(pool)
    nearest = _nearest_labelled(pool, list(chosen))
    return tuple(
        Suggestion.of(pool, row, strategy, alike, similar, familiar=bool(familiar[row]))
        for (row, alike), similar in zip(chosen.items(), nearest, strict=True)
    )


def choose(pool: Pool, strategy: str, count: int, seed: int = 0) -> dict[int, int]:
    """Return the rows of a pool to label, the most useful first, see `suggest`.

    Returns
    -------
    dict of int to int
        For each row, the number of unfamiliar images like it, if it was chosen because it may be of a new class, or 0.
    """
    familiar = _familiar(pool) if strategy != "random_sampling" else np.ones(len(pool), bool)
    new = dict(_new_classes(pool, ~familiar, -(-count // _UNKNOWN)))
    candidates = np.flatnonzero(familiar)
    wanted = min(count - len(new), len(candidates))
    rows = candidates[_chosen(pool, candidates, strategy, wanted, seed)] if wanted else candidates[:0]
    left = np.setdiff1d(np.flatnonzero(~familiar), list(new))
    last = left[np.argsort(-_familiarity(pool)[left], kind="stable")][: count - len(rows) - len(new)]
    return {**dict.fromkeys(rows.tolist(), 0), **new, **dict.fromkeys(last.tolist(), 0)}


def _nearest_labelled(pool: Pool, rows: list[int]) -> list[float | None]:
    """Return the cosine similarity of images to the nearest labelled image; None if there is none."""
    if not len(pool.labelled):
        return [None] * len(rows)
    cosines: list[float | None] = nearest_neighbours(pool.units[rows], pool.labelled, k=1).cosines[:, 0].tolist()
    return cosines


def _familiarity(pool: Pool) -> NDArray[np.float64]:
    return np.ones(len(pool)) if pool.familiarity is None else pool.familiarity


def _familiar(pool: Pool) -> NDArray[np.bool_]:
    if pool.least > _FEWEST_CALIBRATED:
        return np.ones(len(pool), bool)
    found: NDArray[np.bool_] = _familiarity(pool) > max(THRESHOLD, pool.least)
    return found


def _new_classes(pool: Pool, unfamiliar: NDArray[np.bool_], most: int) -> list[tuple[int, int]]:
    """Return unfamiliar images that are like at least four others, and the number of those; one of each cluster."""
    rows = np.flatnonzero(unfamiliar)
    familiar = pool.units[~unfamiliar]
    if len(rows) < _ALIKE or len(familiar) <= _ALIKE:
        return []
    usual = float(np.median(nearest_neighbours(familiar[:_FEWEST], familiar, k=_ALIKE).cosines[:, -1]))
    closeness = nearest_neighbours(pool.units[rows], k=_ALIKE - 1).cosines[:, -1]
    rows = rows[np.argsort(-closeness, kind="stable")[:_FEWEST]]
    alike = pool.units[rows] @ pool.units[rows].T >= usual
    np.fill_diagonal(alike, False)
    chosen: list[tuple[int, int]] = []
    while len(chosen) < most:
        counts = alike.sum(axis=1)
        best = int(counts.argmax())
        if counts[best] < _ALIKE - 1:
            break
        chosen.append((int(rows[best]), int(counts[best])))
        alike[alike[best]], alike[:, alike[best]] = False, False
    return chosen


def _chosen(pool: Pool, candidates: NDArray[np.intp], strategy: str, count: int, seed: int) -> NDArray[np.intp]:
    """Return places in `candidates`."""
    units = pool.units[candidates]
    if strategy == "random_sampling":
        return np.random.default_rng(seed).permutation(len(candidates))[:count]
    if strategy == "core_set":
        return far_apart(units, np.ones(len(units)), count, pool.labelled)
    if strategy == "typi_clust":
        known = np.repeat([False, True], [len(units), len(pool.labelled)])
        return typical_rows(np.concatenate([units, pool.labelled]), count, known, seed)
    assert pool.probabilities is not None
    doubt = uncertainty(pool.probabilities[candidates], strategy)
    some = np.argsort(-doubt, kind="stable")[: max(_FEWEST, _PREFERRED * count)]
    return some[far_apart(units[some], doubt[some] ** 2, count, pool.labelled)]


def uncertainty(probabilities: NDArray[np.float64], strategy: str) -> NDArray[np.float64]:
    """Return how uncertain predictions are, from 0 to 1, ``(n,)``, of probabilities ``(n, k)``."""
    if strategy == "entropy":
        logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
        shares: NDArray[np.float64] = -(probabilities * logs).sum(axis=1) / np.log(probabilities.shape[1])
        return np.clip(shares, 0, 1)
    best = np.sort(probabilities, axis=1)[:, -2:]
    doubt: NDArray[np.float64] = 1 - (best[:, 1] - best[:, 0])
    return doubt
