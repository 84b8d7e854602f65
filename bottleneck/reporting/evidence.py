"""All that a report shows, read and computed once."""

from collections.abc import Sequence
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
        Why there are none, or of which features they are; empty if they are of those that the head sees.
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
    """Read and compute all that a report of a run shows; what cannot be had is explained by a remark."""
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
    own, before = _store(cache, spec_of(run.card)), _before_tuning(run, cache)
    for source in ((own, run.head, ""), (*before, "by the features before fine-tuning") if before else None):
        if source is None or source[0] is None:
            continue
        with suppress(BottleneckError):
            return nearest_training(source[0], source[1], digests, training), source[2]
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


def _before_tuning(run: Run, cache: Path) -> tuple[Store | None, Head] | None:
    """Return the features from which a fine-tuning started, and the head on them; None for another run."""
    came_from = run.card.get("from") or {}
    if not came_from.get("run"):
        return None
    with suppress(BottleneckError, KeyError):
        return _store(cache, Spec.from_json(came_from["features"])), load_run(run.path.parent / came_from["run"]).head
    return None
