"""The training loop."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bottleneck.finetuning.boundary import Tail
from bottleneck.finetuning.context import FineTuningContext
from bottleneck.finetuning.history import Epoch, History, Tensors
from bottleneck.finetuning.loaders import ALL, BatchLoader, Rows
from bottleneck.finetuning.optim import learning_rate, set_learning_rate, update_average
from bottleneck.finetuning.partition import Codes, label_codes

_VALIDATION_BATCH = 64
_UNKNOWN = -1  # the code of a label that has no training images


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images to train on or to validate with.

    Parameters
    ----------
    loader : BatchLoader
    codes : ndarray of int64, shape (n,)
        The class of each image; -1 for one that the network does not know.
    """

    loader: BatchLoader
    codes: Codes


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """The inputs of the training loop, of which it changes only the network's weights.

    Parameters
    ----------
    context : FineTuningContext
    tail : Tail
        The trained part of the network.
    train, val : LabelledImages
    """

    context: FineTuningContext
    tail: Tail
    train: LabelledImages
    val: LabelledImages

    @classmethod
    def of(cls, context: FineTuningContext) -> "TrainingJob":
        """Return the job that trains on the partition of a context."""
        train, val = context.loaders()
        partition, classes = context.partition, context.initial.classes
        return cls(
            context=context,
            tail=Tail(context.network, context.boundary),
            train=LabelledImages(loader=train, codes=label_codes(partition.train, classes)),
            val=LabelledImages(loader=val, codes=label_codes(partition.val, classes)),
        )

    @property
    def trained_tensors(self) -> Tensors:
        """The tensors that training changes, by name, without copies."""
        plan, state = self.context.plan, self.context.network.state()
        return {name: state[name] for name in (*plan.parameters, *plan.buffers)}


def train(
    job: TrainingJob,
    optimizer: torch.optim.Optimizer,
    history: History,
    save: Callable[[History], None],
    watch: Callable[[Epoch], None],
) -> bool:
    """Train the remaining epochs; return whether all losses were finite.

    Parameters
    ----------
    job : TrainingJob
    optimizer : torch.optim.Optimizer
    history : History
        The finished epochs, which match the state of the network and the optimizer; extended in place.
    save, watch : callable
        Called after each epoch, first `save`.
    """
    recipe = job.context.recipe
    job.context.processes.sync(job.trained_tensors.values())
    if history.last < 0:
        loss, accuracy = validate(job)
        first = Epoch(
            number=0, train_loss=None, train_accuracy=None, val_loss=loss, val_accuracy=accuracy, lr=0.0, seconds=0.0
        )
        history.add(first, job.trained_tensors)
        history.average = {name: value.clone() for name, value in job.trained_tensors.items()} if recipe.ema else None
        save(history)
        watch(first)
    for number in range(history.last + 1, recipe.epochs + 1):
        if recipe.patience and number - 1 - history.best >= recipe.patience:
            break
        started = time.perf_counter()
        train_loss, train_accuracy, rate = _train_epoch(job, optimizer, history.average, number)
        with _averaged(job, history.average):
            val_loss, val_accuracy = validate(job)
        epoch = Epoch(
            number=number,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            lr=rate,
            seconds=time.perf_counter() - started,
        )
        if not epoch.finite:
            watch(epoch)
            return False
        history.add(epoch, history.average or job.trained_tensors)
        save(history)
        watch(epoch)
    return True


