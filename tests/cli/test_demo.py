import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bottleneck.cli.common import command
from bottleneck.cli.demo import take_tour
from bottleneck.demo.digits import write_digits
from tests.cli.conftest import run


@pytest.mark.slow
def test_the_demo_fits_three_heads_that_read_digits():
    images = write_digits(Path("demo/digits"), labels="012", count=12)
    run("extract", images, "--engine", "torch", "--precision", "fp32")  # so that no engine is chosen

    @command("tour")
    def tour(**options: Any) -> None:
        take_tour(images, started=0.0, **options)

    done = CliRunner().invoke(tour, ["--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)

    assert found.keys() == {"accuracy", "best", "computed", "cv_accuracy", "images", "reused", "runs", "seconds"}
    assert (found["computed"], found["reused"], len(found["runs"])) == (0, 36, 3)
    assert found["cv_accuracy"] >= 0.9
    assert "bottleneck extract YOUR/IMAGES" in done.stderr

    out, _ = run("predict", images / "2", "--format", "csv")
    labels = [line.split(",")[2] for line in out.splitlines()[1:]]
    assert labels.count("2") / len(labels) > 0.9


def test_the_demo_does_not_write_through_a_link():
    Path("home").mkdir()
    Path("demo").mkdir()
    Path("demo/digits").symlink_to(Path("home").resolve())
    assert "found a link" in run("demo", code=1)[1]
    assert list(Path("home").iterdir()) == []
