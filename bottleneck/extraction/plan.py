"""Decide the spec of an extraction before torch is imported, and start its engine.

The first plan is based on memos, so that features can be looked up without building a network. The engine is started
when the first pixels are ready. Only then can the plan turn out to be wrong: the network differs from the one in the
memo, or the precision that ``--precision auto`` chose changes the features of these images too much. In that case
`start_engine` returns the next plan instead of an engine, and the pass is run again with that plan.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bottleneck.backbones.first_use import check_first_use
from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.backbones.spec_memo import recall, remember_spec
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.store import Store
from bottleneck.engines.choice import EngineChoice, NoEngine, choose, precisions
from bottleneck.engines.engine import Engine
from bottleneck.engines.options import EngineOptions
from bottleneck.engines.parity import Sample, shortfall
from bottleneck.engines.records import Check, EngineRecords
from bottleneck.extraction.sample import some_digests
from bottleneck.images.decode import DECODER_VERSION
from bottleneck.images.file_index import FileIndex
from bottleneck.images.keys import as_digests
from bottleneck.utils.gc_paused import no_collection
from bottleneck.utils.text import counted

if TYPE_CHECKING:
    from bottleneck.backbones.backbone import Backbone
    from bottleneck.backbones.restore import Restored

_SLOW = "fp32: this device has no native bfloat16"
_SLOW_FP16 = "fp16 is slow on a CPU; fp32 and bf16 are faster"
_FASTEST_FIRST = ("bf16", "fp16", "fp32")


def _load(request: Request) -> "Backbone":
    with no_collection():
        from bottleneck.backbones.registry import load

        return load(request)


@dataclass(frozen=True)
class Builders:
    """What builds networks and engines.

    Parameters
    ----------
    load : callable
        `bottleneck.backbones.registry.load`, or one in its place.
    choose, precisions : callable
        Those of `bottleneck.engines.choice`, or others in their place.
    """

    load: Callable[[Request], "Backbone"] = _load
    choose: Callable[..., EngineChoice] = choose
    precisions: Callable[[EngineOptions, str], tuple[str, ...]] = precisions


@dataclass(frozen=True)
class Plan:
    """A backbone, the spec of its features, and the facts known about its engine.

    Parameters
    ----------
    request : Request
    options : EngineOptions
        Only with the device of this process.
    cache : FeatureCache
    spec : Spec
    continues : bool
        Whether some of the images already have features in its precision.
    backbone : Backbone or None
        The network, after it is built and until an engine runs it.
    built : bool
        Whether the network was built.
    restored : Restored or None
        How the tensors of a weights file were restored.
    check : Check or None
        How close the features of the engine are to those of torch in fp32.
    engine : str or None
        The engine's name, once one has started.
    remarks : tuple of str
        Messages for the user about the choice.
    builders : Builders
    """

    request: Request
    options: EngineOptions
    cache: FeatureCache
    spec: Spec
    continues: bool = False
    backbone: "Backbone | None" = None
    built: bool = False
    restored: "Restored | None" = None
    check: Check | None = None
    engine: str | None = None
    remarks: tuple[str, ...] = ()
    builders: Builders = field(default_factory=Builders)

    @property
    def store(self) -> Store:
        """The store of the spec."""
        return self.cache.store(self.spec)

    def in_precision(self, precision: str, *remarks: str) -> "Plan":
        """Return the plan with another precision, and more remarks."""
        return replace(self.noting(*remarks), spec=replace(self.spec, precision=precision))

    def noting(self, *remarks: str) -> "Plan":
        """Return the plan with more remarks, each once."""
        return replace(self, remarks=tuple(dict.fromkeys((*self.remarks, *remarks))))


@dataclass(frozen=True)
class EngineStart:
    """The outcome of starting an engine.

    Parameters
    ----------
    engine : Engine or None
        None if the plan was wrong: `plan` is then the next one to try.
    plan : Plan or None
        None if there was no plan, because the caller passed an engine.
    """

    engine: Engine | None
    plan: Plan | None = None


StartEngine = Callable[[Plan, Sample], EngineStart]


class _OtherNetwork(Exception):
    """The network that was built differs from the one in the memo."""


def plan_features(
    request: Request,
    options: EngineOptions,
    cache: FeatureCache,
    images: FileIndex,
    spec: Spec | None = None,
    builders: Builders | None = None,
) -> Plan:
    """Return the first plan; the network is built only if its spec is unknown.

    Parameters
    ----------
    request : Request
    options : EngineOptions
    cache : FeatureCache
    images : FileIndex
        With the precision ``auto``, features are computed in the precision in which most of these images have features.
    spec : Spec, optional
        The spec of the request, if the caller knows it.
    builders : Builders, optional

    Raises
    ------
    ModelError
        If the network must be built but cannot be.
    """
    builders = builders or Builders()
    known = _usable(spec, cache, images) or recall(request, cache.root)
    if known:
        plan = Plan(request, options, cache, known, builders=builders)
    else:
        backbone = _built(request, cache, builders)
        plan = _with_network(Plan(request, options, cache, backbone.spec, builders=builders), backbone)
    precision, continues = _first_precision(plan, images)
    return replace(plan.in_precision(precision), continues=continues)


def start_engine(plan: Plan, sample: Sample) -> EngineStart:
    """Compare the engine of a plan with torch in fp32 and start it, or return the next plan.

    For the first images of a spec, their features are compared too: if the low precision that ``auto`` chose changes
    them too much, the next precision is tried. Once a spec has features, its precision is kept, because others may rely
    on them.

    Parameters
    ----------
    plan : Plan
    sample : callable
        Returns some of the images, ``uint8 (n, h, w, 3)``.

    Raises
    ------
    NoEngine
        If no engine computes the network in the requested precision.
    ModelError
        If a requested engine cannot run, or there is not enough memory.
    """

    def build() -> "Backbone":
        nonlocal plan
        backbone = plan.backbone or _built(plan.request, plan.cache, plan.builders)
        found = replace(backbone.spec, precision=plan.spec.precision)
        fits, plan = found == plan.spec, replace(_with_network(plan, backbone), spec=found)
        if not fits:
            raise _OtherNetwork
        return backbone

    store = plan.store
    first = plan.spec.precision != "fp32" and not store.shards()
    try:
        choice = plan.builders.choose(plan.options, plan.spec, build, store.engines, sample if first else None)
    except _OtherNetwork:
        return EngineStart(None, plan)
    except NoEngine as error:
        if not (following := _following_precision(plan)):
            raise
        return EngineStart(None, plan.in_precision(following, *error.remarks))
    if not choice.check.suits:
        return _with_distant_features(plan, choice)
    return _started(plan, choice)


def _with_distant_features(plan: Plan, choice: EngineChoice) -> EngineStart:
    """Try the next precision, as this one changes features of these images too much; if there is none, add a remark."""
    check = choice.check
    which = f"{check.engine} in {check.precision}"
    found = f"{shortfall(check.own_cosine)} on {counted(check.own_images, 'image')}"
    following = None if plan.store.shards() else _following_precision(plan)
    if following is None:
        return _started(plan.noting(f"{which}: {found}; features in fp32 have no such error"), choice)
    choice.engine.close()
    EngineRecords(plan.store.engines).drop_conversions()
    return EngineStart(None, plan.in_precision(following, f"{which} is not used: {found}"))


def _started(plan: Plan, choice: EngineChoice) -> EngineStart:
    plan = plan.noting(*choice.remarks, *_why_not_faster(plan, choice.engine))
    return EngineStart(choice.engine, replace(plan, backbone=None, check=choice.check, engine=choice.engine.name))


def _usable(spec: Spec | None, cache: FeatureCache, images: FileIndex) -> Spec | None:
    """Return the caller's spec if this decoder yields the same pixels, or all features are cached; otherwise None."""
    if spec is None or spec.decoder == DECODER_VERSION:
        return spec
    if images.unknown():
        return None
    digests = as_digests([digest for digest in images.digests if digest is not None])
    return spec if cache.store(spec).has(digests).all() else None


