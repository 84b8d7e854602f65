"""OpenVINO is imported, and networks are converted, without telemetry."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")
pytest.importorskip("openvino_telemetry")

AUDITED = """
import os, sys
from pathlib import Path

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        os._exit(3)

sys.addaudithook(refuse)
environment = dict(os.environ)
"""


def run(home: Path, code: str, **environment: str) -> str:
    """Run code in a fresh process that has an empty home folder, and ends with code 3 if it uses the network."""
    command = [sys.executable, "-c", AUDITED + code]
    done = subprocess.run(command, env={"HOME": str(home), **environment}, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    assert list(home.iterdir()) == []
    return done.stdout.strip()


def test_importing_openvino_reports_nothing(tmp_path: Path) -> None:
    code = "import bottleneck.engines.openvino_engine, openvino\nprint(dict(os.environ) == environment)"

    assert run(tmp_path, code) == "True"


def test_the_value_of_ci_is_restored(tmp_path: Path) -> None:
    assert run(tmp_path, "import bottleneck.engines.openvino_engine\nprint(os.environ['CI'])", CI="no") == "no"


def test_a_conversion_reports_nothing(tmp_path: Path) -> None:
    code = """
import numpy as np
from torch import nn
from bottleneck.backbones.backbone import Backbone
from bottleneck.backbones.spec import Spec
from bottleneck.engines.openvino_engine import OpenVinoEngine, convert
from bottleneck.images.preprocessing import Preprocessing
size = Preprocessing(resize=32, crop=28, interpolation="bilinear", antialias=True, mean=(0.5,) * 3, std=(0.5,) * 3)
spec = Spec(backbone="tiny", weights="0" * 64, layer="fc:input", pooling="avg", preprocessing=size,
            transform_input=False, precision="fp32", decoder=1)
network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().requires_grad_(False)
engine = OpenVinoEngine(convert(Backbone(network, spec, 4), "fp32", 1), "fp32")
print(engine(np.zeros((1, 28, 28, 3), np.uint8)).shape)
"""
    assert run(tmp_path, code) == "(1, 4)"


def test_without_the_switch_it_would_report(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run(tmp_path, "import openvino")
