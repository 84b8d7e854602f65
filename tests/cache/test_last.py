import os
import shutil

import pytest

from bottleneck.cache.last import Last, Remembered, load_last, load_latest, save_last, save_latest
from bottleneck.errors import ImagesError


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def memo(cache):
    (path,) = (cache / "last" / "folders").iterdir()
    return path


def test_the_last_extraction_is_read_back(cache):
    save_last(cache, Last("/images", True, "tiny-0"))
    save_last(cache, Last("/others", False, "tiny-1", finished=False))

    assert load_last(cache) == Last("/others", False, "tiny-1", finished=False)


def test_before_the_first_extraction_there_is_no_last(cache):
    assert load_last(cache) is None
    assert not cache.exists()


def test_the_last_extraction_is_not_written_again(cache):
    save_last(cache, Last("/images", True, "tiny-0"))
    before = memo(cache).stat()
    save_last(cache, Last("/images", True, "tiny-0"))
    after = memo(cache).stat()

    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_two_folders_that_share_a_cache_have_separate_memos(cache, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    os.chdir(tmp_path / "one")
    save_last(cache, Last("/images", True, "tiny-0"))
    os.chdir(tmp_path / "two")

    assert load_last(cache) is None
    save_last(cache, Last("/others", True, "tiny-1"))
    os.chdir(tmp_path / "one")
    assert load_last(cache) == Last("/images", True, "tiny-0")


def test_a_project_that_moves_with_its_cache_keeps_its_last_and_finds_its_images(tmp_path):
    home = tmp_path / "project"
    home.mkdir()
    os.chdir(home)
    save_last(home / "cache", Last(str(home / "photos"), True, "tiny-0"))
    save_latest(home / "cache", home / "photos", "tiny-0")
    shutil.move(home, tmp_path / "renamed")
    os.chdir(tmp_path / "renamed")

    assert load_last(tmp_path / "renamed/cache") == Last(str(tmp_path / "renamed/photos"), True, "tiny-0")
    assert load_latest(tmp_path / "renamed/cache", tmp_path / "renamed/photos") == "tiny-0"


def test_a_folder_is_the_same_through_a_link(cache, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "one")
    os.chdir(tmp_path / "one")
    save_last(cache, Last("/images", True, "tiny-0"))
    os.chdir(tmp_path / "link")

    assert load_last(cache) == Last("/images", True, "tiny-0")


def test_a_name_that_is_not_utf8_is_read_back(cache):
    source = os.fsdecode(b"/im\xe9ges")
    save_last(cache, Last(source, True, "tiny-0"))

    assert load_last(cache) == Last(source, True, "tiny-0")


def test_the_latest_store_of_images_is_theirs(cache, tmp_path):
    save_latest(cache, tmp_path / "a", "tiny-0")
    save_latest(cache, tmp_path / "b", "tiny-1")

    assert load_latest(cache, tmp_path / "a") == "tiny-0"
    assert load_latest(cache, tmp_path / "c") is None


def test_an_extraction_that_fails_replaces_the_previous_one(cache):
    save_last(cache, Last("/images", True, "tiny-0"))
    with pytest.raises(ImagesError), Remembered(cache, "/others", True):
        raise ImagesError("none")

    assert load_last(cache) == Last("/others", True, None, finished=False)


def test_an_extraction_of_other_images_is_saved_before_it_can_be_killed(cache):
    save_last(cache, Last("/images", True, "tiny-0"))
    Remembered(cache, "/others", True).__enter__()

    assert load_last(cache) == Last("/others", True, None, finished=False)


def test_an_extraction_in_another_spec_is_saved_before_it_can_be_killed(cache):
    save_last(cache, Last("/images", True, "tiny-0"))
    Remembered(cache, "/images", True).__enter__().takes("tiny-1")

    assert load_last(cache) == Last("/images", True, "tiny-1", finished=False)


def test_an_extraction_that_is_interrupted_records_the_store_of_its_features(cache):
    memory = Remembered(cache, "/images", True)
    memory.takes("tiny-0")
    with pytest.raises(KeyboardInterrupt), memory:
        raise KeyboardInterrupt

    assert load_last(cache) == Last("/images", True, "tiny-0", finished=False)


def test_the_first_extraction_that_fails_makes_no_cache(cache):
    with pytest.raises(ImagesError), Remembered(cache, "/images", True):
        raise ImagesError("none")

    assert not cache.exists()


def test_the_same_extraction_again_writes_nothing(cache):
    with Remembered(cache, "/images", True) as memory:
        memory.takes("tiny-0")
        memory.done(True, "tiny-0")
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    with Remembered(cache, "/images", True) as memory:
        memory.takes("tiny-0")
        memory.done(True, "tiny-0")

    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before
    assert load_last(cache) == Last("/images", True, "tiny-0")
