"""Compare runs on the held-out images that they share, image by image."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import RunError
from bottleneck.evaluation.stats import holm, mcnemar
from bottleneck.images.keys import Digests, DigestSet, as_digests
from bottleneck.runs.card import params_text
from bottleneck.runs.images import Role
from bottleneck.runs.listing import RunSummary, summary_of
from bottleneck.runs.ranking import LEVEL
from bottleneck.runs.run import Run
from bottleneck.utils.text import normal

Verdict = Literal["better", "worse", "not told apart", "not compared"]
_SETTINGS = {  # entries of a card, and what they are called
    "head": "head",
    "normalize": "scaling",
    "class_weight": "class weight",
    "heldout": "held-out split",
    "n_train": "training images",
    "n_heldout": "held-out images",
    "seed": "seed",
    "bottleneck": "version",
}


@dataclass(frozen=True, kw_only=True)
class RunPair:
    """A run and the first one, on the images that both were tested on and neither was trained on.

    Parameters
    ----------
    run, against : str
        Names.
    n : int
        Number of these images.
    n_run, n_against : int
        Numbers of images that each was tested on.
    relabelled : int
        Images with another label in the other run, which are left out.
    selected : int
        Images among the n that selected the epoch of a fine-tuning, so that its accuracy is optimistic.
    accuracy, accuracy_against : float or None
        On the n images; None if there are none.
    only_run, only_against : int
        Images that only one of the two classifies correctly.
    p_value : float or None
        Of McNemar's test, adjusted by Holm's method if more than two runs are compared; None without images.
    """

    run: str
    against: str
    n: int
    n_run: int
    n_against: int
    relabelled: int
    selected: int
    accuracy: float | None
    accuracy_against: float | None
    only_run: int
    only_against: int
    p_value: float | None

    @property
    def same_images(self) -> bool:
        """Whether both were tested on the same images."""
        return self.n == self.n_run == self.n_against

    @property
    def verdict(self) -> Verdict:
        """Whether the run is better than the first one, at the level of 0.05."""
        if self.p_value is None:
            return "not compared"
        if self.p_value >= LEVEL:
            return "not told apart"
        return "better" if self.only_run > self.only_against else "worse"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {**asdict(self), "same_images": self.same_images, "verdict": self.verdict}


@dataclass(frozen=True, kw_only=True)
class RunsSideBySide:
    """Several runs side by side.

    Parameters
    ----------
    runs : tuple of RunSummary
    differences : dict of str to tuple of str
        Settings that differ: a value for each run, empty if its card does not record it.
    pairs : tuple of RunPair
        Each later run with the first one.
    """

    runs: tuple[RunSummary, ...]
    differences: dict[str, tuple[str, ...]]
    pairs: tuple[RunPair, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "runs": [run.to_json() for run in self.runs],
            "differences": {name: list(values) for name, values in self.differences.items()},
            "pairs": [pair.to_json() for pair in self.pairs],
        }


def side_by_side(runs: Sequence[Run]) -> RunsSideBySide:
    """Compare runs with the first of them, by their predictions for held-out images and by their cards.

    Nothing is computed again. Only images that both runs were tested on count, by their digests, so runs on different
    images, or on different splits of them, are compared as far as they overlap.

    Parameters
    ----------
    runs : sequence of Run
        At least two, all different.

    Raises
    ------
    RunError
        If there are fewer, one is repeated, or the predictions of one cannot be read.
    """
    if len(runs) < 2:
        raise RunError(f"expected at least two runs to compare, got {len(runs)}")
    if repeated := [run.name for place, run in enumerate(runs) if run.path.resolve() in _resolved(runs[:place])]:
        raise RunError(f"expected different runs to compare, got {repeated[0]} twice")
    first, *others = [_Tested.of(run) for run in runs]
    pairs = [_pair(one, first) for one in others]
    known = [pair.p_value for pair in pairs if pair.p_value is not None]
    adjusted = iter(holm(known))
    return RunsSideBySide(
        runs=tuple(summary_of(run) for run in runs),
        differences=_differences(runs),
        pairs=tuple(pair if pair.p_value is None else replace(pair, p_value=next(adjusted)) for pair in pairs),
    )


def _resolved(runs: Sequence[Run]) -> set[object]:
    return {run.path.resolve() for run in runs}


@dataclass(frozen=True)
class _Tested:
    """The images that a run was tested on, each once, with what it makes of them."""

    name: str
    digests: Digests
    labels: NDArray[np.object_]
    right: NDArray[np.bool_]
    selected: NDArray[np.bool_]

    @classmethod
    def of(cls, run: Run) -> "_Tested":
        try:
            rows = {row["digest"]: (normal(row["label"]), normal(row["predicted"])) for row in run.predictions}
            digests = as_digests([bytes.fromhex(digest) for digest in rows])
        except (KeyError, ValueError) as error:
            raise RunError(f"expected digests, labels and predictions in {run.path}/predictions.csv: {error}") from None
        labels = np.array([label for label, _ in rows.values()], object)
        right = np.array([label == predicted for label, predicted in rows.values()], bool)
        known = run.images
        roles = known.role_of(digests) if known is not None else np.full(len(rows), int(Role.HELD_OUT))
        unseen = np.full(len(rows), True) if run.is_final else roles != Role.TRAINED  # its tested head predicted them
        selected = roles == Role.SELECTED
        return cls(run.name, digests[unseen], labels[unseen], right[unseen], selected[unseen])


def _pair(one: _Tested, first: _Tested) -> RunPair:
    rows = DigestSet(first.digests).find(one.digests) if len(first.digests) else np.full(len(one.digests), -1)
    shared = rows >= 0
    equal = shared.copy()
    equal[shared] = one.labels[shared] == first.labels[rows[shared]]
    mine, theirs = one.right[equal], first.right[rows[equal]]
    test = mcnemar(mine, theirs)
    return RunPair(
        run=one.name,
        against=first.name,
        n=len(mine),
        n_run=len(one.digests),
        n_against=len(first.digests),
        relabelled=int(shared.sum() - equal.sum()),
        selected=int((one.selected[equal] | first.selected[rows[equal]]).sum()),
        accuracy=float(mine.mean()) if len(mine) else None,
        accuracy_against=float(theirs.mean()) if len(mine) else None,
        only_run=test["only_a"],
        only_against=test["only_b"],
        p_value=test["p_value"] if len(mine) else None,
    )


def _differences(runs: Sequence[Run]) -> dict[str, tuple[str, ...]]:
    """Return the settings whose values differ, as text."""
    described = [_described(run) for run in runs]
    if len({run.card["dataset"].get("images_digest", run.path) for run in runs}) == 1:
        described = [{**one, "images": ""} for one in described]  # the same ones, wherever they were
    names = dict.fromkeys(name for one in described for name in one)
    values = {name: tuple(one.get(name, "") for one in described) for name in names}
    return {name: found for name, found in values.items() if len(set(found)) > 1}


def _described(run: Run) -> dict[str, str]:
    """Return the settings that a card records, as text."""
    card, data = run.card, run.card["dataset"]
    recorded = {
        "images": data.get("source"),
        "splits": ", ".join(f"{name} {count}" for name, count in sorted(data.get("splits", {}).items())),
        "model": run.features if "model" in card else None,
        **{title: card.get(name) for name, title in _SETTINGS.items()},
        "parameters": params_text(card["params"]) if "params" in card else None,
        "final head": "yes" if run.is_final else "no",
    }
    return {name: str(value) for name, value in recorded.items() if value is not None}
