"""Known conflicts: packages and settings that make bottleneck fail, slow or less safe, and what to do about each."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bottleneck.diagnostics.diagnosis import NOTE, WRONG, Symptom
from bottleneck.diagnostics.packages import PROJECT, Installed, numbers
from bottleneck.diagnostics.probe import Probe
from bottleneck.engines.hardware import Machine, cores
from bottleneck.utils.memory import shown_size

if TYPE_CHECKING:
    from bottleneck.engines.torch_build import TorchBuild

_SHARED_MEMORY = 10**9  # bytes; NCCL's buffers of a few GPUs
_LIBTIFF = "4.5.1"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PINNING = ("OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
_ISA = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_FALSE = ("", "0", "false", "no", "off")


def _build() -> "TorchBuild":
    from bottleneck.engines.torch_build import torch_build

    return torch_build()


def _codecs() -> dict[str, str | None]:
    """Return the versions of Pillow's codecs; None for one that it was built without."""
    from PIL import features

    names = {"jpg": "libjpeg", "zlib": "zlib", "libtiff": "libtiff", "webp": "webp", "jpg_2000": "openjpeg"}
    found = {shown: _version(features, name) for name, shown in names.items()}
    if features.check("libjpeg_turbo"):
        found["libjpeg-turbo"] = features.version("libjpeg_turbo")
    return found


def _version(features: Any, name: str) -> str | None:
    return (features.version(name) or "of unknown version") if features.check(name) else None


def _runtimes() -> list[str]:
    """Return the kinds of OpenMP libraries that are loaded, such as ``libgomp``."""
    from threadpoolctl import threadpool_info

    return sorted({str(found["prefix"]) for found in threadpool_info() if found["user_api"] == "openmp"})


def _shared_memory() -> int:
    found = os.statvfs("/dev/shm")
    return found.f_blocks * found.f_frsize


