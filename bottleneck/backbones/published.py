"""Read the models and weights that torchvision and timm publish from their source files, without importing torch.

Both register models with a decorator and list weights as plain data: torchvision in classes of ``Weights``, timm in
dictionaries called ``default_cfgs``. For code in any other form `NotPlain` is raised; the package must be imported.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlparse

from bottleneck.backbones.catalogue_table import ModelEntry
from bottleneck.backbones.request import TIMM
from bottleneck.backbones.sources import values

_BUILDER = re.compile(r"^@register_model.*\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
# Classes and builders with their indented bodies: two thirds of timm, none of which describes weights.
_NETWORKS = re.compile(r"^(?:@.*\n)*(?:class|(?<=register_model\n)def) .*\n(?:(?:[ \t)#].*)?\n)*", re.MULTILINE)
_CONFIGS = "\ndefault_cfgs"
_DIGITS = re.compile(r"(\d+)")
_SIZE = (3, 224, 224)  # channels, height and width of a timm configuration without ``input_size``

Config = Mapping[str, Any]  # timm's configuration of one set of weights


class NotPlain(Exception):
    """The source files are not on this machine, or not in the expected form."""


def models_folder(package: str) -> Path:
    """Return the folder with a package's model definitions, without importing the package.

    Raises
    ------
    NotPlain
        If the package is not installed as files.
    """
    spec = find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or ()
    for folder in folders:
        if Path(folder, "models").is_dir():
            return Path(folder, "models")
    raise NotPlain(f"expected {package} with a folder of models, found none")


@contextmanager
def _plain(folder: Path) -> Iterator[None]:
    """Convert all errors to `NotPlain`: a later version of a package may have any form."""
    try:
        yield
    except NotPlain:
        raise
    except Exception as error:
        raise NotPlain(f"expected plain data about models in {folder}, found another form: {error!r}") from error


def model_names(folder: Path) -> list[str]:
    """Return the names of the models registered in a folder of modules.

    Raises
    ------
    NotPlain
    """
    with _plain(folder):
        return [name for source in _sources(folder) for name in _BUILDER.findall(source)]


def torchvision_entries(folder: Path) -> list[ModelEntry]:
    """Return torchvision's classifiers, sorted by name, with all their weights, the default first.

    Raises
    ------
    NotPlain
    """
    with _plain(folder):
        found = {name: rows for source in _sources(folder) for name, rows in _in_torchvision(source)}
    return [entry for name in sorted(found) for entry in found[name]]


def timm_entries(folder: Path) -> list[ModelEntry]:
    """Return timm's models, sorted by name, with all their weights, the default first; one entry if there are none.

    Raises
    ------
    NotPlain
    """
    with _plain(folder):
        found = {name: rows for source in _sources(folder) for name, rows in _in_timm(source)}
    return [entry for name in sorted(found, key=_natural) for entry in found[name]]


def timm_tags(folder: Path, name: str) -> list[str]:
    """Return all tags of a timm model, including those without weights.

    Raises
    ------
    NotPlain
    """
    with _plain(folder):
        for source in _sources(folder):
            if name in _BUILDER.findall(source):
                return [key.strip("*") for key in _configs(source).get(name, {})]
    return []


def _sources(folder: Path) -> list[str]:
    """Return the sources of the modules that register models."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("[!_]*.py"))]
    sources = [source for source in texts if "@register_model" in source]
    if not sources:
        raise NotPlain(f"expected modules that register models in {folder}, found none")
    for source in sources:
        registered = source.count("@register_model") - source.count("# @register_model")
        if len(_BUILDER.findall(source)) != registered or " register_model(" in source:
            raise NotPlain(f"expected each model in {folder} to be a decorated function, found another form")
    return sources


def _in_torchvision(source: str) -> Iterator[tuple[str, list[ModelEntry]]]:
    """Yield the name and the entries of each model in a torchvision module."""
    module = ast.parse(source)
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    enums = {node.name for node in classes if "WeightsEnum" in _names(node.bases)}
    known = values(module, enums, {"WeightsEnum": object, "Weights": SimpleNamespace})
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    for name in _BUILDER.findall(source):
        (enum,) = _names(_annotations(functions[name], "weights")) & enums
        yield name, _of_torchvision(name, vars(known[enum]))


