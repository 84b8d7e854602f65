import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from bottleneck.utils.process_settings import SharedContext, attribute_set, environment_variable, ignored_warnings


@contextmanager
def noted(events: list[str]) -> Iterator[None]:
    events.append("set")
    yield
    events.append("restored")


def test_the_first_thread_sets_and_the_last_one_restores():
    events: list[str] = []
    shared, inside, may_end = SharedContext(lambda: noted(events)), threading.Event(), threading.Event()

    def other() -> None:
        with shared:
            inside.set()
            may_end.wait()

    thread = threading.Thread(target=other)
    with shared:
        thread.start()
        inside.wait()
    assert events == ["set"], "the other thread still needs it"
    may_end.set()
    thread.join()

    assert events == ["set", "restored"]


def test_a_shared_context_can_be_entered_again():
    events: list[str] = []
    shared = SharedContext(lambda: noted(events))
    with shared, shared:
        pass
    with shared:
        pass

    assert events == ["set", "restored"] * 2


def test_an_error_restores():
    owner = SimpleNamespace(value=1)
    shared = SharedContext(lambda: attribute_set(owner, "value", 2))

    def fail() -> None:
        with shared:
            assert owner.value == 2
            raise LookupError

    with pytest.raises(LookupError):
        fail()

    assert owner.value == 1


@pytest.mark.parametrize("before", ["old", None])
def test_an_environment_variable_is_restored(monkeypatch, before):
    monkeypatch.delenv("BOTTLENECK_TEST", raising=False)
    if before is not None:
        monkeypatch.setenv("BOTTLENECK_TEST", before)

    with environment_variable("BOTTLENECK_TEST", "new"):
        assert os.environ["BOTTLENECK_TEST"] == "new"

    assert os.environ.get("BOTTLENECK_TEST") == before


def test_only_the_warnings_meant_are_ignored():
    with warnings.catch_warnings(record=True) as caught, ignored_warnings("of no", FutureWarning):
        warnings.simplefilter("always", append=True)
        warnings.warn("of no interest", FutureWarning, stacklevel=1)
        warnings.warn("of interest", FutureWarning, stacklevel=1)
        warnings.warn("of no interest", UserWarning, stacklevel=1)

    assert [(str(each.message), each.category) for each in caught] == [
        ("of interest", FutureWarning),
        ("of no interest", UserWarning),
    ]


def test_filters_of_others_stay_and_ours_go():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="mine", category=UserWarning)
        before = list(warnings.filters)
        with ignored_warnings("mine", UserWarning):
            with ignored_warnings("mine", UserWarning), ignored_warnings():
                warnings.filterwarnings("ignore", message="added meanwhile")
            warnings.warn("mine", UserWarning, stacklevel=1)
        added = warnings.filters[0]

        assert warnings.filters == [added, *before]
        assert added[1].pattern == "added meanwhile"


def test_filters_that_the_caller_has_restored_are_left_alone():
    before = list(warnings.filters)
    ignoring = ignored_warnings()
    with warnings.catch_warnings():
        ignoring.__enter__()
    ignoring.__exit__(None, None, None)

    assert warnings.filters == before
