"""From cached features to a run: read, search, fit, evaluate once on the held-out split, save."""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bottleneck.backbones.tuned import recorded_tuned
from bottleneck.backbones.weights_files import recorded_at
from bottleneck.engines.records import EngineRecords
from bottleneck.errors import HeadError
from bottleneck.evaluation.conformal import measured_coverage
from bottleneck.evaluation.leakage import Leaks, find_leaks, one_label
from bottleneck.evaluation.near_duplicates import NearDuplicates
from bottleneck.fitting.final_head import FinalHead, images_of_known_classes, train_final
from bottleneck.fitting.inputs import CachedImages
from bottleneck.fitting.inputs import select as select_images
from bottleneck.fitting.partition import (
    LabelledFeatures,
    check_labels,
    check_memory,
    held_out,
    part,
    part_of,
    warn_of_classes,
    warn_of_near_duplicates,
)
from bottleneck.fitting.train import Trained, score_head, score_on_tuned, train_head
from bottleneck.fitting.uncertainty import uncertainty_card, uncertainty_of, unseen_by_network
from bottleneck.heads.features import InMemoryFeatures, NormalizeOption
from bottleneck.heads.head import Head
from bottleneck.heads.options import HeadOptions, values_of
from bottleneck.heads.selection import DEFAULT
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, as_images
from bottleneck.images.scan import Progress
from bottleneck.images.splits import Shares
from bottleneck.runs.card import COLUMNS, common_card, prediction_rows, run_name
from bottleneck.runs.images import Role, RunImages, images_of, with_correctness
from bottleneck.runs.run import Run, images_of_weights
from bottleneck.runs.save import save_run
from bottleneck.runs.uncertainty import Uncertainty
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.paths import expanded