def _first_precision(plan: Plan, images: FileIndex) -> tuple[str, bool]:
    """Return the first precision to try, and whether some of the images have features in it.

    With ``auto`` it is the precision in which most of the images have features, or the fastest one if none has
    features.
    """
    if plan.request.precision != "auto":
        return plan.request.precision, False
    stores = {each: plan.in_precision(each).store for each in _FASTEST_FIRST}
    begun = {each: store for each, store in stores.items() if store.shards()}
    some = as_digests(some_digests(images.paths, images.digests) if begun else [])
    counts = {each: int(store.has(some).sum()) for each, store in begun.items()}
    complete = [each for each, count in counts.items() if count == len(some) > 0]
    if complete and not images.unknown():
        return complete[0], False  # nothing has to be computed, so the speed of this machine does not matter
    tried = plan.builders.precisions(plan.options, "auto")
    chosen = max(tried, key=lambda each: counts.get(each, 0))  # the first one in case of ties
    return chosen, bool(counts.get(chosen))


def _following_precision(plan: Plan) -> str | None:
    """Return the precision that ``auto`` tries after that of the plan."""
    tried = plan.builders.precisions(plan.options, plan.request.precision)
    following = tried[tried.index(plan.spec.precision) + 1 :] if plan.spec.precision in tried else ()
    return following[0] if following else None


def _why_not_faster(plan: Plan, engine: Engine) -> tuple[str, ...]:
    """Return a remark if another precision would be faster."""
    if plan.request.precision != "auto":
        slow = plan.request.precision == "fp16" and engine.name.split(", ")[1:2] == ["cpu"]
        return (_SLOW_FP16,) if slow else ()
    fastest = plan.builders.precisions(plan.options, "auto")[0]
    if fastest == "fp32":
        return (_SLOW,)
    if plan.continues and plan.spec.precision != fastest:
        return (
            f"{plan.spec.precision}, because images already have features in it; --precision {fastest} may be faster",
        )
    return ()


def _with_network(plan: Plan, backbone: "Backbone") -> Plan:
    return replace(plan, backbone=backbone, built=True, restored=backbone.restored)


def _built(request: Request, cache: FeatureCache, builders: Builders) -> "Backbone":
    """Build the network, and record its spec in the memo."""
    backbone = builders.load(request)
    pretrained = getattr(backbone, "pretrained", None)  # a test double has none
    check_first_use(pretrained.published if pretrained else None, cache.root)
    remember_spec(request, backbone.spec, cache.root)
    return backbone
