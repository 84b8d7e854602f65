"""A folder in which commands are run and watched.

An offence is a connection, a write outside of the folder, or a stand-in of ours for a module or for what finds modules.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]

# Runs before anything else in every Python of the sandbox. Native code is what `strace` is for.
_WATCH = """
import atexit, os, sys

_log = os.open(os.environ["SANDBOX_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
_allowed = tuple(os.environ["SANDBOX_ALLOWED"].split(os.pathsep))
_net = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.sendto",
        "socket.sendmsg", "socket.bind")
_changes = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.chown",
            "os.truncate", "os.utime", "os.setxattr")
_writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _say(*words):
    os.write(_log, (" ".join(map(str, words)) + "\\n").encode("utf-8", "backslashreplace"))


def _is_outside(path):
    # A relative path may be one of another folder than the current one; the listing of that is compared.
    try:
        path = os.fsdecode(path)
    except TypeError:  # a descriptor
        return False
    return os.path.isabs(path) and not os.path.realpath(path).startswith(_allowed)


def _watch(event, arguments):
    if event in _net:
        if event.endswith(("connect", "bind", "sendto", "sendmsg")) and getattr(arguments[0], "family", None) == 1:
            return  # a socket of this machine
        _say("network:", event, *arguments[1:2])
    elif event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & _writing and _is_outside(path):
            _say("written:", path)
    elif event in _changes:
        for path in arguments[: 2 if event in ("os.rename", "os.link", "os.symlink") else 1]:
            if _is_outside(path):
                _say("changed:", event, path)


def _is_ours(found):
    return str((found if isinstance(found, type) else type(found)).__module__).startswith("bottleneck")


def _look_at_imports(before=[*sys.meta_path, *sys.path_hooks]):
    now = [*sys.meta_path, *sys.path_hooks]  # other packages may add some
    for found in (one for one in before if one not in now):
        _say("imports: without", found)
    for found in filter(_is_ours, [*now, *sys.modules.values()]):
        _say("imports: by", found)


atexit.register(_look_at_imports)
sys.addaudithook(_watch)
"""


# Runs commands one after the other in one process, in which torch is imported only once.
_DRIVER = """
import json, os, sys, tempfile
from bottleneck.cli.main import main

exec(sys.argv[2])
log = os.open(os.environ["SANDBOX_LOG"], os.O_WRONLY | os.O_APPEND)
done, own = {}, (sys.stdout, sys.stderr)
for name, words in json.loads(sys.argv[1]).items():
    os.write(log, f"command: {name}\\n".encode())
    sys.argv = ["bottleneck", *words]
    streams = [tempfile.TemporaryFile("w+", encoding="utf-8") for _ in own]
    sys.stdout, sys.stderr = streams
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    sys.stdout, sys.stderr = own
    texts = [stream.seek(0) or stream.read() for stream in streams]
    done[name] = [code, *texts]
print(json.dumps(done))
"""


@cache
def apart() -> tuple[str, ...]:
    """Return what starts a command in a network of its own, where the system allows that."""
    if sys.platform.startswith("linux") and shutil.which("unshare"):
        for options in (("-n",), ("-r", "-n")):
            if subprocess.run(["unshare", *options, "true"], capture_output=True).returncode == 0:
                return "unshare", *options
    return ()


@cache
def traced() -> tuple[str, ...]:
    """Return what logs the system's calls, where there is that program and it may."""
    calls = (
        "connect,bind,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,"
        "link,linkat,symlink,symlinkat"
    )
    if sys.platform.startswith("linux") and shutil.which("strace"):
        for quick in (("--seccomp-bpf",), ()):  # stops a program at these calls alone; old versions lack it
            words = ("strace", "-f", *quick, "-qq", "-y", "-s", "4096", "-e", f"trace={calls}")
            if subprocess.run([*words, "-o", os.devnull, "true"], capture_output=True).returncode == 0:
                return words
    return ()


@dataclass(frozen=True)
class Done:
    """A command that has ended, and what it did that it should not."""

    code: int
    out: str
    err: str
    offences: tuple[str, ...]


