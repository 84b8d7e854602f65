"""A backbone that is on its way: its spec is known before torch is imported, its engine comes with the first pixels."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.backbones.spec_memo import recall, remember_spec
from bottleneck.cache.store import FeatureCache
from bottleneck.engines.choice import NoEngine, choose, precisions
from bottleneck.engines.engine import Engine
from bottleneck.engines.hardware import facts
from bottleneck.engines.wish import Wish

if TYPE_CHECKING:
    from bottleneck.backbones.backbone import Backbone
    from bottleneck.backbones.restore import Restored
    from bottleneck.engines.kept import Check


_SLOW = "fp32: no bfloat16 of its own was found in this device"


class OtherSpec(Exception):
    """The features turned out to be of another spec than was planned."""


class Pending:
    """A backbone that is built, and torch imported, when the first pixels are ready for it, and only if it must be."""

    def __init__(self, request: Request, cache: FeatureCache, wish: Wish) -> None:
        self._request = request
        self._cache = cache
        self._wish = wish
        self._facts = {**facts(), "engine": wish.engine, "device": wish.device}
        self.built = False
        self.restored: Restored | None = None
        self.check: Check | None = None
        self.remarks: tuple[str, ...] = ()
        self._backbone: Backbone | None = None  # from when it was built until an engine has it
        recalled = recall(request, cache.root, self._facts)
        self.spec: Spec = recalled or self._planned()

    def engine(self, sample: NDArray[np.uint8]) -> Engine:
        """Return the engine for the spec, once it has been checked on a sample of the images.

        Raises
        ------
        OtherSpec
            If the network is not of the spec that the memo gave, or none computes it in this precision; `spec` has been
            mended.
        """
        try:
            chosen = choose(self._wish, self.spec, self._built, sample, self._cache.store(self.spec).engines)
        except NoEngine as error:
            later = precisions(self._wish, self._request.precision)
            later = later[later.index(self.spec.precision) + 1 :] if self.spec.precision in later else ()
            if not later:
                raise
            self.remarks = (*self.remarks, *error.remarks)
            self._become(replace(self.spec, precision=later[0]))
            raise OtherSpec from error
        self._backbone = None
        self.check = chosen.check
        slow = (_SLOW,) if self._slow() else ()
        self.remarks = tuple(dict.fromkeys((*self.remarks, *chosen.remarks, *slow)))
        return chosen.engine

    def _slow(self) -> bool:
        """Whether fp32 is all that ``auto`` can choose from."""
        return self._request.precision == "auto" and precisions(self._wish, "auto") == ("fp32",)

    def _planned(self) -> Spec:
        """Return the spec in the fastest precision, of a network that is built for it."""
        first = precisions(self._wish, self._request.precision)[0]
        self._backbone = self._load()
        self._become(replace(self._backbone.spec, precision=first))
        return self.spec

    def _built(self) -> "Backbone":
        self._backbone = self._backbone or self._load()
        found = replace(self._backbone.spec, precision=self.spec.precision)
        if found != self.spec:
            self._become(found)
            raise OtherSpec
        return self._backbone

    def _load(self) -> "Backbone":
        from bottleneck.backbones.registry import load

        backbone = load(self._request)
        self.built, self.restored = True, backbone.restored
        return backbone

    def _become(self, spec: Spec) -> None:
        self.spec = spec
        remember_spec(self._request, spec, self._cache.root, self._facts)
