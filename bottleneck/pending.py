"""A backbone that is on its way: its spec is known before torch is imported, its engine comes with the first pixels."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.backbones.spec_memo import recall, remember_spec
from bottleneck.cache.store import FeatureCache, Store
from bottleneck.engines.choice import Chosen, NoEngine, choose, precisions
from bottleneck.engines.engine import Engine
from bottleneck.engines.gate import Sample, told
from bottleneck.engines.hardware import facts
from bottleneck.engines.kept import Kept
from bottleneck.engines.wish import Wish
from bottleneck.garbage import no_collection

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
        self._began = False  # whether `auto` goes on in the precision that has features
        if request.precision == "auto":
            self._go_on()

    @property
    def store(self) -> Store:
        """Where the features of the spec, as it is now, belong."""
        return self._cache.store(self.spec)

    def engine(self, sample: Sample) -> Engine:
        """Return the engine for the spec, once it has been checked.

        The first features of a spec decide, too: where those of a sample of the images are too far from fp32 in the
        precision that ``auto`` began with, it goes on with the next. Afterwards a spec has features that others build
        on, and stays.

        Parameters
        ----------
        sample : callable
            Gives some of the images, ``uint8 (n, h, w, 3)``.

        Raises
        ------
        OtherSpec
            If the network is not of the spec that the memo gave, or the precision is not good enough; `spec` has been
            mended.
        NoEngine
            If no engine computes it in the precision asked for.
        ModelError
            If an engine that was asked for by name cannot be had, or there is no memory for it.
        """
        store = self.store
        first = self.spec.precision != "fp32" and not store.shards()
        try:
            chosen = choose(self._wish, self.spec, self._built, store.engines, sample if first else None)
        except NoEngine as error:
            if not (later := self._later()):
                raise
            self.remarks = (*self.remarks, *error.remarks)
            self._become(replace(self.spec, precision=later))
            raise OtherSpec from error
        if not chosen.check.suits and not store.shards():  # another process may have begun meanwhile
            self._reconsider(chosen)
        self._backbone = None
        self.check = chosen.check
        self.remarks = tuple(dict.fromkeys((*self.remarks, *chosen.remarks, *self._slower())))
        return chosen.engine

    def _go_on(self) -> None:
        """Take the precision that has features already, that of the memo first: an image passes the network once."""
        if not self.store.shards():
            others = (replace(self.spec, precision=each) for each in precisions(self._wish, "auto"))
            self.spec = next((spec for spec in others if self._cache.store(spec).shards()), self.spec)
        self._began = bool(self.store.shards())

    def _slower(self) -> tuple[str, ...]:
        """Say why `auto` is not faster."""
        if self._request.precision != "auto":
            return ()
        fastest = precisions(self._wish, "auto")[0]
        if fastest == "fp32":
            return (_SLOW,)
        if self._began and self.spec.precision != fastest:
            return (f"{self.spec.precision}, in which the cache has features; --precision {fastest} may be faster",)
        return ()

    def _later(self) -> str | None:
        """Return the precision that ``auto`` tries after that of the spec."""
        tried = precisions(self._wish, self._request.precision)
        later = tried[tried.index(self.spec.precision) + 1 :] if self.spec.precision in tried else ()
        return later[0] if later else None

    def _reconsider(self, chosen: Chosen) -> None:
        """Take the next precision, for images whose features this one changes too much; or say so, if it was asked for.

        Raises
        ------
        OtherSpec
            If there is a next.
        """
        check = chosen.check
        which, found = f"{check.engine} in {check.precision}", f"{told(check.own_cosine)} on {check.own_images} images"
        if not (later := self._later()):
            self.remarks = (*self.remarks, f"{which}: {found}; features in fp32 have no such error")
            return
        chosen.engine.close()
        Kept(self.store.engines).drop_conversions()
        self.remarks = (*self.remarks, f"{which} is not used: {found}")
        self._become(replace(self.spec, precision=later))
        raise OtherSpec

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
        with no_collection():
            from bottleneck.backbones.registry import load

            backbone = load(self._request)
        self.built, self.restored = True, backbone.restored
        return backbone

    def _become(self, spec: Spec) -> None:
        self.spec = spec
        remember_spec(self._request, spec, self._cache.root, self._facts)


def until_settled(pending: Pending, work: Callable[[Store], None]) -> None:
    """Do work for the features of a spec, and again where the spec turned out to be another than was planned.

    Parameters
    ----------
    pending : Pending
    work : callable
        Takes the store of the spec as it is then; where it needs an engine it asks `Pending.engine`.
    """
    for last in (False, False, True):  # the memo of the spec was wrong, and then the precision is not good enough
        try:
            return work(pending.store)
        except OtherSpec:
            if last:
                raise
