"""Which parts of a network are trained, and which stay as they are."""

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
class Plan:
    """What of a network is trained.

    Parameters
    ----------
    names : tuple of str
        The modules, in words: as the user named them, or the stages.
    modules : frozenset of str
        All modules that are trained, those inside of others too; ``""`` is the network itself.
    parameters : tuple of str
        Names of the trained parameters, the last layer's included.
    buffers : tuple of str
        Of the tensors that training changes without a gradient: statistics of batch norms that are trained.
    trained, frozen : int
        Numbers in the parameters.
    depth : dict of str to int
        How many stages a parameter stands before the last layer, 0 for that itself.
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
        """Let exactly these parameters ask for gradients."""
        trained = set(self.parameters)
        for name, parameter in network.parameters_by_name().items():
            parameter.requires_grad_(name in trained)

    def set_modes(self, network: Network) -> None:
        """Put the parts that are trained into training mode, and all others, frozen batch norms too, into eval mode."""
        network.eval()
        kept = {name.rpartition(".")[0] for name in self.buffers}
        for name, module in network.named.named_modules():
            if name in self.modules and (not is_norm(module) or name in kept):
                module.training = True
        if "" in self.modules:
            network.trunk.training = True


def plan(network: Network, recipe: Recipe, calls: dict[str, Call]) -> Plan:
    """Find what a recipe trains.

    Parameters
    ----------
    network : Network
    recipe : Recipe
    calls : dict of str to Call
        What `Network.trace` gave.

    Raises
    ------
    TuningError
        If a pattern fits nothing: the nearest names, and the network's stages, are given.
    """
    order = stages_in_order(network.named, calls)
    patterns = recipe.unfreeze
    if not patterns:
        last = 1 if recipe.last is None else recipe.last
        if last > len(order):
            raise TuningError(
                f"expected at most {counted(len(order), 'stage')} to train, got --last {last}: {_said(order)}"
            )
        patterns = tuple(name for group in order[len(order) - last :] for name in group)
    chosen = _modules(network, patterns, order)
    parameters = network.parameters_by_name()
    norms = {name for name, module in network.named.named_modules() if is_norm(module)}
    trained = [
        name
        for name in parameters
        if name.rpartition(".")[0] in chosen or _is_own(name, patterns) or name.startswith(f"{network.classifier}.")
    ]
    if not recipe.train_bn:
        trained = [name for name in trained if name.rpartition(".")[0] not in norms]
    for pattern in recipe.unfreeze:
        _check_trains(network, pattern, trained, order)
    moving = chosen & norms if recipe.train_bn else set()
    buffers = [name for name, _ in network.named.named_buffers() if name.rpartition(".")[0] in moving]
    count = sum(parameters[name].numel() for name in trained)
    return Plan(
        names=tuple(name for name in patterns if recipe.unfreeze or recipe.train_bn or not _stays(network, name)),
        modules=frozenset(chosen),
        parameters=tuple(trained),
        buffers=tuple(buffers),
        trained=count,
        frozen=sum(parameter.numel() for parameter in parameters.values()) - count,
        depth=_depths(trained, order, network.classifier),
    )


def stages_in_order(network: nn.Module, calls: dict[str, Call]) -> list[tuple[str, ...]]:
    """Return the stages in the order in which they run, a norm together with what it follows."""
    found = sorted((name for name in stages(network) if name in calls), key=lambda name: calls[name].entered)
    groups: list[tuple[str, ...]] = []
    for name in found:
        if groups and _only_norms(network.get_submodule(name)):
            groups[-1] = (*groups[-1], name)
        else:
            groups.append((name,))
    return groups


def is_norm(module: nn.Module) -> bool:
    """Whether it is a batch norm, or one of timm's, which have an activation inside."""
    return isinstance(module, _BatchNorm)


def unknown_module(model: str, pattern: str, known: Iterable[str], order: Sequence[tuple[str, ...]]) -> UnknownModule:
    """Return the error that a pattern fits no module of a network."""
    hint = did_you_mean(nearest(pattern, known))
    return UnknownModule(
        f"expected modules of {model} that {pattern!r} fits, found none; {f'{hint} Its' if hint else 'its'} stages are "
        f"{_said(order)}; `bottleneck inspect {model}` lists all names",
        pattern,
    )


def _modules(network: Network, patterns: Sequence[str], order: Sequence[tuple[str, ...]]) -> set[str]:
    """Return the names of all modules that patterns fit, with those inside."""
    names = [name for name, _ in network.named.named_modules()]
    if ALL in patterns:
        return set(names)
    known = list(dict.fromkeys([*names[1:], *network.parameters_by_name(), network.classifier]))
    for pattern in patterns:
        if not any(fits(name, [pattern]) for name in known):
            raise unknown_module(network.backbone.spec.backbone, pattern, known, order)
    chosen = {name for name in names if name and fits(name, patterns)}
    chosen.discard(network.classifier)  # whose place is empty: the last layer is trained in any case
    return {name for name in names if any(name == one or name.startswith(f"{one}.") for one in chosen)}


def _stays(network: Network, name: str) -> bool:
    """Whether a module has nothing to train but batch norms."""
    parts = (part for part in network.named.get_submodule(name).modules() if any(True for _ in part.parameters(False)))
    return all(is_norm(part) for part in parts)


def _check_trains(network: Network, pattern: str, trained: Sequence[str], order: Sequence[tuple[str, ...]]) -> None:
    """Refuse a pattern that fits modules in which nothing is trained.

    Raises
    ------
    TuningError
    """
    if pattern in (ALL, network.classifier):
        return
    chosen = _modules(network, [pattern], order)
    own = [name for name in network.parameters_by_name() if name.rpartition(".")[0] in chosen or fits(name, [pattern])]
    if not own:
        raise TuningError(f"expected something to train in {pattern!r}, which has no parameters of its own")
    if not set(own) & set(trained):
        raise TuningError(f"{pattern!r} has only batch norms, which stay as they are: add --train-bn to train them")


def _is_own(parameter: str, patterns: Sequence[str]) -> bool:
    """Whether a parameter is named itself, as ``pos_embed`` of a transformer is."""
    return ALL in patterns or fits(parameter, patterns)


def _depths(parameters: Sequence[str], order: Sequence[tuple[str, ...]], classifier: str) -> dict[str, int]:
    place = {name: number for number, group in enumerate(order, 1) for name in group}
    found = {}
    for parameter in parameters:
        stage = next((number for name, number in place.items() if parameter.startswith(f"{name}.")), 0)
        found[parameter] = 0 if parameter.startswith(f"{classifier}.") else len(order) + 1 - stage
    return found


def _only_norms(module: nn.Module) -> bool:
    own = [part for part in module.modules() if any(True for _ in part.parameters(recurse=False))]
    return all("norm" in type(part).__name__.lower() for part in own)


def _said(order: Sequence[tuple[str, ...]]) -> str:
    return ", ".join("+".join(group) for group in order)
