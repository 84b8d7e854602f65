"""A fine-tuning from beginning to end: hand back, freeze, cache, train, choose, test once, write it all down."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from bottleneck.errors import Diverged, RunError, TuningError
from bottleneck.finetuning import activations as views
from bottleneck.finetuning import folds as by_folds
from bottleneck.finetuning.boundary import Tail
from bottleneck.finetuning.checkpoint import load_checkpoint, save_checkpoint
from bottleneck.finetuning.config import Settings, load_settings, save_settings, unfinished
from bottleneck.finetuning.context import Setting, set_up
from bottleneck.finetuning.distributed import Processes, processes
from bottleneck.finetuning.handback import Layer, folded, refitted
from bottleneck.finetuning.history import Progress, Tensors
from bottleneck.finetuning.lock import at_work, unlock_for_good
from bottleneck.finetuning.optim import optimizer
from bottleneck.finetuning.outline import Watch, outline
from bottleneck.finetuning.partition import codes
from bottleneck.finetuning.recipe import Recipe
from bottleneck.finetuning.save import HEAD, Result, write
from bottleneck.finetuning.train import Job, LabelledImages, train
from bottleneck.finetuning.verify import Start, start
from bottleneck.images.dataset import Dataset, as_images
from bottleneck.images.scan import Progress as Bar
from bottleneck.runs.card import run_name
from bottleneck.runs.folder import CHECKPOINT, delete_run
from bottleneck.runs.run import Run, load_run
from bottleneck.runs.save import new_folder
from bottleneck.utils.arguments import Arguments, abbreviated
from bottleneck.utils.names import written

VIEWS_LIMIT = 20 * 10**9  # bytes
BEGINNINGS = ("head", "weights")


def finetune(
    images: "str | os.PathLike[str] | Dataset | None" = None,
    *,
    recipe: Recipe | None = None,
    begin: str = "head",
    run: "str | os.PathLike[str] | Run | None" = None,
    model: str | None = None,
    cache: str | os.PathLike[str] = "cache",
    runs: str | os.PathLike[str] = "runs",
    device: str | None = None,
    views_limit: int = VIEWS_LIMIT,
    memory: int | None = None,
    folds: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: Bar | None = None,
    watch: Watch | None = None,
) -> Run:
    """Train a network on from the head of a run.

    The head and its feature scaling become the last layer of the network, exactly; then the parts that the recipe names
    are trained with it. What stands before them runs once for each view of an image, and its activations are cached.
    The validation part says which epoch is kept, the hand-back itself among them; the held-out part is looked at once
    more at the end.

    Parameters
    ----------
    images : path or Dataset, optional
        By default those of the run.
    recipe : Recipe, optional
        How.
    begin : str
        With the ``head`` of a run, or with the ``weights`` of a backbone and a random last layer.
    run : path or Run, optional
        A run's folder, or its name below `runs`; by default that of `bottleneck.finetuning.initial.default_head`.
    model : str, optional
        Where it begins with weights: a model or spec that is cached; by default that of the last extraction.
    cache, runs : path
        Where features and activations are kept, and where the run is written.
    device : str, optional
        As in ``torch.device``; by default a GPU where there is one.
    views_limit : int
        Bytes that cached activations may take.
    memory : int, optional
        Bytes of them that are held in memory, and bytes that images may take while they are decoded, as for
        `bottleneck.extract`; by default half of what is free. Activations that do not fit are read in each epoch.
    folds : int, optional
        Then train in so many folds of the training images too, each from a head fitted without its images, and test
        both on them: more images than are held out, and none that selected an epoch. By default no fold.
    resume : path, optional
        The folder, or name, of a fine-tuning that has not ended, or ``last``. It goes on as it was begun, with its own
        images and recipe, to the same result. One process at a time works on it: the run is locked.
    progress : callable, optional
        As for `bottleneck.scan`; stage "views".
    watch : callable, optional
        Called with an `Outline`, a `Start`, each `Epoch`, and each `Fold`.

    Returns
    -------
    Run
        With ``model.safetensors``, ``curves.csv`` and ``curves.png``. Of several processes the first writes it.

    Raises
    ------
    TuningError
        If no head can be handed back, nothing of a name can be trained, or activations take too much room.
    Diverged
        If training gave NaN or infinity; the run of the best epoch before is written all the same.
    RunError, CacheError, ModelError, ImagesError, SplitError
        As for `bottleneck.fit` and `bottleneck.load_run`; a RunError also where another process works on the run that
        is resumed.
    """
    began = time.perf_counter()
    check = Arguments(TuningError)
    if not (recipe is None or isinstance(recipe, Recipe)):
        raise TuningError(f"expected recipe to be a bottleneck.Recipe, got {abbreviated(recipe)}")
    images, begin, runs = as_images(images), check.text("begin", begin), check.path("runs", runs)
    head, resume = (_name(check, *one) for one in (("run", run), ("resume", resume)))
    model, device = (check.optional(check.text, *one) for one in (("model", model), ("device", device)))
    views_limit, memory = check.whole("views_limit", views_limit), check.optional(check.whole, "memory", memory)
    folds = check.optional(check.whole, "folds", folds, least=2)
    if begin not in BEGINNINGS:
        raise TuningError(f"expected to begin with one of {', '.join(BEGINNINGS)}, got {begin!r}")
    if folds is not None and begin != "head":
        raise TuningError("expected a head for folds to compare fine-tuning with, got begin='weights'")
    if resume is not None and (begin != "head" or any(one is not None for one in (recipe, head, model, folds))):
        raise TuningError("a fine-tuning that is resumed keeps its own recipe and beginning: give it no other")
    joined = processes(device)
    with joined.one_voice(), ExitStack() as held:
        settings = Settings(recipe=recipe or Recipe(), begin=begin, run=head, model=model, folds=folds)
        path = None if resume is None else unfinished(runs, resume)
        if path is not None:
            _hold(held, path, joined)
            unfinished(runs, path)  # it may have ended before it was free
            settings = load_settings(path)
            images = settings.source if images is None else images
        setting = set_up(settings, images, cache, runs, joined, device, memory, progress)
        if setting.boundary and setting.measured:
            views.check_room(setting.wanted(), setting.boundary, views_limit, setting.measured.width)
        if path is None:
            path = _new(setting, runs, held)
        tell: Watch = watch if watch and joined.rank == 0 else lambda _: None
        return _tuned(setting, path, tell, progress, resumed=resume is not None, began=began)


def _hold(held: ExitStack, path: Path, joined: Processes) -> None:
    """Let the first of several processes hold the lock of a fine-tuning."""
    if joined.rank == 0:
        held.enter_context(at_work(path))


def _name(check: Arguments, option: str, value: "str | os.PathLike[str] | Run | None") -> str | None:
    """Return how a run that a caller names is written: its name, or a path."""
    if value is None:
        return None
    path = value.path if isinstance(value, Run) else value
    check.path(option, path)
    return written(path)


def _tuned(setting: Setting, path: Path, tell: Watch, progress: Bar | None, *, resumed: bool, began: float) -> Run:
    """Prove the start, cache what is missing, train, compare by folds, and write the run."""
    first_process, wanted = setting.processes.rank == 0, setting.wanted()
    setting.plan.apply(setting.network)
    chosen = optimizer(setting.network, setting.plan, setting.recipe)
    kept = load_checkpoint(path / CHECKPOINT, chosen) if resumed else None
    tell(outline(setting, path, kept[0].last if kept else None, wanted))
    begun = None
    if first_process:
        begun = start(setting.origin, setting.network, setting.parts.heldout, str(setting.device))
        tell(begun)
    prepared = by_folds.prepare(setting)
    _refit(setting)
    first_layer = setting.network.layer()
    _fill(setting, wanted, progress)
    pristine = {name: value.clone() for name, value in _job(setting).moving.items()} if prepared else {}
    state, finite = _trained(setting, path, kept, chosen, tell)
    compared = None
    if finite:
        compared = by_folds.compare(setting, prepared, pristine, path / CHECKPOINT, _job, tell)
    return _ended(setting, path, state, begun, first_layer, compared, finite=finite, began=began)


def _trained(
    setting: Setting,
    path: Path,
    kept: tuple[Progress, Tensors] | None,
    chosen: Optimizer,
    tell: Watch,
) -> tuple[Progress, bool]:
    """Train from the beginning, or from a checkpoint; return how far it came, and whether all losses were finite."""
    state = kept[0] if kept else Progress()
    job = _job(setting)
    if kept:
        if {name: value.shape for name, value in kept[1].items()} != {n: v.shape for n, v in job.moving.items()}:
            raise RunError(f"expected a checkpoint of this recipe in {path / CHECKPOINT}, found one of another")
        setting.network.set_state(kept[1])

    def keep(now: Progress) -> None:
        if setting.processes.rank == 0:
            try:
                save_checkpoint(path / CHECKPOINT, now, job.moving, chosen)
            except OSError as error:
                reason = error.strerror or error
                raise RunError(
                    f"cannot write a checkpoint to {path / CHECKPOINT}: {reason}. The one before is kept; `bottleneck "
                    f"finetune --resume {path.name}` goes on from it"
                ) from error

    return state, train(job, chosen, state, keep, tell)


@contextmanager
def _left_tidy(path: Path) -> Iterator[None]:
    """Remove the folder of a new run that came to an error before there was anything to go on with.

    After Ctrl-C it stays: its settings say what `resume` is to go on with.
    """
    try:
        yield
    except Exception:
        if not any((path / name).exists() for name in (CHECKPOINT, "card.json")):
            delete_run(path)
        raise


def _new(setting: Setting, runs: str | os.PathLike[str], held: ExitStack) -> Path:
    """Make the folder of the run, locked; one process does, and the others are told."""
    path = ""
    if setting.processes.rank == 0:
        origin = setting.origin
        folder = new_folder(runs, run_name(origin.dataset.source, origin.store.spec.backbone, HEAD))
        held.enter_context(_left_tidy(folder))
        _hold(held, folder, setting.processes)
        try:
            save_settings(folder, setting.settings)
        except BaseException:
            delete_run(folder)
            raise
        path = str(folder)
    return setting.processes.shown(path)


def _refit(setting: Setting) -> None:
    """Where validation images were cut from the training part, train with a head that has not seen them."""
    if setting.parts.cut and setting.origin.run is not None:
        setting.network.reset(folded(refitted(setting.origin.run, setting.parts.train, setting.origin.store)))


def _fill(setting: Setting, wanted: list[views.Wanted], progress: Bar | None) -> None:
    """Compute the activations that are missing, each process its share."""
    if setting.boundary is None or setting.measured is None:
        return
    joined, measured = setting.processes, setting.measured
    device = str(setting.device)
    if joined.rank == 0:
        for one in wanted:
            one.store.keep()
        views.drop_narrow(wanted, measured)
    joined.wait()
    views.fill(
        wanted,
        setting.network,
        setting.boundary,
        device=device,
        measured=measured,
        share=(joined.rank, joined.count),
        memory=setting.memory,
        progress=progress if joined.rank == 0 else None,
    )
    joined.wait()
    if joined.count > 1:
        if joined.rank == 0:
            views.fill(
                wanted, setting.network, setting.boundary, device=device, measured=measured, memory=setting.memory
            )
        joined.wait()


def _job(setting: Setting) -> Job:
    trained, validated = setting.feeds()
    classes = setting.origin.classes
    return Job(
        network=setting.network,
        tail=Tail(setting.network, setting.boundary),
        plan=setting.plan,
        recipe=setting.recipe,
        train=LabelledImages(feed=trained, codes=codes(setting.parts.train, classes)),
        val=LabelledImages(feed=validated, codes=codes(setting.parts.val, classes)),
        processes=setting.processes,
        device=setting.device,
        precision=setting.precision,
    )


def _ended(
    setting: Setting,
    path: Path,
    state: Progress,
    first: Start | None,
    first_layer: Layer,
    compared: dict[str, Any] | None,
    *,
    finite: bool,
    began: float,
) -> Run:
    """Take the best epoch, test it, and write the run."""
    network, origin = setting.network, setting.origin
    network.set_state(state.best_tensors)
    if setting.parts.cut and state.best == 0 and origin.run is not None:
        network.reset(folded(origin.run.head))  # the hand-back itself, fitted on all training images
    network.eval()
    if first is not None:
        result = Result(
            path=path,
            origin=origin,
            network=network,
            plan=setting.plan,
            parts=setting.parts,
            boundary=setting.boundary,
            recipe=setting.recipe,
            precision=setting.precision,
            progress=state,
            start=first,
            finite=finite,
            device=str(setting.device),
            first_layer=first_layer,
            by_folds=compared,
        )
        write(result, time.perf_counter() - began)
        unlock_for_good(path)
    setting.processes.wait()
    run = load_run(path)
    if not finite:
        raise Diverged(_advice(setting.recipe, state, run), run)
    return run


def _advice(recipe: Recipe, state: Progress, run: Run) -> str:
    clip = "" if recipe.clip else " --clip 1 or"
    return (
        f"expected finite losses, epoch {state.last + 1} gave NaN or infinity: the best epoch before, {state.best}, is "
        f"kept in {run.path}. Try{clip} a smaller learning rate, --lr {recipe.largest_lr / 10:g}"
    )
