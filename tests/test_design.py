"""The rules of the design that can be read from the sources: who imports whom, the name, the size."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import TypeGuard

import pytest

import bottleneck
from tests.variants import each

PACKAGE = Path(bottleneck.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

PUBLIC = {  # name: the module that defines it
    alias.name: node.module
    for node in ast.parse((PACKAGE / "__init__.pyi").read_text()).body
    if isinstance(node, ast.ImportFrom) and node.module
    for alias in node.names
}

# One way: a room imports from those above it alone.
ROOMS = (
    "errors",
    "_version",
    "utils",
    "charts",
    "images",
    "backbones",
    "engines",
    "cache",
    "extraction",
    "heads",
    "evaluation",
    "runs",
    "fitting",
    "finetuning",
    "comparison",
    "prediction",
    "auditing",
    "reporting",
    "exploring",
    "diagnostics",
    "demo",
    "cli",
    "__main__",
)
MOST_ROOMS = 24  # with __init__.py

TORCH = ("backbones", "engines", "finetuning")
HOMES = {
    "torch": (*TORCH, "heads.arrays"),
    "torchvision": TORCH,
    "timm": TORCH,
    "openvino": ("engines",),
    "h5py": ("cache",),
    "sklearn": ("heads", "images.splits", "demo"),
    "click": ("cli",),
    "rich": ("cli",),
    "msgspec": ("utils.schema",),
    "scipy": ("evaluation.stats", "images.splits"),
    "matplotlib": ("finetuning.curves",),
    "jinja2": ("reporting",),
    "starlette": ("exploring",),
    "uvicorn": ("exploring",),
    "openTSNE": ("exploring",),
}

LONGEST = 400  # lines


@dataclass(frozen=True)
class Import:
    """One name that one module imports; both without the leading ``bottleneck.`` where it is ours."""

    module: str
    line: int
    name: str
    ours: bool

    def __str__(self) -> str:
        return f"bottleneck.{self.module}, line {self.line}: {'bottleneck.' * self.ours}{self.name}"


def module_name(path: Path) -> str:
    """Return ``images.scan`` of ``bottleneck/images/scan.py``, ``images`` of its ``__init__.py``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.AST, module: str, *, folder: bool) -> Iterator[Import]:
    """Yield what a module imports: on top, in functions and under TYPE_CHECKING alike."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = f"bottleneck.{module}".rstrip(".").split(".")
                kept = here[: len(here) - node.level + folder]
                base = ".".join([*kept, base] if base else kept)
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and (text := _imported_by_call(node)):
            names = [text]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if top != "bottleneck":
                yield Import(module, node.lineno, name, ours=False)
            elif rest and rest != "__version__":
                yield Import(module, node.lineno, _home(rest), ours=True)


def _imported_by_call(node: ast.Call) -> str | None:
    """Return x of ``import_module("x")``, or its beginning where x is an f-string."""
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if called not in ("import_module", "__import__") or not node.args:
        return None
    first = node.args[0]
    if isinstance(first, ast.JoinedStr):
        first = first.values[0]
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def _home(name: str) -> str:
    """Return where a public name is defined: ``cache.feature_cache`` for ``FeatureCache``."""
    return PUBLIC.get(name, name)


@cache
def all_imports() -> list[Import]:
    return [
        found
        for path in SOURCES
        for found in imports_of(ast.parse(path.read_text()), module_name(path), folder=path.name == "__init__.py")
    ]


def within(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def room(module: str) -> str:
    return module.split(".")[0]


def modules() -> set[str]:
    return {module_name(path) for path in SOURCES}


def imported_modules() -> dict[str, set[str]]:
    """Return the modules of ours that each module imports, on top, in functions and for types alike."""
    ours = modules() - {""}
    graph: dict[str, set[str]] = {module: set() for module in ours}
    for found in all_imports():
        if found.ours and found.module:
            target = found.name if found.name in ours else found.name.rpartition(".")[0]
            graph[found.module] |= {target} & ours - {found.module}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the sets of modules that import each other, directly or through others."""
    reached = {module: _reached(graph, module) for module in graph}
    found = {frozenset(b for b in reached[a] if a in reached[b]) for a in graph if a in reached[a]}
    return sorted(sorted(circle) for circle in found)


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for module in graph[waiting.pop()] - found:
            found.add(module)
            waiting.append(module)
    return found


