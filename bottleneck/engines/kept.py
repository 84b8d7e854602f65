"""What is kept of engines beside the features of a spec: conversions, and how near each came to torch in fp32."""

import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottleneck.files import file_sha256, make_folder, read_json, temporary_beside, write_json

if TYPE_CHECKING:
    import openvino

LEAST_COSINE = 0.999
_MODEL, _HASHES = "model.xml", "hashes.json"


@dataclass(frozen=True)
class Check:
    """How near an engine came to torch in fp32.

    Parameters
    ----------
    engine : str
        Its name, with its version.
    precision : str
    cosine : float or None
        The lowest between the features of an image, of those that all engines are tried on
        (`bottleneck.engines.probe`); None where some were not finite.
    own_cosine : float or None
        The same of images of the user's, of which there were `own_images`.
    own_images : int
    own_digest : str
        Of their pixels.
    """

    engine: str
    precision: str
    cosine: float | None
    own_cosine: float | None = None
    own_images: int = 0
    own_digest: str = ""

    @property
    def passed(self) -> bool:
        """Whether the engine may be used for this spec, whatever the images."""
        return _near(self.cosine)

    @property
    def suits(self) -> bool:
        """Whether the user's images, too, have features as near as that."""
        return not self.own_images or _near(self.own_cosine)

    @property
    def lowest(self) -> float | None:
        """The lower of the cosines; None where some features were not finite."""
        found = (self.cosine, self.own_cosine) if self.own_images else (self.cosine,)
        return None if None in found else min(cosine for cosine in found if cosine is not None)


class Kept:
    """A folder of memos: deleting it costs some seconds at the next start, and the figures of the past.

    Parameters
    ----------
    folder : path
        ``features/<model>-<fingerprint>/engines``; the fingerprint says of which network and precision they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def checks(self) -> list[Check]:
        """Return the checks of all engines that were tried, on any machine."""
        return [check for path in sorted(self._folder.glob("*.json")) if (check := _read(path))]

    def check(self, name: str) -> Check | None:
        """Return the check of the engine kept under `name`, if it was made."""
        return _read(self._folder / f"{name}.json")

    def keep_check(self, name: str, check: Check) -> None:
        """Keep a check, where the folder can be written."""
        with suppress(OSError):
            make_folder(self._folder)
            write_json(self._folder / f"{name}.json", asdict(check))

    def conversion(self, name: str) -> Path | None:
        """Return the file of a conversion, if it is here and has the bytes that were written."""
        folder = self._folder / name
        try:
            hashes = read_json(folder / _HASHES)
            if {path.name: file_sha256(path) for path in _files(folder)} == hashes:
                return folder / _MODEL
        except (OSError, ValueError, TypeError):
            pass
        return None

    def drop_conversion(self, name: str) -> None:
        """Delete a conversion."""
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def drop_conversions(self) -> None:
        """Delete all conversions; the checks stay."""
        for path in self._folder.glob(f"*/{_HASHES}"):
            shutil.rmtree(path.parent, ignore_errors=True)

    def keep_conversion(self, name: str, model: "openvino.Model") -> Path | None:
        """Keep a conversion and return its file; None where the folder cannot be written. A damaged one is replaced."""
        import openvino

        folder = self._folder / name
        fresh = temporary_beside(folder)
        try:
            make_folder(fresh)
            openvino.save_model(model, fresh / _MODEL, compress_to_fp16=False)
            (fresh / _HASHES).write_text(json.dumps({path.name: file_sha256(path) for path in _files(fresh)}))
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
            return folder / _MODEL
        except (OSError, RuntimeError):  # a full or read-only disk; OpenVINO raises RuntimeError
            shutil.rmtree(fresh, ignore_errors=True)
            return None


def _near(cosine: float | None) -> bool:
    return cosine is not None and cosine >= LEAST_COSINE


def _files(folder: Path) -> list[Path]:
    return [folder / _MODEL, (folder / _MODEL).with_suffix(".bin")]


def _read(path: Path) -> Check | None:
    try:
        found: dict[str, Any] = read_json(path)
        check = Check(**found)
        cosines = check.cosine, check.own_cosine
        sound = all(isinstance(cosine, (float, int, type(None))) for cosine in cosines)
        return check if sound and isinstance(check.own_images, int) else None
    except (OSError, ValueError, TypeError):
        return None
