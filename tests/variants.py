"""Several variants of a test in one case, and small selections of large products."""

import contextlib
import functools
import inspect
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest


def each(names: str, values: Iterable[Any], ids: Callable[[Any], object] | None = None) -> Callable[..., Any]:
    """Run a test once for each value, in one case whose failure names the variants that failed.

    Use it as `pytest.mark.parametrize` if variants are cheap. Each variant has its own `tmp_path`, which is its current
    folder, and its own `monkeypatch`; other fixtures are shared, so they must not write into `tmp_path` themselves.

    Parameters
    ----------
    names : str
        Names of parameters of the test, separated by commas.
    values : iterable
        A value, or for several names a tuple of values, for each variant.
    ids : callable, optional
        Return the text that a failure shows for a value.
    """
    parameters = [name.strip() for name in names.split(",")]
    variants = list(values)
    if not variants:
        raise ValueError(f"expected variants of {names}, got none")

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(**fixtures: Any) -> None:
            failed: list[tuple[str, BaseException]] = []
            skipped: list[BaseException] = []
            for number, variant in enumerate(variants):
                given = dict(zip(parameters, variant if len(parameters) > 1 else (variant,), strict=True))
                try:
                    with _isolated(fixtures, number) as own:
                        test(**{name: own[name] for name in wanted}, **given)
                except pytest.skip.Exception as error:
                    skipped.append(error)
                except (Exception, pytest.fail.Exception) as error:
                    failed.append((_shown(given, variant, ids), error))
            if failed:
                raise AssertionError(
                    f"{len(failed)} of {len(variants)} variants failed: {'; '.join(name for name, _ in failed)}\n"
                    f"the first: {type(failed[0][1]).__name__}: {failed[0][1]}"
                ) from failed[0][1]
            if len(skipped) == len(variants):
                raise skipped[0]

        signature = inspect.signature(test)
        wanted = {name: parameter for name, parameter in signature.parameters.items() if name not in parameters}
        folder = inspect.Parameter("tmp_path", inspect.Parameter.KEYWORD_ONLY)
        rest = [*wanted.values(), *([] if "tmp_path" in wanted else [folder])]
        run.__signature__ = signature.replace(parameters=rest)  # type: ignore[attr-defined]
        return run

    return decorate


@contextlib.contextmanager
def case(*values: object) -> Iterator[None]:
    """Add the values of a case to what fails in the block, for a loop over cases of a test."""
    try:
        yield
    except (Exception, pytest.fail.Exception) as error:
        if hasattr(error, "add_note"):  # from Python 3.11
            error.add_note(f"in the case {', '.join(map(repr, values)):.500}")
        raise


@contextlib.contextmanager
def _isolated(fixtures: dict[str, Any], number: int) -> Iterator[dict[str, Any]]:
    own = {**fixtures, "tmp_path": fixtures["tmp_path"] / str(number)}
    own["tmp_path"].mkdir()
    with contextlib.ExitStack() as stack:
        stack.callback(os.chdir, Path.cwd())
        os.chdir(own["tmp_path"])
        if "monkeypatch" in own:
            own["monkeypatch"] = stack.enter_context(own["monkeypatch"].context())
        yield own


def _shown(given: dict[str, Any], variant: Any, ids: Callable[[Any], object] | None) -> str:
    if ids is not None:
        return str(ids(variant))
    return ", ".join(f"{name}={getattr(value, '__name__', None) or repr(value):.60}" for name, value in given.items())


def pairwise(*choices: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return rows of a product such that each pair of values from two choices is in a row.

    Most errors depend on one value or on two, and rows of all pairs are far fewer than the product. Of all rows the one
    with the most new pairs is taken next, so the result is the same each time.
    """
    columns = list(itertools.combinations(range(len(choices)), 2))
    rows = list(itertools.product(*(range(len(choice)) for choice in choices)))
    if not columns:
        return [tuple(choice[place] for choice, place in zip(choices, row, strict=True)) for row in rows]
    missing = {(i, j, row[i], row[j]) for row in rows for i, j in columns}
    found: list[tuple[int, ...]] = []
    while missing:
        best = max(rows, key=lambda row: sum((i, j, row[i], row[j]) in missing for i, j in columns))
        found.append(best)
        missing -= {(i, j, best[i], best[j]) for i, j in columns}
    return [tuple(choice[place] for choice, place in zip(choices, row, strict=True)) for row in found]
