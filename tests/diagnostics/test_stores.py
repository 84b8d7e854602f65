import os
from pathlib import Path

import pytest

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.diagnostics.diagnosis import NOTE, OK, WRONG
from bottleneck.diagnostics.stores import Stored
from bottleneck.runs.listing import size_of
from bottleneck.utils.files import TEMPORARY
from tests.cache.numbered import add


def look():
    return [found for probe in Stored("cache", "runs").probes() for found in probe.symptoms()]


@pytest.fixture
def shard(spec):
    return add(FeatureCache("cache").store(spec), 1, 2)


def test_nothing_is_there_yet():
    assert [found.value.partition(":")[0] for found in look()] == ["there is none yet", "there are none yet"]
    assert not Path("cache").exists()


def test_a_healthy_store(shard):
    found, _ = look()

    assert found.name.startswith("features/tiny-")
    assert found.value.startswith("1 shard, ")
    assert (found.state, found.value.endswith("the structure of all was checked")) == (OK, True)


def test_a_shard_that_is_cut_off_must_be_fixed_and_stays_where_it_is(shard):
    shard.write_bytes(shard.read_bytes()[:700])
    (found,) = [one for one in look() if one.state == WRONG]

    assert "cache verify" in found.remedy
    assert shard.exists()


def test_a_spec_that_cannot_be_read(shard):
    (shard.parents[1] / "spec.json").write_text("{")

    assert [found.name for found in look() if found.state == WRONG] == ["features"]


def test_files_in_the_place_of_folders_are_left_to_the_folders():
    Path("cache").write_text("")
    Path("runs").write_text("")

    assert look() == []


def test_unfinished_files_are_noted(shard):
    for folder in (Path("cache"), shard.parent):
        path = folder / f"{TEMPORARY}9-0123abcd"
        path.write_bytes(b"")
        os.utime(path, (0, 0))

    assert [found.name for found in look() if "cache gc" in found.remedy] == ["cache", look()[1].name]


def test_a_shard_in_quarantine_is_noted(shard):
    (shard.parents[1] / "quarantine").mkdir()
    shard.rename(shard.parents[1] / "quarantine" / f"{shard.stem}-1.h5")
    (found,) = [one for one in look() if one.state == NOTE]

    assert found.value == "1 shard in quarantine"


def test_a_run_that_cannot_be_read_is_noted():
    Path("runs/a").mkdir(parents=True)
    Path("runs/a/card.json").write_text("{")
    found = look()[-2:]

    assert found[0].value.startswith("0 runs, ")
    assert found[1].state == NOTE


def test_the_size_of_a_folder_without_what_links_lead_to(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").write_bytes(bytes(1000))
    (tmp_path / "large").write_bytes(bytes(10**6))
    (tmp_path / "a" / "link").symlink_to(tmp_path / "large")

    assert 1000 <= size_of(tmp_path / "a") < 2000
