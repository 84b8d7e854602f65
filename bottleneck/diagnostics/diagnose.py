"""Find out what this installation and machine can do, and what is in the way."""

import os
import time
from collections.abc import Callable, Iterable, Mapping

from bottleneck.diagnostics.conflicts import Conflicts
from bottleneck.diagnostics.diagnosis import Diagnosis, Hide, Symptom, SymptomGroup
from bottleneck.diagnostics.engines import Engines
from bottleneck.diagnostics.machine import Devices
from bottleneck.diagnostics.packages import Installed
from bottleneck.diagnostics.places import Places
from bottleneck.diagnostics.privacy import Person, Privacy
from bottleneck.diagnostics.probe import Probe
from bottleneck.diagnostics.stores import Stored
from bottleneck.utils.process_settings import ignored_warnings

Progress = Callable[[SymptomGroup], object]
Probes = Mapping[str, Iterable[Probe]]


def diagnose(
    *,
    cache: str | os.PathLike[str] = "cache",
    runs: str | os.PathLike[str] = "runs",
    speed: bool = True,
    paths: bool = False,
    progress: Progress | None = None,
    probes: Probes | None = None,
) -> Diagnosis:
    """Look at versions, devices, engines, the cache and runs, writable folders and known conflicts.

    Nothing is written, nothing is downloaded, and no checksum is verified. Each probe is isolated: a package that
    cannot be imported is a line of the diagnosis. It takes a few seconds, most of them to import torch.

    Parameters
    ----------
    cache, runs : path
        Folders of the feature cache and of the runs.
    speed : bool
        Whether to measure each engine on a small seeded network of 0.32 GFLOP per image, for half a second.
    paths : bool
        Whether to show paths, and the names of the user and the machine. By default the diagnosis can be published.
    progress : callable, optional
        Called with each section as soon as it is complete.
    probes : mapping of str to iterable of Probe, optional
        What to look at, by the title of its section; by default everything.

    Returns
    -------
    Diagnosis
        Its ``str`` is Markdown for a bug report, and ``works`` is whether nothing must be fixed.

    Examples
    --------
    >>> found = diagnose(probes={"Nothing": []})
    >>> found.works
    True
    """
    start = time.perf_counter()
    cache, runs = os.fspath(cache), os.fspath(runs)
    hide = Hide() if paths else Privacy(Person.here(cache, runs))
    groups = []
    for title, wanted in (all_probes(cache, runs, speed, paths) if probes is None else probes).items():
        groups.append(group := _group(title, wanted).hidden(hide))
        if progress:
            progress(group)
    return Diagnosis(tuple(groups), time.perf_counter() - start)


def all_probes(cache: str, runs: str, speed: bool, paths: bool) -> dict[str, list[Probe]]:
    """Return all probes by the title of their section, in the order in which they are shown.

    Parameters
    ----------
    cache, runs : str
    speed, paths : bool
        As those of `diagnose`.
    """
    installed = Installed()
    engines = Engines(has_openvino=installed.has("openvino")).probes() if speed else []
    found = {
        "Versions": installed.probes(),
        "Imports": installed.imports(),
        "Devices": Devices().probes(),
        "Engines": engines,
        "Cache and runs": Stored(cache, runs).probes(),
        "Writable folders": Places(cache, runs, paths).probes(),
        "Known conflicts": Conflicts(installed=installed).probes(),
    }
    return {title: probes for title, probes in found.items() if probes}


def _group(title: str, probes: Iterable[Probe]) -> SymptomGroup:
    with ignored_warnings():  # of packages that are imported; what matters is a symptom
        found = tuple(symptom for probe in probes for symptom in probe.symptoms())
    return SymptomGroup(title, found or (Symptom(title.lower(), "no problem found"),))
