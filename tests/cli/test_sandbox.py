"""Every command connects to nothing, and writes nothing but the cache, runs, its outputs and the temporary folder.

Nor does any command change how Python imports.
"""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from bottleneck import __version__
from bottleneck.cli.main import cli
from tests.conftest import photo, write
from tests.sandbox import CHECKOUT, Sandbox, apart, traced
from tests.variants import each

SMALL = "--model mobilenet_v3_small --weights none --precision fp32 --crop 64 --resize 64"
OUTPUTS = (
    *("cache", "other", "runs", "demo", "found.csv", "report.html", "board.json", "features.npz", "audited.csv"),
    "to-label.csv",
)

BY_OPENVINO = f"--no-labels --cache other --engine openvino --json {SMALL}"
OPENVINO = {
    "extract, by OpenVINO": f"extract photos/val/a {BY_OPENVINO}",
    "extract, by the converted network": f"extract photos/val/b {BY_OPENVINO}",
}

FITTED, TUNED = (f"photos-mobilenet_v3_small-{kind}" for kind in ("logistic", "finetuned"))

# In the order in which they are run, in one folder and one process; the first one imports OpenVINO. A command without a
# line here fails `test_every_command_is_here`.
COMMANDS = {
    **(OPENVINO if find_spec("openvino") else {}),
    "extract": f"extract photos --engine torch {SMALL}",
    "extract, into another cache": f"extract photos/val --no-labels --cache other --engine torch {SMALL}",
    "fit": "fit --head logistic",
    "predict": "predict photos/val --out found.csv",
    "evaluate": "evaluate photos/val",
    "report": "report --out report.html --no-audit",
    "audit": "audit --out audited.csv",
    "next": "next photos/val --budget 2 --model mobilenet_v3_small --out to-label.csv",
    "explore, with a table that is not its own": "explore --labels found.csv",
    "compare": "compare --heads logistic,centroid --out board.json",
    "finetune": "finetune --last 0 --epochs 1 --batch-size 4",
    "finetune, resumed": "finetune --resume",
    "cache info": "cache info",
    "cache verify": "cache verify",
    "cache merge": "cache merge other",
    "cache compact": "cache compact",
    "cache export": "cache export --out features.npz",
    "cache gc": "cache gc --days 0",
    "doctor": "doctor --no-speed",
    "runs list": "runs",
    "runs show": "runs show",
    "runs compare": f"runs compare {FITTED} {TUNED}",
    "runs rm": f"runs rm {TUNED}",
    "models": "models resnet18",
    "inspect": "inspect mobilenet_v3_small",
    "cache rm": "cache rm features/mobilenet_v3_small",
    "extract, of the demo": "extract demo/digits --engine torch --precision fp32",
    "demo": "demo",
}
# All that is public is imported first. Runs are named without their time. The demo writes a few digits, whose features
# are there.
BEFORE = """
import bottleneck, functools, pathlib
[getattr(bottleneck, name) for name in bottleneck.__all__]
import bottleneck.runs.save as save
save.dated = lambda name: name
import bottleneck.demo.tour as tour
tour.write_digits = functools.partial(tour.write_digits, labels="012", count=12)
tour.write_digits(pathlib.Path("demo/digits"))
"""
# Nothing is to be resumed; and a server listens, as a command of the sandbox must not.
FAILING = ("finetune, resumed", "explore, with a table that is not its own")


def leaves(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*before, name))
        else:
            yield " ".join((*before, name))


def test_every_command_is_here() -> None:
    assert {name.partition(",")[0] for name in COMMANDS} == set(leaves(cli))


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    made = Sandbox(tmp_path, OUTPUTS)
    for number in range(24):
        part, label = ("train", "val")[number % 3 == 2], "ab"[number % 2]
        write(made.here / "photos" / part / label / f"{number}.jpg", photo(number))
    return made


