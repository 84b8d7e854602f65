import inspect
import re
from dataclasses import fields
from pathlib import Path

import click

from bottleneck.auditing.audit import audit
from bottleneck.auditing.subject import HEADS as AUDITED
from bottleneck.auditing.suggest import STRATEGIES, suggest
from bottleneck.backbones.catalogue import models
from bottleneck.backbones.request import DEFAULT_MODEL, Request
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.maintain import gc
from bottleneck.cli.head_options import HEADS
from bottleneck.cli.main import cli
from bottleneck.comparison.compare import HEADS as COMPARED
from bottleneck.comparison.compare import compare
from bottleneck.diagnostics.diagnose import diagnose
from bottleneck.engines.options import EngineOptions
from bottleneck.exploring.server import open_session
from bottleneck.extraction.extract import extract
from bottleneck.extraction.recompute import Recomputation
from bottleneck.finetuning.finetune import finetune
from bottleneck.finetuning.recipe import CHOICES, LEARNING_RATES, Recipe
from bottleneck.fitting.fit import fit
from bottleneck.fitting.inputs import select
from bottleneck.heads.family import NAMES
from bottleneck.heads.options import NORMALIZE_OPTIONS, SEARCHES, HeadOptions
from bottleneck.heads.selection import RULES
from bottleneck.images.decode import MAX_PIXELS
from bottleneck.images.scan import scan
from bottleneck.images.splits import Shares
from bottleneck.images.view import AUGMENTATIONS
from bottleneck.prediction.evaluate import evaluate
from bottleneck.prediction.predict import predict
from bottleneck.reporting.atlas_table import export_atlas
from bottleneck.reporting.report import report
from bottleneck.runs.removal import remove_runs
from tests.variants import each

ROOT = Path(__file__).parents[2]

# The public functions that a command calls, and the arguments that it cannot do without.
CALLED = {
    "extract": ([extract], []),
    "fit": ([fit], []),
    "finetune": ([finetune, Recipe], []),
    "compare": ([compare], []),
    "predict": ([predict], ["x"]),
    "evaluate": ([evaluate], ["x"]),
    "report": ([report], []),
    "audit": ([audit], []),
    "next": ([suggest], ["x", "--budget", "1"]),
    "explore": ([open_session], []),
    "models": ([models], []),
    "inspect": ([], ["x"]),
    "doctor": ([diagnose], []),
    "demo": ([], []),
    "cache info": ([FeatureCache], []),
    "cache verify": ([FeatureCache], []),
    "cache merge": ([FeatureCache, Recomputation], ["x"]),
    "cache compact": ([FeatureCache], []),
    "cache export": ([export_atlas, select], ["--out", "x.npz"]),
    "cache rm": ([FeatureCache], ["x"]),
    "cache gc": ([gc], []),
    "runs list": ([], []),
    "runs show": ([], []),
    "runs compare": ([], ["x"]),
    "runs rm": ([remove_runs], ["x"]),
}
# Options that decide what a command prints, writes or refuses; no function takes them.
OF_THE_COMMAND = {"as_json", "debug", "layout", "out", "max_failures", "strict", "no_labels", "report"}
# Where the command says None or a value of its own, and the function another that means the same.
SAME = {
    ("extract", "max_pixels"): (None, MAX_PIXELS),
    ("fit", "split"): (str(Shares()), None),
    ("compare", "split"): (str(Shares()), None),
    ("finetune", "head_init"): (None, None),
    ("cache merge", "recompute"): (3, None),
}


