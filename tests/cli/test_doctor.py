import json
import os
from pathlib import Path

from tests.cli.conftest import run


def test_the_report_has_every_section_and_no_path(tmp_path):
    out, _ = run("doctor", "--no-speed")

    titles = [line.removeprefix("### ") for line in out.splitlines() if line.startswith("###")]
    assert titles == ["Versions", "Imports", "Devices", "Cache and runs", "Writable folders", "Known conflicts"]
    assert "bottleneck works here" in out.splitlines()[-1]
    assert str(tmp_path) not in out
    assert os.path.expanduser("~") + "/" not in out
    assert not any(tmp_path.iterdir())


def test_json_is_one_object_with_paths_if_requested(tmp_path):
    out, err = run("doctor", "--no-speed", "--json", "--paths")

    found = json.loads(out)["found"]
    assert str(tmp_path / "cache") in found["Writable folders"][0]["value"]
    assert "### Versions" in err


def test_what_must_be_fixed_makes_it_exit_with_1():
    Path("cache").write_text("")
    out, _ = run("doctor", "--no-speed", code=1)

    assert "WRONG" in out
    assert "fix what is marked WRONG: cache folder" in out.splitlines()[-1]