@pytest.mark.slow
def test_commands_write_only_to_the_given_folders_and_leave_imports_alone(sandbox: Sandbox) -> None:
    done = sandbox.commands({name: words.split() for name, words in COMMANDS.items()}, BEFORE)

    assert {name: found.err for name, found in done.items() if found.code != (name in FAILING)} == {}
    assert {name: found.offences for name, found in done.items() if found.offences} == {}
    for name in OPENVINO.keys() & COMMANDS.keys():
        assert "openvino" in json.loads(done[name].out)["engine"], name
    assert len(list((sandbox.here / "demo" / "digits").rglob("*.png"))) == 36


@each(
    "words",
    [["-m", "bottleneck", "--help"], [str(CHECKOUT / "cli.py"), "--version"], ["-c", "import bottleneck"]],
)
def test_starting_and_importing_writes_nothing(tmp_path: Path, words: list[str]) -> None:
    found = Sandbox(tmp_path, OUTPUTS).run(*words)
    assert found.code == 0, found.err
    assert found.offences == ()
    assert words[-1] != "--version" or found.out.strip().endswith(__version__)


# --- the sandbox itself -------------------------------------------------------------------------------------------

LEAKS = {
    "a connection": "import socket; socket.socket().connect_ex(('127.0.0.1', 9))",
    "a name": "import socket, contextlib\nwith contextlib.suppress(OSError): socket.getaddrinfo('example.invalid', 80)",
    "a datagram": (
        "import socket, contextlib\nwith contextlib.suppress(OSError):\n"
        " socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))"
    ),
    "a file in the home": "import pathlib; (pathlib.Path.home() / 'x').write_text('')",
    "a file that is deleted again": "import pathlib; one = pathlib.Path.home() / 'x'; one.write_text(''); one.unlink()",
    "a folder in the home": "import os; os.makedirs(os.path.expanduser('~/.cache/x'))",
    "a file here": "open('x', 'w').close()",
    "a file of the user's": "open('photos', 'a').write('x')",
    "a stand-in for a module": "import sys; sys.modules['x'] = type('X', (), {'__module__': 'bottleneck.x'})()",
    "a finder of ours": "import sys; sys.meta_path.append(type('X', (), {'__module__': 'bottleneck.x'}))",
    "a finder less": "import sys; del sys.meta_path[0]",
    "a child's": "import subprocess, sys; subprocess.run([sys.executable, '-c', \"open('/var/tmp/sandbox', 'w')\"])",
}


@each("leak", LEAKS)
def test_the_sandbox_detects_a_leak(tmp_path: Path, leak: str) -> None:
    sandbox = Sandbox(tmp_path, OUTPUTS)
    (sandbox.here / "photos").write_text("mine")
    assert sandbox.run("-c", LEAKS[leak], trace=False).offences
    Path("/var/tmp/sandbox").unlink(missing_ok=True)


@each("code", ["open('cache', 'w')", "import tempfile; tempfile.TemporaryFile()", "open('/dev/null', 'w')"])
def test_what_is_allowed_is_no_leak(tmp_path: Path, code: str) -> None:
    assert Sandbox(tmp_path, OUTPUTS).run("-c", code).offences == ()


@pytest.mark.skipif(not traced(), reason="needs strace")
def test_a_leak_of_native_code_is_seen(tmp_path: Path) -> None:
    libc = "import ctypes, os; libc = ctypes.CDLL(None); "
    sandbox = Sandbox(tmp_path, OUTPUTS)
    assert sandbox.run("-c", f"{libc}libc.mkdir(os.fsencode(os.environ['HOME'] + '/x'), 0o700)").offences
    (sandbox.home / "x").rmdir()
    code = "import socket; address = b'\\x02\\0\\0\\x09\\x7f\\0\\0\\x01' + bytes(8); "
    code += f"{libc}libc.connect(socket.socket().fileno(), address, 16)"
    assert any("AF_INET" in line for line in sandbox.run("-c", code).offences)


@pytest.mark.skipif(not apart(), reason="the system allows no network of one's own")
def test_there_is_no_way_out(tmp_path: Path) -> None:
    code = "import socket; socket.socket().connect(('192.0.2.1', 80))"
    found = Sandbox(tmp_path, OUTPUTS).run("-c", code)
    assert "Network is unreachable" in found.err
