"""Records of engines, stored with the features of a spec: conversions and parity checks."""

import errno
import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bottleneck.utils.files import file_sha256, temporary_path
from bottleneck.utils.folder import Folder
from bottleneck.utils.owned import Layout, any_content, delete, json_with
from bottleneck.utils.schema import Finite, Whole, checked
from bottleneck.utils.tree import Tree, memo

if TYPE_CHECKING:
    import openvino

LEAST_COSINE = 0.999
_MODEL, _WEIGHTS, _HASHES = "model.xml", "model.bin", "hashes.json"
_PLACE = re.compile(rb'offset="(\d+)"[^>]* size="(\d+)"')  # of a constant among the weights


_are_hashes = json_with(_MODEL, _WEIGHTS)


def _is_hashed(folder: Folder, name: str) -> bool:
    """Return whether the folder has valid hashes, which are written last and show that a file is of a conversion."""
    with suppress(OSError):
        return _are_hashes(folder, _HASHES)
    return False


CONVERSION: Layout = {r"model\.(xml|bin)": _is_hashed, r"hashes\.json": _are_hashes}
UNFINISHED_CONVERSION: Layout = {r"model\.(xml|bin)": any_content, r"hashes\.json": any_content}
ENGINES: Layout = {  # the content of the folder
    r".+\.json": json_with("engine", "precision", "cosine"),
    r"\.tmp-\d+-[0-9a-f]{8}": UNFINISHED_CONVERSION,
    r"[^.].*": CONVERSION,
}


@dataclass(frozen=True)
class Check:
    """The parity check of an engine against torch in fp32.

    Parameters
    ----------
    engine : str
        Name of the engine with its version.
    precision : str
    cosine : float or None
        Lowest cosine between the features of an image from both engines, over the synthetic images
        (`bottleneck.engines.probe`); None if some features were not finite.
    own_cosine : float or None
        The same, over images of the user.
    own_images : int
        Number of images of the user.
    own_digest : str
        Digest of their pixels.
    """

    engine: str
    precision: str
    cosine: Finite | None
    own_cosine: Finite | None = None
    own_images: Whole = 0
    own_digest: str = ""

    @property
    def passed(self) -> bool:
        """Whether the engine may be used for this spec."""
        return _near(self.cosine)

    @property
    def suits(self) -> bool:
        """Whether it also passes on the user's images, if there were any."""
        return not self.own_images or _near(self.own_cosine)

    @property
    def lowest(self) -> float | None:
        """The lower of the two cosines; None if some features were not finite."""
        found = (self.cosine, self.own_cosine) if self.own_images else (self.cosine,)
        return None if None in found else min(cosine for cosine in found if cosine is not None)


class EngineRecords:
    """A folder of memos; if it is deleted, the next start takes a few seconds longer.

    Parameters
    ----------
    folder : path
        ``features/<model>-<fingerprint>/engines``; the fingerprint identifies network and precision.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tree = Tree.above(folder, 3)

    def checks(self) -> list[Check]:
        """Return the checks of all engines, from any machine."""
        names: list[str] = []
        with memo():
            names = [name for name in self._tree.names(self._folder) if name.endswith(".json")]
        return [check for name in names if (check := self.check(name.removesuffix(".json")))]

    def check(self, name: str) -> Check | None:
        """Return the check recorded under `name`, if any."""
        with memo(ValueError):
            return checked(self._tree.read_json(self._folder / f"{name}.json"), Check, closed=True)
        return None

    def keep_check(self, name: str, check: Check) -> None:
        """Record a check, if the folder is writable."""
        with memo():
            self._tree.write_json(self._folder / f"{name}.json", asdict(check))

    def conversion(self, name: str) -> Path | None:
        """Return the file of a conversion, if it exists and matches its hash."""
        folder = self._folder / name
        with memo(ValueError, TypeError):
            if self._hashes(folder) == self._tree.read_json(folder / _HASHES):
                return folder / _MODEL
        return None

    def drop_conversion(self, name: str) -> None:
        """Delete a conversion."""
        with suppress(OSError):
            delete(self._tree, self._folder / name, CONVERSION)

    def drop_conversions(self) -> None:
        """Delete all conversions; the checks stay."""
        with memo():
            for name in self._tree.folders(self._folder):
                self.drop_conversion(name)

    def keep_conversion(self, name: str, model: "openvino.Model") -> Path | None:
        """Store a conversion and return its file; None if the folder is not writable. A damaged one is replaced."""
        import openvino

        folder = self._folder / name
        fresh = temporary_path(folder)
        try:
            with self._tree.at(fresh, make=True) as made:
                openvino.save_model(model, made.for_others / _MODEL, compress_to_fp16=False)
                if not is_complete(self._tree.read(fresh / _MODEL), self._tree.status(fresh / _WEIGHTS).st_size):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # not reported by OpenVINO 2025
                made.write(_HASHES, json.dumps(self._hashes(fresh)).encode(), durable=False)
            delete(self._tree, folder, UNFINISHED_CONVERSION)
            self._tree.rename(fresh, folder)
            return folder / _MODEL
        except (OSError, RuntimeError):  # a full or read-only disk, for which OpenVINO raises RuntimeError
            with memo():
                delete(self._tree, fresh, UNFINISHED_CONVERSION)
            return None

    def _hashes(self, folder: Path) -> dict[str, str]:
        return {name: file_sha256(folder / name, self._tree.open) for name in (_MODEL, _WEIGHTS)}


def is_complete(model: bytes, weights: int) -> bool:
    """Return whether a conversion has its end and all of its weights.

    Parameters
    ----------
    model : bytes
        Content of ``model.xml``.
    weights : int
        Size of ``model.bin``, in bytes.
    """
    ends = (int(offset) + int(size) for offset, size in _PLACE.findall(model))
    return model.rstrip().endswith(b"</net>") and weights >= max(ends, default=0)


def _near(cosine: float | None) -> bool:
    return cosine is not None and cosine >= LEAST_COSINE
