"""Feed mutated files to the product's own readers: ``python -m tests.fuzz [KIND ...]``, see ``--help``."""

import argparse
import json
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

from tests.fuzz.kinds import KINDS, class_of, target_of
from tests.fuzz.layout import Share
from tests.fuzz.supervisor import Report, fuzz
from tests.fuzz.target import Case


def main() -> int:
    """Return 1 if anything was found."""
    options = _options()
    if options.worker:
        from tests.fuzz.worker import work

        folder = Path(options.worker[1])
        work(Share(**json.loads(options.worker[0])), folder / "files", folder / "state")
        return 0
    if options.replay:
        return _replay(options.replay)
    reports = []
    for kind in options.kinds or KINDS:
        cases = options.cases or class_of(kind).cases
        report = fuzz(kind, cases, seed=options.seed, first=options.first, workers=options.workers)
        print(report, flush=True)
        _keep(report, options.keep)
        reports.append(report)
    if options.json:
        options.json.write_text(json.dumps([report.to_json() for report in reports], indent=1) + "\n")
    return int(any(report.findings for report in reports))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--cases", type=int, help="of each kind (100,000 images, 20,000 of the others)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other cases")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="folder for what was found")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--replay", type=Path, help="a file of that folder, which is read once more, in this process")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"expected kinds of {', '.join(KINDS)}, got {', '.join(sorted(unknown))}")
    return options


def _keep(report: Report, folder: Path) -> None:
    """Write down the files with which something was found, each with how it was made and what is wrong."""
    if not report.findings:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        target = target_of(report.kind, Path(name))
        for number, found in report.findings:
            case = target.case(number, report.seed)
            path = folder / f"{report.kind}-{report.seed}-{number}"
            path.write_bytes(case.data)
            told = {"kind": report.kind, "seed": case.seed, "how": case.how, **vars(found)}
            path.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n")
            print(f"  {found.what}: {path} ({case.seed}: {', '.join(case.how)})")
            print("    " + found.detail.strip().replace("\n", "\n    "), flush=True)


def _replay(path: Path) -> int:
    """Read a file once more, and show all that comes of it."""
    warnings.simplefilter("ignore")
    told = json.loads(path.with_suffix(".json").read_text())
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        target = target_of(told["kind"], Path(name))
        assert target.seeds
        try:
            print(target.read(Case(told["seed"], path.with_suffix("").read_bytes(), tuple(told["how"]))))
        except Exception:
            traceback.print_exc()
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
