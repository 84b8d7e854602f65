"""The optimizer, learning rates and moving averages of a recipe."""

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bottleneck.backbones.names import did_you_mean, nearest
from bottleneck.backbones.restore import fits
from bottleneck.errors import TuningError
from bottleneck.finetuning.freeze import TrainablePlan
from bottleneck.finetuning.network import Network
from bottleneck.finetuning.recipe import Recipe

_STEP_FACTOR = 0.1  # of the schedule "step"


def build_optimizer(network: Network, plan: TrainablePlan, recipe: Recipe) -> torch.optim.Optimizer:
    """Build the optimizer of the trained parameters, with one group for each learning rate and weight decay.

    Raises
    ------
    TuningError
        If a pattern of ``lr_mult`` matches no trained module.
    """
    parameters = network.parameters_by_name()
    _check_patterns(plan, recipe)
    groups: defaultdict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name in plan.parameters:
        decays = parameters[name].dim() > 1 and name.endswith(
            "weight"
        )  # not norms, biases, tokens, position embeddings
        decay = recipe.weight_decay if decays else 0.0
        groups[lr_multiplier(name, plan, recipe), decay].append(parameters[name])
    listed = [
        {"params": group, "lr": recipe.largest_lr * mult, "mult": mult, "weight_decay": decay}
        for (mult, decay), group in groups.items()
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(listed)
    return torch.optim.SGD(listed, momentum=recipe.momentum)


def lr_multiplier(name: str, plan: TrainablePlan, recipe: Recipe) -> float:
    """Return the factor of the learning rate of a parameter."""
    mult = recipe.layer_decay ** plan.depth[name]
    for pattern, value in recipe.lr_mult:
        if fits(name, [pattern]):
            mult *= value
    return mult


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of each group to `rate` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["mult"]


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 0, with `steps` steps in each epoch.

    ``cosine`` falls from the largest rate to zero in half a period (Loshchilov & Hutter 2017, without restarts).
    """
    warmup, total = recipe.warmup * steps, recipe.epochs * steps
    if step < warmup:
        return recipe.largest_lr * (step + 1) / (warmup + 1)
    if recipe.schedule == "cosine":
        return recipe.largest_lr * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup))) / 2
    if recipe.schedule == "step":
        return recipe.largest_lr * _STEP_FACTOR ** (step // steps // recipe.step_epochs)
    return recipe.largest_lr


def update_average(averages: Mapping[str, Tensor], tensors: Mapping[str, Tensor], decay: float) -> None:
    """Move exponential averages towards the current tensors, in place."""
    with torch.no_grad():
        for name, value in averages.items():
            if value.is_floating_point():
                value.lerp_(tensors[name].to(value.dtype), 1 - decay)
            else:
                value.copy_(tensors[name])


def _check_patterns(plan: TrainablePlan, recipe: Recipe) -> None:
    for pattern, _ in recipe.lr_mult:
        if not any(fits(name, [pattern]) for name in plan.parameters):
            modules = sorted({name.rpartition(".")[0] for name in plan.parameters})
            hint = did_you_mean(nearest(pattern, [*plan.names, *modules]))
            trained = f"{hint} The" if hint else "the"
            raise TuningError(
                f"expected lr_mult to name trained modules, {pattern!r} fits none; {trained} trained modules are "
                f"{', '.join(plan.names) or 'the head alone'}"
            )
