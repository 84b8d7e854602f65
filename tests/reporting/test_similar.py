"""The most similar training images."""

import numpy as np
import pytest

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.errors import MissingFeatures
from bottleneck.evaluation.neighbours import unit_rows
from bottleneck.reporting import similar
from bottleneck.reporting.similar import nearest_training
from bottleneck.runs.backbone_request import spec_of
from bottleneck.runs.images import Role


@pytest.mark.parametrize("rows", [5, 4096])
def test_neighbours_are_those_that_numpy_computes(rows, run, monkeypatch):
    monkeypatch.setattr(similar, "_ROWS", rows)  # several blocks
    store, known = FeatureCache("cache").store(spec_of(run.card)), run.images
    training = known.digests[known.roles == Role.TRAINED]
    digests = [row["digest"] for row in run.predictions][:4]
    found = nearest_training(store, run.head, digests, training)

    def seen(keys):
        return unit_rows(((store.read(keys) - run.head.mean) / run.head.scale).astype(np.float32))

    for digest in digests:
        query = np.frombuffer(bytes.fromhex(digest), np.uint8)[None]
        cosines = (seen(query) @ seen(training).T)[0]
        order = np.argsort(-cosines, kind="stable")[:3]
        assert [one.digest for one in found[digest]] == [training[row].tobytes().hex() for row in order]
        assert [one.cosine for one in found[digest]] == pytest.approx(cosines[order].tolist(), abs=1e-5)


def test_fewer_training_images_than_wanted(run):
    store, digests = FeatureCache("cache").store(spec_of(run.card)), [run.predictions[0]["digest"]]
    assert len(nearest_training(store, run.head, digests, run.images.digests[:2])[digests[0]]) == 2
    assert nearest_training(store, run.head, digests, run.images.digests[:0]) == {}
    assert nearest_training(store, run.head, [], run.images.digests) == {}


def test_features_that_are_missing_are_an_error(run):
    store = FeatureCache("cache").store(spec_of(run.card))
    with pytest.raises(MissingFeatures):
        nearest_training(store, run.head, ["00" * 32], run.images.digests)
