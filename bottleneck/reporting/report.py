"""The report of a run: one HTML file with all that is known about it."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottleneck.errors import RunError
from bottleneck.images.scan import Progress
from bottleneck.prediction.predict import run_for
from bottleneck.reporting.contents import report_contents
from bottleneck.reporting.evidence import evidence_of
from bottleneck.reporting.page import page
from bottleneck.runs.run import Run
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.output_file import check_output, write_output
from bottleneck.utils.paths import expanded
from bottleneck.utils.text import one_line

PICTURES = 400
MOST_PICTURES = 100_000


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report that was written.

    Parameters
    ----------
    path : Path
        The HTML file.
    run : Run
    bytes : int
        Its size.
    pictures : int
        Pictures in it, each counted once.
    missing : int
        Pictures that could not be made, because the files are missing, have changed, or cannot be decoded.
    audited : bool
        Whether it has the findings of an audit.
    seconds : float
    """

    path: Path
    run: Run
    bytes: int
    pictures: int
    missing: int
    audited: bool
    seconds: float

    def __repr__(self) -> str:
        return one_line(self, str(self.path), f"{self.bytes / 1e6:.1f} MB")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            **{name: getattr(self, name) for name in ("bytes", "pictures", "missing", "audited")},
            "report": str(self.path),
            "run": str(self.run.path),
            "seconds": round(self.seconds, 3),
        }


def report(
    run: "str | os.PathLike[str] | Run | None" = None,
    out: str | os.PathLike[str] | None = None,
    *,
    cache: str | os.PathLike[str] = "cache",
    runs: str | os.PathLike[str] = "runs",
    pictures: int = PICTURES,
    audit: bool = True,
    progress: Progress | None = None,
) -> Report:
    """Write a report of a run: one HTML file that loads nothing, with pictures.

    It shows how well the run does and how certain that is, its mistakes, what its probabilities are worth, what may be
    wrong with its images, how it was trained, and how to make it again. Nothing is trained, and no feature is computed:
    what needs features that are no longer in the cache, or images that are no longer there, is left out, and the page
    says so.

    Parameters
    ----------
    run : path or Run, optional
        A run's folder, or its name in `runs`; by default that of `bottleneck.runs.ranking.default_run`.
    out : path, optional
        The HTML file; by default ``report-RUN.html`` in the current folder, because the folder of a run never changes.
    cache, runs : path
        Where features and the run are read from.
    pictures : int
        Pictures in the page, at most; 0 for none. They take about 6 kB each, and at most 8 MB together.
    audit : bool
        Whether the images are audited, without training heads again; see `bottleneck.audit`. Pictures of more than
        5,000 images are not decoded for this, unless the cache remembers their thumbnails.
    progress : callable, optional
        As for `bottleneck.scan`.

    Returns
    -------
    Report

    Raises
    ------
    RunError
        If there is no such run, or it is damaged.
    OutputError
        If the file cannot be written.
    """
    started = time.perf_counter()
    check = Arguments(RunError)
    pictures = check.whole("pictures", pictures, least=0, most=MOST_PICTURES)
    audit = check.flag("audit", audit)
    chosen = run_for(run, runs).run
    place = check_output(default_name(chosen) if out is None else out)
    found = evidence_of(chosen, cache=expanded(cache), runs=expanded(runs), audit=audit, progress=progress)
    contents = report_contents(found, pictures, progress)
    data = page("report.html", styles=("report.css",), **contents).encode()
    write_output(place, lambda file: file.write(data))
    album = contents["album"]
    return Report(
        path=place,
        run=chosen,
        bytes=len(data),
        pictures=len(album.pictures),
        missing=len(album.wanted) - len(album.pictures),
        audited=contents["audit"] is not None,
        seconds=time.perf_counter() - started,
    )


def default_name(run: Run) -> str:
    """Return the name of the report of a run in the current folder."""
    return f"report-{run.path.absolute().name}.html"
