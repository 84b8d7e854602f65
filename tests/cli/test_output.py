"""Where lines go, how wide they are, and what happens to them on a terminal, in a pipe, and where nobody reads."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from bottleneck.cli import output
from bottleneck.cli.common import progress_bar
from bottleneck.cli.layout import TextTable, right
from bottleneck.errors import BottleneckWarning, RunError
from tests.variants import each

SENTENCE = "error: expected a folder of images, a CSV or an image; /nowhere/at/all does not exist on this machine"


class Terminal:
    """The lines that people would see."""

    def __init__(self, columns: int) -> None:
        self.raw = bytearray()
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self.file = os.fdopen(theirs, "w", encoding="utf-8")
        self._ours = ours
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(self._ours, 1 << 16):
                self.raw += part

    def close(self) -> None:
        self.file.close()
        self._reading.join()
        os.close(self._ours)

    @property
    def lines(self) -> list[str]:
        """Return the lines as they stand at the end; a line is drawn anew after a carriage return and an erasure."""
        text = re.sub(r"\x1b\[\?25[lh]|\x1b\[[0-9;]*m", "", self.raw.decode())
        lines = [""]
        for part in re.split(r"(\r\n|\r|\x1b\[2K|\x1b\[1A)", text):
            if part == "\r\n":
                lines.append("")
            elif part == "\x1b[2K":
                lines[-1] = ""
            elif part == "\x1b[1A":
                lines.pop()
            elif part != "\r":
                lines[-1] += part
        return lines


@pytest.fixture
def terminal(monkeypatch) -> Iterator[Callable[..., Terminal]]:
    """Yield a function that makes a terminal, and lets stdout and stderr be it."""

    redirections = {"stdout": contextlib.redirect_stdout, "stderr": contextlib.redirect_stderr}

    def make(columns: int = 60, term: str = "xterm", names: Iterable[str] = tuple(redirections)) -> Terminal:
        made = Terminal(columns)
        for name in names:
            stack.enter_context(redirections[name](made.file))
        monkeypatch.setenv("TERM", term)
        return made

    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    with contextlib.ExitStack() as stack:
        yield make


def table() -> TextTable:
    made = TextTable("model", *right("cross-validated", "held-out"), "verdict")
    made.add_row("timm/vit_so400m_patch14_siglip_gap_896", "95.2% ± 2.8%", "96.1%", "not told apart")
    return made


# --- how wide ---------------------------------------------------------------------------------------------------


@each("columns", [60, 80, 100, 200])
def test_the_width_of_a_terminal_is_used(terminal, columns):
    made = terminal(columns)
    output.say(SENTENCE)
    output.show(table())
    made.close()
    assert max(map(len, made.lines)) <= columns
    assert " ".join(" ".join(made.lines).split()).startswith(SENTENCE)
    assert "95.2% ± 2.8%" in "".join(made.lines)


def test_in_a_pipe_a_sentence_and_a_row_are_one_line_each(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    output.say(SENTENCE * 3)
    output.show(table())
    out, err = capsys.readouterr()
    assert err == SENTENCE * 3 + "\n"
    assert len(out.splitlines()) == 4


@pytest.mark.parametrize("columns", [60, 200])
def test_columns_decides_in_a_pipe_and_in_a_terminal_alike(capsys, monkeypatch, terminal, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    output.say(SENTENCE)
    piped = capsys.readouterr().err.splitlines()
    made = terminal(100)
    output.say(SENTENCE)
    made.close()
    assert made.lines[:-1] == piped
    assert (len(piped) == 1) is (columns == 200)


@each("asked", ["", "0", "-5", "wide", "²"])
def test_an_invalid_columns_variable_is_ignored(monkeypatch, terminal, asked):
    monkeypatch.setenv("COLUMNS", asked)
    made = terminal(70)
    assert output.width_of(sys.stderr) == 70
    made.close()


def test_a_terminal_of_width_0_has_the_default_width(terminal):
    made = terminal(0)
    assert output.width_of(sys.stderr) == 80
    made.close()


# --- colours ----------------------------------------------------------------------------------------------------


@each(
    "settings, coloured",
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),  # as no-color.org has it
        ({"TERM": "dumb"}, False),
    ],
    ids=str,
)
def test_colours_depend_on_the_terminal_and_on_no_color(terminal, monkeypatch, settings, coloured):
    made = terminal()
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    output.say("warning: beware", style="yellow")
    made.close()
    assert (b"\x1b[" in made.raw) is coloured
    assert made.lines[0] == "warning: beware"


def test_a_pipe_has_no_colours(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    output.say("warning: beware", style="yellow")
    assert capsys.readouterr().err == "warning: beware\n"


# --- a bar ------------------------------------------------------------------------------------------------------


@each("columns", [60, 80, 100, 200])
def test_output_is_printed_above_the_bar(terminal, columns):
    made = terminal(columns)
    with progress_bar() as progress:
        progress("views", 1, 1000)
        output.say("warning: one")
        progress("views", 2, 1000)
        thread = threading.Thread(target=output.say, args=("warning: two, of another thread",))
        thread.start()
        thread.join()
        output.show("three, a result")
        progress("views", 500, 1000)
        output.say("epoch 1")
    made.close()
    assert b"activations" in made.raw
    assert [line for line in made.lines if line] == [
        "warning: one",
        "warning: two, of another thread",
        "three, a result",
        "epoch 1",
    ]
    frames = [part for part in re.split(r"\r|\n", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", made.raw.decode()))]
    assert max(map(len, frames)) <= columns
    assert all(frame.startswith("activations") for frame in frames if "━" in frame)


def test_results_do_not_disturb_the_bar(terminal, capsys):
    made = terminal(names=("stderr",))
    with progress_bar() as progress:
        progress("extract", 1, 10)
        output.show("a result")
        print("of another library", file=sys.stderr)
    made.close()
    assert capsys.readouterr().out == "a result\n"
    assert "a result" not in made.raw.decode()
    assert [line for line in made.lines if line] == ["of another library"]


def test_a_completed_stage_is_hidden(terminal):
    made = terminal()
    with progress_bar() as progress:
        progress("views", 10, 10)
        before = len(made.raw)
        output.say("epoch 1")
    made.close()
    assert "activations" not in made.raw[before:].decode().partition("epoch 1")[2]


@each("term", ["dumb", "unknown", "DUMB"])
def test_a_dumb_terminal_has_no_bar_and_no_escape_codes(terminal, term):
    made = terminal(term=term)
    with progress_bar() as progress:
        assert progress is None
        output.say("warning: one", style="yellow")
    made.close()
    assert made.raw == b"warning: one\r\n"


def test_the_cursor_is_shown_again_after_an_interrupt(terminal):
    made = terminal()
    with contextlib.suppress(KeyboardInterrupt), progress_bar() as progress:
        progress("extract", 1, 10)
        raise KeyboardInterrupt
    made.close()
    assert made.raw.rindex(b"\x1b[?25h") > made.raw.rindex(b"\x1b[?25l")


# --- names from outside -----------------------------------------------------------------------------------------


def test_control_characters_in_a_name_are_escaped(capsys):
    output.say("warning: a\nerror: fake\x1b[2J.jpg [red]x[/red]")
    assert capsys.readouterr().err == "warning: a\\nerror: fake\\x1b[2J.jpg [red]x[/red]\n"


@each(
    "name, shown",
    [
        ("a\n  0 failed", r"a\n  0 failed"),  # the indented line of a list, forged
        ("\x9b2J\x9d0;title\x9c", r"\x9b2J\x9d0;title\x9c"),  # the same commands in one byte each
        ("gpj.\u202egnp", r"gpj.\u202egnp"),  # written from right to left
        ("a\u2028b\x85c\rd", r"a\u2028b\x85c\rd"),
    ],
)
def test_names_are_escaped_in_every_kind_of_output(name, shown, capsys):
    made = TextTable(name, heading=name)
    made.add_row(name)
    for width in (None, 5):  # a table, and a list
        assert "".join(made.lines(width)).isprintable()
    output.say(name)
    assert capsys.readouterr().err == f"{shown}\n"
    assert str(RunError(name)) == str(BottleneckWarning(name)) == shown


def test_control_characters_in_data_are_escaped_on_a_terminal(terminal):
    made = terminal()
    output.put("path,label\nx\x1b]0;OWNED\x07.jpg,\x9b2J\n")
    made.close()
    assert b"\x1b]0" not in made.raw
    assert rb"x\x1b]0;OWNED\x07.jpg,\x9b2J" in made.raw


def test_data_in_a_pipe_are_unchanged(capfdbinary):
    output.put("x\x1b]0;OWNED\x07.jpg\n")
    assert capfdbinary.readouterr().out == b"x\x1b]0;OWNED\x07.jpg\n"


@each("raises", ["say()", "threading.Thread(target=say).start()"])
def test_a_traceback_is_escaped_too(raises, tmp_path):
    code = f"""
