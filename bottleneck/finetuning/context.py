"""The context of a fine-tuning: its configuration, the network and its trainable part, the images and activations."""

import os
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.store import Store
from bottleneck.engines.memory import keep_freed_memory
from bottleneck.errors import TuningError, UnknownModule
from bottleneck.extraction.memory import LEAST_MEMORY, MemoryBudget
from bottleneck.finetuning import activations
from bottleneck.finetuning.activations import RequiredActivations
from bottleneck.finetuning.boundary import Boundary, find_boundary
from bottleneck.finetuning.config import FineTuneConfig
from bottleneck.finetuning.distributed import Processes
from bottleneck.finetuning.freeze import TrainablePlan, trainable_plan
from bottleneck.finetuning.handback import LinearLayer, fold_head
from bottleneck.finetuning.initial import InitialState, from_head, from_weights, with_module
from bottleneck.finetuning.loaders import ActivationLoader, BatchLoader, ImageLoader
from bottleneck.finetuning.network import Network
from bottleneck.finetuning.partition import Partition, partition_of, warn_of_classes
from bottleneck.finetuning.precision import ActivationStats, training_precision
from bottleneck.finetuning.recipe import Recipe
from bottleneck.images.dataset import Dataset
from bottleneck.images.scan import Progress
from bottleneck.utils.memory import allowed


@dataclass(frozen=True, kw_only=True)
class FineTuningContext:
    """The objects of one fine-tuning, passed as a whole to each of its steps.

    Parameters
    ----------
    config : FineTuneConfig
    initial : InitialState
    network : Network
        Changed in place by training.
    plan : TrainablePlan
    partition : Partition
    boundary : Boundary or None
        Where activations are cached; None if the whole network runs.
    stats : ActivationStats or None
        Statistics of the activations at the boundary, which determine how they are stored.
    cache : FeatureCache
    processes : Processes
    """

    config: FineTuneConfig
    initial: InitialState
    network: Network
    plan: TrainablePlan
    partition: Partition
    boundary: Boundary | None
    stats: ActivationStats | None
    cache: FeatureCache
    processes: Processes

    @property
    def recipe(self) -> Recipe:
        """The options of training."""
        return self.config.recipe

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.processes.device

    @cached_property
    def precision(self) -> str:
        """The precision of training; with ``auto`` it is fp32 if float16 loses information on the activations."""
        if self.stats and self.stats.wide and self.recipe.precision == "auto":
            return "fp32"
        return training_precision(self.recipe, self.network, self.plan, self.device)

    @property
    def image_memory(self) -> int:
        """The largest size of images in memory, in bytes: they are never decoded while activations are held."""
        return max(LEAST_MEMORY, int(self.config.memory or 0.0))

    def required_activations(self) -> list[RequiredActivations]:
        """Return the activations that training and validation read."""
        if self.boundary is None:
            return []
        clean, train = activations.clean_store(self.cache, self.network, self.boundary), self.partition.train
        required = [RequiredActivations(clean, self.partition.val)]
        required += [RequiredActivations(store, train) for store in self.view_stores()]
        if self.config.folds and self.recipe.augment != "none":
            required.append(RequiredActivations(clean, train))  # a fold tests images without augmentation
        return required

    def view_stores(self) -> tuple[Store, ...]:
        """Return the stores of the augmented views of the training images; none if the whole network runs."""
        if self.boundary is None:
            return ()
        recipe = self.recipe
        return activations.view_stores(
            self.cache, self.network, self.boundary, recipe.augment, recipe.views, recipe.seed
        )

    def loaders(self) -> tuple[BatchLoader, BatchLoader]:
        """Return the loaders of the training and of the validation images."""
        partition, recipe = self.partition, self.recipe
        if self.boundary is None:
            preprocessing = self.network.backbone.spec.preprocessing
            memory = MemoryBudget(self.image_memory)  # shared: only one of them is read at a time
            augmented = ImageLoader(partition.train, preprocessing, recipe.augment, recipe.seed, memory)
            return augmented, ImageLoader(partition.val, preprocessing, memory=memory)
        return self._activation_loader(self.view_stores(), partition.train), self.clean_loader(partition.val)

    def clean_loader(self, dataset: Dataset) -> BatchLoader:
        """Return a loader of images without augmentation."""
        if self.boundary is None:
            memory = MemoryBudget(self.image_memory)
            return ImageLoader(dataset, self.network.backbone.spec.preprocessing, memory=memory)
        clean = activations.clean_store(self.cache, self.network, self.boundary)
        return self._activation_loader((clean,), dataset)

    def _activation_loader(self, stores: tuple[Store, ...], dataset: Dataset) -> ActivationLoader:
        assert self.boundary is not None
        return ActivationLoader(stores, dataset, self.boundary.shape, (self.config.memory or 0.0) / 2)


