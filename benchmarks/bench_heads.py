"""Compare searches of heads on cached features with scikit-learn on the same array, and measure a large softmax.

python benchmarks/bench_heads.py [--only PART,...] [--repeats N] [--cache DIR --model NAME]
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

PARTS = ("small", "scaling", "large", "softmax", "real")
DECADES = [10.0**power for power in range(-5, 2)]
RBF_C = [0.1, 1.0, 10.0, 100.0]
FOLDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts: {', '.join(PARTS)}")
    parser.add_argument("--repeats", type=int, default=3, help="runs, whose median is printed; LinearSVC runs once")
    parser.add_argument("--heads", default="logistic,svm,rbf", help="heads of the part small; svm takes some minutes")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the streamed softmax")
    parser.add_argument("--images", help="a folder of images in addition to the digits, for the part real")
    parser.add_argument("--cache", help="measure the part small on these cached features instead of synthetic ones")
    parser.add_argument("--model", help="the model of the features in --cache")
    parser.add_argument("--train", help=argparse.SUPPRESS)  # the streamed softmax, in a separate process
    options = parser.parse_args()
    if options.train:
        train_streamed(Path(options.train))
        return
    chosen = options.only.split(",")
    if "small" in chosen:
        x, labels = cached(options.cache, options.model) if options.cache else made(3000, 1280, 5, apart=0.2)
        small(standardised(x), labels, options.repeats, options.heads.split(","))
    if "scaling" in chosen:
        scaling(*made(3000, 1280, 5, apart=0.2), options.repeats)
    if "large" in chosen:
        large(options.repeats)
    if "softmax" in chosen:
        for rows in (options.rows // 4, options.rows):
            streamed(rows)
    if "real" in chosen:
        real(options.images)


# --- features ---------------------------------------------------------------------------------------------------


def made(rows: int, dim: int, classes: int, apart: float) -> tuple[np.ndarray, np.ndarray]:
    """Return synthetic features of overlapping classes, like those of a network.

    They are nonnegative and correlated: after standardisation, their n-th largest variance falls as n^-0.95, similar to
    n^-1.07 for the EfficientNet-Lite0 features of 20,000 crops of photographs.
    """
    random = np.random.default_rng(0)
    mixing = random.standard_normal((dim, dim), np.float32) / np.sqrt(dim)
    sizes = (1 + np.arange(dim, dtype=np.float32)) ** -0.6
    codes = random.integers(0, classes, rows)
    centres = random.standard_normal((classes, dim), np.float32) * apart
    x = ((random.standard_normal((rows, dim), np.float32) + centres[codes]) * sizes) @ mixing
    return np.maximum(x / x.std(), 0).astype(np.float32), np.array([f"class {code}" for code in codes])


def standardised(x: np.ndarray) -> np.ndarray:
    return ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)


def cached(folder: str, model: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the training split of the images last extracted into a cache, without constant features."""
    from bottleneck.fitting.inputs import select
    from bottleneck.fitting.partition import part

    selected = select(None, model=model, cache=folder, runs="runs", labels=True)
    own = part(selected.usable, selected.store, "train")
    x = own.table.take(np.arange(len(own)))
    return x[:, x.std(axis=0) > 0], np.array(own.labels)


# --- searches compared with GridSearchCV ------------------------------------------------------------------------


def small(x: np.ndarray, labels: np.ndarray, repeats: int, heads: list[str]) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC, LinearSVC

    n, d = x.shape
    print(f"\n{n:,} x {d:,} of {len(set(labels))} classes, {FOLDS} folds, medians of {repeats}:\n", flush=True)
    print_row(
        "head",
        "values of C",
        "GridSearchCV, s",
        "in two processes, s",
        "bottleneck, s",
        "ratio to the faster of both",
        "accuracy, theirs / ours, %",
        "C, theirs / ours",
        "objective above theirs, worst C",
    )
    print_row(*["---"] * 9)
    if "logistic" in heads:
        compare("logistic", {}, LogisticRegression(max_iter=1000), DECADES, x, labels, repeats)
    if "rbf" in heads:
        compare("svm", {"kernel": "rbf"}, SVC(), RBF_C, x, labels, repeats)
    if "svm" in heads:
        compare("svm", {}, LinearSVC(), [C / 100 for C in DECADES], x, labels, repeats)


