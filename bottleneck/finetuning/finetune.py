"""Fine-tuning from beginning to end."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from torch.optim import Optimizer

from bottleneck.errors import Diverged, RunError, TuningError
from bottleneck.finetuning import activations
from bottleneck.finetuning.checkpoint import load_checkpoint, save_checkpoint
from bottleneck.finetuning.config import FineTuneConfig, load_config, save_config, unfinished
from bottleneck.finetuning.context import FineTuningContext, build_context
from bottleneck.finetuning.distributed import Processes, joined
from bottleneck.finetuning.folds import compare_by_folds, prepare_folds
from bottleneck.finetuning.handback import fold_head, refit_or_keep
from bottleneck.finetuning.history import History, Tensors
from bottleneck.finetuning.optim import build_optimizer
from bottleneck.finetuning.outline import Outline, Watch
from bottleneck.finetuning.recipe import Recipe
from bottleneck.finetuning.save import HEAD, FineTuningResult, save_run
from bottleneck.finetuning.train import TrainingJob, train
from bottleneck.finetuning.verify import Start, verify_start
from bottleneck.images.dataset import Dataset, as_images
from bottleneck.images.scan import Progress
from bottleneck.runs.card import run_name
from bottleneck.runs.folder import CHECKPOINT, delete_run
from bottleneck.runs.lock import locked, remove_lock
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
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Run:
    """Fine-tune a network, starting from the head of a run.

    The head and its feature scaling become the last layer of the network, without approximation (the first step of
    LP-FT). Then this layer and the parts that the recipe names are trained. The frozen part runs once for each view of
    an image, and its activations are cached. The validation images select the epoch to keep; epoch 0 is the hand-back.
    The network is tested once, at the end, on the held-out images.

    Parameters
    ----------
    images : path or Dataset, optional
        By default the images of the run.
    recipe : Recipe, optional
        The options of training.
    begin : str
        Start from the ``head`` of a run, or from the ``weights`` of a backbone and a random last layer.
    run : path or Run, optional
        A run's folder, or its name in `runs`; by default that of `bottleneck.finetuning.initial.default_head`.
    model : str, optional
        With ``begin="weights"``: a cached model or spec; by default that of the last extraction.
    cache, runs : path
        The folder of features and activations, and the folder of runs.
    device : str, optional
        As for ``torch.device``; by default a GPU if there is one.
    views_limit : int
        The maximum size of cached activations, in bytes.
    memory : int, optional
        The maximum memory, in bytes, for activations, and for images while they are decoded, as for
        `bottleneck.extract`; by default half of the free memory. Activations that do not fit are read in each epoch.
    folds : int, optional
        Also fine-tune on this number of folds of the training images. Each network starts from a head fitted without
        the images of the fold, and both are tested on these images. This tests more images than the held-out split
        has, and none that selected an epoch. By default there are no folds.
    resume : path, optional
        The folder, or name, of an unfinished fine-tuning, or ``last``. It continues with its own images and recipe, and
        gives the same result as without an interruption. The run is locked, so that only one process works on it.
    progress : callable, optional
        As for `bottleneck.scan`; called on rank 0 only, also with stage "views".
    watch : callable, optional
        Called on rank 0 only, with an `Outline`, a `Start`, each `Epoch`, and each `Fold`.

    Returns
    -------
    Run
        With ``model.safetensors``, ``curves.csv`` and ``curves.png``. With several processes, rank 0 writes it.

    Raises
    ------
    TuningError
        If no head can be handed back, a name matches nothing to train, or activations take too much space.
    Diverged
        If training produced NaN or infinity; the run of the best epoch so far is still saved.
    RunError, CacheError, ModelError, ImagesError, SplitError
        As for `bottleneck.fit` and `bottleneck.load_run`; also a RunError if another process works on the run to
        resume.
    """
    began = time.perf_counter()
    check = Arguments(TuningError)
    if not (recipe is None or isinstance(recipe, Recipe)):
        raise TuningError(f"expected recipe to be a bottleneck.Recipe, got {abbreviated(recipe)}")
    images, begin, runs = as_images(images), check.text("begin", begin), check.path("runs", runs)
    run, resume = _name(check, "run", run), _name(check, "resume", resume)
    model, device = (check.optional(check.text, *one) for one in (("model", model), ("device", device)))
    views_limit, memory = check.whole("views_limit", views_limit), check.optional(check.whole, "memory", memory)
    folds = check.optional(check.whole, "folds", folds, least=2)
    if begin not in BEGINNINGS:
        raise TuningError(f"expected begin to be one of {', '.join(BEGINNINGS)}, got {begin!r}")
    if folds is not None and begin != "head":
        raise TuningError("expected begin='head' with folds, which compare fine-tuning with a head; got 'weights'")
    if resume is not None and (begin != "head" or any(one is not None for one in (recipe, run, model, folds))):
        raise TuningError("a resumed fine-tuning keeps its own recipe and start: pass resume without them")
    config = FineTuneConfig(recipe=recipe or Recipe(), begin=begin, run=run, model=model, folds=folds)
    with joined(device) as processes, ExitStack() as stack:
        if not processes.is_rank_zero:
            progress = None
        path = None
        if resume is not None:
            path = lock_unfinished(unfinished(runs, resume), runs, processes, stack)
            config = load_config(path)
            images = config.source if images is None else images
        context = build_context(
            config, images, cache=cache, runs=runs, processes=processes, memory=memory, progress=progress
        )
        if context.boundary and context.stats:
            required = context.required_activations()
            activations.check_disk_space(required, context.boundary, views_limit, context.stats.width)
        if path is None:
            path = _new_run(context, runs, stack)
        report: Watch = watch if watch and processes.is_rank_zero else lambda _: None
        return _fine_tune(context, path, report, progress, resumed=resume is not None, began=began)


def _fine_tune(
    context: FineTuningContext, path: Path, watch: Watch, progress: Progress | None, *, resumed: bool, began: float
) -> Run:
    """Fine-tune a network after the hand-back of its head."""
    optimizer = build_optimizer(context.network, context.plan, context.recipe)
    checkpoint = load_checkpoint(path / CHECKPOINT, optimizer) if resumed else None
    history, tensors = checkpoint or (History(), None)
    watch(Outline.of(context, path, resumed=history.last if checkpoint else None))
    start = _verify(context, watch)
    context.plan.apply(context.network)  # freezes the rest
    folds = prepare_folds(context)
    _exclude_validation_images(context)
    first_layer = context.network.layer()
    _cache_activations(context, progress)
    job = TrainingJob.of(context)
    initial_tensors = {name: value.clone() for name, value in job.trained_tensors.items()} if folds else {}
    _restore(job, tensors, path)

    def save(history: History) -> None:
        if context.processes.is_rank_zero:
            _save_checkpoint(path, history, job.trained_tensors, optimizer)

    finite = train(job, optimizer, history, save, watch)
    fold_test = compare_by_folds(context, folds, initial_tensors, path / CHECKPOINT, watch) if finite else None
    _restore_best_epoch(context, history)
    if start is not None:
        result = FineTuningResult(
            context=context,
            path=path,
            history=history,
            start=start,
            first_layer=first_layer,
            finite=finite,
            fold_test=fold_test,
        )
        save_run(result, seconds=time.perf_counter() - began)
        remove_lock(path)
    context.processes.barrier()
    run = load_run(path)
    if not finite:
        raise Diverged(_advice(context.recipe, history, run), run)
    return run


def _name(check: Arguments, option: str, value: "str | os.PathLike[str] | Run | None") -> str | None:
    """Return the name or path of a run as text."""
    if value is None:
        return None
    path = value.path if isinstance(value, Run) else value
    check.path(option, path)
    return written(path)


def lock_unfinished(path: Path, runs: str, processes: Processes, stack: ExitStack) -> Path:
    """Let rank 0 lock a fine-tuning to resume, until `stack` is closed.

    Raises
    ------
    RunError
        If another process holds the lock, or has finished the run since it was found.
    """
    if processes.is_rank_zero:
        stack.enter_context(locked(path))
    return unfinished(runs, path)


def _new_run(context: FineTuningContext, runs: str | os.PathLike[str], stack: ExitStack) -> Path:
    """Let rank 0 create and lock the folder of the run, and return it on all ranks."""
    path = ""
    if context.processes.is_rank_zero:
        cached = context.initial.cached
        folder = new_folder(runs, run_name(cached.dataset.source, cached.store.spec.backbone, HEAD))
        stack.enter_context(_deleted_on_error(folder))
        stack.enter_context(locked(folder))
        try:
            save_config(folder, context.config)
        except BaseException:
            delete_run(folder)
            raise
        path = str(folder)
    return context.processes.rank_zero_path(path)


@contextmanager
def _deleted_on_error(path: Path) -> Iterator[None]:
    """Delete the folder of a new run on an error before the first checkpoint.

    After Ctrl-C it is kept, since its configuration allows a resume.
    """
    try:
        yield
    except Exception:
        if not any((path / name).exists() for name in (CHECKPOINT, "card.json")):
            delete_run(path)
        raise


def _verify(context: FineTuningContext, watch: Watch) -> Start | None:
    """Let rank 0 verify that the network predicts what its head predicts; return None on other ranks."""
    if not context.processes.is_rank_zero:
        return None
    start = verify_start(context)
    watch(start)
    return start


def _exclude_validation_images(context: FineTuningContext) -> None:
    """Start from a head that was fitted without the validation images, if these were cut from the training split."""
    run = context.initial.run
    if context.partition.cut and run is not None:
        head = refit_or_keep(run, context.partition.train, context.initial.cached.store)
        context.network.set_layer(fold_head(head))


def _cache_activations(context: FineTuningContext, progress: Progress | None) -> None:
    """Compute the activations that are missing, each process its share; then rank 0 computes what is still missing."""
    boundary, stats, processes = context.boundary, context.stats, context.processes
    if boundary is None or stats is None:
        return
    required = context.required_activations()

    def fill(share: tuple[int, int], progress: Progress | None) -> None:
        activations.fill(
            required,
            context.network,
            boundary,
            device=str(context.device),
            stats=stats,
            share=share,
            memory=context.image_memory,
            progress=progress,
        )

    if processes.is_rank_zero:
        for one in required:
            one.store.keep()
        activations.drop_narrow(required, stats)
    processes.barrier()
    fill((processes.rank, processes.world_size), progress)
    processes.barrier()
    if processes.world_size > 1:
        if processes.is_rank_zero:
            fill((0, 1), None)
        processes.barrier()


def _restore(job: TrainingJob, tensors: Tensors | None, path: Path) -> None:
    """Continue from the tensors of a checkpoint, if there is one."""
    if tensors is None:
        return
    expected = {name: value.shape for name, value in job.trained_tensors.items()}
    if {name: value.shape for name, value in tensors.items()} != expected:
        raise RunError(f"expected a checkpoint of this recipe in {path / CHECKPOINT}, found one of another recipe")
    job.context.network.set_state(tensors)


def _save_checkpoint(path: Path, history: History, tensors: Tensors, optimizer: Optimizer) -> None:
    try:
        save_checkpoint(path / CHECKPOINT, history, tensors, optimizer)
    except OSError as error:
        raise RunError(
            f"cannot write a checkpoint to {path / CHECKPOINT}: {error.strerror or error}. The previous one is kept; "
            f"`bottleneck finetune --resume {path.name}` continues from it"
        ) from error


def _restore_best_epoch(context: FineTuningContext, history: History) -> None:
    """Load the weights of the best epoch; for epoch 0, with the head that was fitted on all training images."""
    network, run = context.network, context.initial.run
    network.set_state(history.best_tensors)
    if context.partition.cut and history.best == 0 and run is not None:
        network.set_layer(fold_head(run.head))
    network.eval()


def _advice(recipe: Recipe, history: History, run: Run) -> str:
    clip = "" if recipe.clip else " --clip 1 or"
    return (
        f"expected finite losses, epoch {history.last + 1} produced NaN or infinity: the best epoch before, "
        f"{history.best}, is saved in {run.path}. Try{clip} a smaller learning rate, --lr {recipe.largest_lr / 10:g}"
    )
