"""Features on their way into the cache: how often they are committed, and that none is lost or written twice."""

import numpy as np
import pytest

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.errors import CacheError
from bottleneck.extraction.commits import CommitPace, Commits
from tests import tiny
from tests.cache import numbered
from tests.extraction.conftest import broken, by_digest, expected, many
from tests.tiny import TinyEngine
from tests.variants import each


def rows(*numbers: int) -> tuple[np.ndarray, np.ndarray]:
    return numbered.digests(*numbers), numbered.features(*numbers)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_is_committed_before_it_is_time(store, clock):
    found = Commits(store, clock=clock)
    clock.now += 1.9
    found.add(*rows(1, 2))

    assert store.shards() == []


def test_what_has_come_together_is_one_shard(store, clock):
    found = Commits(store, clock=clock)
    for number in range(5):
        found.add(*rows(2 * number, 2 * number + 1))
    found.flush()

    digests, features = rows(*range(10))
    assert len(store.shards()) == 1
    assert np.array_equal(store.read(digests), features)


@each("most, shards", [(1, 5), (4 * rows(1)[1].nbytes, 2), (1 << 20, 0)])
def test_features_are_committed_before_they_take_more_memory_than_they_may(store, clock, most, shards):
    found = Commits(store, most, clock=clock)
    for number in range(5):
        found.add(*rows(2 * number, 2 * number + 1))

    assert len(store.shards()) == shards


def test_what_was_committed_is_not_committed_again(store, clock):
    found = Commits(store, clock=clock)
    found.add(*rows(1, 2))
    found.flush()
    before = store.shards()
    found.flush()
    assert store.shards() == before
    found.add(*rows(3))
    found.flush()

    assert len(store.shards()) == 2
    assert len(store.digests()) == 3


def test_where_there_is_nothing_to_commit_nothing_is_written(store, tmp_path):
    Commits(store).flush()

    assert not list(tmp_path.iterdir())


@each("running, patience", [(0, 2), (90, 2), (490, 10), (2450, 50), (3000, 60), (30_000, 60)])
def test_the_longer_it_runs_the_longer_a_commit_may_wait(store, clock, running, patience):
    found = Commits(store, clock=clock)
    clock.now += running
    found.flush()
    clock.now += patience - 0.1
    found.add(*rows(1))
    early = len(store.shards())
    clock.now += 0.2
    found.add(*rows(2))

    assert (early, len(store.shards())) == (0, 1)


def test_a_commit_begins_the_wait_for_the_next(store, clock):
    found = Commits(store, clock=clock)
    counts = []
    for number in range(12):
        clock.now += 0.75
        found.add(*rows(number))
        counts.append(len(store.shards()))

    assert counts == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4]


def test_many_rows_are_committed_at_once(store, clock):
    found = Commits(store, pace=CommitPace(rows=5), clock=clock)
    counts = []
    for number in range(6):
        found.add(*rows(2 * number, 2 * number + 1))
        counts.append(len(store.shards()))

    assert counts == [0, 0, 1, 1, 1, 2]


def test_a_commit_that_fails_is_raised_and_its_features_are_not_committed_later(store, clock):
    store = broken(store, CacheError("the disk is full"))
    found = Commits(store, clock=clock)
    found.add(*rows(1))
    with pytest.raises(CacheError, match="the disk is full"):
        found.flush()
    found.add(*rows(2))
    found.flush()

    assert store.digests().tobytes() == numbered.digests(2).tobytes()


def test_the_pipeline_commits_after_some_time_and_some_rows(folder, go, tools):
    images = folder(many(24))
    paces = [
        (CommitPace(first_seconds=0, share=0), 6),
        *((CommitPace(rows=n), m) for n, m in ((8, 3), (9, 2), (99, 1))),
    ]
    for number, (pace, shards) in enumerate(paces):
        store = FeatureCache(f"cache-{number}").store(tiny.SPEC)
        tools["pace"] = pace
        go(images, store, TinyEngine(4))

        assert (pace, len(store.shards())) == (pace, shards)
        assert by_digest(store) == expected(*range(24))


def test_ctrl_c_in_the_middle_of_a_commit_loses_nothing_that_was_computed(folder, store, go, tools):
    tools["pace"] = CommitPace(rows=8)
    with pytest.raises(KeyboardInterrupt):
        go(folder(many(24)), broken(store, KeyboardInterrupt()), TinyEngine(4))

    assert len(store.digests()) >= 8
