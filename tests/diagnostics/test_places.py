from pathlib import Path

from bottleneck.diagnostics.diagnosis import NOTE, OK, WRONG
from bottleneck.diagnostics.places import Places, existing
from tests.variants import each


def look(free=10**12, may_write=True, **options):
    places = Places("cache", "runs", free=lambda folder: free, may_write=lambda folder: may_write, **options)
    return {found.name: found for probe in places.probes() for found in probe.symptoms()}


def test_folders_that_exist_and_that_do_not(tmp_path):
    Path("cache").mkdir()
    found = look()

    assert found["cache folder"].value.startswith("writable, ")
    assert found["runs folder"].value.startswith("not there yet, can be created, ")
    assert {one.state for one in found.values()} == {OK}


def test_folders_that_may_not_be_written_name_the_option():
    found = look(may_write=False)

    assert (found["cache folder"].state, found["torch weights"].state) == (WRONG, NOTE)
    assert "--cache" in found["cache folder"].remedy
    assert "TORCH_HOME" in found["torch weights"].remedy


@each("free, state", [(10**12, OK), (10**8, NOTE), (1000, WRONG)])
def test_little_room(free, state):
    assert look(free=free)["cache folder"].state == state


def test_a_file_in_the_place_of_a_folder():
    Path("cache").write_text("")

    assert "found a file" in look()["cache folder"].value


def test_paths_are_shown_only_if_requested(tmp_path):
    assert str(tmp_path) in look(paths=True)["cache folder"].value
    assert str(tmp_path) not in str(look())


def test_the_nearest_folder_that_exists(tmp_path):
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert existing(tmp_path) == tmp_path
