"""All that a report shows, read and computed once."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bottleneck.backbones.spec import Spec
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckError
from bottleneck.heads.head import Head
from bottleneck.images.keys import Digests, DigestSet, as_digests
from bottleneck.images.scan import Progress
from bottleneck.reporting.findings import AuditOfRun, audit_of
from bottleneck.reporting.held_out import HeldOutImage, HeldOutImages, held_out_images
from bottleneck.reporting.located import LocatedImages, locate
from bottleneck.reporting.similar import SimilarTraining, nearest_training
from bottleneck.runs.backbone_request import spec_of
from bottleneck.runs.images import Role
from bottleneck.runs.run import Run, load_run

MISTAKES = 24
UNCERTAIN = 12
UNFAMILIAR = 12


@dataclass(frozen=True, kw_only=True)
class RunEvidence:
    """A run with its images, and what is known of them.

    Parameters
    ----------
    run : Run
    located : LocatedImages
    tested : HeldOutImages
    mistakes, uncertain, unfamiliar : list of HeldOutImage
        Those that are shown: the most confident mistakes, the least certain right predictions, the least familiar.
    similar : dict of str to tuple of SimilarTraining
        By digest, the most similar training images of those.
    similar_remark : str
        A sentence: why there are none, or by which features they are found; empty if by those that the head sees.
    audit : AuditOfRun or None
        None if no audit was wanted.
    """

    run: Run
    located: LocatedImages
    tested: HeldOutImages
    mistakes: list[HeldOutImage]
    uncertain: list[HeldOutImage]
    unfamiliar: list[HeldOutImage]
    similar: dict[str, tuple[SimilarTraining, ...]]
    similar_remark: str
    audit: AuditOfRun | None


def evidence_of(run: Run, *, cache: Path, runs: Path, audit: bool, progress: Progress | None) -> RunEvidence:
    """Read and compute all that a report of a run shows; what is missing is explained by a remark."""
    located = locate(run, cache, runs, progress)
    tested = held_out_images(run, _store(cache, spec_of(run.card)))
    mistakes, uncertain = tested.mistakes()[:MISTAKES], tested.uncertain()[:UNCERTAIN]
    unfamiliar = tested.unfamiliar()[:UNFAMILIAR]
    similar, remark = _similar(run, cache, [*mistakes, *uncertain, *unfamiliar])
    return RunEvidence(
        run=run,
        located=located,
        tested=tested,
        mistakes=mistakes,
        uncertain=uncertain,
        unfamiliar=unfamiliar,
        similar=similar,
        similar_remark=remark,
        audit=audit_of(run, located, cache=cache, runs=runs, progress=progress) if audit else None,
    )


def _store(cache: Path, spec: Spec) -> Store | None:
    """Return the features of a spec; None if there are none."""
    with suppress(BottleneckError, OSError):
        store = FeatureCache(cache).store(spec)
        return store if store.folder.is_dir() else None
    return None


def _similar(
    run: Run, cache: Path, shown: Sequence[HeldOutImage]
) -> tuple[dict[str, tuple[SimilarTraining, ...]], str]:
    """Return the most similar training images of those that are shown, by the features that are in the cache."""
    digests = list(dict.fromkeys(one.digest for one in shown))
    training = _training(run)
    if not digests or not len(training):
        return {}, "" if len(training) else "This run does not record its training images."
    for store, head, remark in _feature_sources(run, cache):
        with suppress(BottleneckError):
            return nearest_training(store, head, digests, training), remark
    return {}, "The features of the training images are not in the cache, so similar ones are not shown."


def _training(run: Run) -> Digests:
    """Return the training images, each once, without those that are held out (as a final head is trained on both)."""
    known = run.images
    if known is None:
        return np.empty((0, 32), np.uint8)
    trained: Digests = known.digests[known.roles == Role.TRAINED]
    held_out = as_digests([bytes.fromhex(row["digest"]) for row in run.predictions])
    kept: Digests = trained[DigestSet(held_out).find(trained) < 0]
    return kept


def _feature_sources(run: Run, cache: Path) -> Iterator[tuple[Store, Head, str]]:
    """Yield the features that are in the cache, with the head whose scaling they need, and a remark.

    The features of a fine-tuned network often are not, but those that its training started from are.
    """
    if own := _store(cache, spec_of(run.card)):
        yield own, run.head, ""
    came_from = run.card.get("from") or {}
    if came_from.get("run"):
        with suppress(BottleneckError, KeyError):
            head = load_run(run.path.parent / came_from["run"]).head
            if before := _store(cache, Spec.from_json(came_from["features"])):
                yield before, head, "Similar images are found by the features before fine-tuning."