IMPORT_SYSTEM = ("modules", "meta_path", "path_hooks")  # of `sys`
CHANGES = ("append", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update")


def import_system_writes(tree: ast.AST) -> list[int]:
    """Return the lines that may change `sys.modules`, `sys.meta_path` or `sys.path_hooks`: all but plain look-ups."""
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            suspicious = node.module == "sys" and any(alias.name in IMPORT_SYSTEM for alias in node.names)
        else:
            suspicious = _is_import_system(node) and not _is_read(node, parents[node])
        if suspicious:
            found.append(node.lineno)
    return found


def _is_import_system(node: ast.AST) -> TypeGuard[ast.Attribute]:
    named = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    return named and node.value.id == "sys" and node.attr in IMPORT_SYSTEM


def _is_read(node: ast.Attribute, parent: ast.AST) -> bool:
    """Whether it is ``sys.modules[name]``, ``sys.modules.get(...)`` or ``... in sys.modules``."""
    if isinstance(parent, ast.Subscript):
        return isinstance(parent.ctx, ast.Load)
    if isinstance(parent, ast.Attribute):
        return parent.attr not in CHANGES
    return isinstance(parent, ast.Compare)


def listed(offenders: list[object]) -> str:
    return "\n" + "\n".join(str(offender) for offender in offenders)


def in_a_fresh_process(code: str, *options: str) -> str:
    result = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


# --- who imports whom -------------------------------------------------------------------------------------------


@each("party", HOMES)
def test_third_parties_stay_in_their_rooms(party):
    offenders = [
        found
        for found in all_imports()
        if not found.ours and found.name.split(".")[0] == party and not within(found.module, HOMES[party])
    ]

    assert not offenders, f"{party} belongs in {', '.join(HOMES[party])} alone:{listed(offenders)}"


@each("party", HOMES)
def test_each_third_party_is_imported(party):
    # Else the test above reads nothing, and would say nothing.
    assert [found for found in all_imports() if found.name.split(".")[0] == party]


def test_the_rooms_are_those_of_the_list():
    assert {room(module) for module in modules()} - {""} == set(ROOMS)
    assert len(ROOMS) + 1 <= MOST_ROOMS


def test_imports_point_down():
    offenders = [
        found
        for found in all_imports()
        # bottleneck/__init__.py offers everything, lazily.
        if found.ours and found.module and ROOMS.index(room(found.name)) > ROOMS.index(room(found.module))
    ]

    assert not offenders, f"imported by something earlier:{listed(offenders)}"


def test_no_imports_go_in_a_circle():
    assert circles(imported_modules()) == []


def test_circles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"f"}, "f": {"e"}}

    assert circles(graph) == [["a", "b", "c"], ["e", "f"]]


def test_a_class_name_means_one_thing():
    homes: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(module_name(path))

    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


@each(
    "source, expected",
    [
        ("import torch.nn as nn", ["torch.nn"]),
        ("from torch import nn, Tensor", ["torch.nn", "torch.Tensor"]),
        ("def f():\n    import h5py", ["h5py"]),
        ("if TYPE_CHECKING:\n    from sklearn.svm import LinearSVC", ["sklearn.svm.LinearSVC"]),
        ("from bottleneck.runs.run import Run", ["runs.run.Run"]),
        ("from bottleneck import fit, __version__", ["fitting.fit"]),
        ("from bottleneck import runs", ["runs"]),
        ("import bottleneck.cli.main", ["cli.main"]),
        ("from . import scan", ["images.scan"]),
        ("from .scan import scan", ["images.scan.scan"]),
        ("from .. import errors", ["errors"]),
        ("from ..cache.store import Store", ["cache.store.Store"]),
        ("import_module('h5py')", ["h5py"]),
        ("importlib.import_module(f'bottleneck.heads.{name}')", ["heads."]),
        ("__import__('torch')", ["torch"]),
        ("text = 'import torch'", []),
    ],
)
def test_this_file_reads_every_form_of_import(source, expected):
    assert [found.name for found in imports_of(ast.parse(source), "images.table", folder=False)] == expected


