"""Choose the default run: the first on its images, until a later one is significantly better.

A final run, whose head is trained on all images, only has to be not significantly worse.
"""

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bottleneck.errors import RunError
from bottleneck.evaluation.stats import half_width, mcnemar
from bottleneck.runs.images import RunImages
from bottleneck.runs.run import Run, list_runs, runs_here

LEVEL = 0.05  # of McNemar's test


@dataclass(frozen=True)
class Choice:
    """A run, and why it is chosen.

    Parameters
    ----------
    run : Run
    reason : str
        A clause that completes "this run is used, ...".
    """

    run: Run
    reason: str

    def __str__(self) -> str:
        card = self.run.card
        images = f" ({card['n_train']} training images)" if "n_train" in card else ""
        if self.run.is_final:
            images = f" ({card['final']['n_train']} images, including held-out ones)"
        return f"{self.run.path}, trained on {card['dataset'].get('source', 'images')}{images}: {self.reason}"


def choose(runs: Sequence[Run]) -> Choice:
    """Return the default of some runs.

    Only runs on the same images and labels as the latest run are compared; their splits may differ. The first of them
    is the default. In the order in which they were made, each later run replaces it if it is significantly better. A
    final run (`fit --final`) replaces a run that is not final unless that is significantly better. Final runs are
    compared by their tested head. A run is significantly better than another

    1. if it was fine-tuned from that run, or from its tested head: by McNemar's test against the head with p < 0.05, on
       folds of the training images; without folds, by that of its best epoch against epoch 0, on the validation images;
    2. else by McNemar's test with p < 0.05, on the images that both runs predicted without being trained on them:
       training images, predicted by the heads of the other folds, and validation images;
    3. if neither is recorded, as in runs of earlier versions: if its `bottleneck.runs.run.Run.score` is higher by more
       than the root of the sum of the squared half widths of both 95 % intervals.

    Held-out images are never used: the accuracy on images that select the run would be optimistic.

    Parameters
    ----------
    runs : sequence of Run
        At least one, oldest first.

    Notes
    -----
    The third rule is the square-and-add method of R. G. Newcombe 1998, "Interval estimation for the difference between
    independent proportions", Statistics in Medicine 17, 873-890.
    """
    same = [run for run in runs if _same_images(run, runs[-1])]
    chosen, why = same[0], ""
    for run in same[1:]:
        if found := _beats(run, chosen, same):
            chosen, why = run, f"significantly better than {chosen.name} ({found})"
        elif run.is_final and not chosen.is_final and not _beats(chosen, run, same):
            chosen, why = run, f"a final head, and {chosen.name} is not significantly better"
    return Choice(chosen, why or _why_first(runs, same))


def default_run(folder: str | os.PathLike[str]) -> Choice:
    """Return the default run, and why it is chosen; see `choose`.

    Raises
    ------
    RunError
        If there is no run.
    """
    runs = list_runs(folder)
    if not runs:
        raise RunError(f"expected runs in {folder}, found none; `bottleneck fit` creates one")
    return choose(runs_here(runs, folder))


def _why_first(runs: Sequence[Run], same: Sequence[Run]) -> str:
    if len(runs) == 1:
        return "the only run"
    if len(same) == 1:
        return "the only run on the images of the latest run"
    first, best = same[0], max(same, key=lambda run: run.score)
    reason = f"the first of {len(same)} runs on these images; no other is significantly better"
    if best.score <= first.score:
        return reason
    return f"{reason} ({best.name} has {best.score:.1%} against {first.score:.1%}; --run {best.name} uses it)"


def _same_images(a: Run, b: Run) -> bool:
    """Return whether two runs are on the same images with the same labels, possibly in different splits."""
    one, other = a.card["dataset"], b.card["dataset"]
    if one["digest"] == other["digest"]:
        return True
    if "images_digest" in one and "images_digest" in other:
        return bool(one["images_digest"] == other["images_digest"])
    facts = ("source", "used", "labels")  # all that earlier versions record
    return all(name in one and name in other and one[name] == other[name] for name in facts)


def _beats(run: Run, default: Run, runs: Sequence[Run]) -> str | None:
    """Return why a run is significantly better than the default, both among `runs`; None if it is not."""
    card = run.card
    before, folds = card.get("validation", {}).get("against_start"), card.get("fold_test")
    if run.is_tuned and _began_with(run, default, runs) and before:
        if folds and card.get("heldout_test"):  # else the head itself was kept
            test = {"only_a": folds["only_tuned"], "only_b": folds["only_head"], "p_value": folds["p_value"]}
            return _by_test(test, f"{folds['n']} training images, by folds")
        return _by_test(before, f"{card['validation']['n']} validation images")
    mine, theirs = _images(run), _images(default)
    if mine is not None and theirs is not None:
        right, other = mine.shared(theirs)
        if len(right):
            return _by_test(mcnemar(right, other), f"{len(right)} images that neither run was trained on")
    return _by_score(run, default)


def _began_with(run: Run, default: Run, runs: Sequence[Run]) -> bool:
    """Return whether a fine-tuning started from the head of the default, or from its tested head if it is final."""
    name = run.card.get("from", {}).get("run")
    if default.is_final:
        tested = default.card["final"]["tested_sha256"]
        return any(one.name == name and one.card.get("head_sha256") == tested for one in runs)
    return bool(name == default.name)


def _by_test(test: dict[str, Any], images: str) -> str | None:
    if test["only_a"] <= test["only_b"] or test["p_value"] >= LEVEL:
        return None
    return (
        f"of {images}, only this run classifies {test['only_a']} correctly, only the other {test['only_b']}; "
        f"p = {test['p_value']:.2g}"
    )


def _by_score(run: Run, default: Run) -> str | None:
    if run.score - default.score <= math.hypot(_half_width(run), _half_width(default)):
        return None
    kind = "validated" if run.is_tuned else "cross-validated"
    return f"{kind} accuracy {run.score:.1%} against {default.score:.1%}"


def _half_width(run: Run) -> float:
    """Return half the width of the 95 % interval of a score; 0 if the card does not record the number of images."""
    card = run.card
    count = card.get("validation", {}).get("n") if run.is_tuned else None
    count = count or card.get("search", {}).get("searched") or card.get("n_train")
    return half_width(int(count), min(1.0, max(0.0, run.score))) if count else 0.0


def _images(run: Run) -> RunImages | None:
    with suppress(RunError):  # the file is damaged; scores are used instead
        return run.images
    return None
