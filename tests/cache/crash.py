"""Break a writer at every call that changes the disk, and check that the cache keeps its guarantees.

A script, so that the writers are forked from a small process. It takes any number of scenarios, and forks a process for
each, so that the library is imported once::

    python tests/cache/crash.py SCENARIO...

    JOB:FAILURE[:FLAW:WORDS]  # at every call of a small job; FAILURE/FAILURE takes turns
    storm:KILLS               # at random times of a larger one
    crowd:KILLS               # of many processes at once

It prints a JSON list with an object for each scenario: the number of calls, or kills, and every broken guarantee. FLAW
puts a known fault into the library, to check that this script finds it: it stops at the first broken guarantee that
contains WORDS.
"""

import builtins
import contextlib
import errno
import gc as gc_module
import hashlib
import io
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import bottleneck.cache.compact as compact_module
import bottleneck.utils.files
from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.cache.compact import ShardSizes, compact
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.maintain import gc
from bottleneck.cache.merge import merge
from bottleneck.cache.store import Store
from bottleneck.engines.options import EngineOptions
from bottleneck.errors import BottleneckError, BottleneckWarning, CacheError
from bottleneck.extraction import extract as extraction
from bottleneck.extraction.collaborators import Collaborators
from bottleneck.extraction.commits import CommitPace
from bottleneck.extraction.plan import EngineStart, Plan
from bottleneck.images import clock
from bottleneck.images.digest import signature
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.utils.tree import Tree

SPEC = Spec(
    backbone="tiny",
    weights="0" * 64,
    layer="fc:input",
    pooling="avg",
    preprocessing=Preprocessing(
        resize=8, crop=8, interpolation="bilinear", antialias=True, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    ),
    transform_input=False,
    precision="fp32",
    decoder=1,
)
D = 24
Rows = dict[bytes, bytes]  # digest -> the bytes of its features


# --- a small world of images and features -----------------------------------------------------------------------


def numbered(*numbers: int) -> tuple[np.ndarray, np.ndarray]:
    """Return digests and features of images that are known by a number."""
    digests = [list(hashlib.sha256(b"%d" % number).digest()) for number in numbers]
    features = [np.random.default_rng(number).normal(size=D) for number in numbers]
    return np.array(digests, np.uint8).reshape(-1, 32), np.array(features, np.float32).reshape(-1, D)


def as_map(digests: np.ndarray, features: np.ndarray) -> Rows:
    return {row.tobytes(): values.tobytes() for row, values in zip(digests, features, strict=True)}


class TinyEngine:
    """Return the mean colour of each 2 x 4 block of an image, without torch, and in no time by default."""

    seconds = 0.0
    name = "tiny"
    precision = "fp32"
    batch_size = 4
    parallel = 1

    def close(self) -> None:
        pass

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds)
        return pixels.reshape(len(pixels), 4, 2, 2, 4, 3).mean(axis=(2, 4)).reshape(len(pixels), D).astype(np.float32)


def plan_features(request: Request, options: EngineOptions, cache: FeatureCache, *_: object) -> Plan:
    """Replace `bottleneck.extraction.plan.plan_features`: the backbone needs no building."""
    return Plan(request, options, cache, SPEC, built=True)


def start_engine(plan: Plan, sample: object) -> EngineStart:
    """Replace `bottleneck.extraction.plan.start_engine`."""
    return EngineStart(TinyEngine(), plan)


def make_images(folder: Path, numbers: range) -> None:
    for number in numbers:
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
        os.utime(path, (1e9, 1e9))


@cache
def png(number: int) -> bytes:
    """Return the file of an image that is known by a number."""
    noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


# --- jobs: what is there before, what is done, what must be there afterwards ------------------------------------


@dataclass
class World:
    """A folder with a cache, and what was acknowledged in it."""

    root: Path
    acked: Rows = field(default_factory=dict)

    @property
    def cache(self) -> FeatureCache:
        return FeatureCache(self.root / "cache")

    @property
    def store(self) -> Store:
        return self.cache.store(SPEC)

    def add(self, *numbers: int, to: Store | None = None) -> list[str]:
        """Append before anything is broken."""
        rows = numbered(*numbers)
        if to is None:
            self.acked |= as_map(*rows)
        return (to or self.store).append(*rows)


def nothing(world: World) -> None:
    pass