def test_this_file_reads_relative_imports_of_a_folder():
    (found,) = imports_of(ast.parse("from .scan import scan"), "images", folder=True)

    assert found.name == "images.scan.scan"


# --- how Python imports; `tests/cli/test_sandbox.py` looks at it after all commands -------------------------------


def test_no_module_changes_how_python_imports():
    offenders = {module_name(path): import_system_writes(ast.parse(path.read_text())) for path in SOURCES}

    assert {module: lines for module, lines in offenders.items() if lines} == {}


@each(
    "source, found",
    [
        ("sys.modules['torch'] = None", True),
        ("del sys.modules['torch']", True),
        ("sys.modules.update(torch=None)", True),
        ("sys.meta_path.insert(0, finder)", True),
        ("sys.meta_path[:0] = [finder]", True),
        ("sys.path_hooks += [hook]", True),
        ("known = sys.modules", True),
        ("from sys import meta_path", True),
        ("sys.modules.get('torch')", False),
        ("module = sys.modules[name]", False),
        ("if 'torch' in sys.modules: pass", False),
    ],
)
def test_this_file_finds_every_change_of_how_python_imports(source, found):
    assert bool(import_system_writes(ast.parse(source))) == found


# --- the name ---------------------------------------------------------------------------------------------------


def test_the_version_is_below_1_5():
    assert tuple(map(int, re.findall(r"\d+", bottleneck.__version__)[:2])) < (1, 5)


def test_pandas_is_imported_without_a_warning():
    pytest.importorskip("pandas")
    printed = in_a_fresh_process("import pandas; print(pandas.Series([1., 2.]).median())", "-W", "error")

    assert printed.strip() == "1.5"


def test_the_warning_of_a_pandas_that_finds_our_version_too_old_is_silenced():
    printed = in_a_fresh_process(
        "import warnings\n"
        "warnings.simplefilter('error')\n"
        "import bottleneck\n"
        "warnings.warn(\"Pandas requires version '1.4.2' or newer of 'bottleneck' (version '0.1.0' installed).\")\n"
        "try:\n"
        "    warnings.warn('another')\n"
        "except UserWarning as warning:\n"
        "    print(warning)"
    )

    assert printed.strip() == "another"


# --- what is heavy, and what is long ----------------------------------------------------------------------------


def test_importing_it_imports_nothing_heavy():
    heavy = in_a_fresh_process(
        "import sys, bottleneck\n"
        "names = ('torch', 'torchvision', 'timm', 'numpy', 'h5py', 'sklearn', 'PIL', 'click', 'rich', 'pandas')\n"
        "names += ('msgspec',)\n"
        "print([name for name in names if name in sys.modules])"
    )

    assert heavy.strip() == "[]"


@each("name", sorted(PUBLIC.keys() - {"__version__"}))
def test_each_public_name_is_where_it_is_said_to_be(name):
    assert getattr(bottleneck, name).__module__ == f"bottleneck.{PUBLIC[name]}"


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        bottleneck.nothing  # noqa: B018


def test_no_module_is_too_long():
    lengths = {module_name(path): len(path.read_text().splitlines()) for path in SOURCES}
    offenders = [f"bottleneck.{module}: {length} lines" for module, length in lengths.items() if length > LONGEST]

    assert not offenders, f"no module has more than {LONGEST} lines:{listed(offenders)}"


def test_every_module_says_what_it_does():
    offenders = [path for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text()))]

    assert not offenders, f"a module begins with a docstring:{listed(offenders)}"


def test_what_docstrings_refer_to_exists():
    missing = []
    for source in SOURCES:
        for reference in re.findall(r"`(bottleneck(?:\.\w+)+)`", source.read_text(encoding="utf-8")):
            try:
                resolve_name(reference)
            except (ImportError, AttributeError):
                missing.append(f"{source.relative_to(PACKAGE)}: {reference}")
    assert missing == []


def test_nothing_imports_a_pickler():
    picklers = ("pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal")
    offenders = [found for found in all_imports() if found.name.split(".")[0] in picklers]

    assert not offenders, listed(offenders)
