"""Evaluate names that another package's modules define, from their source, without importing the package.

Importing torchvision or timm imports torch, which takes seconds. Their modules describe published weights in a few
assignments, which do not need torch.
"""

import __future__

import ast
import builtins
import sys
from collections.abc import Iterable, Mapping
from typing import Any


class Unknown:
    """A placeholder for anything imported from elsewhere: it can be called and has attributes, but no values."""

    def __call__(self, *args: Any, **options: Any) -> "Unknown":
        """Return itself."""
        return self

    def __getattr__(self, name: str) -> "Unknown":
        if name.startswith("__"):
            raise AttributeError(name)
        return self


def values(module: ast.Module, names: Iterable[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of some top-level names of a module.

    Only the statements that these names depend on are run. The standard library is imported; other imports are
    `Unknown`.

    Parameters
    ----------
    module : ast.Module
        The parsed source.
    names : iterable of str
        Names that the module does not define are omitted.
    given : mapping of str to object
        Values of names to use instead of the module's own.

    Returns
    -------
    dict of str to object
    """
    defined = [_defined(statement) - set(given) for statement in module.body]
    wanted, needed = set(names), set[int]()
    while found := {place for place, own in enumerate(defined) if own & wanted} - needed:
        needed |= found
        wanted.update(*(_used(module.body[place]) for place in found))
    statements = ast.Module([module.body[place] for place in sorted(needed)], [])
    unknown = dict.fromkeys(wanted - set(vars(builtins)), Unknown())
    namespace: dict[str, Any] = {**unknown, **given}
    exec(
        compile(statements, "<source>", "exec", flags=__future__.annotations.compiler_flag), namespace
    )  # which are not evaluated
    made = set[str]().union(*(defined[place] for place in needed))
    return {name: namespace[name] for name in names if name in made}


def _used(statement: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _defined(statement: ast.AST) -> set[str]:
    """Return the names that a top-level statement defines or changes."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names if _is_standard(statement)}
    if isinstance(statement, ast.Expr):
        called = statement.value.func if isinstance(statement.value, ast.Call) else statement.value
        return _owner(called) if isinstance(called, ast.Attribute) else set()
    targets = [*getattr(statement, "targets", ()), *filter(None, [getattr(statement, "target", None)])]
    names = {name for target in targets for part in _parts(target) for name in _owner(part)}
    inner = [child for child in ast.iter_child_nodes(statement) if isinstance(child, ast.stmt | ast.excepthandler)]
    return names.union(*(_defined(child) for child in inner))


def _parts(target: ast.expr) -> list[ast.expr]:
    return target.elts if isinstance(target, ast.Tuple | ast.List) else [target]


def _owner(target: ast.expr) -> set[str]:
    """Return the variable that an assignment to ``name``, ``name[key]`` or ``name.attribute`` changes."""
    while isinstance(target, ast.Subscript | ast.Attribute | ast.Starred):
        target = target.value
    return {target.id} if isinstance(target, ast.Name) else set()


def _is_standard(statement: ast.Import | ast.ImportFrom) -> bool:
    """Return whether an import is from the standard library."""
    if isinstance(statement, ast.ImportFrom):
        return not statement.level and (statement.module or "").partition(".")[0] in sys.stdlib_module_names
    return all(alias.name.partition(".")[0] in sys.stdlib_module_names for alias in statement.names)