def all_commands(group=cli, prefix=""):
    for name, found in group.commands.items():
        if isinstance(found, click.Group):
            yield from all_commands(found, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", found


COMMANDS = dict(all_commands())


def keywords(functions):
    found = {}
    for function in functions:
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.default is not parameter.empty:
                found.setdefault(name, parameter.default)
    return found


def options_of(command):
    return [one for one in command.params if isinstance(one, click.Option) and one.name not in OF_THE_COMMAND]


def plain(value):
    """Return a default with no difference between nothing, an empty text and an empty tuple."""
    return list(value) if isinstance(value, (list, tuple)) and value else value or None


def shown_default(option):
    """Return what the help says of an option's default, ``10`` or ``3e-4 for sgd, 1e-5 for adamw``."""
    record = option.get_help_record(click.Context(click.Command("x"), show_default=False, terminal_width=999))
    found = re.search(r"\[(?:default: )([^\]]*?)(?:; [^\]]*)?\]", record[1])
    return found[1] if found else None


def test_every_command_is_listed():
    assert COMMANDS.keys() == CALLED.keys()


@each("name", CALLED)
def test_an_option_has_the_default_of_the_keyword_argument(name):
    functions, arguments = CALLED[name]
    values = COMMANDS[name].make_context(name, list(arguments)).params
    known = keywords(functions)
    for option in options_of(COMMANDS[name]):
        if option.name in known:
            expected = SAME.get((name, option.name), (known[option.name],) * 2)
            assert (plain(values[option.name]), plain(known[option.name])) == tuple(map(plain, expected)), option.name


@each("name", ["extract", "fit", "finetune", "compare", "predict", "evaluate"])
def test_a_keyword_argument_takes_every_option(name):
    known = keywords(CALLED[name][0])
    missing = {one.name for one in options_of(COMMANDS[name])} - known.keys()

    assert missing - {found for command, found in SAME if command == name} == set()


@each("function", [fit, compare])
def test_the_functions_have_the_defaults_of_the_options_of_a_head(function):
    known = keywords([function])
    options = {field.name: field.default for field in fields(HeadOptions)}

    assert {name: known[name] for name in options if name in known} == {n: v for n, v in options.items() if n in known}


def test_extract_has_the_defaults_of_the_request_and_of_the_engine():
    known = keywords([extract])
    for options in (Request, EngineOptions):
        for name, default in keywords([options]).items():
            if name != "model":  # None takes that of a fine-tuned run
                assert plain(known[name]) == plain(default), name


@each("function", [extract, fit, compare, predict, evaluate, finetune, scan])
def test_the_folders_have_the_same_default_everywhere(function):
    known = keywords([function])

    assert known["cache"] == "cache"
    assert known.get("runs", "runs") == "runs"


def test_images_are_divided_alike_by_a_scan_and_by_the_options():
    assert keywords([scan])["split"] == str(Shares())


@each(
    "command, name, possible",
    [
        ("fit", "head", NAMES),
        ("fit", "normalize", NORMALIZE_OPTIONS),
        ("fit", "select", RULES),
        ("fit", "search", SEARCHES),
        ("finetune", "optimizer", CHOICES["optimizer"]),
        ("finetune", "schedule", CHOICES["schedule"]),
        ("finetune", "precision", CHOICES["precision"]),
        ("finetune", "augment", AUGMENTATIONS),
    ],
)
def test_an_option_takes_what_the_library_takes(command, name, possible):
    (option,) = [one for one in COMMANDS[command].params if one.name == name]

    assert set(option.type.choices) == set(possible)


def test_compare_takes_the_heads_of_fit_and_svm_with_a_kernel():
    assert set(COMPARED) == {*HEADS, "svm-rbf"}


def test_defaults_that_the_help_writes_out_are_those_of_the_library():
    shown = {(name, one.name): shown_default(one) for name in COMMANDS for one in options_of(COMMANDS[name])}

    assert shown["extract", "model"].startswith(f"{DEFAULT_MODEL},")
    assert int(shown["extract", "max_pixels"]) == MAX_PIXELS
    rates = dict(reversed(part.split(" for ")) for part in shown["finetune", "lr"].split(", "))
    assert {name: float(rate) for name, rate in rates.items()} == LEARNING_RATES


def test_defaults_in_the_tables_of_the_manual_are_those_of_the_options():
    shown = {}
    for command in COMMANDS.values():
        for option in options_of(command):
            for spelled in option.opts:
                shown.setdefault(spelled, set()).add(shown_default(option))
    wrong, seen = [], 0
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for row in re.findall(r"^\| `--.*\|$", page.read_text(encoding="utf-8"), re.MULTILINE):
            first, _, text = row[1:].replace("\\|", " ").partition("|")
            values = re.findall(r"`([^`]+)` \((?:the )?default", text)
            values += re.findall(r"(?:the default is|by default) (\d[\d.]*\d|\d)(?![\d.]* ?%)", text)
            for value in values:
                names = [one for one in re.findall(r"--[\w-]+", first) if one in shown]
                seen += 1
                if not any(str(found).split(",")[0] == value for one in names for found in shown[one]):
                    wrong.append((page.name, first, value))
    assert not wrong
    assert seen >= 2


def test_the_choices_of_a_command_are_those_of_the_library():
    for name, option, known in (("audit", "head", AUDITED), ("next", "strategy", STRATEGIES)):
        (found,) = [one for one in COMMANDS[name].params if one.name == option]
        assert tuple(found.type.choices) == known