import threading; from bottleneck.cli import main
def say(): raise RuntimeError('\\x1b]0;OWNED\\x07')
main._run = lambda: {raises}
main.main()"""
    done = in_a_process(code, tmp_path)
    assert rb"RuntimeError: \x1b]0;OWNED\x07" in done.stderr
    assert b"\x1b" not in done.stderr


# --- where nobody reads, and what cannot be written --------------------------------------------------------------


def in_a_process(code: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[bytes]:
    code = f"import sys; from bottleneck.cli import output; output.let_streams_take_anything()\n{code}"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **settings}
    command = f'"{sys.executable}" -c "$CODE"'
    return subprocess.run(["bash", "-c", command], env={**environment, "CODE": code}, capture_output=True, cwd=folder)


def test_data_keep_their_bytes_and_people_see_them_escaped(tmp_path):
    done = in_a_process(
        r"output.put('caf\udce9,é\n'); output.show('caf\udce9 é')", tmp_path, PYTHONIOENCODING="latin-1"
    )
    assert done.stdout == b"caf\xe9,\xc3\xa9\n" + rb"caf\xe9 " + "é\n".encode("latin-1")


@each("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_character_that_the_encoding_lacks_is_no_error(tmp_path, encoding):
    done = in_a_process(
        "from bottleneck.cli.layout import TextTable\n"
        "made = TextTable('class'); made.add_row('95.2% ± 2.8% 猫'); output.show(made); output.say('± 猫')",
        tmp_path,
        PYTHONIOENCODING=encoding,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert ("─" in done.stdout.decode(encoding)) is (encoding == "utf-8")


def test_a_closed_pipe_is_no_error(tmp_path):
    read, write = os.pipe()
    os.close(read)
    code = (
        "from bottleneck.cli.output import put, show, say\n"
        "for _ in range(3): show('x' * 100000); put('y' * 100000)\n"
        "say('done')"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "done\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full is Linux's")
@each("words", [["cache", "info"], ["cache", "info", "--json"], ["--help"]], ids=" ".join)
def test_a_full_disk_is_a_message_and_exit_code_1(tmp_path, words):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bottleneck", *words], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: cannot write to stdout: No space left on device"
    assert "Traceback" not in done.stderr


def test_a_closed_stdout_is_no_error(tmp_path):
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -m bottleneck cache info >&-'], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