def compare(
    name: str, kind: dict, model: object, grid: list[float], x: np.ndarray, labels: np.ndarray, repeats: int
) -> None:
    from sklearn.model_selection import GridSearchCV, PredefinedSplit

    from bottleneck.heads.family import family
    from bottleneck.heads.folds import divide
    from bottleneck.heads.search import search

    codes = np.unique(labels, return_inverse=True)[1]
    split = PredefinedSplit(divide(codes, None, FOLDS, 0).tested)  # the same folds as ours
    some = family(name, **kind)
    found, ours = timed(
        lambda: search(x, labels.tolist(), some, grid=grid, folds=FOLDS, normalize="none", rule="accuracy"), repeats
    )

    def theirs(jobs: int | None) -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return GridSearchCV(model, {"C": grid}, cv=split, n_jobs=jobs).fit(x, labels)

    slow = name == "svm" and not kind
    searched, alone = timed(lambda: theirs(None), 1 if slow else repeats)
    _, together = timed(lambda: theirs(2), 1 if slow else repeats)
    scores = searched.cv_results_["mean_test_score"]
    same = found.fold_accuracy.mean(axis=1)
    worst = f"{objectives(name, x, codes, grid):.1e}" if not kind else ""
    print_row(
        " ".join([name, *kind.values()]),
        len(grid),
        f"{alone:.1f}",
        f"{together:.1f}",
        f"{ours:.2f}",
        f"{min(alone, together) / ours:.1f}",
        f"{100 * scores.max():.1f} / {100 * same.max():.1f}",
        f"{grid[int(scores.argmax())]:g} / {found.params['C']:g}",
        worst,
    )