def _in_timm(source: str) -> Iterator[tuple[str, list[ModelEntry]]]:
    """Yield the name and the entries of each model in a timm module."""
    configs = _configs(source)
    for name in _BUILDER.findall(source):
        yield name, _of_timm(name, configs.get(name, {"": {}}))


def _configs(source: str) -> dict[str, dict[str, Config]]:
    """Return the configurations in a timm module, by model name and tag."""
    module = _parsed_without_networks(source)
    given = {"generate_default_cfgs": dict, "PretrainedCfg": dict}
    found: dict[str, dict[str, Config]] = {}
    for full_name, config in values(module, ["default_cfgs"], given).get("default_cfgs", {}).items():
        if not isinstance(config, dict):
            raise NotPlain(f"expected a dictionary that describes the weights {full_name}, found {config!r}")
        name, _, tag = full_name.partition(".")
        found.setdefault(name, {})[tag] = config
    return found


def _parsed_without_networks(source: str) -> ast.Module:
    rest = _NETWORKS.sub("", source)
    try:
        if rest.count(_CONFIGS) == source.count(_CONFIGS):
            return ast.parse(rest)
    except SyntaxError:
        pass
    return ast.parse(source)  # a string contained lines that look like code


def _annotations(function: ast.FunctionDef, argument: str) -> list[ast.expr]:
    arguments = [*function.args.args, *function.args.kwonlyargs]
    return [one.annotation for one in arguments if one.arg == argument and one.annotation]


def _names(expressions: Iterable[ast.expr]) -> set[str]:
    return {node.id for one in expressions for node in ast.walk(one) if isinstance(node, ast.Name)}


def _of_torchvision(name: str, members: Mapping[str, Any]) -> list[ModelEntry]:
    """Return the entries of a torchvision model from the members of its weights class."""
    weights = {key: value for key, value in members.items() if isinstance(value, SimpleNamespace) and key != "DEFAULT"}
    default_first = sorted(weights, key=lambda key: weights[key] is not members["DEFAULT"])
    sizes = {key: weights[key].transforms.keywords["crop_size"] for key in weights}
    return [_entry(name, key, (sizes[key], sizes[key]), _file_name(weights[key].url)) for key in default_first]


def _of_timm(name: str, configs: Mapping[str, Config]) -> list[ModelEntry]:
    """Return the entries of a timm model from its configurations by tag, in timm's order.

    The default is the configuration without a tag, else the first tag with a ``*``, else the first with weights.
    """
    tags: list[str] = []
    marked = published = False
    for key, config in configs.items():
        tag, has_weights = key.strip("*"), _has_weights(config)
        mark = (has_weights and not tag) or (key.endswith("*") and not marked)
        tags.insert(0 if mark or (has_weights and not published) else len(tags), tag)
        marked, published = marked or mark, published or has_weights
    by_tag = {key.strip("*"): config for key, config in configs.items()}
    entries = []
    for tag in [tag for tag in tags if _has_weights(by_tag[tag])] or [""]:
        config = by_tag[tag or tags[0]]
        size = config.get("input_size", _SIZE)[1:]
        entries.append(_entry(f"{TIMM}{name}", tag, size, _place(f"{name}.{tag}", config) if tag else ""))
    return entries


def _has_weights(config: Config) -> bool:
    return any(config.get(key) for key in ("url", "file", "hf_hub_id"))


def _place(full_name: str, config: Config) -> str:
    """Return the hub repository or the file name of a timm configuration's weights."""
    repository = config.get("hf_hub_id")
    if repository == TIMM:  # short for a repository named like the model
        return f"{TIMM}{full_name}"
    return repository or _file_name(config.get("url") or "")


def _file_name(url: str) -> str:
    return Path(urlparse(url).path).name


def _entry(name: str, weights: str, size: tuple[int, int], file: str) -> ModelEntry:
    height, width = size
    if not all(isinstance(number, int) for number in size) or not isinstance(file, str):
        raise NotPlain(f"expected the size of images and a file of {name}.{weights}, found {size} and {file!r}")
    return ModelEntry(name=name, weights=weights, parameters=None, input_size=(height, width), dim=None, file=file)


def _natural(name: str) -> list[str | int]:
    """Return a sort key that compares numbers in names by value, as timm does."""
    return [int(part) if part.isdigit() else part for part in _DIGITS.split(name.lower())]
