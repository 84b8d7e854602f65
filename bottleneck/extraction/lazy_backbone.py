"""A backbone that is on its way: its spec is known before torch is imported, its engine comes with the first pixels."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from bottleneck.backbones.first_use import check_first_use
from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.backbones.spec_memo import recall, remember_spec
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.store import Store
from bottleneck.engines.choice import EngineChoice, NoEngine, choose, precisions
from bottleneck.engines.engine import Engine
from bottleneck.engines.options import EngineOptions
from bottleneck.engines.parity import Sample, told
from bottleneck.engines.records import EngineRecords
from bottleneck.extraction.sample import some_digests
from bottleneck.images.decode import DECODER_VERSION
from bottleneck.images.file_index import FileIndex
from bottleneck.images.keys import as_digests
from bottleneck.utils.gc_paused import no_collection
from bottleneck.utils.text import counted

if TYPE_CHECKING:
    from bottleneck.backbones.backbone import Backbone
    from bottleneck.backbones.restore import Restored
    from bottleneck.engines.records import Check


_SLOW = "fp32: no bfloat16 of its own was found in this device"
_SLOW_FP16 = "fp16 is slow on a CPU; fp32 and bf16 are faster"
_FASTEST_FIRST = ("bf16", "fp16", "fp32")


class OtherSpec(Exception):
    """The features turned out to be of another spec than was planned."""


class LazyBackbone:
    """A backbone that is built, and torch imported, when the first pixels are ready for it, and only if it must be.

    Parameters
    ----------
    request : Request
    cache : FeatureCache
    wish : EngineOptions
    images : FileIndex, optional
        Those whose features ``auto`` goes on with, where they have any.
    known : Spec, optional
        That the request led to when the features were computed that are wanted again. The network is then built only
        for images that have none.
    """

    def __init__(
        self,
        request: Request,
        cache: FeatureCache,
        wish: EngineOptions,
        images: FileIndex | None = None,
        known: Spec | None = None,
    ) -> None:
        self._request = request
        self._cache = cache
        self._wish = wish
        self.built = False
        self.restored: Restored | None = None
        self.check: Check | None = None
        self.remarks: tuple[str, ...] = ()
        self._backbone: Backbone | None = None  # from when it was built until an engine has it
        self._goes_on = False  # whether images have features in the precision of the spec
        self.spec: Spec = self._usable(known, images) or recall(request, cache.root) or self._planned()
        self.spec = replace(self.spec, precision=self._precision(images))

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
            self._give_up(*error.remarks, later=later)
        if not chosen.check.suits:
            self._reconsider(chosen)
        self._backbone = None
        self.check = chosen.check
        self.remarks = tuple(dict.fromkeys((*self.remarks, *chosen.remarks, *self._slower(chosen.engine))))
        return chosen.engine

    def _precision(self, images: FileIndex | None) -> str:
        """Return the precision to begin with.

        ``auto`` goes on with what it has begun, as an image passes the network once: it is the precision in which most
        of the images have features. Where none has, it is the fastest.
        """
        if self._request.precision != "auto":
            return self._request.precision
        stores = {each: self._cache.store(replace(self.spec, precision=each)) for each in _FASTEST_FIRST}
        begun = {each: store for each, store in stores.items() if store.shards()}
        some = as_digests(some_digests(images.paths, images.digests) if images and begun else [])
        votes = {each: int(store.has(some).sum()) for each, store in begun.items()}
        complete = [each for each, count in votes.items() if count == len(some) > 0]
        if complete and images and not images.unknown():
            return complete[0]  # nothing is to be computed, by whatever machine
        tried = precisions(self._wish, "auto")
        chosen = max(tried, key=lambda each: votes.get(each, 0))  # the first of equals
        self._goes_on = bool(votes.get(chosen))
        return chosen

    def _usable(self, known: Spec | None, images: FileIndex | None) -> Spec | None:
        """Return a spec whose features can be had: they are all cached, or this decoder makes the same pixels."""
        if known is None or known.decoder == DECODER_VERSION:
            return known
        if images is None or images.unknown():
            return None
        digests = as_digests([digest for digest in images.digests if digest is not None])
        return known if self._cache.store(known).has(digests).all() else None

    def _slower(self, engine: Engine) -> tuple[str, ...]:
        """Say why it is not faster."""
        if self._request.precision != "auto":
            slow = self._request.precision == "fp16" and engine.name.split(", ")[1:2] == ["cpu"]
            return (_SLOW_FP16,) if slow else ()
        fastest = precisions(self._wish, "auto")[0]
        if fastest == "fp32":
            return (_SLOW,)
        if self._goes_on and self.spec.precision != fastest:
            return (f"{self.spec.precision}, as images here have features in it; --precision {fastest} may be faster",)
        return ()

    def _later(self) -> str | None:
        """Return the precision that ``auto`` tries after that of the spec."""
        tried = precisions(self._wish, self._request.precision)
        later = tried[tried.index(self.spec.precision) + 1 :] if self.spec.precision in tried else ()
        return later[0] if later else None

    def _reconsider(self, chosen: EngineChoice) -> None:
        """Take the next precision, for images whose features this one changes too much; or only say so.

        So it is where this precision was asked for, and where there are features in it, on which others build.

        Raises
        ------
        OtherSpec
            If there is a next.
        """
        check = chosen.check
        which = f"{check.engine} in {check.precision}"
        found = f"{told(check.own_cosine)} on {counted(check.own_images, 'image')}"
        if self.store.shards() or not (later := self._later()):
            self.remarks = (*self.remarks, f"{which}: {found}; features in fp32 have no such error")
            return
        chosen.engine.close()
        EngineRecords(self.store.engines).drop_conversions()
        self._give_up(f"{which} is not used: {found}", later=later)

    def _give_up(self, *remarks: str, later: str) -> NoReturn:
        self.remarks = (*self.remarks, *remarks)
        self.spec = replace(self.spec, precision=later)
        raise OtherSpec

    def _planned(self) -> Spec:
        """Return the spec of a network that is built for it."""
        self._backbone = self._load()
        return self._backbone.spec

    def _built(self) -> "Backbone":
        self._backbone = self._backbone or self._load()
        found = replace(self._backbone.spec, precision=self.spec.precision)
        if found != self.spec:
            self.spec = found
            raise OtherSpec
        return self._backbone

    def _load(self) -> "Backbone":
        with no_collection():
            from bottleneck.backbones.registry import load

            backbone = load(self._request)
        whole = getattr(backbone, "whole", None)  # of a stand-in there is none
        check_first_use(whole.published if whole else None, self._cache.root)
        self.built, self.restored = True, backbone.restored
        remember_spec(self._request, backbone.spec, self._cache.root)
        return backbone


def until_settled(pending: LazyBackbone, work: Callable[[Store], None]) -> None:
    """Do work for the features of a spec, and again where the spec turned out to be another than was planned.

    Parameters
    ----------
    pending : LazyBackbone
    work : callable
        Takes the store of the spec as it is then; where it needs an engine it asks `LazyBackbone.engine`.
    """
    for last in (False, False, True):  # the memo of the spec was wrong, and then the precision is not good enough
        try:
            return work(pending.store)
        except OtherSpec:
            if last:
                raise
