"""Print the lower bounds of pyproject.toml as constraints for pip, one ``NAME==VERSION`` a line.

They are read from the metadata of the installed project, which pip has made from pyproject.toml.
"""

import re
import sys
from collections.abc import Iterable
from importlib.metadata import requires

PROJECT = "bottleneck-vision"
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[[^]]*\])?\s*(?P<versions>[^;]*?)\s*(?:;.*)?")


def constraints(requirements: Iterable[str]) -> list[str]:
    """Return a constraint for each package that is required, whatever the extra; the project itself needs none.

    Raises
    ------
    SystemExit
        If a requirement has no lower bound, or more than that.
    """
    found = {}
    for requirement in requirements:
        parts = REQUIREMENT.fullmatch(requirement)
        name, versions = (parts["name"], parts["versions"].strip("()")) if parts else (requirement, "")
        if name == PROJECT:
            continue
        if not re.fullmatch(r">=[\w.]+", versions):
            sys.exit(f"expected NAME>=VERSION for each dependency in pyproject.toml, found {requirement!r}")
        version = versions.removeprefix(">=")
        if found.setdefault(name, version) != version:
            sys.exit(f"expected one lower bound of {name} in pyproject.toml, found {found[name]} and {version}")
    return [f"{name}=={version}" for name, version in found.items()]


if __name__ == "__main__":
    print("\n".join(constraints(requires(PROJECT) or ())))