def append(world: World) -> None:
    for start in (0, 5, 10):
        world.store.append(*numbered(*range(start, start + 5)))


def some_shards(world: World) -> None:
    for start in (0, 3, 6, 9):
        world.add(*range(start, start + 4))


def join(world: World) -> None:
    compact(world.store)


def another_cache(world: World) -> None:
    world.add(0, 1, 2)
    theirs = FeatureCache(world.root / "theirs")
    world.add(2, 3, 4, to=theirs.store(SPEC))
    world.add(5, 6, to=theirs.store(SPEC))
    make_images(world.root / "images", range(4))
    extraction.extract(world.root / "images", cache=theirs.root)


def service(world: World) -> None:
    """Commit one image at a time, so that small shards are joined on the way."""
    for number in range(4):
        world.store.append(*numbered(number))


def take_over(world: World) -> None:
    merge(world.cache, world.root / "theirs")


def damaged(world: World) -> None:
    world.add(0, 1, 2)
    (name,) = world.add(3, 4)
    path = world.store.folder / "shards" / f"{name}.h5"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    os.utime(path, (1e9, 1e9))
    for lost in as_map(*numbered(3, 4)):
        del world.acked[lost]


def mend(world: World) -> None:
    digests, features = numbered(0, 1, 2, 3, 4)
    missing = world.store.missing(digests)
    if len(missing):
        world.store.append(digests[missing], features[missing])


def with_garbage(world: World) -> None:
    make_images(world.root / "images", range(8))
    done = extraction.extract(world.root / "images", cache=world.cache.root)
    digests = done.dataset.digests
    world.acked |= as_map(digests, world.store.read(digests))
    strange = numbered(100, 101, 102)  # one shard that holds what a dataset names, and what none does
    mixed = np.concatenate([digests[:3], strange[0]]), np.concatenate([world.store.read(digests[:3]), strange[1]])
    world.store.append(*mixed)
    world.store.append(*numbered(200, 201))


def sweep(world: World) -> None:
    gc(world.cache, days=0)


def pictures(world: World) -> None:
    make_images(world.root / "images", range(20))


def extract(world: World) -> None:
    extraction.extract(world.root / "images", cache=world.cache.root)


JOBS: dict[str, tuple[Callable[[World], None], Callable[[World], None]]] = {
    "append": (nothing, append),
    "service": (nothing, service),
    "compact": (some_shards, join),
    "merge": (another_cache, take_over),
    "mend": (damaged, mend),
    "gc": (with_garbage, sweep),
    "extract": (pictures, extract),
}


# --- guarantees ---------------------------------------------------------------------------------------------------


def rows_of(store: Store) -> Rows:
    """Return everything that a store serves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BottleneckWarning)
        digests = store.digests()
        return as_map(digests, store.read(digests)) if len(digests) else {}


def broken_guarantees(world: World, right: Rows) -> list[str]:
    """Return the guarantees that a cache does not keep after its writer was broken; `right` has all features."""
    found = []
    served = rows_of(world.store)
    for path in world.store.shards():
        if hashlib.sha256(path.read_bytes()).hexdigest() != path.stem:
            found.append(f"a shard that does not match its name is visible: {path.name}")
    found += ["an acknowledged row is lost" for digest in world.acked if digest not in served]
    found += wrong_rows(served, right)
    shutil.rmtree(world.store.folder / "index", ignore_errors=True)
    if rows_of(world.store) != served:
        found.append("deleting a memo changes the rows")
    return found


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*") if path.is_file()}


def not_resumed(world: World, job: Callable[[World], None], final: Rows) -> list[str]:
    """Run the job again, undisturbed; return what does not hold afterwards."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BottleneckWarning)
        job(world)
        if rows_of(world.store) != final:
            found.append("the job, run again, does not end where an undisturbed one does")
        if job not in (append, service):
            before = snapshot(world.cache.root)
            job(world)
            if snapshot(world.cache.root) != before:
                found.append("a run with nothing left to do writes")
    return found


# --- the breaking -----------------------------------------------------------------------------------------------


