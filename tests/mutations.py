"""Break the library in one place at a time, and see that a test fails: ``python -m tests.mutations [--only N]``.

Each mutation is a mistake that could be made: a sign, a bound, an order, a missing fsync. The library is copied to a
temporary folder, one text of it is replaced, and the tests of that part are run until the first fails. The text must be
found once in the whole package, wherever its module is. The exit code is 1 if a mutation survives: then a test is
missing.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_COPIED = ("bottleneck", "tests", "docs", "cache/README.md", "cli.py", "README.md", "pyproject.toml")


@dataclass(frozen=True)
class Mutation:
    """A mistake.

    Parameters
    ----------
    mistake : str
        What it would do.
    old, new : str
        A text of the package, and what takes its place.
    tests : tuple of str
        Files and folders below tests/ that should catch it.
    """

    mistake: str
    old: str
    new: str
    tests: tuple[str, ...]

    def files(self, package: Path) -> list[Path]:
        """Return the modules with the text, one for each time that it is found."""
        found = sorted(package.rglob("*.py"))
        return [path for path in found for _ in range(path.read_text(encoding="utf-8").count(self.old))]

    def apply(self, package: Path) -> Path:
        """Replace the text, and return the module.

        Raises
        ------
        ValueError
            If the text is not found exactly once.
        """
        files = self.files(package)
        if len(files) != 1:
            raise ValueError(f"expected this text once in the package, found it {len(files)} times: {self.old!r}")
        (path,) = files
        path.write_text(path.read_text(encoding="utf-8").replace(self.old, self.new), encoding="utf-8")
        return path


MUTATIONS = (
    Mutation(
        "a digest is remembered of a file that changed a moment ago",
        "now - (max(modified, changed) if",
        "now - (min(modified, changed) if",
        ("images/test_digest.py",),
    ),
    Mutation(
        "rows of a shard are given to other images than theirs",
        "order = np.argsort(positions)\n",
        "order = np.arange(len(positions))\n",
        ("cache/test_reading.py",),
    ),
    Mutation(
        "a file is renamed before its bytes are on the disk",
        "        if durable:\n            file.flush()\n            os.fsync(file.fileno())\n",
        "        if durable:\n            file.flush()\n",
        ("utils/test_files.py",),
    ),
    Mutation(
        "late in an extraction, features are still committed every two seconds",
        "max(pace.first_seconds, pace.share",
        "min(pace.first_seconds, pace.share",
        ("extraction/test_commits.py",),
    ),
    Mutation(
        "L-BFGS takes its steps in the wrong order",
        "(first[:, None] + np.arange(count)) % count",
        "(first[:, None] - np.arange(count)) % count",
        ("heads/test_lbfgs.py",),
    ),
    Mutation(
        "Holm's method multiplies by one test too few",
        "(len(p_values) - rank) * p_values[place]",
        "(len(p_values) - rank - 1) * p_values[place]",
        ("evaluation/test_stats.py",),
    ),
    Mutation(
        "an engine passes that is wrong on one image",
        "float(cosines.min(initial=1.0))",
        "float(cosines.mean())",
        ("engines/test_parity.py",),
    ),
    Mutation(
        "a tensor of whole numbers is copied into one of floats",
        "value.shape == other.shape and (value.is",
        "value.shape == other.shape or (value.is",
        ("backbones/test_restore.py",),
    ),
    Mutation(
        "a shortcut around the boundary of the frozen part is not noticed",
        "_Replay(network, boundary, fill=math.nan)",
        "_Replay(network, boundary, fill=0.0)",
        ("finetuning/test_boundary.py",),
    ),
    Mutation(
        "one final head replaces another that is as good",
        "elif run.is_final and not chosen.is_final and not _beats(",
        "elif run.is_final and not _beats(",
        ("runs/test_ranking.py",),
    ),
    Mutation(
        "the threshold of near copies is far below the similarity of different images",
        "return centre, centre + deviations *",
        "return centre, deviations *",
        ("evaluation/test_near_duplicates.py",),
    ),
    Mutation(
        "a model that is worse than the best is called better",
        'test["only_a"] > test["only_b"] else "better"',
        'test["only_a"] < test["only_b"] else "better"',
        ("comparison/test_compare.py",),
    ),
)


def survives(mutation: Mutation) -> tuple[bool, str]:
    """Return whether the tests pass in spite of a mutation, and the test that failed or what pytest said last.

    Raises
    ------
    RuntimeError
        If pytest cannot run the tests.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "checkout")
        _copy(copy)
        mutation.apply(copy / "bottleneck")
        tests = [f"tests/{name}" for name in mutation.tests]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
    failed = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    if done.returncode == 1 and failed:
        return False, failed[1]
    if done.returncode == 0:
        return True, done.stdout.strip().splitlines()[-1]
    raise RuntimeError(
        f"expected tests that pass or fail, found that pytest could not run them:\n{done.stdout[-2000:]}"
    )


def _copy(target: Path) -> None:
    for name in _COPIED:
        source = ROOT / name
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, target / name)


def main() -> int:
    """Return 1 if a mutation survives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, metavar="N", help=f"One of 1 to {len(MUTATIONS)}.")
    only = parser.parse_args().only
    survivors = 0
    for number, mutation in enumerate(MUTATIONS, 1):
        if only in (None, number):
            lives, said = survives(mutation)
            survivors += lives
            print(f"{number:2} {'SURVIVED' if lives else 'caught'}: {mutation.mistake} ({said})", flush=True)
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
