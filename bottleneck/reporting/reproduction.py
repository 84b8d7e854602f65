"""What it takes to make a run again: commands, versions, seeds and hashes."""

import shlex
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bottleneck.backbones.weights_files import RecordedRequest
from bottleneck.errors import BottleneckError
from bottleneck.finetuning.recipe import DEFAULTS, LEARNING_RATES
from bottleneck.images.columns import Columns
from bottleneck.runs.run import Run

_SHARES = "80/10/10"
_USUAL = {"folds": 5, "select": "log-loss", "search": "fast"}
_OPTION = {"folds": "--cv"}
_CHOSEN_SCALINGS = ("shrunk", "standard")  # which --normalize auto may choose


@dataclass(frozen=True)
class Reproduction:
    """What it takes to make a run again.

    Parameters
    ----------
    commands : tuple of str
        In the folder above the images; without private folders.
    facts : tuple of (str, str)
        Names and values: seed, versions, hashes.
    versions : dict of str to str
    """

    commands: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    versions: dict[str, str]


def reproduction(run: Run) -> Reproduction:
    """Return what it takes to make a run again, as far as its card records it."""
    card = run.card
    return Reproduction(tuple(_commands(run)), tuple(_facts(card)), dict(card.get("versions") or {}))


def _commands(run: Run) -> list[str]:
    card = run.card
    images = shlex.quote(Path(card["dataset"].get("source", "IMAGES")).name)
    columns = Columns.from_json(card["dataset"].get("columns", {})).options()
    extract = _joined("bottleneck extract", images, _request_options(run), columns)
    if run.is_tuned:
        return [_joined("bottleneck finetune", images, _tuning_options(card), columns)]
    return [extract, _joined("bottleneck fit", images, _fit_options(card), columns)]


def _request_options(run: Run) -> str:
    """Return the options of the backbone; a weights file is named without its folder."""
    with suppress(BottleneckError, KeyError, TypeError):
        request = RecordedRequest(run.card["request"], run.path).request
        if not request.file:
            return request.command()
        return f"{replace(request, weights='DEFAULT').command()} --weights {shlex.quote(request.file.name)}"
    return ""


def _fit_options(card: dict[str, Any]) -> str:
    search, data = card.get("search") or {}, card["dataset"]
    words = ["--head", str(card.get("head"))]
    if not data.get("split_given") and data.get("shares", _SHARES) != _SHARES:
        words += ["--split", data["shares"]]
    if search.get("C"):
        words += ["--C", ",".join(repr(value).removesuffix(".0") for value in search["C"])]
    for name, usual in _USUAL.items():
        if search.get(name, usual) != usual:
            words += [_OPTION.get(name, f"--{name}"), str(search[name])]
    if len(search.get("scalings") or ()) == 1 or card.get("normalize") not in _CHOSEN_SCALINGS:
        words += ["--normalize", str(card.get("normalize"))]
    for name in ("kernel", "dropout", "epochs"):
        if card.get("params", {}).get(name):
            words += [f"--{name}", str(card["params"][name])]
    words += ["--class-weight", card["class_weight"]] if card.get("class_weight") else []
    words += ["--seed", str(card["seed"])] if card.get("seed") else []
    return shlex.join([*words, *(["--final"] if "final" in card else [])])


def _tuning_options(card: dict[str, Any]) -> str:
    came_from = card.get("from") or {}
    words = ["--run", came_from["run"]] if came_from.get("run") else ["--from", "weights", *_model(card)]
    recipe = card.get("recipe") or {}
    defaults = DEFAULTS | {"lr": LEARNING_RATES.get(str(recipe.get("optimizer", DEFAULTS["optimizer"])))}
    for name, value in recipe.items():
        usual = defaults.get(name)
        option = f"--{name.replace('_', '-')}"
        if value is None or value == usual or (isinstance(value, list) and not value):
            continue
        for one in value if isinstance(value, list) else [value]:
            named = "=".join(map(str, one)) if isinstance(one, list) else str(one)
            words += [option] if one is True else [option, named]
    return shlex.join(words)


def _model(card: dict[str, Any]) -> list[str]:
    return ["--model", str(card["model"])] if "model" in card else []


def _facts(card: dict[str, Any]) -> list[tuple[str, str]]:
    spec, data = card.get("spec") or {}, card["dataset"]
    engines = sorted({str(one.get("engine")) for one in card.get("engines") or () if one.get("engine")})
    named = [
        ("made", str(card.get("created") or "")),
        ("seed", str(card.get("seed", ""))),
        ("engine", "; ".join(engines)),
        ("layer and pooling", ", ".join(filter(None, (spec.get("layer"), spec.get("pooling"))))),
        ("weights (SHA-256)", str(spec.get("weights") or "")),
        ("spec of the features (SHA-256)", str(card.get("fingerprint") or "")),
        ("images, labels and splits (SHA-256)", str(data.get("digest") or "")),
        ("images and labels (SHA-256)", str(data.get("images_digest") or "")),
        ("head (SHA-256)", str(card.get("head_sha256") or "")),
    ]
    return [(name, value) for name, value in named if value]


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word)