class Sandbox:
    """A current folder, an empty home and a temporary folder; commands may write to the last and where they are told.

    Parameters
    ----------
    root : Path
    outputs : iterable of str
        Names below the current folder that commands may write to.
    """

    def __init__(self, root: Path, outputs: Iterable[str]) -> None:
        self.here, self.home, self.temporary = (root / name for name in ("here", "home", "temporary"))
        self._log, self._trace, self._site = root / "log", root / "trace", root / "site"
        for folder in (self.here, self.home, self.temporary, self._site):
            folder.mkdir(parents=True)
        (self._site / "sitecustomize.py").write_text(_WATCH)
        self._outputs = tuple(outputs)
        allowed = [*(self.here / name for name in self._outputs), self.temporary, self._log]
        self._allowed = (*map(os.path.realpath, allowed), "/dev/null", "/dev/tty", "/dev/shm/sem.", "/proc/self/")

    def run(self, *words: str, trace: bool = True) -> Done:
        """Run Python with some arguments; `trace` says whether native code is watched too, where that is possible."""
        before = self._listing()
        self._log.write_bytes(b"")
        self._trace.write_bytes(b"")
        tracing = [*traced(), "-o", str(self._trace)] if trace and traced() else []
        done = subprocess.run(
            [*apart(), *tracing, sys.executable, *words],
            cwd=self.here,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        after = self._listing()
        changed = (
            f"on the disk: {path}" for path in sorted(before.keys() | after) if before.get(path) != after.get(path)
        )
        logged = self._log.read_text(encoding="utf-8").splitlines()
        return Done(done.returncode, done.stdout, done.stderr, (*logged, *self._traced_offences(), *changed))

    def commands(self, commands: dict[str, list[str]], first: str = "") -> dict[str, Done]:
        """Run ``bottleneck`` with some arguments, one after the other, and some code before.

        What cannot be told from which command it was, the disk, imports and native code, is under an empty name.
        """
        whole = self.run("-c", _DRIVER, json.dumps(commands), first)
        assert whole.code == 0, whole.err
        offences: dict[str, list[str]] = {"": []}
        name = ""
        for line in whole.offences:
            if line.startswith("command: "):
                name = line.removeprefix("command: ")
            elif line.startswith(("network: ", "written: ", "changed: ")):
                offences.setdefault(name, []).append(line)
            else:
                offences[""].append(line)
        found = json.loads(whole.out)
        rest = Done(0, "", "", tuple(offences[""]))
        return {"": rest, **{name: Done(*found[name], tuple(offences.get(name, ()))) for name in commands}}

    def _environment(self) -> dict[str, str]:
        gone = ("XDG_", "MPL", "TORCH", "HF_", "HUGGING", "PYTHON", "COLUMNS", "BOTTLENECK", "CI", "PYTEST")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(gone)}
        return {
            **kept,
            "HOME": str(self.home),
            "USERPROFILE": str(self.home),
            **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.temporary)),
            "PYTHONPATH": os.pathsep.join([str(self._site), str(CHECKOUT)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "SANDBOX_LOG": str(self._log),
            "SANDBOX_ALLOWED": os.pathsep.join(self._allowed),
        }

    def _listing(self) -> dict[str, tuple[int, int]]:
        """Return all that lies in the home and the current folder, but for what may be written to."""
        found = {}
        for top in (self.home, self.here):
            for folder, folders, files in os.walk(top):
                names = [name for name in (*folders, *files) if Path(folder) != self.here or name not in self._outputs]
                folders[:] = [name for name in folders if name in names]
                for path in (Path(folder, name) for name in names):
                    state = path.lstat()
                    found[str(path)] = (state.st_size, state.st_mtime_ns) if path.is_file() else (0, 0)
        return found

    def _traced_offences(self) -> list[str]:
        """Return the system's calls that connect, or that change something outside."""
        found = []
        for line in self._calls():
            if "sa_family=AF_INET" in line:
                found.append(line)
            elif not (" = -1 " in line or "O_RDONLY" in line or "sa_family=" in line):
                path = self._path_in(line)
                if path and not path.startswith(self._allowed):
                    found.append(line)
        return found

    def _calls(self) -> Iterator[str]:
        """Yield the system's calls, a line each: `strace` divides one where another thread's comes between."""
        begun: dict[str, str] = {}
        for line in self._trace.read_text(encoding="utf-8", errors="replace").splitlines():
            thread = line.partition(" ")[0]
            if line.endswith("<unfinished ...>"):
                begun[thread] = line.removesuffix("<unfinished ...>")
            elif " resumed>" in line:
                yield begun.pop(thread, "") + line.partition(" resumed>")[2]
            else:
                yield line

    def _path_in(self, line: str) -> str:
        """Return the first path that a call names, from the root; nothing of the temporary name of an output."""
        if line.rstrip().endswith(">"):  # a file that was opened, whatever way led to it
            path = line.rstrip()[:-1].rpartition("<")[2]
        else:
            arguments = line.partition("(")[2]
            folder = str(self.here)
            if arguments.startswith(("AT_FDCWD<", *"0123456789")):
                folder = arguments.partition("<")[2].partition(">")[0]
            name = arguments.partition('"')[2].partition('"')[0]
            path = os.path.realpath(os.path.join(folder, name)) if name else ""
        beside, own = os.path.split(path)
        return "" if beside == os.path.realpath(self.here) and own.startswith(".tmp-") else path
