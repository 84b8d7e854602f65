"""The initial state of a fine-tuning: a run whose head is handed back, or a backbone alone; and its images."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from bottleneck.backbones.backbone import Backbone
from bottleneck.backbones.registry import build_without_numbers, load
from bottleneck.backbones.request import Request
from bottleneck.errors import ModelError, RunError, TuningError
from bottleneck.evaluation.leakage import find_leaks, one_label
from bottleneck.finetuning.handback import handback_obstacle
from bottleneck.fitting.inputs import CachedImages, select
from bottleneck.fitting.partition import check_labels, held_out
from bottleneck.images.dataset import Dataset
from bottleneck.images.scan import Progress
from bottleneck.images.splits import Shares
from bottleneck.runs.backbone_request import located_request, located_source, needing_weights, spec_of
from bottleneck.runs.ranking import Choice
from bottleneck.runs.run import Run, find_run, list_runs, runs_here
from bottleneck.utils.paths import expanded
from bottleneck.utils.text import one_line


@dataclass(frozen=True, kw_only=True)
class InitialState:
    """The initial state of a fine-tuning.

    Parameters
    ----------
    run : Run or None
        The run whose head is handed back; None for a random last layer.
    request : Request
        The backbone.
    cached : CachedImages
        The images and their features; those that are usable have one label each.
    classes : tuple of str
    heldout : str
        The split that is held out.
    """

    run: Run | None
    request: Request
    cached: CachedImages
    classes: tuple[str, ...]
    heldout: str

    def __repr__(self) -> str:
        return one_line(self, self.run.name if self.run else "a random last layer", repr(self.cached.dataset))

    def backbone(self) -> Backbone:
        """Build the backbone that computed the features.

        Raises
        ------
        TuningError
            If its features are not the input of its classifier.
        RunError
            If its weights have changed.
        ModelError
            If they are not available.
        """
        with needing_weights(self.run.path, self.run.card) if self.run else nullcontext():
            found = load(self.request)
        whole = found.pretrained
        assert whole is not None
        if (found.spec.layer, found.spec.pooling) != (whole.layer, whole.pooling) or self.request.flip:
            own = "of images and their mirror images (--flip)" if self.request.flip else f"of {found.spec.layer}"
            raise TuningError(
                f"expected a head on the input of the classifier of {self.request.model}, {whole.layer}; got one on "
                f"features {own}: extract without --layer, --pool and --flip, and fit again"
            )
        if found.spec.weights != self.cached.store.spec.weights:
            raise RunError(
                f"the weights {self.request.weights} of {self.request.model} have changed since the features in "
                f"{self.cached.store.folder} were computed: extract and fit again"
            )
        return found


def from_head(
    images: "str | os.PathLike[str] | Dataset | None",
    run: str | os.PathLike[str] | None,
    *,
    cache: str | os.PathLike[str],
    runs: str | os.PathLike[str],
    progress: Progress | None,
) -> InitialState:
    """Return the best linear head of the latest fit, or that of a run, with its images.

    Raises
    ------
    TuningError
        If no head can become a layer of its network, or the images have changed since the fit.
    RunError, CacheError, ModelError
    """
    chosen = _chosen(runs, run, images)
    card = chosen.card
    lacking = [name for name in ("head", "params", "heldout", "model") if name not in card]
    lacking += [f"dataset.{name}" for name in ("source", "shares", "digest") if name not in card["dataset"]]
    if lacking:
        raise RunError(f"expected {', '.join(lacking)} in {chosen.path}/card.json, found none: fit again")
    cached = select(
        images if images is not None else located_source(chosen.path, card),
        model=f"{spec_of(card).backbone.replace('/', '_')}-{card['fingerprint'][:8]}",
        cache=cache,
        runs=runs,
        labels=True,
        shares=Shares.parse(card["dataset"]["shares"]),
        progress=progress,
    )
    usable = one_label(cached.usable)
    if usable.fingerprint() != card["dataset"]["digest"]:
        raise TuningError(
            f"expected the images, labels and splits on which {chosen.name} was fitted, found different ones in "
            f"{cached.dataset.source}: fit again, and fine-tune the new run"
        )
    return InitialState(
        run=chosen,
        request=replace(located_request(chosen.path, card, expanded(cache)), precision="fp32"),
        cached=replace(cached, usable=usable),
        classes=chosen.head.classes,
        heldout=card["heldout"],
    )


def from_weights(
    images: "str | os.PathLike[str] | Dataset | None",
    model: str | None,
    *,
    cache: str | os.PathLike[str],
    runs: str | os.PathLike[str],
    progress: Progress | None,
) -> InitialState:
    """Return the backbone of the latest extraction, or the one called `model`, with its images.

    Raises
    ------
    TuningError
        If the cache does not record how the backbone was built.
    ImagesError, SplitError, CacheError
        As for `bottleneck.fit`.
    """
    cached = select(images, model=model, cache=cache, runs=runs, labels=True, progress=progress)
    check_labels(cached.dataset)
    find_leaks(cached.usable).refuse()
    usable = one_label(cached.usable)
    heldout = held_out(usable)
    request = cached.store.asked()
    if request is None:
        raise TuningError(f"{cached.store.folder} does not record how its backbone was built: extract again")
    known = zip(usable.labels, usable.splits, strict=True)
    return InitialState(
        run=None,
        request=request,
        cached=replace(cached, usable=usable),
        classes=tuple(sorted({label for label, split in known if split == "train" and label is not None})),
        heldout=heldout,
    )


def with_module(runs: str | os.PathLike[str], name: str, model: str) -> Run | None:
    """Return the latest run of another model that has such a module, and a head that can be handed back."""
    seen = {model}
    for run in reversed(list_runs(runs)):
        if run.card.get("model") in (None, *seen) or handback_obstacle(run):
            continue
        seen.add(run.card["model"])
        try:
            network = build_without_numbers(Request(model=run.card["request"]["model"], weights="none")).network
        except (ModelError, TypeError, KeyError):
            continue
        if any(module == name for module, _ in network.named_modules()):
            return run
    return None


def default_head(runs: str | os.PathLike[str], images: "str | os.PathLike[str] | Dataset | None" = None) -> Choice:
    """Return the run whose head is handed back by default, and why.

    It is the best linear head, by cross-validation, on the features and images of the latest fit in the current folder;
    if `images` are given, of the latest fit on them. If a head that cannot become a layer is better, the reason names
    it and both accuracies.

    Raises
    ------
    TuningError
        If there is none.
    RunError
        If all runs were made in other folders, on several data sets.
    """
    fits = runs_here([run for run in list_runs(runs) if not run.is_tuned], runs)
    if not fits:
        raise TuningError(
            f"expected a run in {runs} with a head to start from, found none: create one with `bottleneck extract "
            f"IMAGES` and `bottleneck fit`; or, after extract, start from a random layer with --from weights"
        )
    last = ([run for run in fits if _is_on(run, images)] or fits)[-1]
    same = [run for run in fits if _problem(run) == _problem(last)]
    linear = [run for run in same if handback_obstacle(run) is None]
    if not linear:
        raise TuningError(
            f"expected a head on features of {last.recorded('model')} that can become its last layer, found none: "
            f"{_reasons(same)}"
        )
    best = max(reversed(linear), key=lambda run: run.score)
    which = "the linear head of the latest fit" if len(linear) == 1 else f"the best of {len(linear)} linear heads"
    return Choice(best, f"{which}, cross-validated {best.score:.1%}{_better_run(best, same)}")


def _better_run(best: Run, same: Sequence[Run]) -> str:
    """Describe the run that is better than the best linear head; return an empty string if there is none."""
    first = max((run for run in reversed(same) if not run.is_final), key=lambda run: run.score)
    if first.score <= best.score:
        return ""
    kernel, scaling = first.card.get("params", {}).get("kernel"), first.card.get("normalize")
    marks = [f" with {kernel} kernel"] if kernel not in (None, "linear") else []
    marks += [" on l2-normalised features"] if scaling == "l2" else []
    kind = f"{first.card.get('head', 'a head')}{''.join(marks)}"
    return f"; the best run, {first.name} ({kind}, cross-validated {first.score:.1%}), cannot become a layer"


def _chosen(
    runs: str | os.PathLike[str],
    name: str | os.PathLike[str] | None,
    images: "str | os.PathLike[str] | Dataset | None",
) -> Run:
    if name is None:
        return default_head(runs, images).run
    run = find_run(runs, name)
    if reason := handback_obstacle(run):
        raise TuningError(f"the head of {run.name} cannot become the last layer of its network: {reason}")
    return run


def _is_on(run: Run, images: "str | os.PathLike[str] | Dataset | None") -> bool:
    """Return whether a run was fitted on these images; True if none are given."""
    if images is None:
        return True
    dataset = run.card["dataset"]
    if isinstance(images, Dataset):
        return bool(dataset.get("images_digest") == images.content_digest())
    sources = (dataset["source"], str(located_source(run.path, run.card))) if "source" in dataset else ()
    return os.path.abspath(expanded(images)) in sources


def _problem(run: Run) -> tuple[object, object]:
    return run.card["dataset"]["digest"], run.card["fingerprint"]


def _reasons(runs: Sequence[Run]) -> str:
    return "; ".join(sorted({f"{run.card.get('head', 'a head')}: {handback_obstacle(run)}" for run in runs}))