class Shrunk(TransformerMixin, BaseEstimator):
    """The default scaling of bottleneck, for scikit-learn pipelines."""

    def fit(self, x: np.ndarray, y: object = None) -> "Shrunk":
        """Compute means and scales of rows ``(n, d)``."""
        variance = x.var(axis=0)
        self.mean_, self.scale_ = x.mean(axis=0), np.sqrt(variance / 2 + variance.mean() / 2)
        return self

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Return the scaled rows."""
        return (x - self.mean_) / self.scale_


def scaling(x: np.ndarray, labels: np.ndarray, repeats: int) -> None:
    """Compare a search of scaling and C, as in `fit`, with as many fits of a pipeline, and with a single scaling."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    from bottleneck.heads.family import family
    from bottleneck.heads.search import search

    n, d = x.shape
    print(f"\n{n:,} x {d:,} of {len(set(labels))} classes, {FOLDS} folds, two scalings, medians of {repeats}:\n")
    print_row("head", "fits", "GridSearchCV, s", "bottleneck, s", "ratio", "single scaling, s", "ratio to it")
    print_row(*["---"] * 7)
    for name, model in (("logistic", LogisticRegression(max_iter=1000)), ("svm", LinearSVC())):
        some = family(name)
        _, ours = timed(lambda some=some: search(x, labels.tolist(), some), repeats)
        _, alone = timed(lambda some=some: search(x, labels.tolist(), some, normalize="shrunk"), repeats)
        grid = {"scale": [Shrunk(), StandardScaler()], "head__C": list(some.values)}
        pipeline = Pipeline([("scale", Shrunk()), ("head", model)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, theirs = timed(lambda p=pipeline, g=grid: GridSearchCV(p, g, cv=FOLDS).fit(x, labels), 1)
        fits = 2 * FOLDS * len(some.values)
        print_row(
            name, fits, f"{theirs:.1f}", f"{ours:.2f}", f"{theirs / ours:.1f}", f"{alone:.2f}", f"{ours / alone:.2f}"
        )


def objectives(name: str, x: np.ndarray, codes: np.ndarray, grid: list[float]) -> float:
    """Return the largest relative excess of our objectives, after a search, over the best of scikit-learn."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    worst = -np.inf
    for C, theta in zip(grid, path(x, codes, name, grid), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name == "logistic":
                model = LogisticRegression(C=C, max_iter=10_000, tol=1e-6).fit(x, codes)
                best, ours = (softmax_objective(x, codes, C, w, b) for w, b in
                              ((model.coef_, model.intercept_), (theta[:, :-1], theta[:, -1])))  # fmt: skip
            else:
                model = LinearSVC(C=C).fit(x, codes)
                best, ours = (hinge_objective(x, codes, C, w, b) for w, b in
                              ((model.coef_, model.intercept_), (theta[:, :-1], theta[:, -1])))  # fmt: skip
        worst = max(worst, ours / best - 1)
    return float(worst)


def path(x: np.ndarray, codes: np.ndarray, name: str, grid: list[float]) -> np.ndarray:
    """Return our weights at each C, the bias last, in the precision of a search."""
    from bottleneck.heads.arrays import Arrays
    from bottleneck.heads.family import family
    from bottleneck.heads.features import InMemoryFeatures
    from bottleneck.heads.folds import everything
    from bottleneck.heads.problem import Problem

    count = int(codes.max()) + 1
    task = Problem(
        table=InMemoryFeatures(x), codes=codes, count=count, folds=everything(len(x)), normalize="none", arrays=Arrays()
    )
    return family(name).paths(task, grid, exact=False)[:, 0].astype(np.float64)


def softmax_objective(x: np.ndarray, codes: np.ndarray, C: float, weight: np.ndarray, bias: np.ndarray) -> float:
    scores = x @ weight.T + bias
    top = scores.max(axis=1)
    losses = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top - scores[np.arange(len(x)), codes]
    return float(C * losses.sum() + (weight**2).sum() / 2)


def hinge_objective(x: np.ndarray, codes: np.ndarray, C: float, weight: np.ndarray, bias: np.ndarray) -> float:
    sign = np.where(codes[:, None] == np.arange(len(weight)), 1, -1)
    short = np.maximum(0, 1 - sign * (x @ weight.T + bias))
    return float(C * (short**2).sum() + ((weight**2).sum() + (bias**2).sum()) / 2)


def large(repeats: int) -> None:
    """Compare a search with scikit-learn, whose time for 35 fits is extrapolated from a single fit."""
    from sklearn.linear_model import LogisticRegression

    from bottleneck.heads.family import family
    from bottleneck.heads.search import search

    raw, labels = made(20_000, 2048, 50, apart=0.15)
    codes = np.unique(labels, return_inverse=True)[1]
    fits = len(DECADES) * FOLDS
    print(f"\n20,000 x 2,048 of 50 classes, {len(DECADES)} values of C, {FOLDS} folds, medians of {repeats}:\n")
    print_row(
        "features",
        "one LogisticRegression, s",
        f"{fits} times, s",
        "bottleneck's search, s",
        "ratio",
        "C",
        "accuracy, %",
        "objective above theirs, C = 1",
        "peak memory, MB",
    )
    print_row(*["---"] * 9)
    for name, x in (("like those of a network", raw), ("standardised", standardised(raw))):
        found, ours = timed(
            lambda x=x: search(x, labels.tolist(), family("logistic"), grid=DECADES, normalize="none"), repeats
        )
        memory = peak()
        model, one = timed(lambda x=x: LogisticRegression(max_iter=1000).fit(x, labels), repeats)
        theta = path(x, codes, "logistic", [1.0])[0]
        best, reached = (
            softmax_objective(x, codes, 1.0, *pair)
            for pair in ((model.coef_, model.intercept_), (theta[:, :-1], theta[:, -1]))
        )
        print_row(
            name,
            f"{one:.1f} ({model.n_iter_[0]} iterations)",
            f"{one * fits:.0f}",
            f"{ours:.1f}",
            f"{one * fits / ours:.1f}",
            f"{found.params['C']:g}",
            f"{100 * found.accuracy:.1f}",
            f"{reached / best - 1:.1e}",
            f"{memory:,.0f}",
        )


# --- softmax on a million rows ----------------------------------------------------------------------------------


def streamed(rows: int) -> None:
    """Write shards of random float16 features, and train softmax on them in a separate process."""
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder), rows)
        done = subprocess.run([sys.executable, __file__, "--train", folder], check=True, capture_output=True, text=True)
        print("\n" + done.stdout, flush=True)


def write_store(folder: Path, rows: int, dim: int = 512, classes: int = 10) -> None:
    from bottleneck.backbones.spec import Spec
    from bottleneck.cache.feature_cache import FeatureCache
    from bottleneck.images.preprocessing import Preprocessing

    preprocessing = Preprocessing(
        resize=8, crop=8, interpolation="bilinear", antialias=True, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    spec = Spec(
        backbone="made-up", weights="0" * 64, layer="fc:input", pooling="avg", preprocessing=preprocessing,
        transform_input=False, precision="fp16", decoder=1,
    )  # fmt: skip
    store, random = FeatureCache(folder).store(spec), np.random.default_rng(0)
    centres = random.standard_normal((classes, dim), np.float32) * 0.2
    step = 100_000
    for start in range(0, rows, step):  # by class, in the order of an extraction
        codes = np.sort(np.arange(start, min(start + step, rows)) * classes // rows)
        x = (random.standard_normal((len(codes), dim), np.float32) + centres[codes]).astype(np.float16)
        digests = np.zeros((len(codes), 32), np.uint8)
        digests[:, :8] = np.arange(start, start + len(codes))[:, None] >> (8 * np.arange(8)) & 255
        digests[:, 8] = codes
        store.append(digests, x)


def train_streamed(folder: Path) -> None:
    from bottleneck.cache.feature_cache import FeatureCache
    from bottleneck.heads.arrays import Arrays
    from bottleneck.heads.family import family
    from bottleneck.heads.features import StreamedFeatures
    from bottleneck.heads.folds import everything
    from bottleneck.heads.problem import Problem

    (store,) = FeatureCache(folder).stores()
    digests = store.digests()
    codes = digests[:, 8].astype(np.intp)
    before = peak()
    stream, opened = timed(lambda: store.stream(digests), 1)
    read, reading = timed(lambda: sum(len(rows) for rows, _ in stream.blocks()), 1)
    task = Problem(
        table=StreamedFeatures(stream),
        codes=codes,
        count=10,
        folds=everything(len(codes)),
        normalize="none",
        arrays=Arrays(),
    )
    theirs = plain_h5py(sorted((store.folder / "shards").glob("*.h5")))
    _, training = timed(lambda: family("softmax", epochs=1).fit(task, {"C": 1.0}), 1)
    after = peak()
    _, closed = timed(lambda: family("ridge").fit(task, {"C": 1e-3}), 1)
    print(
        f"softmax on {read:,} x {stream.shape[1]} {stream.dtype} of 10 classes: verifying the shards {opened:.1f} s, "
        f"reading them once {reading:.2f} s (plain h5py {theirs:.2f} s), an epoch {training:.2f} s, "
        f"{reading / training:.2f} of the speed of reading ({theirs / training:.2f} of plain h5py's); peak memory "
        f"{after:,.0f} MB ({before:,.0f} before it; torch is {'' if 'torch' in sys.modules else 'not '}imported); "
        f"ridge "
        f"{closed:.2f} s, {peak():,.0f} MB"
    )


def plain_h5py(shards: list[Path]) -> float:
    import h5py

    def read() -> None:
        for path in shards:
            with h5py.File(path) as file:
                features = file["features"]
                for start in range(0, len(features), 10_000):
                    features[start : start + 10_000]

    return timed(read, 1)[1]


# --- real images ------------------------------------------------------------------------------------------------


def real(images: str | None) -> None:
    """Search the heads on features of the digits of the demo, and of a folder."""
    import bottleneck
    from bottleneck.demo.digits import write_digits

    print()
    print_row(
        "images",
        "head",
        "cross-validated, %",
        "calibration error, cross-validated",
        "held-out, %",
        "95 % interval",
        "calibration error",
        "seconds",
    )
    print_row(*["---"] * 8)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for source in [write_digits(home / "digits"), *([Path(images)] if images else [])]:
            bottleneck.extract(source, cache=home / "cache", runs=home / "runs")
            for head in ("logistic", "svm", "softmax", "ridge", "knn", "centroid"):
                run = bottleneck.fit(source, head=head, cache=home / "cache", runs=home / "runs")
                found, metrics = run.card["search"], run.metrics
                low, high = metrics["accuracy_ci95"]
                print_row(
                    source.name,
                    head,
                    f"{100 * run.cv_accuracy:.1f}",
                    f"{found['cv']['ece']:.3f}",
                    f"{100 * metrics['accuracy']:.1f}",
                    f"{100 * low:.1f} to {100 * high:.1f}",
                    f"{metrics['ece']:.3f}",
                    f"{run.card['seconds']:.1f}",
                )


def print_row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def timed(work: Callable[[], object], repeats: int) -> tuple[object, float]:
    """Return the result of the last of several runs, and the median of their seconds."""
    seconds, found = [], None
    for _ in range(repeats):
        started = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - started)
    return found, statistics.median(seconds)


def peak() -> float:
    """Return the peak memory of this process, in MB."""
    status = Path("/proc/self/status")  # ru_maxrss may be that of the process that started this one
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
