"""Compare forecasts from a quarter of a training set with heads that are trained on half of it and on all of it.

A training set is drawn from one of five sets of images. The learning curve of logistic regression is computed on a
random quarter of it, as `compare --learning-curve` does, and predicts the accuracy of heads trained on two and four
times as many images. Such heads are then searched, trained, and tested on images outside the training set.

python benchmarks/bench_forecast.py [--work DIR] [--images FOLDER] [--replicates N] [--first SEED]
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from selection_sets import NAMES, Features, draw, features

from bottleneck.heads.family import family
from bottleneck.heads.features import NORMALIZE, InMemoryFeatures
from bottleneck.heads.forecast import Forecast
from bottleneck.heads.head import Head
from bottleneck.heads.learning_curve import Curve, learning_curve
from bottleneck.heads.options import HeadOptions
from bottleneck.heads.search import Search

HEAD = "logistic"
PER_CLASS = {  # images per class in the whole training set
    "ants": (20, 40, 100),
    "digits": (20, 48, 100),
    "elpv": (20, 60, 200, 400),
    "glyphs": (20, 60, 200),
    "crops": (20, 60, 200),
}
QUARTERS = (40, 160, 10_000)  # upper limits of the sizes in the rows of the tables
LITTLE, SURE = 0.01, 0.005


@dataclass(frozen=True, kw_only=True)
class Replicate:
    """A forecast, and the accuracies that were measured afterwards.

    Parameters
    ----------
    name : str
        Name of the set.
    quarter : int
        Images of the quarter.
    curve : Curve
    truth : dict of int to float
        Accuracy of heads trained on one, two and four times as many images, all on the same test images.
    """

    name: str
    quarter: int
    curve: Curve
    truth: dict[int, float]

    @property
    def gain(self) -> float:
        """The gain from twice as many images."""
        return self.truth[2] - self.truth[1]

    def forecast(self, times: int) -> Forecast:
        """Return the forecast for `times` as many images."""
        return self.curve.law.forecast(times * self.quarter)

    def miss(self, times: int) -> float:
        """Return the error of the forecast."""
        return self.forecast(times).accuracy - self.truth[times]

    def holds(self, times: int) -> bool:
        """Return whether the interval contains the accuracy."""
        low, high = self.forecast(times).ci95
        return low <= self.truth[times] <= high

    def width(self, times: int) -> float:
        """Return the width of the interval."""
        low, high = self.forecast(times).ci95
        return high - low

    @property
    def gain_interval(self) -> tuple[float, float]:
        """The interval of the gain from twice as many images."""
        return self.curve.law.doubling()[1]

    @property
    def says_hardly(self) -> bool:
        """Whether the advice is that more images "would hardly help"."""
        return self.gain_interval[1] < SURE

    @property
    def old_says_hardly(self) -> bool:
        """Whether the rule of version 0.1 gives this advice: the last gain is not above its standard error."""
        return self.curve.gain <= self.curve.gain_error

    def old_miss(self, times: int) -> float:
        """Return the error of the rule of version 0.1, whose error rate falls as in the last step or not at all."""
        before, last = self.curve.points[-2:]
        power = 0.0
        if not self.old_says_hardly:
            power = np.log((1 - last.accuracy) / (1 - before.accuracy)) / np.log(last.n / before.n)
        return 1 - (1 - last.accuracy) * (times * self.quarter / last.n) ** power - self.truth[times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("bench-work"), help="folder of images and features")
    parser.add_argument("--images", type=Path, help="the ants and bees of PyTorch's tutorial; without them, four sets")
    parser.add_argument("--replicates", type=int, default=8, help="replicates of each set and size")
    parser.add_argument("--first", type=int, default=0, help="seed of the first; the constants are for seeds from 100")
    parser.add_argument("--normalize", choices=NORMALIZE, default="shrunk")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    sets = {name: features(name, options.work, options.images) for name in NAMES}
    own = HeadOptions(normalize=options.normalize)
    done = []
    for seed in range(options.first, options.first + options.replicates):
        done += [one for name, found in sets.items() if found for one in replicates(name, found, own, seed)]
        print(f"seed {seed}: {len(done)} forecasts", file=sys.stderr, flush=True)
    print(forecasts_table(done), gains_table(done), sep="\n")


def replicates(name: str, found: Features, options: HeadOptions, seed: int) -> Iterator[Replicate]:
    """Yield a forecast for each size of the set, except those for which the curve has a single point."""
    for per_class in PER_CLASS[name]:
        test = draw(found.codes, found.count, per_class, seed).test
        parts = {times: draw(found.codes, found.count, per_class * times // 4, seed).train for times in (1, 2, 4)}
        searched = {times: search(found, rows, options) for times, rows in parts.items()}
        labels = names(found.codes[parts[1]])
        curve = learning_curve(InMemoryFeatures(found.x[parts[1]]), labels, None, searched[1], family(HEAD), options)
        if len(curve.points) > 1:
            truth = {times: accuracy(one.head, found, test) for times, one in searched.items()}
            yield Replicate(name=name, quarter=len(parts[1]), curve=curve, truth=truth)


def search(found: Features, rows: np.ndarray, options: HeadOptions) -> Search:
    """Search and fit a head on some rows."""
    return options.search_head(HEAD, found.x[rows], names(found.codes[rows]), None, "")


def accuracy(head: Head, found: Features, rows: np.ndarray) -> float:
    """Return the accuracy of a head on some rows."""
    said = np.array(head.classes)[head.probabilities(found.x[rows]).argmax(axis=1)]
    return float((said == np.array(names(found.codes[rows]))).mean())


def names(codes: np.ndarray) -> list[str]:
    return [f"{code:02d}" for code in codes]


# --- tables -----------------------------------------------------------------------------------------------------


def parts_of(done: Sequence[Replicate]) -> Iterator[tuple[str, list[Replicate]]]:
    """Yield the replicates of each set, those of each range of sizes, and all replicates."""
    for name in dict.fromkeys(one.name for one in done):
        yield name, [one for one in done if one.name == name]
    for least, most in zip((0, *QUARTERS), QUARTERS, strict=False):
        own = [one for one in done if least < one.quarter <= most]
        if own:
            yield f"quarters of {min(one.quarter for one in own)} to {max(one.quarter for one in own)} images", own
    yield "all", list(done)


def forecasts_table(done: Sequence[Replicate]) -> str:
    head = ["what", "forecasts"]
    for times in (2, 4):
        head += [f"x {times}: coverage of the 95 % interval", "its width", "RMSE", "RMSE of the last two points"]
    lines = []
    for what, own in parts_of(done):
        line = [what, str(len(own))]
        for times in (2, 4):
            line += [
                share([one.holds(times) for one in own]),
                points([one.width(times) for one in own]),
                points([one.miss(times) for one in own], rms),
                points([one.old_miss(times) for one in own], rms),
            ]
        lines.append(line)
    return markdown(head, lines)


def gains_table(done: Sequence[Replicate]) -> str:
    head = ["replicates", "gain from twice the images", "coverage of the 95 % interval", "its width", "RMSE"]
    head += ['advice "hardly help"', "advice of version 0.1", "mean gain then", "a point or more then"]
    lines = []
    for what, own in parts_of(done):
        held = [low <= one.gain <= high for one in own for low, high in [one.gain_interval]]
        widths = [high - low for one in own for low, high in [one.gain_interval]]
        misses = [one.curve.law.doubling()[0] - one.gain for one in own]
        line = [what, points([one.gain for one in own]), share(held), points(widths), points(misses, rms)]
        said, old = ([one.gain for one in own if says(one)] for says in SAYERS)
        line += [hardly(said, len(own)), f"{len(old)} of {len(own)}"]
        line += [points(old), share([gain >= LITTLE for gain in old])] if old else ["", ""]
        lines.append(line)
    return markdown(head, lines)


SAYERS: tuple[Callable[[Replicate], bool], ...] = (lambda one: one.says_hardly, lambda one: one.old_says_hardly)


def hardly(gains: Sequence[float], count: int) -> str:
    """Return how often the advice was given, and the gains in these cases."""
    said = f"{len(gains)} of {count}"
    if not gains:
        return said
    return f"{said}, mean gain {points(gains)}, a point or more {share([gain >= LITTLE for gain in gains])}"


def share(held: Sequence[bool]) -> str:
    return f"{100 * np.mean(held):.0f} %"


def rms(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def points(values: Sequence[float], by: Callable[[Sequence[float]], float] = np.mean) -> str:
    return f"{100 * by(values):.1f}"


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    main()
