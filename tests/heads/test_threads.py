import hashlib
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from bottleneck.heads import search as module
from bottleneck.heads.arrays import Arrays
from bottleneck.heads.family import family
from bottleneck.heads.features import InMemoryFeatures
from bottleneck.heads.losses import LogisticLoss, SoftmaxLoss
from bottleneck.heads.objective import Pass, SolverProblems, TrainingData
from bottleneck.heads.search import search
from bottleneck.heads.threads import ordered_map, single_threaded_blas
from tests.variants import each


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_a_product_runs_on_one_core_and_the_number_of_cores_is_restored():
    before = blas_threads()
    with single_threaded_blas() as cores:
        assert blas_threads() <= {1}
        assert 1 <= cores <= 8

    assert blas_threads() == before


def test_contexts_that_overlap_keep_one_core_until_the_last_ends():
    before, first, second = blas_threads(), single_threaded_blas(), single_threaded_blas()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert blas_threads() <= {1}

    second.__exit__(None, None, None)
    assert blas_threads() == before


@each("cores", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(cores):
    late = threading.Event()

    def one(item):
        if item == 0 and cores > 1:
            assert late.wait(30)  # the first is ready last
        if item == 1:
            late.set()
        return item**2

    assert list(ordered_map(one, range(20), cores)) == [item**2 for item in range(20)]


def test_few_items_are_taken_before_their_results():
    taken = []
    results = ordered_map(lambda item: item, (taken.append(item) or item for item in range(100)), 3)

    assert next(results) == 0
    assert len(taken) == 4
    results.close()


@each("cores", [1, 3])
def test_an_error_in_a_thread_is_raised(cores):
    with pytest.raises(ZeroDivisionError):
        list(ordered_map(lambda item: 1 / item, [1, 0, 1], cores))


@each("loss", [LogisticLoss(), SoftmaxLoss(3)])
def test_sums_are_the_same_bits_on_any_number_of_cores(loss):
    random = np.random.default_rng(0)
    x, codes = random.normal(size=(3000, 40)).astype(np.float32), random.integers(0, 2, 3000)
    weights = (random.random((3000, 5)) < 0.8).astype(np.float32)
    weights[:700, 0] = 0  # a block that a fold does not train on
    weights[700:900] = 0  # and one that none does
    material = TrainingData(table=InMemoryFeatures(x, cuts=[500, 700, 900, 2200]), codes=codes, weights=weights)
    problems = SolverProblems(fold=np.arange(5), output=np.ones(5, int))
    theta = random.normal(size=(5, loss.outputs, 41)).astype(np.float32)
    one, *others = (Pass(Arrays(cores=cores), material, loss, problems)(theta) for cores in (1, 2, 7))

    for other in others:
        for name, value in vars(one).items():
            np.testing.assert_array_equal(getattr(other, name), value)


def digests() -> list[str]:
    """Search five families on the same features; return what identifies the bits of each head."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 3, 1200)
    x = (random.normal(size=(3, 400))[codes] * 0.15 + random.normal(size=(1200, 400))).astype(np.float32)
    said = []
    for name, *grid in (("logistic", 1e-3, 1e-2), ("svm", 1e-4, 1e-3), ("ridge", 1e-4), ("centroid",), ("knn",)):
        found = search(x, [f"c{code}" for code in codes], family(name), grid=grid or None, normalize="shrunk")
        tensors = [np.ascontiguousarray(getattr(found.head, tensor)).tobytes() for tensor in found.head.tensors]
        digest = hashlib.sha256(b"".join([*tensors, found.probabilities.tobytes()])).hexdigest()
        said.append(f"{name} {digest} {found.head.inverse_temperature}")
    return said


def test_a_search_gives_the_same_bits_on_one_core_and_on_two(monkeypatch):
    monkeypatch.setattr(module, "SINGLE_THREAD_SIZE", 0)  # as if there were many features
    monkeypatch.setattr(module, "_MIN_SORTED", 0)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            assert blas_threads() == {threads}
            found.append(digests())

    assert found[0] == found[1]