def build_context(
    config: FineTuneConfig,
    images: "str | os.PathLike[str] | Dataset | None",
    *,
    cache: str | os.PathLike[str],
    runs: str | os.PathLike[str],
    processes: Processes,
    memory: int | None,
    progress: Progress | None,
) -> FineTuningContext:
    """Find the head and the images, hand the head back to its network, and decide which part of it is trained.

    Raises
    ------
    TuningError, RunError, CacheError, ModelError, ImagesError, SplitError
        As for `bottleneck.finetuning.finetune.finetune`.
    """
    if config.begin == "head":
        initial = from_head(images, config.run, cache=cache, runs=runs, progress=progress)
    else:
        initial = from_weights(images, config.model, cache=cache, runs=runs, progress=progress)
    config = _with_memory(config.resolved(initial), memory, processes)
    backbone = initial.backbone()
    network = Network(backbone, _first_layer(initial, backbone.dim, config.recipe.seed))
    network.eval().to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    keep_freed_memory()
    calls = network.trace()
    try:
        plan = trainable_plan(network, config.recipe, calls)
    except UnknownModule as error:
        raise _with_hint(error, initial, runs) from None
    if plan.buffers and processes.world_size > 1:
        raise TuningError(
            "expected frozen batch norms, since each of several processes would update them with its own images only: "
            "leave out --train-bn, or train in one process"
        )
    partition = partition_of(initial.cached.usable, initial.heldout)
    warn_of_classes(partition)
    boundary = find_boundary(network, plan, calls) if config.recipe.views else None
    return FineTuningContext(
        config=config,
        initial=initial,
        network=network,
        plan=plan,
        partition=partition,
        boundary=boundary,
        stats=_stats(network, boundary, partition, processes) if boundary else None,
        cache=FeatureCache(cache),
        processes=processes,
    )


def _with_memory(config: FineTuneConfig, memory: int | None, processes: Processes) -> FineTuneConfig:
    """Return a configuration with the memory of each process, the same in all processes and after a resume.

    Activations that do not fit in memory are read in another order, which changes the result.
    """
    size = allowed(memory) / processes.local_world_size if config.memory is None else config.memory
    return replace(config, memory=float(processes.broadcast(str(size))))


def _with_hint(error: UnknownModule, initial: InitialState, runs: str | os.PathLike[str]) -> UnknownModule:
    """Return the error with the name of a run whose network has the module, if there is one."""
    other = with_module(runs, error.pattern, initial.cached.store.spec.backbone)
    if other is None:
        return error
    hint = f"{error}. {other.card['model']} has a {error.pattern}: --run {other.name} fine-tunes that"
    return UnknownModule(hint, error.pattern)


def _stats(network: Network, boundary: Boundary, partition: Partition, processes: Processes) -> ActivationStats:
    """Measure a sample of the activations; whether float16 is too narrow is decided by rank 0."""
    stats = activations.measure(network, boundary, partition.train, str(processes.device))
    return replace(stats, wide=processes.broadcast("wide" if stats.wide else "") == "wide")


def _first_layer(initial: InitialState, dim: int, seed: int) -> LinearLayer:
    """Return the head that is handed back, or a random layer with the default initialisation of torch."""
    if initial.run is not None:
        return fold_head(initial.run.head)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs, too
        fresh = torch.nn.Linear(dim, len(initial.classes))
    weight, bias = (value.detach().numpy().astype(np.float32) for value in (fresh.weight, fresh.bias))
    return LinearLayer(weight, bias)
