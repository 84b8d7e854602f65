"""What a fine-tuning works with: the head, its network, what of it is trained, the images and their activations."""

import os
from dataclasses import dataclass, replace

import numpy as np
import torch

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.store import Store
from bottleneck.engines.memory import keep_freed_memory
from bottleneck.engines.torch_engine import torch_device
from bottleneck.errors import UnknownModule
from bottleneck.extraction.memory import LEAST_MEMORY, MemoryBudget
from bottleneck.finetuning import activations as views
from bottleneck.finetuning.boundary import Boundary, find
from bottleneck.finetuning.config import Settings
from bottleneck.finetuning.distributed import Processes, Together
from bottleneck.finetuning.float16 import Measured
from bottleneck.finetuning.freeze import Plan, plan
from bottleneck.finetuning.handback import Layer, folded
from bottleneck.finetuning.initial import InitialState, from_weights, handed_back, with_module
from bottleneck.finetuning.loaders import Activations, Feed, Images
from bottleneck.finetuning.network import Network
from bottleneck.finetuning.partition import Parts, divide, warn_of_classes
from bottleneck.finetuning.recipe import Recipe
from bottleneck.finetuning.train import precision_of
from bottleneck.images.dataset import Dataset
from bottleneck.images.scan import Progress as Bar
from bottleneck.utils.memory import allowed


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What one fine-tuning works with."""

    settings: Settings
    origin: InitialState
    network: Network
    plan: Plan
    parts: Parts
    boundary: Boundary | None
    measured: Measured | None  # how what stands at the boundary is stored
    cache: FeatureCache
    processes: Processes
    device: torch.device

    @property
    def recipe(self) -> Recipe:
        """How it is done."""
        return self.settings.recipe

    @property
    def precision(self) -> str:
        """Of training; where float16 loses a part of the activations, bf16 by itself would lose more."""
        if self.measured and self.measured.wide and self.recipe.precision == "auto":
            return "fp32"
        return precision_of(self.recipe, self.network, self.plan, self.device)

    @property
    def memory(self) -> int:
        """Bytes that images may take: activations are not in memory while images are decoded."""
        return max(LEAST_MEMORY, int(self.settings.memory or 0.0))

    def wanted(self) -> list[views.Wanted]:
        """Return the activations that are needed."""
        if self.boundary is None:
            return []
        clean = views.clean(self.cache, self.network, self.boundary)
        found = [views.Wanted(clean, self.parts.val)]
        found += [views.Wanted(store, self.parts.train) for store in self.views()]
        if self.settings.folds and self.recipe.augment != "none":
            found.append(views.Wanted(clean, self.parts.train))  # a fold tests images as they are
        return found

    def feeds(self) -> tuple[Feed, Feed]:
        """Return what is trained and validated on."""
        if self.boundary is None:
            preprocessing, recipe = self.network.backbone.spec.preprocessing, self.recipe
            memory = MemoryBudget(self.memory)  # of both: they take turns
            augmented = Images(self.parts.train, preprocessing, recipe.augment, recipe.seed, memory)
            return augmented, Images(self.parts.val, preprocessing, memory=memory)
        shape, most = self.boundary.shape, (self.settings.memory or 0.0) / 2
        return Activations(self.views(), self.parts.train, shape, most), self.as_they_are(self.parts.val)

    def as_they_are(self, dataset: Dataset) -> Feed:
        """Return a feed of images without augmentation."""
        if self.boundary is None:
            return Images(dataset, self.network.backbone.spec.preprocessing, memory=MemoryBudget(self.memory))
        clean = (views.clean(self.cache, self.network, self.boundary),)
        return Activations(clean, dataset, self.boundary.shape, (self.settings.memory or 0.0) / 2)

    def views(self) -> tuple[Store, ...]:
        """Return the stores of the views that are trained on; none where the whole network runs."""
        if self.boundary is None:
            return ()
        recipe = self.recipe
        return views.stores(self.cache, self.network, self.boundary, recipe.augment, recipe.views, recipe.seed)


def set_up(
    settings: Settings,
    images: "str | os.PathLike[str] | Dataset | None",
    cache: str | os.PathLike[str],
    runs: str | os.PathLike[str],
    joined: Processes,
    device: str | None,
    memory: int | None,
    progress: Bar | None,
) -> Setting:
    """Find the head, the images and the network, and what of it is trained.

    Raises
    ------
    TuningError, RunError, CacheError, ModelError, ImagesError, SplitError
        As `bottleneck.finetuning.finetune.finetune`.
    """
    if settings.begin == "head":
        origin = handed_back(images, settings.run, cache=cache, runs=runs, progress=progress)
    else:
        origin = from_weights(images, settings.model, cache=cache, runs=runs, progress=progress)
    # Where activations do not fit they come in another order: what is resumed, and each process, must do alike.
    most = float(joined.told(str(allowed(memory) / joined.here if settings.memory is None else settings.memory)))
    settings = replace(settings.of(origin), memory=most)
    place = joined.device if isinstance(joined, Together) else torch_device(device)
    backbone = origin.backbone()
    network = Network(backbone, _first_layer(origin, backbone.dim, settings.recipe.seed))
    network.eval().to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    keep_freed_memory()
    calls = network.trace()
    try:
        planned = plan(network, settings.recipe, calls)
    except UnknownModule as error:
        other = with_module(runs, error.pattern, origin.store.spec.backbone)
        if other is None:
            raise
        named = f"{error}. {other.card['model']} has a {error.pattern}: --run {other.name} fine-tunes that"
        raise UnknownModule(named, error.pattern) from None
    if planned.buffers:
        joined.refuse_statistics()
    parts = divide(origin.usable, origin.heldout)
    warn_of_classes(parts)
    boundary = find(network, planned, calls) if settings.recipe.views else None
    return Setting(
        settings=settings,
        origin=origin,
        network=network,
        plan=planned,
        parts=parts,
        boundary=boundary,
        measured=_measured(network, boundary, parts, place, joined) if boundary else None,
        cache=FeatureCache(cache),
        processes=joined,
        device=place,
    )


def _measured(network: Network, boundary: Boundary, parts: Parts, device: torch.device, joined: Processes) -> Measured:
    found = views.measure(network, boundary, parts.train, str(device))
    return replace(found, wide=joined.told("wide" if found.wide else "") == "wide")


def _first_layer(origin: InitialState, dim: int, seed: int) -> Layer:
    """Return the head that is handed back, or a random layer as torch begins one."""
    if origin.run is not None:
        return folded(origin.run.head)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = torch.nn.Linear(dim, len(origin.classes))
    weight, bias = (value.detach().numpy().astype(np.float32) for value in (fresh.weight, fresh.bias))
    return Layer(weight, bias)
