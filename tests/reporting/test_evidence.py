"""What a report shows, read once."""

from pathlib import Path

import numpy as np

from bottleneck.reporting.evidence import evidence_of
from bottleneck.runs.images import Role
from tests.reporting.conftest import PER_CLASS


def evidence(run, **options):
    return evidence_of(run, cache=Path("cache"), runs=Path("runs"), progress=None, **{"audit": False, **options})


def test_similar_images_are_training_images(run):
    found, known = evidence(run), run.images
    trained = {row.tobytes().hex() for row in known.digests[known.roles == Role.TRAINED]}
    shown = [one.digest for one in [*found.mistakes, *found.uncertain, *found.unfamiliar]]
    assert set(found.similar) == set(shown)
    assert {other.digest for near in found.similar.values() for other in near} <= trained
    assert found.similar_remark == ""


def test_a_final_head_is_not_compared_with_the_images_that_tested_it(other):
    final = other(final={"n_train": 3 * PER_CLASS, "agreement": 1.0, "tested_sha256": "0"})
    everything = final.images.with_role(final.images.digests, Role.TRAINED)
    final.__dict__["images"] = everything
    found = evidence(final)
    tested = {one.digest for one in found.tested}
    assert not tested & {other.digest for near in found.similar.values() for other in near}


def test_a_fine_tuning_without_features_uses_those_before_it(run, other):
    spec = {**run.card["spec"], "weights": "1" * 64}
    tuned = other(kind="finetune", spec=spec, **{"from": {"run": run.name, "features": run.card["spec"]}})
    found, before = evidence(tuned), evidence(run)
    assert "before fine-tuning" in found.similar_remark
    assert "not in the cache" in found.tested.remark
    some = found.mistakes[0].digest
    assert found.similar[some] == before.similar[some]


def test_without_records_of_training_images_none_is_shown(other):
    old = other()
    old.__dict__["images"] = None
    found = evidence(old)
    assert found.similar == {}
    assert "does not record its training images" in found.similar_remark


def test_an_audit_is_made_only_on_request(run):
    assert evidence(run).audit is None
    found = evidence(run, audit=True).audit.found
    assert found.n == 3 * PER_CLASS
    assert np.isfinite(found.accuracy)
