"""Labels that are needed to reach 95 % of the accuracy with all labels, by how images to label are chosen."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from selection_sets import Features, features

from bottleneck.auditing.pool import Pool
from bottleneck.auditing.suggest import STRATEGIES, UNCERTAIN, choose
from bottleneck.errors import HeadError
from bottleneck.evaluation.familiarity import familiarity
from bottleneck.evaluation.neighbours import unit_rows
from bottleneck.heads.family import family
from bottleneck.heads.head import Head
from bottleneck.heads.search import search

REACHED = 0.95  # of the accuracy with all labels
BATCH, MOST = 10, 400  # labels per round, and in all
TESTED = 1 / 3
C = (0.001, 0.01)
JUNK = COPIES = 0.2  # of the pool
WASTED = 100  # labels after which waste is counted
SEEDS = 20


@dataclass(frozen=True)
class Task:
    """A pool to label, and other images to test on; class -1 is junk, and copies have the number of their image."""

    x: np.ndarray
    codes: np.ndarray
    image: np.ndarray
    tested_x: np.ndarray
    tested_codes: np.ndarray


def section(work: Path, images: Path | None, *, quick: bool) -> Iterator[str]:
    """Yield a table for each set, and one of a pool with junk and copies."""
    seeds = 4 if quick else SEEDS
    yield f"rounds of {BATCH} labels, {seeds} seeds; heads: logistic; a third of the images is for testing\n"
    for name in ("digits", "elpv", "ants"):
        given = features(name, work, images)
        if given is None:
            yield f"{name}: not available"
            continue
        yield from _needed(name, given, seeds if name == "digits" else max(2, seeds // 4))
    digits, cells = features("digits", work, images), features("elpv", work, images)
    if digits is not None and cells is not None:
        yield from _wasted(digits, cells, max(2, seeds // 4))


def _needed(name: str, given: Features, seeds: int) -> Iterator[str]:
    yield f"\n| {name}, {seeds} seeds | first {BATCH} | labels needed, mean ± spread | of random sampling's |"
    yield "|---|---|---|---|"
    base = None
    for first, strategy in (("random_sampling", "random_sampling"), *(("typi_clust", one) for one in STRATEGIES)):
        counts = [_labels_needed(_task(given, seed), first, strategy, seed) for seed in range(seeds)]
        base = base or float(np.mean(counts))
        spread = f"{np.mean(counts):.0f} ± {np.std(counts, ddof=1):.0f}"
        over = " (stopped)" if max(counts) >= MOST else ""
        yield f"| {strategy} | {first} | {spread}{over} | {np.mean(counts) / base:.2f} |"


def _wasted(digits: Features, junk: Features, seeds: int) -> Iterator[str]:
    yield f"\n| digits with {JUNK:.0%} solar cells and {COPIES:.0%} copies | junk | copies | accuracy |"
    yield "|---|---|---|---|"
    for strategy in STRATEGIES:
        found = [_after(_task(digits, seed, junk), strategy, seed) for seed in range(seeds)]
        junked, copied, accuracy = np.mean(found, axis=0)
        yield f"| {strategy}, share of the first {WASTED} labels | {junked:.0%} | {copied:.0%} | {accuracy:.1%} |"


def _task(given: Features, seed: int, junk: Features | None = None) -> Task:
    random = np.random.default_rng(seed)
    order = random.permutation(len(given.x))
    test, pool = np.split(order, [int(TESTED * len(order))])
    x, codes, image = given.x[pool], given.codes[pool], np.arange(len(pool))
    if junk is not None:
        count = int(len(pool) / (1 - JUNK - COPIES))
        others = junk.x[random.permutation(len(junk.x))[: int(JUNK * count)]]
        twice = random.integers(len(pool), size=int(COPIES * count))
        near = x[twice] * (1 + 0.01 * random.normal(size=(len(twice), 1)).astype(np.float32))
        x = np.concatenate([x, others, near])
        codes = np.concatenate([codes, np.full(len(others), -1), codes[twice]])
        image = np.concatenate([image, len(pool) + np.arange(len(others)), twice])
    return Task(x, codes, image, given.x[test], given.codes[test])


def _head(x: np.ndarray, codes: np.ndarray) -> Head | None:
    try:
        return search(
            x, codes.astype(str).tolist(), family("logistic"), grid=C, folds=3, repeats=1, normalize="shrunk"
        ).head
    except HeadError:  # a single class, or single images
        return None


def _accuracy(head: Head | None, task: Task) -> float:
    return 0.0 if head is None else float((head.predict(task.tested_x) == task.tested_codes.astype(str)).mean())


def _rounds(task: Task, first: str, strategy: str, seed: int) -> Iterator[tuple[list[int], Head | None]]:
    """Yield the labelled rows after each round, and the head."""
    units = unit_rows(task.x, task.x.mean(axis=0))
    rows: list[int] = []
    while True:
        used = np.array([row for row in rows if task.codes[row] >= 0], np.intp)
        head = _head(task.x[used], task.codes[used]) if rows else None
        if rows:
            yield rows, head
        left = np.setdiff1d(np.arange(len(task.x)), rows)
        now = first if not rows else "random_sampling" if head is None and strategy in UNCERTAIN else strategy
        usual = None
        if head is not None:
            usual = familiarity(task.x[used], task.codes[used].astype(str).tolist()).p_values(task.x[left])
        pool = Pool(
            run=None,
            model="",
            names=tuple(map(str, left)),
            files=(),
            digests=np.empty((0, 32), np.uint8),
            units=units[left],
            labelled=units[used],
            probabilities=None if head is None else head.probabilities(task.x[left]),
            familiarity=usual,
            least=1 / (len(used) + 1),
            known=0,
            copies=0,
            failures=(),
            remarks=(),
        )
        rows = [*rows, *left[list(choose(pool, now, BATCH, seed + len(rows)))].tolist()]


def _labels_needed(task: Task, first: str, strategy: str, seed: int) -> int:
    wanted = REACHED * _accuracy(_head(task.x, task.codes), task)
    for rows, head in _rounds(task, first, strategy, seed):
        if _accuracy(head, task) >= wanted or len(rows) >= min(MOST, len(task.x) - BATCH):
            return len(rows)
    return MOST


def _after(task: Task, strategy: str, seed: int) -> tuple[float, float, float]:
    """Return the shares of junk and of copies among the first labels, and the accuracy then."""
    for rows, head in _rounds(
        task, "random_sampling" if strategy == "random_sampling" else "typi_clust", strategy, seed
    ):
        if len(rows) >= WASTED:
            junk = float((task.codes[rows] < 0).mean())
            copies = 1 - len(np.unique(task.image[rows])) / len(rows)
            return junk, copies, _accuracy(head, task)
    return 0.0, 0.0, 0.0
