import warnings
from contextlib import contextmanager

from bottleneck.errors import BottleneckWarning
from bottleneck.runs.run import list_runs
from bottleneck.utils.warn import warn


def test_a_warning_names_the_line_that_called_it():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn("mind")

    (found,) = caught
    assert (str(found.message), found.category, found.filename) == ("mind", BottleneckWarning, __file__)


def test_a_warning_from_deep_inside_names_the_line_that_called_the_package(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "card.json").write_text("{")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list_runs(tmp_path)

    assert [found.filename for found in caught] == [__file__]


def test_a_context_manager_as_a_decorator_is_passed_over():
    scope = {"__name__": "bottleneck.example", "warn": warn, "contextmanager": contextmanager}
    exec("@contextmanager\ndef held():\n    yield\n@held()\ndef call():\n    warn('mind')", scope)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scope["call"]()

    assert [found.filename for found in caught] == [__file__]
