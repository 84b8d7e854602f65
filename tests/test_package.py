import subprocess
import sys

import pytest

import bottleneck
from tests.variants import each

PUBLIC = {
    *("FeatureCache", "Recipe", "__version__", "compare", "describe", "errors", "evaluate", "extract", "finetune"),
    *("fit", "load_run", "models", "predict", "scan", "audit", "report", "suggest", "diagnose"),
}


@each("name", ["scan", "extract", "FeatureCache", "fit", "predict", "load_run", "audit", "report", "suggest"])
def test_public_names_have_docstrings(name):
    value = getattr(bottleneck, name)
    assert callable(value)
    assert value.__doc__


def test_all_is_what_is_exported():
    assert set(bottleneck.__all__) == PUBLIC
    assert set(dir(bottleneck)) == PUBLIC
    assert all(getattr(bottleneck, name) is not None for name in PUBLIC)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        _ = bottleneck.nothing


def test_public_functions_are_not_shadowed_by_modules_of_their_name():
    code = (
        "import bottleneck, bottleneck.images.scan;"
        "import bottleneck.extraction.extract, bottleneck.fitting.fit, bottleneck.prediction.predict;"
        "import bottleneck.auditing.audit, bottleneck.auditing.suggest;"
        "names = 'scan', 'extract', 'fit', 'predict', 'load_run', 'audit', 'suggest';"
        "print(all(callable(getattr(bottleneck, name)) for name in names))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "True"
