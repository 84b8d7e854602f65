"""The training loop."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bottleneck.engines.hardware import native_bf16
from bottleneck.finetuning.boundary import Tail
from bottleneck.finetuning.distributed import Processes
from bottleneck.finetuning.freeze import Plan
from bottleneck.finetuning.history import Epoch, Progress, Tensors
from bottleneck.finetuning.loaders import ALL, Feed
from bottleneck.finetuning.network import Network
from bottleneck.finetuning.optim import average, learning_rate, set_rate
from bottleneck.finetuning.recipe import Recipe

_SCORED = 64  # images at once, where no gradients are kept
_UNKNOWN = -1  # the code of a label that was not trained on

Codes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images to train or to validate on.

    Parameters
    ----------
    feed : Feed
    codes : ndarray of int64, shape (n,)
        The class of each image; -1 for one that the network does not know.
    """

    feed: Feed
    codes: Codes


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that training needs and does not change, but for the network's weights."""

    network: Network
    tail: Tail
    plan: Plan
    recipe: Recipe
    train: LabelledImages
    val: LabelledImages
    processes: Processes
    device: torch.device
    precision: str

    @property
    def moving(self) -> Tensors:
        """All that training changes, by name, without copies."""
        state = self.network.state()
        return {name: state[name] for name in (*self.plan.parameters, *self.plan.buffers)}


def train(
    job: Job,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    keep: Callable[[Progress], None],
    watch: Callable[[Epoch], None],
) -> bool:
    """Train the epochs that are left; return whether all losses were finite.

    Parameters
    ----------
    job : Job
    optimizer : torch.optim.Optimizer
    progress : Progress
        Of the epochs before, with which the network and the optimiser agree; is carried on.
    keep, watch : callable
        Called after each epoch, the first to write it down.
    """
    recipe = job.recipe
    job.processes.same(job.moving.values())
    if progress.last < 0:
        loss, accuracy = validate(job)
        first = Epoch(
            number=0, train_loss=None, train_accuracy=None, val_loss=loss, val_accuracy=accuracy, lr=0.0, seconds=0.0
        )
        progress.take(first, job.moving)
        progress.average = {name: value.clone() for name, value in job.moving.items()} if recipe.ema else None
        keep(progress)
        watch(first)
    for number in range(progress.last + 1, recipe.epochs + 1):
        if recipe.patience and number - 1 - progress.best >= recipe.patience:
            break
        started = time.perf_counter()
        train_loss, train_accuracy, rate = _epoch(job, optimizer, progress.average, number)
        with _averaged(job, progress.average):
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
        progress.take(epoch, progress.average or job.moving)
        keep(progress)
        watch(epoch)
    return True