class Saboteur:
    """Counts the calls that change the disk, and breaks the k-th.

    Parameters
    ----------
    at : int
        Which call; counted from 1.
    failure : str
        ``kill-before`` or ``kill-after`` the call (of a write: after half of it), ``ENOSPC`` from then on, or ``EIO``
        once.
    """

    def __init__(self, at: int, failure: str, log: Path) -> None:
        self._at = at
        self._failure = failure
        self._log = log
        self._count = 0

    def install(self) -> None:
        # What is done by descriptors calls `os`, and so do most methods of Path.
        for name in ("fsync", "replace", "rename", "unlink", "mkdir", "rmdir"):
            setattr(os, name, self._guard(getattr(os, name), name))
        bottleneck.utils.files.open = self._open

    def _guard(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def guarded(target: Any, *args: Any, **options: Any) -> Any:
            number = self._step(name, target, options.get("dir_fd", options.get("src_dir_fd")))
            try:
                return call(target, *args, **options)
            finally:  # of one that finds nothing to do, too
                self._done(number)

        return guarded

    def _open(self, path: Path, mode: str, **options: Any) -> Any:
        if mode == "rb":
            return builtins.open(path, mode, **options)
        return Fragile(builtins.open(path, mode, buffering=0, **options), path, self)

    def write(self, file: Any, path: Path, data: bytes) -> int:
        """Write `data`, or half of it."""
        if self._count + 1 == self._at and self._failure != "kill-before":
            file.write(data[: len(data) // 2])
            self._done(self._step("write", path))
        else:
            self._step("write", path)
        return int(file.write(data))

    def _step(self, name: str, target: Any, folder: int | None = None) -> int:
        self._count += 1
        hit = self._count == self._at
        if hit:
            place = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(target)
            home = "" if folder is None else os.readlink(f"/proc/self/fd/{folder}") + "/"
            self._log.write_text(f"{name} {home}{place}")
        if hit and self._failure == "kill-before":
            os.kill(os.getpid(), signal.SIGKILL)
        if hit and self._failure == "EIO":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self._failure == "ENOSPC" and self._count >= self._at and name in ("write", "mkdir", "fsync"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._count

    def _done(self, number: int) -> None:
        if self._failure == "kill-after" and number == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


class Fragile:
    """A file whose writes are counted."""

    def __init__(self, file: Any, path: Path, saboteur: Saboteur) -> None:
        self._file = file
        self.write = lambda data: saboteur.write(file, path, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "Fragile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def report_acks(pipe: int) -> None:
    """Let every `append` that returns say so, on a pipe."""
    whole = Store.append

    def spoken(self: Store, digests: np.ndarray, features: np.ndarray) -> list[str]:
        names = whole(self, digests, features)
        for digest, row in as_map(digests, features).items():
            os.write(pipe, digest + row)
        return names

    Store.append = spoken


class Child:
    """A process that does some work, and tells what was acknowledged to it."""

    def __init__(self, work: Callable[[], None]) -> None:
        read, write = os.pipe()
        self._process = os.fork()
        if not self._process:
            os._exit(self._run(work, read, write))
        os.close(write)
        self._pipe = open(read, "rb")  # noqa: SIM115

    def _run(self, work: Callable[[], None], read: int, write: int) -> int:
        try:
            os.close(read)
            warnings.simplefilter("ignore")
            report_acks(write)
            work()
        except BottleneckError:
            return 1
        except BaseException:
            traceback.print_exc()
            return 70
        return 0

    def wait_for_rows(self) -> None:
        """Wait until rows were acknowledged, or the process has ended."""
        select.select([self._pipe], [], [])

    def kill(self) -> None:
        os.kill(self._process, signal.SIGKILL)

    def wait(self, acked: Rows) -> int:
        """Wait for the end, take what was acknowledged, and return the exit status."""
        with self._pipe:
            data = self._pipe.read()
        width = 32 + 4 * D
        for start in range(0, len(data) - width + 1, width):
            acked[data[start : start + 32]] = data[start + 32 : start + width]
        return os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])


def in_a_child(world: World, work: Callable[[], None], moment: float | None = None, *, rows: bool = False) -> int:
    """Run `work` in a child, which is killed after `moment` seconds, perhaps from its first rows; return its status."""
    child = Child(work)
    if moment is not None:
        if rows:
            child.wait_for_rows()
        time.sleep(moment)
        child.kill()
    return child.wait(world.acked)


def undisturbed(root: Path, before: Callable[[World], None], job: Callable[[World], None]) -> tuple[Rows, Rows]:
    """Return every row that there may be, and those that there are in the end."""
    world = World(root)
    before(world)
    right = rows_of(world.store) | as_map(*numbered(*range(300)))
    job(world)
    return right | rows_of(world.store), rows_of(world.store)


def every_call(name: str, failures: str, root: Path, until: str | None = None) -> dict[str, Any]:
    """Break the job at its first call, at its second, and so on until it has no more, or until words are found."""
    before, job = JOBS[name]
    right, final = undisturbed(root / "whole", before, job)
    broken: list[str] = []
    log = root / "log"
    few_first = [k for step in (10, 3, 1) for k in range(step, 100, step)]
    turns = failures.split("/")
    for k in few_first if until else range(1, 1000):
        failure = turns[k % len(turns)]
        world = World(root / str(k))
        before(world)
        log.unlink(missing_ok=True)
        status = in_a_child(
            world, lambda k=k, world=world, failure=failure: (Saboteur(k, failure, log).install(), job(world))
        )
        if not log.exists() and status == 0 and not until:
            return {"calls": k - 1, "broken": broken}
        place = log.read_text() if log.exists() else "?"
        found = broken_guarantees(world, right)
        if status not in {"kill": (-signal.SIGKILL,), "ENOS": (0, 1), "EIO": (0, 1)}[failure[:4]]:
            found.append(f"the job ended with status {status}")
        # A service may do without the joined shard; that no row is lost by it is looked at above.
        if status == 0 and name != "service" and ("/shards/.tmp-" in place or place.endswith("/shards")):
            found.append("a failed write of a shard was taken for a success")
        if not failure.startswith("kill") and "unlink" not in place and (left := sorted(world.root.rglob(".tmp-*"))):
            found.append(f"an unfinished file is left behind: {left[0].name}")
        if not until:
            found += not_resumed(world, job, final)
        broken += [f"call {k} ({place}): {what}" for what in found]
        shutil.rmtree(world.root, ignore_errors=True)  # the first call may have been to make it
        if until and any(until in what for what in found):
            return {"calls": k, "broken": broken}
    raise RuntimeError("the job never ends")


def storm(kills: int, root: Path) -> dict[str, Any]:
    """Kill extractions of many images at random moments, each going on from what the last one left."""
    images = root / "images"
    make_images(images, range(600 if kills > 100 else 80))
    TinyEngine.seconds = 0.004  # most of the time is spent between the first row and the last

    def extract_into(world: World) -> None:
        extraction.extract(images, cache=world.cache.root)

    whole = World(root / "whole")
    started = time.monotonic()
    in_a_child(whole, lambda: extract_into(whole))
    seconds = time.monotonic() - started
    right = rows_of(whole.store)
    broken: list[str] = []
    done = rounds = resumed = 0
    while done < kills:
        rounds += 1
        world = World(root / f"round{rounds}")
        status = -signal.SIGKILL
        while status == -signal.SIGKILL and done < kills:
            rows = done % 2 == 0
            moment = random.uniform(0, seconds / 3 if rows else seconds)
            status = in_a_child(world, lambda world=world: extract_into(world), moment, rows=rows)
            done += status == -signal.SIGKILL
            broken += [f"round {rounds}: {what}" for what in broken_guarantees(world, right)]
            resumed += bool(world.acked) and status == -signal.SIGKILL
        extract_into(world)
        if rows_of(world.store) != right:
            broken.append(f"round {rounds}: the resumed extraction has other rows than an undisturbed one")
        shutil.rmtree(world.root)
    return {"kills": done, "rounds": rounds, "kills with rows": resumed, "seconds": round(seconds, 2), "broken": broken}


def crowd(kills: int, root: Path) -> dict[str, Any]:
    """Let 8 processes extract overlapping folders into one cache, one compact it, and one read; kill them at random."""
    for number in range(8):
        make_images(root / f"images{number}", range(40 * number, 40 * number + 160))
    whole = World(root / "whole")
    for number in range(8):
        extraction.extract(root / f"images{number}", cache=whole.cache.root)
    right = rows_of(whole.store)
    world = World(root / "crowd")

    def extract_one(number: int) -> None:
        extraction.extract(root / f"images{number}", cache=world.cache.root)

    def keep_compact() -> None:
        while True:
            with contextlib.suppress(CacheError):  # no folder yet
                compact(world.store)
            time.sleep(0.005)

    broken: list[str] = []
    done = rounds = looks = 0
    while done < kills or rounds < 2:
        rounds += 1
        workers = [Child(lambda number=number: extract_one(number)) for number in range(8)]
        compactor = Child(keep_compact)
        for worker in random.sample(workers, 5 if done < kills else 0):
            broken += wrong_rows(rows_of(world.store), right)
            looks += 1
            worker.kill()
            done += 1
        statuses = [worker.wait(world.acked) for worker in workers]
        compactor.kill()
        compactor.wait(world.acked)
        broken += [f"a worker ended with status {status}" for status in statuses if status not in (0, -signal.SIGKILL)]
        broken += broken_guarantees(world, right)
        if all(status == 0 for status in statuses) and rows_of(world.store) != right:
            broken.append("the crowd has left other rows than one process")
        if rounds % 3 == 0 or all(status == 0 for status in statuses):
            shutil.rmtree(world.root)
            world.acked.clear()
    return {"kills": done, "rounds": rounds, "looks": looks, "rows": len(right), "broken": broken}


def wrong_rows(served: Rows, right: Rows) -> list[str]:
    return ["a reader was served a wrong row" for digest, row in served.items() if right.get(digest) != row]


# --- known faults, which this script must find ------------------------------------------------------------------


def in_place(tree: Tree, path: Path, data: bytes, *, durable: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with getattr(bottleneck.utils.files, "open", open)(path, "wb") as file:
        file.write(data)
        os.fsync(file.fileno())


def without_error(tree: Tree, path: Path, data: bytes, *, durable: bool = True, whole: Any = Tree.write) -> None:
    try:
        whole(tree, path, data, durable=durable)
    except OSError:
        whole(tree, path, data, durable=durable) if path.suffix != ".h5" else None


def delete_first(store: Store, names: list[str]) -> None:
    parts = [store.load(name) for name in names]
    for name in names:
        store.drop(name)
    for rows in parts:
        assert rows
        store.append(rows.digests, rows.features)


def put_flaw(flaw: str) -> None:
    if flaw == "in-place":
        Tree.write = in_place
        Store._blocks = lambda self, name, buffer: _unproven(self, name)
    elif flaw == "error-swallowed":
        Tree.write = without_error
    elif flaw == "delete-first":
        compact_module._join = delete_first


def _unproven(store: Store, name: str) -> Any:
    import h5py

    from bottleneck.cache.shard import Blocks

    try:
        with h5py.File(store._shard(name)) as file:
            return Blocks(file["digests"][:], (file["features"][:],), signature(os.stat(store._shard(name))))
    except OSError:
        return None


def run(scenario: str, root: Path) -> dict[str, Any]:
    """Run one scenario in an empty folder."""
    name, failure, *flaw = scenario.split(":")
    if name in ("storm", "crowd"):
        return {"storm": storm, "crowd": crowd}[name](int(failure), root)
    if flaw:
        put_flaw(flaw[0])
    return every_call(name, failure, root, *flaw[1:])


def in_a_fork(scenario: str, root: Path) -> dict[str, Any]:
    """Run one scenario in a process forked from this one, which a flaw then leaves unchanged."""
    (root / "world").mkdir()
    answer = root / "answer.json"
    process = os.fork()
    if not process:
        try:
            answer.write_text(json.dumps(run(scenario, root / "world")))
        except BaseException:
            traceback.print_exc()
            os._exit(70)
        os._exit(0)
    if status := os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
        raise RuntimeError(f"{scenario} ended with status {status}")
    shutil.rmtree(root / "world")
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def main() -> None:
    tiny = {"plan_features": plan_features, "start_engine": start_engine}
    extraction.Collaborators = partial(Collaborators, **tiny, pace=CommitPace(first_seconds=0.0), readers=2)
    of_spec = FeatureCache.store
    FeatureCache.store = lambda self, spec: replace(of_spec(self, spec), sizes=ShardSizes(many=3))
    os.fsync = lambda descriptor: None  # the power does not fail here; that it is called is tested
    clock._in_memory = lambda device: False  # so that the digests of images in memory are remembered
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="crash-", dir=memory if os.access(memory, os.W_OK) else os.getcwd()))
    os.chdir(root)
    warnings.simplefilter("ignore", BottleneckWarning)
    gc_module.freeze()  # what is imported stays, so a forked process need not copy it
    try:
        results = [in_a_fork(scenario, root) for scenario in sys.argv[1:]]
    finally:
        shutil.rmtree(root)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
