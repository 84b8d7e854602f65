"""The values of a module's names, without what else the module does."""

import ast
from textwrap import dedent
from typing import Any

import pytest

from bottleneck.backbones.sources import Unknown, values
from tests.variants import each


def found(source: str, *names: str, **given: Any) -> dict[str, Any]:
    return values(ast.parse(dedent(source)), names, given)


def test_only_required_statements_run():
    assert found(
        """
        raise RuntimeError("this module is not to be imported")
        value = 3
        import no_such_module
        other = no_such_module.value
        """,
        "value",
    ) == {"value": 3}


def test_statements_that_a_value_depends_on_run_wherever_they_are():
    assert found(
        """
        def _cfg(url="", **more):
            return {"url": url, **_COMMON, **more}

        _COMMON = dict(size=_SIZE)
        configs = {"a": _cfg("x"), "b": _cfg(size=2)}
        """.replace("_COMMON = ", "_SIZE = 1\n        _COMMON = "),
        "configs",
    ) == {"configs": {"a": {"url": "x", "size": 1}, "b": {"url": "", "size": 2}}}


@each(
    "change",
    [
        "found['b'] = 2",
        "found.update(b=2)",
        "found |= {'b': 2}",
        "for key in ('b',):\n    found[key] = 2",
        "if True:\n    found['b'] = 2",
        "try:\n    missing\n    raise KeyError\nexcept KeyError:\n    found['b'] = 2",
        "rest = {'b': 2}\nfound = {**found, **rest}",
        "found, rest = {**found, 'b': 2}, None",
        "(found)['b'] = 2",
    ],
)
def test_later_statements_that_change_a_value_run_too(change):
    assert found(f"found = {{'a': 1}}\n{change}", "found") == {"found": {"a": 1, "b": 2}}


def test_an_attribute_can_be_set_later():
    assert found("class A:\n    x = 1\nA.x = 2", "A")["A"].x == 2


def test_the_standard_library_is_imported():
    assert found(
        "import copy\nfrom functools import partial as made\nvalue = copy.deepcopy(made(int, '7'))()", "value"
    ) == {"value": 7}


@each("line", ["from .constants import MEAN", "from no_such.place import MEAN", "import MEAN", ""])
def test_imported_values_are_unknown(line):
    assert isinstance(found(f"{line}\nvalue = MEAN", "value")["value"], Unknown)


def test_unknown_values_can_be_called_and_have_attributes():
    value = found("from torch import nn\nvalue = nn.Sequential(nn.ReLU(inplace=True)).weight", "value")["value"]

    assert isinstance(value, Unknown)
    with pytest.raises(TypeError):
        int(value)
    with pytest.raises(TypeError):
        list(value)


def test_other_annotations_and_decorators_do_not_matter():
    source = """
        from typing import Dict
        from elsewhere import Config, noted

        def make(size: "Config | int" = 3, *, kind: Config[int] = None) -> Dict[str, Config | None]:
            return {"size": size}

        value: Dict[str, Config | None] = make()
        """

    assert found(source, "value") == {"value": {"size": 3}}


def test_names_that_are_given_are_not_made():
    assert found("def wrap(x):\n    raise RuntimeError\nvalue = wrap({'a': 1})", "value", wrap=dict) == {
        "value": {"a": 1}
    }


def test_names_that_the_module_does_not_have_are_left_out():
    assert found("value = 3", "value", "none") == {"value": 3}


def test_builtins_are_known():
    assert found("value = sorted(dict(b=1, a=2))", "value") == {"value": ["a", "b"]}
