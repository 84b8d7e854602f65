"""What is printed, and where: results on stdout, all else on stderr; how wide, and with which style.

Every line for people passes here. Nothing else knows the width of a terminal, colours, or the bar that may be drawn.
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

_NARROWEST = 24  # columns; below that a figure would not fit into a line
_USUAL = 80  # columns of a terminal that does not say

Thing = str | TextTable | Command


class Drawn(Protocol):
    """Something that is drawn on a terminal, and can be taken away for a moment."""

    def aside(self) -> AbstractContextManager[None]:
        """Take it away while something is printed."""

    def close(self) -> None:
        """Take it away for good."""


class _State:
    """What holds for the whole process, its threads too: a warning may come from any of them."""

    data_on_stdout = False
    drawn: Drawn | None = None


def say(*things: Thing, style: str | None = None) -> None:
    """Print notes on stderr: progress, warnings, errors, what was chosen and why.

    Parameters
    ----------
    *things : str, Table or Command
        Of each at least a line; an empty one without any.
    style : str, optional
        A colour for the first word, where colours are shown.
    """
    _print("stderr", things or ("",), style)


def show(*things: Thing) -> None:
    """Print results on stdout; on stderr where stdout is for data alone, as with ``--json``."""
    _print("stderr" if _State.data_on_stdout else "stdout", things or ("",))


@contextmanager
def data_on_stdout(alone: bool = True) -> Iterator[None]:
    """Keep stdout for data alone, if so: what `show` prints goes to stderr meanwhile."""
    before = _State.data_on_stdout
    _State.data_on_stdout = before or alone
    try:
        yield
    finally:
        _State.data_on_stdout = before


@contextmanager
def drawing(thing: Drawn) -> Iterator[None]:
    """Let everything that is printed appear above `thing`, which is drawn on the terminal meanwhile."""
    before, _State.drawn = _State.drawn, thing
    try:
        yield
    finally:
        _State.drawn = before


def is_data_on_stdout() -> bool:
    """Whether stdout is for data alone."""
    return _State.data_on_stdout


def put_away() -> None:
    """Take away what is drawn, for good."""
    if _State.drawn:
        _State.drawn.close()
        _State.drawn = None


def put_json(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout."""
    put(json.dumps(value, ensure_ascii=True) + "\n")


def put(data: str) -> None:
    """Print data for programs on stdout: UTF-8, but for names that are none, whose bytes go out as they came in.

    People who look at it on a terminal see what would not print escaped, as `ls` shows it.
    """
    if is_terminal(sys.stdout):
        return _write("stdout", printable(data, keep="\n\t"))
    _write("stdout", data.encode("utf-8", "surrogateescape") if hasattr(sys.stdout, "buffer") else data)


def show_traceback(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Print a traceback on stderr, as Python does, with what would not print escaped."""
    _write("stderr", printable("".join(traceback.format_exception(kind, error, trace)), keep="\n"))


def width_of(stream: IO[str]) -> int | None:
    """Return how many columns there are: COLUMNS, else those of a terminal; None in a file or a pipe: any number."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return max(int(asked), _NARROWEST)
    if not is_terminal(stream):
        return None
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except OSError:
        columns = 0
    return max(columns or _USUAL, _NARROWEST)


def rule_of(stream: IO[str]) -> str:
    """Return what a line is drawn with: a dash where the encoding has nothing better."""
    return "─" if (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf") else "-"


def is_terminal(stream: IO[str]) -> bool:
    """Whether people look at a stream at once."""
    try:
        return stream.isatty()
    except ValueError:  # it is closed
        return False


def is_capable(stream: IO[str]) -> bool:
    """Whether a stream is a terminal on which lines can be drawn anew."""
    return is_terminal(stream) and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def has_colours(stream: TextIO) -> bool:
    """Whether colours are wanted on a stream."""
    return is_capable(stream) and not os.environ.get("NO_COLOR")


def lines_of(thing: Thing, width: int | None, rule: str = "─") -> list[str]:
    """Return the lines of a sentence, a table or a command, with all that would not print escaped."""
    if isinstance(thing, TextTable):
        return thing.lines(width, rule)
    if isinstance(thing, Command):
        return thing.lines(width)
    return fold(printable(thing), width)


def let_streams_take_anything() -> None:
    """Let no sign that an encoding lacks end the command: it is escaped. What `put` writes is UTF-8 in any case.

    A stream that is closed, ``>&-``, takes everything too.
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
    """Write at once, above what is drawn. Where nobody reads any more, ``| head`` say, the rest is dropped."""
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
    """Let what is still to be written to a stream vanish: Python would fail on it once more at its end."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        return