def _train_epoch(
    job: TrainingJob,
    optimizer: torch.optim.Optimizer,
    averages: Tensors | None,
    number: int,
) -> tuple[float, float, float]:
    """Train one epoch; return its mean loss, accuracy, and last learning rate.

    The order of the images and all random draws depend only on the seed and the number of the epoch.
    """
    context, recipe, processes = job.context, job.context.recipe, job.context.processes
    random, count = np.random.default_rng((recipe.seed, number)), len(job.train.codes)
    share = slice(processes.rank, None, processes.world_size)
    size, steps = recipe.batch_size, -(-count // recipe.batch_size)
    weights = _class_weights(job)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sums, rate, seen = torch.zeros(2, dtype=torch.float64, device=context.device), 0.0, 0  # sums: losses, correct
    context.plan.set_modes(context.network)
    with _seeded(context.device, (recipe.seed * 1_000_003 + number) * processes.world_size + processes.rank):
        for step, (rows, values) in enumerate(job.train.loader.batches(number, size, random, share)):
            batch_size = min(size, count - step * size)  # over all processes
            if batch_size == 1 and recipe.train_bn:
                break  # one image has no batch statistics; the next epoch leaves out another one
            rate = learning_rate(recipe, (number - 1) * steps + step, steps)
            set_learning_rate(optimizer, rate)
            optimizer.zero_grad()
            loss = None
            if len(rows):
                losses, correct = _losses(job, rows, values, weights)
                loss = losses.sum() * (1 / batch_size)
                sums += torch.stack([losses.detach().sum(), correct]).double()
            processes.backward(loss, parameters)
            if recipe.clip:
                torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
            optimizer.step()
            if averages is not None and recipe.ema:
                update_average(averages, job.trained_tensors, recipe.ema)
            seen += batch_size
            if processes.world_size == 1 and not torch.isfinite(sums[0]):
                break
    loss_sum, correct_sum = processes.sum(sums).tolist()
    return loss_sum / max(1, seen), correct_sum / max(1, seen), rate


def _losses(job: TrainingJob, rows: Rows, values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the loss of each image of a batch, and how many are classified correctly."""
    context = job.context
    codes = torch.from_numpy(job.train.codes[rows]).to(context.device)
    with _autocast(context):
        logits = job.tail(values.to(context.device))
    smoothing = context.recipe.label_smoothing
    losses = functional.cross_entropy(
        logits.float(), codes, weight=weights, reduction="none", label_smoothing=smoothing
    )
    return losses, (logits.argmax(1) == codes).sum()


def validate(job: TrainingJob) -> tuple[float, float]:
    """Return the mean loss and the accuracy on the validation images, in fp32.

    Images of a class without training images count as errors, and not in the loss.
    """
    context, processes = job.context, job.context.processes
    context.network.eval()
    share = slice(processes.rank, None, processes.world_size)
    sums = torch.zeros(3, dtype=torch.float64, device=context.device)
    with torch.no_grad():
        for rows, values in job.val.loader.batches(0, _VALIDATION_BATCH, None, share):
            if not len(rows):
                continue
            codes = torch.from_numpy(job.val.codes[rows]).to(context.device)
            logits = job.tail(values.to(context.device))
            losses = functional.cross_entropy(logits, codes, reduction="none", ignore_index=_UNKNOWN)
            known = (codes != _UNKNOWN).sum()
            sums += torch.stack([losses.sum(), (logits.argmax(1) == codes).sum(), known]).double()
    loss, correct, known = processes.sum(sums).tolist()
    return loss / max(1.0, known), correct / len(job.val.codes)


def predict_codes(tail: Tail, loader: BatchLoader, count: int, device: torch.device) -> Codes:
    """Return the most probable class of each of `count` images, ``(n,)``, in fp32."""
    tail.network.eval()
    found = np.empty(count, np.int64)
    with torch.no_grad():
        for rows, values in loader.batches(0, _VALIDATION_BATCH, None, ALL):
            found[rows] = tail(values.to(device)).argmax(1).cpu().numpy()
    return found


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the generators that training on a device draws from, and restore them afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
        yield


def _autocast(context: FineTuningContext) -> AbstractContextManager[object]:
    return torch.autocast(context.device.type, torch.bfloat16, enabled=context.precision == "bf16")


def _class_weights(job: TrainingJob) -> Tensor | None:
    """Return the weight of each class ``(k,)``, with a mean of 1 over the training images."""
    if job.context.recipe.class_weight is None:
        return None
    codes = job.train.codes
    counts = np.bincount(codes, minlength=job.context.network.head.out_features)
    weights = len(codes) / (np.maximum(counts, 1) * np.count_nonzero(counts))
    return torch.from_numpy(weights.astype(np.float32)).to(job.context.device)


@contextmanager
def _averaged(job: TrainingJob, averages: Tensors | None) -> Iterator[None]:
    """Put the moving averages, if there are any, into the network for the duration."""
    if averages is None:
        yield
        return
    own = {name: value.clone() for name, value in job.trained_tensors.items()}
    job.context.network.set_state(averages)
    try:
        yield
    finally:
        job.context.network.set_state(own)
