import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")

# As the real package does, it reports when it is made; nothing but a file tells whether that was.
REPORTING = """
import os, pathlib
pathlib.Path(os.environ["HOME"], "reported").touch()
raise RuntimeError("it was asked to report")
"""


def run(home: Path, code: str) -> str:
    package = home / "packages" / "openvino_telemetry"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(REPORTING)
    environment = {"HOME": str(home), "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in home.iterdir()] == ["packages"]
    return done.stdout


def test_openvino_is_imported_without_its_telemetry(tmp_path: Path) -> None:
    printed = run(
        tmp_path,
        "import os, sys; before = dict(os.environ); from bottleneck.engines.packages import openvino\n"
        "print(openvino.Type.f32.get_type_name(), 'openvino_telemetry' in sys.modules, dict(os.environ) == before)",
    )
    assert printed.split() == ["f32", "False", "True"]


def test_a_conversion_reports_nothing_either(tmp_path: Path) -> None:
    code = (
        "import torch; from bottleneck.engines.packages import openvino\n"
        "model = openvino.convert_model(torch.nn.Linear(2, 1), example_input=torch.zeros(1, 2))\n"
        "print(len(model.inputs))"
    )
    assert run(tmp_path, code).split()[-1] == "1"


def test_a_package_that_the_caller_has_imported_stays(tmp_path: Path) -> None:
    code = (
        "import sys, types\n"
        "names = ('openvino_telemetry', 'openvino_telemetry.backend')\n"
        "mine = {name: types.ModuleType(name) for name in names}; sys.modules.update(mine)\n"
        "import bottleneck.engines.openvino_engine\n"
        "print(all(sys.modules[name] is module for name, module in mine.items()))"
    )
    assert run(tmp_path, code).split() == ["True"]