def _epoch(
    job: Job,
    optimizer: torch.optim.Optimizer,
    averages: Tensors | None,
    number: int,
) -> tuple[float, float, float]:
    """Train one epoch; return its mean loss, accuracy, and last learning rate.

    The order of the images, and all that is random, depend on the seed and the number of the epoch alone.
    """
    recipe, processes, count = job.recipe, job.processes, len(job.train.codes)
    random = np.random.default_rng((recipe.seed, number))
    share = slice(processes.rank, None, processes.count)
    size, steps = recipe.batch_size, -(-count // recipe.batch_size)
    weights = _class_weights(job)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sums, rate = torch.zeros(2, dtype=torch.float64, device=job.device), 0.0  # of losses, of images that are right
    seen = 0
    job.plan.set_modes(job.network)
    with torch.random.fork_rng(devices=[job.device] if job.device.type == "cuda" else []):
        torch.manual_seed((recipe.seed * 1_000_003 + number) * processes.count + processes.rank)
        for step, (rows, values) in enumerate(job.train.feed.batches(number, size, random, share)):
            together = min(size, count - step * size)
            if together == 1 and recipe.train_bn:
                break  # one image has no statistics; another will be left over in the next epoch
            rate = learning_rate(recipe, (number - 1) * steps + step, steps)
            set_rate(optimizer, rate)
            optimizer.zero_grad()
            loss = None  # of this process's share of the mean over the batch
            if len(rows):
                codes = torch.from_numpy(job.train.codes[rows]).to(job.device)
                with _autocast(job):
                    logits = job.tail(values.to(job.device))
                losses = functional.cross_entropy(
                    logits.float(), codes, weight=weights, reduction="none", label_smoothing=recipe.label_smoothing
                )
                loss = losses.sum() * (1 / together)
                sums += torch.stack([losses.detach().sum(), (logits.argmax(1) == codes).sum()]).double()
            processes.backward(loss, parameters)
            if recipe.clip:
                torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
            optimizer.step()
            if averages is not None and recipe.ema:
                average(averages, job.moving, recipe.ema)
            seen += together
            if processes.count == 1 and not torch.isfinite(sums[0]):
                break
    loss, right = (processes.total(sums) / max(1, seen)).tolist()
    return loss, right, rate


def validate(job: Job) -> tuple[float, float]:
    """Return the mean loss and the accuracy of the validation images, in fp32.

    Images of a class that was not trained on count as wrong, and for no loss.
    """
    job.network.eval()
    share = slice(job.processes.rank, None, job.processes.count)
    sums = torch.zeros(3, dtype=torch.float64, device=job.device)
    with torch.no_grad():
        for rows, values in job.val.feed.batches(0, _SCORED, None, share):
            if not len(rows):
                continue
            codes = torch.from_numpy(job.val.codes[rows]).to(job.device)
            logits = job.tail(values.to(job.device))
            losses = functional.cross_entropy(logits, codes, reduction="none", ignore_index=_UNKNOWN)
            known = (codes != _UNKNOWN).sum()
            sums += torch.stack([losses.sum(), (logits.argmax(1) == codes).sum(), known]).double()
    loss, right, known = job.processes.total(sums).tolist()
    return loss / max(1.0, known), right / len(job.val.codes)


def predicted(tail: Tail, feed: Feed, count: int, device: torch.device) -> Codes:
    """Return the most probable class of each of `count` images, ``(n,)``, in fp32."""
    tail.network.eval()
    found = np.empty(count, np.int64)
    with torch.no_grad():
        for rows, values in feed.batches(0, _SCORED, None, ALL):
            found[rows] = tail(values.to(device)).argmax(1).cpu().numpy()
    return found


def precision_of(recipe: Recipe, network: Network, plan: Plan, device: torch.device) -> str:
    """Return the precision of training: bf16 for ``auto`` where that is faster.

    It is where the hardware multiplies bfloat16 itself; but not for grouped convolutions on a CPU, whose gradients
    oneDNN computes slowly in bfloat16. On 2 cores with AVX512-BF16 a step takes 0.5 times as long as in fp32 with the
    last stage of ResNet-18, 0.6 times with that of ResNet-50, and twice as long with two stages of EfficientNet-Lite0.
    """
    if recipe.precision != "auto":
        return recipe.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    owners = {name.rpartition(".")[0] for name in plan.parameters}
    modules = (module for name, module in network.named.named_modules() if name in owners)
    grouped = any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in modules)
    return "bf16" if device.type == "cpu" and native_bf16() and not grouped else "fp32"


def _autocast(job: Job) -> AbstractContextManager[Any]:
    return torch.autocast(job.device.type, torch.bfloat16, enabled=job.precision == "bf16")


def _class_weights(job: Job) -> Tensor | None:
    """Return the weight of each class ``(k,)``, whose mean over the training images is 1."""
    if job.recipe.class_weight is None:
        return None
    codes = job.train.codes
    counts = np.bincount(codes, minlength=job.network.head.out_features)
    weights = len(codes) / (np.maximum(counts, 1) * np.count_nonzero(counts))
    return torch.from_numpy(weights.astype(np.float32)).to(job.device)


class _averaged:
    """Puts the averages, where there are any, into the network, and gives it back its own."""

    def __init__(self, job: Job, averages: Tensors | None) -> None:
        self._job, self._averages = job, averages

    def __enter__(self) -> None:
        if self._averages is not None:
            self._own = {name: value.clone() for name, value in self._job.moving.items()}
            self._job.network.set_state(self._averages)

    def __exit__(self, *_: object) -> None:
        if self._averages is not None:
            self._job.network.set_state(self._own)
