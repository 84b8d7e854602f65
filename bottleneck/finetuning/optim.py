"""Optimiser, learning rates and moving averages of a recipe."""

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bottleneck.backbones.names import did_you_mean, nearest
from bottleneck.backbones.restore import fits
from bottleneck.errors import TuningError
from bottleneck.finetuning.freeze import Plan
from bottleneck.finetuning.network import Network
from bottleneck.finetuning.recipe import Recipe

_STEP = 0.1  # of the schedule of that name


def optimizer(network: Network, plan: Plan, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimiser of the trained parameters, in groups of one learning rate and weight decay each.

    Raises
    ------
    TuningError
        If a pattern of ``lr_mult`` fits nothing that is trained.
    """
    parameters = network.parameters_by_name()
    _check_patterns(plan, recipe)
    groups: defaultdict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name in plan.parameters:
        decays = parameters[name].dim() > 1 and name.endswith("weight")  # no norm, bias, token, embedding of positions
        decay = recipe.weight_decay if decays else 0.0
        groups[factor(name, plan, recipe), decay].append(parameters[name])
    listed = [
        {"params": group, "lr": recipe.largest_lr * mult, "mult": mult, "weight_decay": decay}
        for (mult, decay), group in groups.items()
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(listed)
    return torch.optim.SGD(listed, momentum=recipe.momentum)


def factor(name: str, plan: Plan, recipe: Recipe) -> float:
    """Return by how much the learning rate of a parameter is multiplied."""
    mult = recipe.layer_decay ** plan.depth[name]
    for pattern, value in recipe.lr_mult:
        if fits(name, [pattern]):
            mult *= value
    return mult


def set_rate(chosen: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its part of a learning rate."""
    for group in chosen.param_groups:
        group["lr"] = rate * group["mult"]


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate of a step, from 0, of so many steps an epoch.

    ``cosine`` is half a period, from the largest to zero (Loshchilov & Hutter 2017, without restarts).
    """
    warmup, total = recipe.warmup * steps, recipe.epochs * steps
    if step < warmup:
        return recipe.largest_lr * (step + 1) / (warmup + 1)
    if recipe.schedule == "cosine":
        return recipe.largest_lr * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup))) / 2
    if recipe.schedule == "step":
        return recipe.largest_lr * _STEP ** (step // steps // recipe.step_epochs)
    return recipe.largest_lr


def average(kept: Mapping[str, Tensor], now: Mapping[str, Tensor], decay: float) -> None:
    """Move an exponential average towards what tensors are now, in place."""
    with torch.no_grad():
        for name, value in kept.items():
            if value.is_floating_point():
                value.lerp_(now[name].to(value.dtype), 1 - decay)
            else:
                value.copy_(now[name])


def _check_patterns(plan: Plan, recipe: Recipe) -> None:
    for pattern, _ in recipe.lr_mult:
        if not any(fits(name, [pattern]) for name in plan.parameters):
            modules = sorted({name.rpartition(".")[0] for name in plan.parameters})
            hint = did_you_mean(nearest(pattern, [*plan.names, *modules]))
            trained, asked = ", ".join(plan.names) or "the head alone", f"{hint} trained" if hint else "trained"
            raise TuningError(
                f"expected parts that are trained for lr_mult, {pattern!r} fits none; {asked} are {trained}"
            )
