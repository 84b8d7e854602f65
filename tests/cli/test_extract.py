"""``bottleneck extract`` on the command line; no image passes a real network here."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bottleneck.cache.store import FeatureCache
from bottleneck.cli.main import cli
from tests import tiny
from tests.conftest import photo

CLASSES = {f"{name}/{number}.jpg": 100 * place + number for place, name in enumerate("ab") for number in range(9)}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch) -> None:
    tiny.use(monkeypatch)


def run(*words: object, code: int = 0) -> tuple[str, str]:
    """Run `bottleneck extract`; return what stands on stdout and on stderr."""
    found = CliRunner().invoke(cli, ["extract", *map(str, words)])
    assert found.exit_code == code, found.output
    return found.stdout, found.stderr


def run_json(*words: object, code: int = 0) -> dict[str, object]:
    """Run `bottleneck extract --json`; return the one object on stdout."""
    out, _ = run(*words, "--json", code=code)
    assert len(out.splitlines()) == 1
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def kept() -> int:
    (store,) = FeatureCache("cache").stores()
    return len(store.digests())


@pytest.fixture
def two_of_twenty(folder) -> Path:
    """Return a folder of 20 images of which 2 cannot be used: a tenth."""
    return folder({**CLASSES, "a/page.jpg": b"<html>", "b/empty.jpg": b""})


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], 0),  # 10 %, of which no more is too many
        (["--max-failures", "10%"], 0),
        (["--max-failures", "9.9%"], 1),
        (["--max-failures", "2"], 0),
        (["--max-failures", "1"], 1),
        (["--max-failures", "0"], 1),
        (["--max-failures", "100%"], 0),
        (["--strict"], 1),
        (["--strict", "--max-failures", "100%"], 1),
    ],
)
def test_more_failures_than_allowed_exit_with_1_and_everything_good_is_kept(two_of_twenty, options, code):
    found = run_json(two_of_twenty, *options, code=code)

    assert (found["images"], found["computed"], found["failed"]) == (20, 18, 2)
    assert bool(found["problem"]) == bool(code)
    assert kept() == 18
    again = run_json(two_of_twenty, *options, code=code)
    assert (again["computed"], again["reused"], again["failed"]) == (0, 18, 2)


def test_more_than_a_tenth_is_too_many(folder):
    images = folder({**CLASSES, "a/page.jpg": b"<html>", "b/empty.jpg": b"", "b/other.jpg": b"<html><p>"})
    _, err = run(images, code=1)

    assert "error: expected at most 10% of the images to fail, 3 of 21 did" in err.splitlines()[-1]
    assert "--max-failures" in err
    (table,) = Path("cache/datasets").glob("*.failures.csv")
    assert f"{table} lists them" in err
    assert kept() == 18
    run(images, "--max-failures", "3")


def test_without_failures_even_strict_is_content(folder):
    found = run_json(folder(CLASSES), "--strict")

    assert (found["failed"], found["failures"], found["failures_table"], found["problem"]) == (0, [], None, None)


@pytest.mark.parametrize("value", ["-1", "101%", "x", "1.5", "%", "nan", "inf", ""])
def test_a_limit_that_is_none_is_wrong_usage(folder, value):
    _, err = run(folder(CLASSES), f"--max-failures={value}", code=2)

    assert "expected a number of images, such as 25, or a share, such as 10%" in " ".join(err.split())


@pytest.mark.parametrize(
    ("files", "code", "error"),
    [
        (CLASSES, 0, None),
        ({**CLASSES, "a/page.jpg": b"<html>"}, 0, None),
        ({**CLASSES, **{f"a/page-{number}.jpg": b"<html>%d" % number for number in range(9)}}, 1, None),
        ({"a/x.jpg": b"<html>", "b/y.jpg": b""}, 1, "ImagesError"),
        ({"a/x.jpg": 1}, 1, "ImagesError"),
        ({"notes.txt": b"x"}, 1, "ImagesError"),
    ],
    ids=["all good", "one fails", "a third fails", "all fail", "one class", "no image"],
)
def test_stdout_holds_one_json_object_in_every_case(folder, files, code, error):
    found = run_json(folder(files), code=code)

    if error:
        assert found["error"]["type"] == error
    else:
        assert "error" not in found
        assert found["failed"] == len(found["failures"])


def test_interrupted_it_is_one_json_object_too(folder, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny.TinyEngine, "__call__", interrupt)
    found = run_json(folder(CLASSES), code=1)

    assert found["error"]["type"] == "interrupted"


def test_json_lists_the_failures_the_table_and_the_notes(two_of_twenty):
    found = run_json(two_of_twenty)

    assert {Path(failure["path"]).name: failure["code"] for failure in found["failures"]} == {
        "page.jpg": "not-an-image",
        "empty.jpg": "empty",
    }
    assert all(set(failure) == {"path", "code", "message", "digest"} for failure in found["failures"])
    assert Path(found["failures_table"]).is_file()
    assert found["notes"] == []


def test_failures_are_grouped_by_reason_the_first_three_of_each_with_their_paths(folder):
    pages = {f"a/page-{number}.jpg": b"<html>%d" % number for number in range(5)}
    images = folder({**CLASSES, **pages, "b/empty.jpg": b""})
    _, err = run(images, "--max-failures", "50%")
    lines = err.splitlines()
    start = lines.index("5 not-an-image:")

    assert [line.split(":")[0].strip() for line in lines[start + 1 : start + 4]] == [
        str(images / f"a/page-{number}.jpg") for number in range(3)
    ]
    assert lines[start + 4 : start + 6] == ["  ... and 2 more", "1 empty:"]
    assert str(images / "b/empty.jpg") in lines[start + 6]
    assert lines[start + 7].startswith("all that failed: ")
    assert "18 computed, 0 reused, 6 failed" in lines[-1]


def test_images_of_more_pixels_than_allowed_are_refused(folder):
    images = folder({**CLASSES, "a/large.jpg": photo(500, size=(200, 200))})
    found = run_json(images, "--max-pixels", 10_000)

    assert [failure["code"] for failure in found["failures"]] == ["too-large"]
    assert run_json(images, "--max-pixels", 40_000)["computed"] == 1


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_a_number_of_pixels_that_is_none_is_wrong_usage(folder, value):
    run(folder(CLASSES), "--max-pixels", value, code=2)


def test_frames_that_are_not_used_are_told(folder, tmp_path):
    from tests.test_extraction_failures import gif

    images = folder({**CLASSES, "a/x.gif": gif(0, 255)})
    paths = sorted(path for path in images.rglob("*.*") if path.is_file())
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in paths))
    _, err = run(tmp_path / "list.csv")

    assert f"1 with several frames (GIF); the first is used: {images / 'a/x.gif'}" in err.splitlines()