@dataclass(frozen=True)
class Conflicts:
    """What may get in the way of bottleneck.

    Parameters
    ----------
    environment : mapping of str to str
        The environment variables before packages are imported, because some packages set theirs.
    installed : Installed
    machine : Machine
    usable : callable
        Returns the number of usable cores.
    build, codecs, runtimes, shared_memory : callable
        Return the build of torch, the versions of Pillow's codecs, the kinds of OpenMP libraries that are loaded, and
        the size of /dev/shm in bytes.
    encoding : callable
        Returns the encoding of file names.
    """

    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    installed: Installed = field(default_factory=Installed)
    machine: Machine = field(default_factory=Machine)
    usable: Callable[[], int] = cores
    build: "Callable[[], TorchBuild]" = _build
    codecs: Callable[[], dict[str, str | None]] = _codecs
    runtimes: Callable[[], list[str]] = _runtimes
    shared_memory: Callable[[], int] = _shared_memory
    encoding: Callable[[], str] = sys.getfilesystemencoding

    def probes(self) -> list[Probe]:
        """Return what looks for each conflict."""
        looks = {
            "packages": self._packages,
            "gpu build": self._gpu_build,
            "threads": self._threads,
            "OpenMP": self._openmp,
            "image codecs": self._codecs,
            "settings": self._settings,
            "/dev/shm": self._shm,
        }
        return [Probe(name, look, "This could not be checked.", NOTE) for name, look in looks.items()]

    def _packages(self) -> Iterator[Symptom]:
        if self.installed.has("Bottleneck"):
            yield Symptom(
                "Bottleneck",
                "PyPI's Bottleneck, another package of the same import name, is installed",
                WRONG,
                f"Run: pip uninstall -y Bottleneck && pip install --force-reinstall --no-deps {PROJECT}",
            )
        if self.installed.has("pillow-simd"):
            yield Symptom(
                "pillow-simd",
                "it replaces files of pillow, and decodes to other pixels",
                WRONG,
                "Run: pip uninstall -y pillow-simd pillow && pip install pillow",
            )

    def _gpu_build(self) -> Iterator[Symptom]:
        build = self.build()
        if build.gpus:
            return
        hidden = self.environment.get("CUDA_VISIBLE_DEVICES")
        if hidden is not None and hidden.strip() in ("", "-1"):
            yield Symptom("CUDA_VISIBLE_DEVICES", "it hides all GPUs", NOTE, "Unset it to use them.")
        elif self.machine.system != "linux":
            return
        elif build.for_gpu and self.machine.gpu_possible():
            text = f"there is a GPU, but torch for {build.platform} cannot use it"
            yield Symptom("gpu build", text, NOTE, "Update the driver, or install a torch for this driver's version.")
        elif build.for_gpu:
            text = f"torch for {build.platform} takes gigabytes on a machine without a GPU"
            yield Symptom("gpu build", text, NOTE, "It works; torch's CPU build is smaller (see pytorch.org).")
        elif self.machine.gpu_possible():
            text = "there is a GPU, but this torch was built for CPUs"
            yield Symptom("gpu build", text, NOTE, "Install torch for CUDA or ROCm (see pytorch.org).")

    def _threads(self) -> Iterator[Symptom]:
        usable = self.usable()
        for name in _THREADS:
            value = self.environment.get(name, "").partition(",")[0].strip()
            if not value.isdecimal() or int(value) == usable:
                continue
            effect = "heads are fitted on fewer cores" if int(value) < usable else "threads slow each other"
            yield Symptom(name, f"{value}, with {usable} usable cores: {effect}", NOTE, f"Unset {name}.")
        for name in _PINNING:
            value = self.environment.get(name, "").strip().lower()
            if value not in (*_FALSE, "none", "disabled"):
                yield Symptom(name, "it pins threads, so that batches may share one core", NOTE, f"Unset {name}.")

    def _openmp(self) -> Iterator[Symptom]:
        kinds = self.runtimes()
        if {"libiomp", "libomp"} <= set(kinds):
            text = "both Intel's and LLVM's OpenMP libraries are loaded, which can crash or hang"
            yield Symptom("OpenMP", text, NOTE, "Install torch and numpy from one source: all by pip, or all by conda.")
        if self.environment.get("KMP_DUPLICATE_LIB_OK", "").lower() not in _FALSE:
            text = "it hides a conflict of OpenMP libraries that can give wrong numbers"
            yield Symptom("KMP_DUPLICATE_LIB_OK", text, NOTE, "Unset it, and reinstall what then fails.")

    def _codecs(self) -> Iterator[Symptom]:
        codecs = self.codecs()
        yield Symptom("image codecs", ", ".join(f"{name} {version}" for name, version in codecs.items() if version))
        for name in ("libjpeg", "zlib"):
            if not codecs.get(name):
                text = f"pillow was built without {name}"
                yield Symptom(name, text, WRONG, "Run: pip install --force-reinstall --no-cache-dir pillow")
        missing = [name for name, version in codecs.items() if not version and name not in ("libjpeg", "zlib")]
        if missing:
            text = f"pillow was built without {', '.join(missing)}: such images fail"
            yield Symptom("image codecs", text, NOTE, "Run: pip install --force-reinstall pillow")
        libtiff = codecs.get("libtiff") or ""
        if numbers(libtiff) and numbers(libtiff) < numbers(_LIBTIFF):
            text = f"{libtiff} is older than {_LIBTIFF}, which fixes crashes on damaged TIFFs"
            yield Symptom("libtiff", text, NOTE, "Run: pip install --upgrade --force-reinstall pillow")

    def _settings(self) -> Iterator[Symptom]:
        for name in _ISA:
            if limit := self.environment.get(name):
                yield Symptom(name, f"{limit}: it limits the CPU's instructions", NOTE, f"Unset {name}.")
        for name in _OFFLINE:
            if self.environment.get(name, "").lower() not in _FALSE:
                yield Symptom(
                    name, "weights of timm are not downloaded", NOTE, f"Unset {name} if that is not intended."
                )
        if (encoding := self.encoding()).lower().replace("-", "") != "utf8":
            text = f"file names are encoded in {encoding}: some names cannot be represented"
            yield Symptom("encoding", text, NOTE, "Set PYTHONUTF8=1.")

    def _shm(self) -> Iterator[Symptom]:
        if not self.machine.system.startswith("linux") or len(self.build().gpus) < 2:
            return  # only several GPUs use it, through NCCL
        if (size := self.shared_memory()) < _SHARED_MEMORY:
            text = f"{shown_size(size)}, too little for fine-tuning on several GPUs"
            yield Symptom("/dev/shm", text, NOTE, "Start the container with --shm-size=4g.")
