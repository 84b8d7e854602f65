"""From cached features to a run: read, search, fit, look at the held-out part once, write it all down."""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict

from bottleneck._version import __version__
from bottleneck.backbones.tuned import recorded_tuned
from bottleneck.backbones.weights_files import recorded_at
from bottleneck.cache.store import Store
from bottleneck.engines.records import EngineRecords
from bottleneck.errors import HeadError
from bottleneck.evaluation.leakage import find_leaks, one_label
from bottleneck.fitting.final_head import images_of_known_classes, train_final
from bottleneck.fitting.inputs import select as select_images
from bottleneck.fitting.partition import (
    LabelledFeatures,
    check_labels,
    check_memory,
    held_out,
    near_copies,
    part,
    part_of,
    warn_of_classes,
)
from bottleneck.fitting.train import Trained, score_head, score_on_tuned, train_head
from bottleneck.heads.features import InMemoryFeatures, NormalizeOption
from bottleneck.heads.options import HeadOptions, values_of
from bottleneck.heads.selecting import DEFAULT
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, as_images
from bottleneck.images.scan import Progress
from bottleneck.images.splits import Shares
from bottleneck.runs.card import COLUMNS, dataset_card, prediction_rows, run_name, versions
from bottleneck.runs.images import Role, RunImages, images_of, judged
from bottleneck.runs.run import Run, images_of_weights
from bottleneck.runs.save import save_run
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

    Features are scaled, and C is chosen by stratified cross-validation, on the training part alone. The head is then
    looked at once on the held-out part: ``test`` where there is one, else ``val``.

    Parameters
    ----------
    images : path or Dataset, optional
        See `bottleneck.scan`. By default what was last extracted in the current folder with this cache.
    head : str
        ``logistic``, ``svm``, ``softmax``, ``ridge``, ``knn`` or ``centroid``.
    model : str, optional
        The backbone whose features are used, or a spec; by default that of the last extraction, of `images` where they
        are given. Where other features of them are cached, only features of all of them will do.
    cache, runs : path
        Where features are read, and where the run is written.
    split : str, optional
        Percentages ``train/val/test`` for images whose split is not given; by default those of the dataset, which
        are 80/10/10 unless it was scanned with others.
    path_column, label_column, split_column, group_column : str, optional
        Columns of a table, see `bottleneck.scan`; by default those that were named when it was extracted last.
    C : float or sequence of float, optional
        The values that are searched; by default the family's grid.
    folds : int
        Of the cross-validation.
    normalize : str
        Each feature gets the mean 0 and is divided by a scale, by the training part (in each fold by that of the fold).
        ``standard``: its standard deviation. ``global``: one scale for all. ``shrunk``: between both, so that features
        that hardly vary are not blown up. ``auto``: ``shrunk``, unless ``standard`` is better by more than chance.
        ``l2``: each row has the same length. ``none``: features as they are.
    select : str
        Which point of the search is chosen. ``log-loss``: the least calibrated log-loss of those whose balanced
        accuracy is within one standard error of the best; ``simplest``: the simplest of them; ``accuracy``: the best.
    class_weight : str, optional
        ``balanced``: each class weighs as much, however many images it has.
    search : str
        ``fast``, or ``full``: a grid of three values a decade, a decade wider at both ends; and where there are more
        than 20,000 training images, all of them.
    kernel : str
        Of svm: ``linear`` or ``rbf``.
    dropout : float
        Of softmax: the part of the features that is left out at random in each step.
    epochs : int, optional
        Of softmax: passes over the training images; by default 40, fewer for very many images.
    device : str
        Where heads are trained: ``cpu``, or ``cuda``.
    memory : int, optional
        Bytes that features may take; by default half of the free memory. Where they do not fit, they are read in
        pieces.
    seed : int
        Equal seeds give equal heads.
    final : bool
        Whether, after its test, the head is trained again with the same parameters on all labelled images, held-out
        ones too, and this is the run's head. All figures stay those of the tested head. No image is left to test the
        final head, and it cannot be handed back for fine-tuning.
    allow_duplicates : bool
        Whether an image, or a group, may stand in more than one split.
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
        If nothing is held out, or an image or group stands in more than one split.
    CacheError
        If there is no such model in the cache, or features are missing: extract first.
    HeadError
        If no head can be trained, on one class, say.
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
    chosen = options.family(head)
    shares = Shares.parse(split) if split else None
    columns = Columns(path_column, label_column, split_column, group_column)
    selected = select_images(
        images,
        model=model,
        cache=cache,
        runs=runs,
        labels=True,
        shares=shares,
        progress=progress,
        columns=columns,
    )
    dataset, store = selected.dataset, selected.store
    check_labels(dataset)
    usable = one_label(selected.usable)
    leaks = find_leaks(selected.usable)
    if not allow_duplicates:
        leaks.refuse()
    split_held = held_out(usable)
    train, test = (part(usable, store, name, memory=memory) for name in ("train", split_held))
    warn_of_classes(train, test, split_held)
    everything = images_of_known_classes(usable, train) if final else None
    check_memory(train, chosen, memory, more=len(everything) - len(train) if everything else 0)
    near = near_copies(train, test)
    trained = train_head(head, options, train, test, store.spec.fingerprint)
    delivered = None
    if everything:
        delivered = train_final(head, options, trained, train, test, part_of(everything, store, memory=memory))
    score = score_on_tuned(store, usable, trained.search.accuracy)
    card = {
        "kind": "fit",
        "bottleneck": __version__,
        "head": head,
        "model": store.spec.backbone,
        "classes": list(trained.head.classes),
        "params": {**trained.search.params, **options.own()},
        "normalize": trained.search.normalize,
        "class_weight": options.class_weight,
        "streamed": not isinstance(train.table, InMemoryFeatures),
        "sharpness": trained.head.sharpness,
        "search": trained.search_card(options),
        **({} if delivered is None else {"final": delivered.card}),
        **({} if score is None else {"score": score}),
        "seed": options.seed,
        "heldout": split_held,
        "n_train": len(train),
        "n_heldout": len(test),
        "headline": trained.headline if score is None else "held-out",  # of features that know the labels
        "metrics": trained.metrics,
        "dataset": dataset_card(dataset, usable),
        "leaks": leaks.card(near),
        "failures": [vars(failure) for failure in selected.failures],
        "spec": store.spec.to_json(),
        "fingerprint": store.spec.fingerprint,
        "request": recorded_at(store.request(), store.folder, expanded(runs) / "run"),
        "engines": [asdict(check) for check in EngineRecords(store.engines).checks() if check.passed],
        "versions": versions(),
        "seconds": time.perf_counter() - started,
    }
    rows = prediction_rows(test.dataset, dataset, trained.predicted, trained.probabilities)
    known = _images(usable, store, train, trained, split_held, memory, runs)
    if delivered:
        known = known.with_role(delivered.images.digests, Role.TRAINED)
    name = run_name(dataset.source, store.spec.backbone, head)
    return save_run(runs, name, delivered.head if delivered else trained.head, card, COLUMNS, rows, known)


def _images(
    usable: Dataset,
    store: Store,
    train: LabelledFeatures,
    trained: Trained,
    heldout: str,
    memory: int | None,
    runs: str | os.PathLike[str],
) -> RunImages:
    """Return what each image was used for, and whether the head is right about those it was not trained on."""
    found = images_of(usable, {"train": Role.TRAINED, heldout: Role.HELD_OUT})
    found = judged(found, train.dataset.digests[trained.tested], trained.tested_right)
    aside = part(usable, store, "val", memory=memory) if heldout != "val" else None
    if aside:  # with images
        unseen = found.role_of(aside.dataset.digests) != Role.TRAINED  # a copy may be in both, if that is allowed
        found = judged(found, aside.dataset.digests[unseen], score_head(trained.head, aside).right[unseen])
    if recorded_tuned(store.folder) is None:
        return found
    return found.after(images_of_weights(store.asked(), runs))