def fit(
    images: "str | os.PathLike[str] | Dataset | None" = None,
    *,
    head: str = "logistic",
    model: str | None = None,
    cache: str | os.PathLike[str] = "cache",
    runs: str | os.PathLike[str] = "runs",
    split: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    C: float | Sequence[float] | None = None,
    folds: int = 5,
    normalize: NormalizeOption = "auto",
    select: str = DEFAULT,
    class_weight: str | None = None,
    search: str = "fast",
    kernel: str = "linear",
    dropout: float = 0.0,
    epochs: int | None = None,
    device: str = "cpu",
    memory: int | None = None,
    seed: int = 0,
    final: bool = False,
    allow_duplicates: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Train a head on cached features and test it on held-out images.

    Features are scaled, and C is chosen by stratified cross-validation, on the training split only. The head is then
    evaluated once on the held-out split: ``test`` if there is one, else ``val``.

    Parameters
    ----------
    images : path or Dataset, optional
        See `bottleneck.scan`. By default the images that were last extracted in the current folder with this cache.
    head : str
        ``logistic``, ``svm``, ``softmax``, ``ridge``, ``knn`` or ``centroid``.
    model : str, optional
        The backbone whose features are used, or a spec. By default that of the last extraction of `images`; if none is
        recorded, the only spec that has features of all `images`.
    cache, runs : path
        Where features are read from, and where the run is written.
    split : str, optional
        Percentages ``train/val/test`` for images without a given split; by default those of the dataset, which are
        80/10/10 unless it was scanned with others.
    path_column, label_column, split_column, group_column : str, optional
        Columns of a table, see `bottleneck.scan`; by default those that were named in its last extraction.
    C : float or sequence of float, optional
        The values to search; by default the grid of the head.
    folds : int
        Number of folds of the cross-validation.
    normalize : str
        Each feature is centred and divided by a scale, both computed on the training split (in each fold, on the
        training images of the fold). ``standard``: the standard deviation of the feature. ``global``: one scale for all
        features. ``shrunk``: between the two, so that features that hardly vary are not amplified. ``auto``:
        ``shrunk``, unless ``standard`` is significantly better. ``l2``: each row is scaled to the same norm.
        ``none``: features are not changed.
    select : str
        How the point of the search is chosen. ``log-loss``: of the points whose balanced accuracy is within one
        standard error of the best, the one with the lowest calibrated log-loss; ``simplest``: the one with the
        strongest regularisation; ``accuracy``: the point with the best balanced accuracy.
    class_weight : str, optional
        ``balanced``: each class has the same total weight.
    search : str
        ``fast``: with at most about 20,000 training images. ``full``: with all training images, and a grid of three
        values per decade, one decade wider at both ends.
    kernel : str
        Kernel of svm: ``linear`` or ``rbf``.
    dropout : float
        For softmax: the share of the features that are dropped at random in each step.
    epochs : int, optional
        For softmax: passes over the training images; by default 40, fewer for very many images.
    device : str
        Where heads are trained: ``cpu`` or ``cuda``.
    memory : int, optional
        Memory for features, in bytes; by default half of the free memory. Features that do not fit are read in blocks.
    seed : int
        Equal seeds give equal heads.
    final : bool
        Whether the head is trained again after its test, with the same parameters, on all labelled images, including
        the held-out ones. The run then contains that head, while all scores are those of the tested head. No image is
        left to test the final head, and it cannot initialise a fine-tuning.
    allow_duplicates : bool
        Whether an image, or a group, may appear in more than one split.
    progress : callable, optional
        As for `bottleneck.scan`.

    Returns
    -------
    Run

    Raises
    ------
    ImagesError
        If the images have no labels.
    SplitError
        If there is no held-out split, or an image or group appears in more than one split.
    CacheError
        If there is no such model in the cache, or features are missing: extract first.
    HeadError
        If no head can be trained, for example with a single class.
    """
    started = time.perf_counter()
    check = Arguments(HeadError)
    images, head, runs = as_images(images), check.text("head", head), check.path("runs", runs)
    model, split = (check.optional(check.text, *one) for one in (("model", model), ("split", split)))
    memory = check.optional(check.whole, "memory", memory)
    allow_duplicates, final = check.flag("allow_duplicates", allow_duplicates), check.flag("final", final)
    options = HeadOptions(
        C=values_of(C),
        folds=folds,
        normalize=normalize,
        select=select,
        class_weight=class_weight,
        search=search,
        kernel=kernel,
        dropout=dropout,
        epochs=epochs,
        device=device,
        seed=seed,
    )
    options.family(head)  # checks the head and its own options
    selected = select_images(
        images,
        model=model,
        cache=cache,
        runs=runs,
        labels=True,
        shares=Shares.parse(split) if split else None,
        progress=progress,
        columns=Columns(path_column, label_column, split_column, group_column),
    )
    check_labels(selected.dataset)
    leaks = find_leaks(selected.usable)
    if not allow_duplicates:
        leaks.refuse()
    context = _context(head, options, selected, memory)
    result = _train(context, leaks, expanded(runs), final=final)
    card = {**_card(context, result, expanded(runs)), "seconds": time.perf_counter() - started}
    rows = prediction_rows(
        context.test.dataset, selected.dataset, result.trained.predicted, result.trained.probabilities
    )
    name = run_name(selected.dataset.source, selected.store.spec.backbone, head)
    roles = _images(context, result, expanded(runs))
    return save_run(runs, name, result.head, card, COLUMNS, rows, roles, result.uncertainty)


@dataclass(frozen=True, kw_only=True)
class FitContext:
    """The data that a head is trained and tested on, and its options.

    Parameters
    ----------
    head : str
    options : HeadOptions
    selected : CachedImages
    usable : Dataset
        The images of `selected` that have features and one label each.
    heldout : str
        The held-out split.
    train, test : LabelledFeatures
        The training split and the held-out split.
    memory : int, optional
        Bytes that features may take.
    """

    head: str
    options: HeadOptions
    selected: CachedImages
    usable: Dataset
    heldout: str
    train: LabelledFeatures
    test: LabelledFeatures
    memory: int | None


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A tested head, and the final head if there is one.

    Parameters
    ----------
    trained : Trained
    final : FinalHead or None
    leaks : Leaks
    near : NearDuplicates
    uncertainty : Uncertainty
        Of the head that the run contains.
    """

    trained: Trained
    final: FinalHead | None
    leaks: Leaks
    near: NearDuplicates
    uncertainty: Uncertainty

    @property
    def head(self) -> Head:
        """The head that the run contains."""
        return self.final.head if self.final else self.trained.head


def _context(head: str, options: HeadOptions, selected: CachedImages, memory: int | None) -> FitContext:
    usable = one_label(selected.usable)
    heldout = held_out(usable)
    train, test = (part(usable, selected.store, name, memory=memory) for name in ("train", heldout))
    warn_of_classes(train, test, heldout)
    return FitContext(
        head=head,
        options=options,
        selected=selected,
        usable=usable,
        heldout=heldout,
        train=train,
        test=test,
        memory=memory,
    )


def _train(context: FitContext, leaks: Leaks, runs: Path, *, final: bool) -> FitResult:
    """Train and test a head, and then the final head."""
    head, options, train, test = context.head, context.options, context.train, context.test
    store, memory = context.selected.store, context.memory
    everything = images_of_known_classes(context.usable, train) if final else None
    check_memory(train, options.family(head), memory, more=len(everything) - len(train) if everything else 0)
    near = warn_of_near_duplicates(train, test, store.folder.parents[1])
    trained = train_head(head, options, train, test, store.spec.fingerprint)
    delivered, whole = None, train
    if everything:
        whole = part_of(everything, store, memory=memory)
        delivered = train_final(head, options, trained, train, test, whole)
    unseen = unseen_by_network(context.usable, store, context.heldout, runs, final=final, memory=memory)
    uncertainty = uncertainty_of(trained, train, whole, unseen, options.seed)
    return FitResult(trained=trained, final=delivered, leaks=leaks, near=near, uncertainty=uncertainty)


def _card(context: FitContext, result: FitResult, runs: Path) -> dict[str, Any]:
    selected, options, trained = context.selected, context.options, result.trained
    store = selected.store
    score = score_on_tuned(store, context.usable, trained.search.accuracy)
    return {
        **common_card("fit", store.spec, trained.head.classes, selected.dataset, context.usable, selected.failures),
        "head": context.head,
        "params": {**trained.search.params, **options.family_options()},
        "normalize": trained.search.normalize,
        "class_weight": options.class_weight,
        "streamed": not isinstance(context.train.table, InMemoryFeatures),
        "sharpness": trained.head.inverse_temperature,
        "search": trained.search_card(options),
        **({} if result.final is None else {"final": result.final.card}),
        **({} if score is None else {"score": score}),
        "seed": options.seed,
        "heldout": context.heldout,
        "n_train": len(context.train),
        "n_heldout": len(context.test),
        "headline": trained.headline if score is None else "held-out",  # the backbone was trained on the labels
        "metrics": trained.metrics,
        "uncertainty": uncertainty_card(result.uncertainty, tuned=score is not None),
        "coverage": measured_coverage(
            result.uncertainty.conformal,
            trained.probabilities,
            context.test.labels,
            trained.head.classes,
            context.test.dataset.groups,
        ),
        "leaks": result.leaks.card(result.near),
        "request": recorded_at(store.request(), store.folder, runs / "run"),
        "engines": [asdict(check) for check in EngineRecords(store.engines).checks() if check.passed],
    }


def _images(context: FitContext, result: FitResult, runs: Path) -> RunImages:
    """Return the role of each image, and whether the tested head classifies unseen images correctly."""
    usable, store, trained = context.usable, context.selected.store, result.trained
    found = images_of(usable, {"train": Role.TRAINED, context.heldout: Role.HELD_OUT})
    found = with_correctness(found, context.train.dataset.digests[trained.tested], trained.tested_right)
    val = part(usable, store, "val", memory=context.memory) if context.heldout != "val" else None
    if val:  # not empty
        unseen = found.role_of(val.dataset.digests) != Role.TRAINED  # with --allow-duplicates, a copy may be in both
        found = with_correctness(found, val.dataset.digests[unseen], score_head(trained.head, val).right[unseen])
    if recorded_tuned(store.folder) is not None:
        found = found.after(images_of_weights(store.asked(), runs))
    return found.with_role(result.final.images.digests, Role.TRAINED) if result.final else found
