"""Which parts of a network are trained, and which are frozen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bottleneck.backbones.names import did_you_mean, nearest
from bottleneck.backbones.restore import fits
from bottleneck.backbones.stages import stages
from bottleneck.backbones.tracing import Call
from bottleneck.errors import TuningError, UnknownModule
from bottleneck.finetuning.network import Network
from bottleneck.finetuning.recipe import Recipe
from bottleneck.utils.text import counted, one_line

ALL = "all"


@dataclass(frozen=True)
class TrainablePlan:
    """The parts of a network that are trained.

    Parameters
    ----------
    names : tuple of str
        The modules to report: as the user named them, or the stages.
    modules : frozenset of str
        All trained modules, nested ones included; ``""`` is the network itself.
    parameters : tuple of str
        Names of the trained parameters, including those of the last layer.
    buffers : tuple of str
        Names of the tensors that training changes without a gradient: statistics of trained batch norms.
    trained, frozen : int
        Number of parameters (elements of tensors).
    depth : dict of str to int
        The distance of each trained parameter from the last layer, in stages; 0 for the last layer itself.
    """

    names: tuple[str, ...]
    modules: frozenset[str]
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    trained: int
    frozen: int
    depth: dict[str, int]

    def __repr__(self) -> str:
        return one_line(self, *self.names, f"{self.trained:,} parameters trained", f"{self.frozen:,} frozen")

    def apply(self, network: Network) -> None:
        """Set ``requires_grad`` of these parameters, and clear it for all others."""
        trained = set(self.parameters)
        for name, parameter in network.parameters_by_name().items():
            parameter.requires_grad_(name in trained)

    def set_modes(self, network: Network) -> None:
        """Put trained parts into training mode and all others, frozen batch norms included, into eval mode."""
        network.eval()
        trained_norms = {name.rpartition(".")[0] for name in self.buffers}
        for name, module in network.base_model.named_modules():
            if name in self.modules and (not is_norm(module) or name in trained_norms):
                module.training = True
        if "" in self.modules:
            network.trunk.training = True


def trainable_plan(network: Network, recipe: Recipe, calls: dict[str, Call]) -> TrainablePlan:
    """Find the parts of a network that a recipe trains.

    Parameters
    ----------
    network : Network
    recipe : Recipe
    calls : dict of str to Call
        From `Network.trace`.

    Raises
    ------
    TuningError
        If a pattern matches nothing; the message suggests the nearest names and lists the stages.
    """
    order = stages_in_order(network.base_model, calls)
    patterns = recipe.unfreeze
    if not patterns:
        last = 1 if recipe.last is None else recipe.last
        if last > len(order):
            raise TuningError(
                f"expected at most {counted(len(order), 'stage')} to train, got --last {last}: {_joined(order)}"
            )
        patterns = tuple(name for group in order[len(order) - last :] for name in group)
    chosen = _modules(network, patterns, order)
    parameters = network.parameters_by_name()
    norms = {name for name, module in network.base_model.named_modules() if is_norm(module)}
    trained = [
        name
        for name in parameters
        if name.rpartition(".")[0] in chosen
        or _matches_itself(name, patterns)
        or name.startswith(f"{network.classifier}.")
    ]
    if not recipe.train_bn:
        trained = [name for name in trained if name.rpartition(".")[0] not in norms]
    for pattern in recipe.unfreeze:
        _check_trains(network, pattern, trained, order)
    trained_norms = chosen & norms if recipe.train_bn else set()
    buffers = [name for name, _ in network.base_model.named_buffers() if name.rpartition(".")[0] in trained_norms]
    count = sum(parameters[name].numel() for name in trained)
    return TrainablePlan(
        names=tuple(
            name for name in patterns if recipe.unfreeze or recipe.train_bn or not _stays_frozen(network, name)
        ),
        modules=frozenset(chosen),
        parameters=tuple(trained),
        buffers=tuple(buffers),
        trained=count,
        frozen=sum(parameter.numel() for parameter in parameters.values()) - count,
        depth=_depths(trained, order, network.classifier),
    )


def stages_in_order(network: nn.Module, calls: dict[str, Call]) -> list[tuple[str, ...]]:
    """Return the stages in the order in which they run; a norm belongs to the stage before it."""
    found = sorted((name for name in stages(network) if name in calls), key=lambda name: calls[name].entered)
    groups: list[tuple[str, ...]] = []
    for name in found:
        if groups and _only_norms(network.get_submodule(name)):
            groups[-1] = (*groups[-1], name)
        else:
            groups.append((name,))
    return groups


def is_norm(module: nn.Module) -> bool:
    """Return whether it is a batch norm, including those of timm with a built-in activation."""
    return isinstance(module, _BatchNorm)


def unknown_module(model: str, pattern: str, known: Iterable[str], order: Sequence[tuple[str, ...]]) -> UnknownModule:
    """Return the error for a pattern that matches no module of a network."""
    hint = did_you_mean(nearest(pattern, known))
    return UnknownModule(
        f"expected {pattern!r} to match modules of {model}, found none; {f'{hint} Its' if hint else 'its'} stages are "
        f"{_joined(order)}; `bottleneck inspect {model}` lists all names",
        pattern,
    )


def _modules(network: Network, patterns: Sequence[str], order: Sequence[tuple[str, ...]]) -> set[str]:
    """Return the names of all modules that match the patterns, nested ones included."""
    names = [name for name, _ in network.base_model.named_modules()]
    if ALL in patterns:
        return set(names)
    known = list(dict.fromkeys([*names[1:], *network.parameters_by_name(), network.classifier]))
    for pattern in patterns:
        if not any(fits(name, [pattern]) for name in known):
            raise unknown_module(network.backbone.spec.backbone, pattern, known, order)
    chosen = {name for name in names if name and fits(name, patterns)}
    chosen.discard(network.classifier)  # an identity here; the last layer is always trained
    return {name for name in names if any(name == one or name.startswith(f"{one}.") for one in chosen)}


def _stays_frozen(network: Network, name: str) -> bool:
    """Return whether a module has no parameters outside batch norms."""
    parts = (
        part for part in network.base_model.get_submodule(name).modules() if any(True for _ in part.parameters(False))
    )
    return all(is_norm(part) for part in parts)


def _check_trains(network: Network, pattern: str, trained: Sequence[str], order: Sequence[tuple[str, ...]]) -> None:
    """Refuse a pattern whose modules have nothing to train.

    Raises
    ------
    TuningError
    """
    if pattern in (ALL, network.classifier):
        return
    chosen = _modules(network, [pattern], order)
    own = [name for name in network.parameters_by_name() if name.rpartition(".")[0] in chosen or fits(name, [pattern])]
    if not own:
        raise TuningError(f"expected parameters to train in {pattern!r}, found none")
    if not set(own) & set(trained):
        raise TuningError(f"{pattern!r} has only batch norms, which stay frozen: add --train-bn to train them")


def _matches_itself(parameter: str, patterns: Sequence[str]) -> bool:
    """Return whether a pattern names the parameter itself, such as ``pos_embed`` of a transformer."""
    return ALL in patterns or fits(parameter, patterns)


def _depths(parameters: Sequence[str], order: Sequence[tuple[str, ...]], classifier: str) -> dict[str, int]:
    stage_of = {name: number for number, group in enumerate(order, 1) for name in group}
    found = {}
    for parameter in parameters:
        stage = next((number for name, number in stage_of.items() if parameter.startswith(f"{name}.")), 0)
        found[parameter] = 0 if parameter.startswith(f"{classifier}.") else len(order) + 1 - stage
    return found


def _only_norms(module: nn.Module) -> bool:
    own = [part for part in module.modules() if any(True for _ in part.parameters(recurse=False))]
    return all("norm" in type(part).__name__.lower() for part in own)


def _joined(order: Sequence[tuple[str, ...]]) -> str:
    return ", ".join("+".join(group) for group in order)
