"""How well familiarity recognises images that no class fits, next to other methods; its false alarms and its cost.

AUROC is the probability that an unknown image is less familiar than a known held-out one; FPR is the share of known
images that are less familiar than the most familiar 5 % of the unknown ones (at 95 % recall).
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import rankdata
from selection_sets import Features, features
from unknown_methods import METHODS, Known

from bottleneck.evaluation.familiarity import familiarity

SPLITS = 20
HELD_OUT = 0.2  # share of the images
GENERATED = 200
OTHERS = ("digits", "elpv", "noise", "uniform")
LEVELS = (0.01, 0.05, 0.1)

Column = dict[str, list[tuple[float, float]]]  # method -> AUROC and FPR of each trial


def section(work: Path, images: Path | None, *, quick: bool) -> Iterator[str]:
    """Yield the lines of the tables, as they are measured."""
    sets = {name: features(name, work, images) for name in ("ants", "digits", "elpv")}
    columns = {}
    if sets["ants"] is not None:
        unknown = {name: given.x[::6] for name in ("digits", "elpv") if (given := sets[name]) is not None}
        unknown |= {name: _generated(name, work) for name in ("noise", "uniform")}
        columns |= _other_kinds(sets["ants"], unknown, seeds=1 if quick else 3)
    for name, given in sets.items():
        if given is not None:
            columns[f"one of {name}"] = _left_out(given, most=2 if quick else 10)
    yield "unknown images: AUROC / FPR, mean of the trials"
    yield "ants and bees shown four other kinds, then a class that was left out of each set in turn"
    yield from _table(columns)
    yield from _false_alarms(sets, 4 if quick else SPLITS)
    yield from _cost(work, images, sets["digits"])


def _table(columns: dict[str, Column]) -> Iterator[str]:
    yield f"{'method':34s}" + "".join(f"{name:>15s}" for name in columns)
    for method in METHODS:
        yield f"{method:34s}" + "".join(f"{_cell(column.get(method)):>15s}" for column in columns.values())
    last = METHODS[-1]
    trials = ", ".join(f"{name} {len(column[last])}" for name, column in columns.items())
    spreads = ((name, np.std([auroc for auroc, _ in column[last]])) for name, column in columns.items())
    spread = ", ".join(f"{name} {value:.3f}" for name, value in spreads)
    yield f"trials: {trials}; standard deviation of the AUROC of {last}: {spread}"


def _cell(trials: list[tuple[float, float]] | None) -> str:
    if not trials:
        return "-"
    auroc, fpr = np.mean(trials, axis=0)
    return f"{auroc:.3f} / {fpr:.2f}"


def _other_kinds(given: Features, unknown: dict[str, np.ndarray], seeds: int) -> dict[str, Column]:
    columns: dict[str, Column] = {name: {} for name in unknown}
    for seed in range(seeds):
        train, test = _divided(np.arange(len(given.codes)), seed)
        known = Known.of(given.x[train], given.codes[train])
        usual = known.unusual(given.x[test])
        for name, x in unknown.items():
            _add(columns[name], usual, known.unusual(x))
    return columns


def _left_out(given: Features, most: int) -> Column:
    """Return the results with each class, or the first `most` classes, left out."""
    column: Column = {}
    for code in range(min(most, given.count)):
        train, test = _divided(np.flatnonzero(given.codes != code), code)
        known = Known.of(given.x[train], given.codes[train])
        _add(column, known.unusual(given.x[test]), known.unusual(given.x[given.codes == code]))
    return column


def _add(column: Column, usual: dict[str, np.ndarray], unusual: dict[str, np.ndarray]) -> None:
    for method, values in unusual.items():
        known = usual[method]
        ranks = rankdata(np.concatenate([values, known]))[: len(values)]
        auroc = (ranks.sum() - len(values) * (len(values) + 1) / 2) / (len(values) * len(known))
        column.setdefault(method, []).append((auroc, float((known >= np.quantile(values, 0.05)).mean())))


def _divided(rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(rows)
    cut = round(HELD_OUT * len(order))
    return np.sort(order[cut:]), np.sort(order[:cut])


def _false_alarms(sets: dict[str, Features | None], splits: int) -> Iterator[str]:
    yield f"held-out images of the same set with a familiarity of at most p: {splits} splits, mean ± standard deviation"
    for name, given in sets.items():
        if given is None:
            continue
        rates, seconds = [], []
        for seed in range(splits):
            train, test = _divided(np.arange(len(given.codes)), seed)
            started = time.perf_counter()
            known = familiarity(given.x[train], [str(code) for code in given.codes[train]])
            seconds.append(time.perf_counter() - started)
            p_values = known.p_values(given.x[test])
            rates.append([(p_values <= level).mean() for level in LEVELS])
        cells = [
            f"p {level:g}: {mean:.2%} ± {spread:.2%}"
            for level, mean, spread in zip(LEVELS, np.mean(rates, axis=0), np.std(rates, axis=0, ddof=1), strict=True)
        ]
        yield f"{name:7s} {len(test)} held out; {'; '.join(cells)}; {np.median(seconds):.2f} s to fit"


def _cost(work: Path, images: Path | None, digits: Features | None) -> Iterator[str]:
    """Measure familiarity as a part of `predict` with cached features, and of the extraction of an image."""
    import bottleneck

    assert digits is not None
    cache, x = work / "cache", digits.x
    run = bottleneck.fit(work / "digits", cache=cache, runs=work / "runs", head="centroid")
    seconds = _least_seconds(lambda: bottleneck.predict(work / "digits", run=run.path, cache=cache))
    own = _least_seconds(lambda: bottleneck.load_run(run.path).uncertainty.familiarity.p_values(x))
    table = work / "predictions.csv"
    words = ("predict", work / "digits", "--run", run.path, "--cache", cache, "--out", table, "--no-labels")
    line = [sys.executable, "-m", "bottleneck", *map(str, words)]
    command = _least_seconds(lambda: subprocess.run(line, check=True, capture_output=True))
    size = (run.path / "uncertainty.safetensors").stat().st_size
    yield (
        f"{len(x):,} digits with cached features, {run.card['uncertainty']['references']:,} references: familiarity "
        f"{own:.3f} s of the {seconds:.3f} s of predict() ({own / (seconds - own):.0%} of the rest) and of the "
        f"{command:.3f} s of the command ({own / (command - own):.0%} of the rest); the file has {size / 1e6:.1f} MB"
    )
    random, of_class = np.random.default_rng(0), np.arange(10_000) % 10
    many = np.abs(random.normal(size=(10_000, 1280)) + 3 * random.random((10, 1280))[of_class]).astype(np.float32)
    started = time.perf_counter()
    known = familiarity(many, [str(row % 10) for row in range(10_000)])
    fitted = time.perf_counter() - started
    per_image = _least_seconds(lambda: known.p_values(many[:2000])) / 2000
    yield f"10,000 references of 1,280 features: {fitted:.1f} s to fit, {1000 * per_image:.2f} ms for each new image"
    if images is None:
        return
    with tempfile.TemporaryDirectory(dir=work) as folder:
        started = time.perf_counter()
        done = bottleneck.extract(images, cache=Path(folder) / "cache", runs=Path(folder) / "runs")
        per_photograph = (time.perf_counter() - started) / len(done.dataset)
    yield (
        f"extraction of {len(done.dataset)} photographs, start included: {1000 * per_photograph:.1f} ms each; "
        f"familiarity against 10,000 references is {per_image / per_photograph:.1%} of that"
    )


def _least_seconds(call: Callable[[], object]) -> float:
    """Return the shortest duration of five calls."""
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _generated(kind: str, work: Path) -> np.ndarray:
    """Return the features of images of noise, or of one colour each."""
    import bottleneck

    folder, random = work / kind, np.random.default_rng(3)
    if not folder.exists():
        folder.mkdir()
        for number in range(GENERATED):
            pixels = random.integers(0, 256, (224, 224, 3) if kind == "noise" else (1, 1, 3), np.uint8)
            Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (224, 224, 3)))).save(folder / f"{number}.png")
    done = bottleneck.extract(folder, cache=work / "cache", runs=work / "runs", labels=False)
    return done.store.read(np.unique(done.dataset.digests, axis=0)).astype(np.float32)
