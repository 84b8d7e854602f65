"""Who does what: each image is worked on by one thread, and not at all where nothing is left to do for it."""

from types import SimpleNamespace

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.store import Store
from bottleneck.extraction.claims import Claims
from bottleneck.images.keys import as_digests
from tests.cache import numbered
from tests.extraction.conftest import ends, in_a_thread


def digests(*numbers: int) -> list[bytes]:
    return [row.tobytes() for row in numbered.digests(*numbers)]


def commit(store: Store, *numbers: int) -> None:
    """Do what another process does."""
    FeatureCache("cache").store(store.spec).append(numbered.digests(*numbers), numbered.features(*numbers))


def test_an_image_is_claimed_once(store):
    found = Claims(store.index(), set())
    (one, two) = digests(1, 2)

    assert [found.take(digest) for digest in (one, two, one, one, two)] == [True, True, False, False, False]


def test_each_image_goes_to_one_of_many_threads(store):
    found, taken = Claims(store.index(), set()), []
    images = digests(*range(200))

    def take() -> None:
        taken.extend(digest for digest in images if found.take(digest))

    assert all(map(ends, [in_a_thread(take) for _ in range(6)]))
    assert sorted(taken) == sorted(images)


def test_images_with_features_and_known_failures_cannot_be_claimed(store):
    commit(store, 1, 2)
    found = Claims(store.index(), set(digests(3)))

    assert [found.take(digest) for digest in digests(1, 2, 3, 4)] == [False, False, False, True]


def test_claims_know_which_images_have_features(store):
    commit(store, 1, 2)
    found = Claims(store.index(), set(digests(3)))

    assert found.have_features(digests(3, 2, 4, 1)).tolist() == [False, True, False, True]
    assert [found.has(digest) for digest in digests(3, 2, 4, 1)] == [False, True, False, True]


def test_claims_of_no_images_are_empty(store):
    found = Claims(store.index(), set())

    assert found.have_features([]).tolist() == []
    assert as_digests([]).shape == (0, 32)


def test_images_that_other_processes_commit_are_seen_at_the_next_look(store):
    found = Claims(store.index(), set(), refresh_seconds=0.0)
    commit(store, 1)

    assert not found.has(*digests(1))
    found.refresh()
    assert found.has(*digests(1))
    assert not found.take(*digests(1))


def test_claims_look_at_other_processes_only_now_and_then():
    now, looks = [100.0], []
    index = SimpleNamespace(refresh=lambda: looks.append(now[0]))
    found = Claims(index, set(), refresh_seconds=2.0, clock=lambda: now[0])
    for _ in range(50):
        now[0] += 0.5
        found.refresh()

    assert looks == [100 + 2 * place for place in range(1, 13)]
