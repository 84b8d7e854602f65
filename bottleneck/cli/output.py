"""Printing: results on stdout, everything else on stderr.

All lines for people are printed by this module, the only one that knows the width of a terminal, its colours, and the
progress bar that may be drawn on it.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import IO, Any, Protocol, TextIO

import click

from bottleneck.cli.layout import Command, TextTable, fold
from bottleneck.errors import printable

_NARROWEST = 24  # columns; a number may not fit into fewer
_USUAL = 80  # columns, if a terminal does not report its width

Thing = str | TextTable | Command


class Drawn(Protocol):
    """Something that is drawn on a terminal, and can be hidden for a moment."""

    def aside(self) -> AbstractContextManager[None]:
        """Hide it while something is printed."""

    def close(self) -> None:
        """Remove it."""


class _State:
    """State of the process, shared by its threads: any of them may print a warning."""

    data_on_stdout = False
    drawn: Drawn | None = None


def say(*things: Thing, style: str | None = None) -> None:
    """Print notes on stderr: progress, warnings, errors, choices and their reasons.

    Parameters
    ----------
    *things : str, Table or Command
        Each is printed on its own lines; without any, an empty line is printed.
    style : str, optional
        A colour for the first word, if colours are shown.
    """
    _print("stderr", things or ("",), style)


def show(*things: Thing) -> None:
    """Print results on stdout, or on stderr if stdout is reserved for data, as with ``--json``."""
    _print("stderr" if _State.data_on_stdout else "stdout", things or ("",))


@contextmanager
def data_on_stdout(alone: bool = True) -> Iterator[None]:
    """Reserve stdout for data if `alone`: `show` prints on stderr meanwhile."""
    before = _State.data_on_stdout
    _State.data_on_stdout = before or alone
    try:
        yield
    finally:
        _State.data_on_stdout = before


@contextmanager
def drawing(thing: Drawn) -> Iterator[None]:
    """Print everything above `thing`, which is drawn on the terminal."""
    before, _State.drawn = _State.drawn, thing
    try:
        yield
    finally:
        _State.drawn = before


def is_data_on_stdout() -> bool:
    """Whether stdout is reserved for data."""
    return _State.data_on_stdout


def put_away() -> None:
    """Remove what is drawn."""
    if _State.drawn:
        _State.drawn.close()
        _State.drawn = None


def put_json(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout."""
    put(json.dumps(value, ensure_ascii=True) + "\n")


def put(data: str) -> None:
    """Print data for programs on stdout as UTF-8; file names that are not UTF-8 keep their bytes.

    On a terminal, characters that are not printable are escaped, as `ls` does.
    """
    if is_terminal(sys.stdout):
        return _write("stdout", printable(data, keep="\n\t"))
    _write("stdout", data.encode("utf-8", "surrogateescape") if hasattr(sys.stdout, "buffer") else data)


def show_traceback(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Print a traceback on stderr, with unprintable characters escaped."""
    _write("stderr", printable("".join(traceback.format_exception(kind, error, trace)), keep="\n"))


def width_of(stream: IO[str]) -> int | None:
    """Return the number of columns: COLUMNS, else that of the terminal; None (unlimited) for a file or a pipe."""
    columns_variable = os.environ.get("COLUMNS", "")
    if columns_variable.isdecimal() and int(columns_variable):
        return max(int(columns_variable), _NARROWEST)
    if not is_terminal(stream):
        return None
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except OSError:
        columns = 0
    return max(columns or _USUAL, _NARROWEST)


def rule_of(stream: IO[str]) -> str:
    """Return the character of a rule: a dash if the encoding has no box-drawing characters."""
    return "─" if (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf") else "-"


def is_terminal(stream: IO[str]) -> bool:
    """Whether a stream is a terminal."""
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def is_capable(stream: IO[str]) -> bool:
    """Whether a stream is a terminal that can redraw lines."""
    return is_terminal(stream) and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def has_colours(stream: TextIO) -> bool:
    """Whether colours are shown on a stream."""
    return is_capable(stream) and not os.environ.get("NO_COLOR")


def lines_of(thing: Thing, width: int | None, rule: str = "─") -> list[str]:
    """Return the lines of a text, a table or a command, with unprintable characters escaped."""
    if isinstance(thing, TextTable):
        return thing.lines(width, rule)
    if isinstance(thing, Command):
        return thing.lines(width)
    return fold(printable(thing), width)


def let_streams_take_anything() -> None:
    """Escape characters that the encoding of a stream lacks, and discard the output of a closed stream (``>&-``).

    `put` always writes UTF-8.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _print(name: str, things: tuple[Thing, ...], style: str | None = None) -> None:
    stream: TextIO = getattr(sys, name)
    width, rule = width_of(stream), rule_of(stream)
    lines = [line for thing in things for line in lines_of(thing, width, rule)]
    if style and has_colours(stream):
        word, space, rest = lines[0].partition(" ")
        lines[0] = click.style(word, fg=style) + space + rest
    _write(name, "".join(f"{line}\n" for line in lines))


def _write(name: str, text: str | bytes) -> None:
    """Write immediately, above what is drawn; discard the rest if the reader closed the pipe, as ``| head`` does."""
    drawn = _State.drawn
    with drawn.aside() if drawn else nullcontext():
        stream: TextIO = getattr(sys, name)
        try:
            if isinstance(text, bytes):
                stream.buffer.write(text)
            else:
                stream.write(text)
            stream.flush()
        except BrokenPipeError:
            _drop(stream)
        except OSError as error:
            _drop(stream)
            raise OSError(f"cannot write to {name}: {error.strerror or error}") from error


def _drop(stream: TextIO) -> None:
    """Discard what is still buffered: flushing it at exit would raise the error again."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        return
