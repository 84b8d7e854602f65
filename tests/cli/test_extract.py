"""``bottleneck extract`` on the command line; a real network sees an image only in the last part."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from click.testing import CliRunner

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cli.main import cli
from tests import tiny
from tests.conftest import photo
from tests.variants import each

CLASSES = {f"{name}/{number}.jpg": 100 * place + number for place, name in enumerate("ab") for number in range(9)}


@pytest.fixture
def network() -> None:
    """Let `extract` use the network that it is given."""


@pytest.fixture(autouse=True)
def _tiny(request, monkeypatch) -> None:
    if "network" not in request.fixturenames:
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


@each(
    "size, words",
    [
        ("31M", "expected 32 MB or more"),
        ("2X", "expected a size such as 2G"),
        ("nan", "expected a size such as 2G"),
        ("0", "expected a size such as 2G"),
        ("-1G", "expected a size such as 2G"),
    ],
)
def test_an_invalid_memory_size_is_a_usage_error(folder, size, words):
    _, err = run(folder(CLASSES), "--memory", size, code=2)
    assert words in err


@each("size", ["32M", "0.032", "1GiB"])
def test_a_small_memory_is_enough_for_small_images(folder, size):
    assert run_json(folder(CLASSES), "--memory", size)["computed"] == 18


def test_an_image_that_needs_more_memory_is_listed_and_tried_again_with_more(folder):
    large = photo(99, (4000, 2500))
    images = folder({**CLASSES, "a/large.jpg": large})
    first = run_json(images, "--memory", "32M")

    assert (first["computed"], first["failed"]) == (18, 1)
    (failure,) = first["failures"]
    assert (failure["code"], failure["digest"]) == ("no-memory", tiny.digest(large).tobytes().hex())
    assert "--memory" in failure["message"]
    assert run_json(images, "--memory", "1G")["computed"] == 1


@pytest.fixture
def two_of_twenty(folder) -> Path:
    """Return a folder of 20 images of which 2 cannot be used: a tenth."""
    return folder({**CLASSES, "a/page.jpg": b"<html>", "b/empty.jpg": b""})


@each(
    "options, code",
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
def test_more_failures_than_allowed_exit_with_1_and_usable_images_are_cached(two_of_twenty, options, code):
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


def test_without_failures_strict_exits_with_0(folder):
    found = run_json(folder(CLASSES), "--strict")

    assert (found["failed"], found["failures"], found["failures_table"], found["problem"]) == (0, [], None, None)


@each("value", ["-1", "101%", "x", "1.5", "%", "nan", "inf", ""])
def test_an_invalid_limit_is_a_usage_error(folder, value):
    _, err = run(folder(CLASSES), f"--max-failures={value}", code=2)

    assert "expected a number of images, such as 25, or a share, such as 10%" in " ".join(err.split())


@each(
    "files, code, error",
    [
        (CLASSES, 0, None),
        ({**CLASSES, "a/page.jpg": b"<html>"}, 0, None),
        ({**CLASSES, **{f"a/page-{number}.jpg": b"<html>%d" % number for number in range(9)}}, 1, None),
        ({"a/x.jpg": b"<html>", "b/y.jpg": b""}, 1, "ImagesError"),
        ({"a/x.jpg": 1}, 1, "ImagesError"),
        ({"notes.txt": b"x"}, 1, "ImagesError"),
    ],
)
def test_stdout_holds_one_json_object_in_every_case(folder, tmp_path, files, code, error):
    found = run_json(folder(files, f"images-{tmp_path.name}"), code=code)

    if error:
        assert found["error"]["type"] == error
    else:
        assert "error" not in found
        assert found["failed"] == len(found["failures"])


def test_an_interrupt_gives_one_json_object(folder, monkeypatch):
    def interrupt() -> None:
        raise KeyboardInterrupt

    tiny.use(monkeypatch, before=interrupt)
    found = run_json(folder(CLASSES), code=130)

    assert found["error"]["type"] == "interrupted"
    _, err = run(folder(CLASSES), code=130)
    assert err.splitlines()[-1] == "Stopped. Committed work is kept; run the same command again to continue."


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
    out, err = run(images, "--max-failures", "50%")
    lines = err.splitlines()
    start = lines.index("5 not-an-image:")

    assert [line.split(":")[0].strip() for line in lines[start + 1 : start + 4]] == [
        str(images / f"a/page-{number}.jpg") for number in range(3)
    ]
    assert lines[start + 4 : start + 6] == ["  ... and 2 more", "1 empty:"]
    assert str(images / "b/empty.jpg") in lines[start + 6]
    assert lines[start + 7].startswith("all failed images: ")
    (counted,) = [line for line in out.splitlines() if " computed, " in line]
    assert "18 computed, 0 reused, 6 failed" in counted


def test_images_of_more_pixels_than_allowed_are_refused(folder):
    images = folder({**CLASSES, "a/large.jpg": photo(500, size=(200, 200))})
    found = run_json(images, "--max-pixels", 10_000)

    assert [failure["code"] for failure in found["failures"]] == ["too-large"]
    assert run_json(images, "--max-pixels", 40_000)["computed"] == 1


@each("value", ["0", "-1", "many"])
def test_an_invalid_number_of_pixels_is_a_usage_error(folder, value):
    out, err = run(folder(CLASSES), "--max-pixels", value, code=2)
    assert out == ""
    assert "Invalid value for '--max-pixels'" in err


def test_unused_frames_are_reported(folder, tmp_path):
    from tests.extraction.test_failures import gif

    images = folder({**CLASSES, "a/x.gif": gif(0, 255)})
    paths = sorted(path for path in images.rglob("*.*") if path.is_file())
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in paths))
    _, err = run(tmp_path / "list.csv")

    assert f"1 with several frames (GIF); the first is used: {images / 'a/x.gif'}" in err.splitlines()


# --- a real network -----------------------------------------------------------------------------------------------

MODEL = "timm/test_resnet"
# As little work as it takes, on the engine that has nothing to convert.
SMALL = ["--resize", 64, "--crop", 64, "--engine", "torch", "--precision", "fp32"]
CHANGED = [  # options, how many features
    (["--layer", "layer3"], 192),
    (["--layer", "layer3:input"], 48),
    (["--layer", "layer3", "--layer", "layer4"], 288),
    (["--layer", "layer4", "--layer", "layer3"], 288),
    (["--layer", "layer4", "--pool", "max"], 96),
    (["--layer", "layer4", "--pool", "gem"], 96),
    (["--layer", "layer4", "--pool", "none"], 96 * 2 * 2),
    (["--flip"], 96),
    (["--resize", 80], 96),
    (["--resize", 96, "--crop", 96], 96),
    (["--seed", 1], 96),
]


def words(value: object) -> str:
    """Name a test by its options."""
    return " ".join(map(str, value)) if isinstance(value, list) else "-"


@pytest.fixture
def images(folder, network) -> Path:
    """Return a folder of four images."""
    return folder({"a/0.jpg": 1, "a/1.jpg": 2, "b/0.jpg": 3, "b/1.jpg": 4})


def randomly(images: Path, *options: object, model: str = MODEL) -> dict[str, object]:
    return run_json(images, "--model", model, "--weights", "none", *SMALL, *options)


@pytest.fixture
def saved(tmp_path) -> Callable[..., Path]:
    """Return a function that saves a checkpoint of the network, with some tensors changed or (None) left out."""

    def save(name: str = "w.pth", **changed: torch.Tensor | None) -> Path:
        torch.manual_seed(5)
        tensors = timm.create_model("test_resnet").state_dict()
        tensors.update({key.replace("__", "."): value for key, value in changed.items()})
        torch.save({key: value for key, value in tensors.items() if value is not None}, tmp_path / name)
        return tmp_path / name

    return save


def from_file(images: Path, path: Path, *options: object) -> dict[str, object]:
    return run_json(images, "--model", MODEL, "--weights", path, *SMALL, *options)


def test_each_option_gives_separate_features(images):
    default = randomly(images)
    for options, dim in CHANGED:
        found = randomly(images, *options)
        assert found["fingerprint"] != default["fingerprint"], options
        assert (found["dim"], found["computed"], found["reused"]) == (dim, 4, 0), options
    assert randomly(images)["reused"] == 4


def test_the_default_layer_by_its_name_gives_the_default_features(images):
    assert randomly(images, "--layer", "fc:input")["fingerprint"] == randomly(images)["fingerprint"]


@each(
    "options, words",
    [
        (["--layer", "layer5"], r"expected the name of a layer, got 'layer5'; did you mean layer4"),
        (["--layer", "layer3", "--layer", "layer3"], r"expected different layers to concatenate, got layer3, layer3"),
        (["--pool", "max"], r"--pool max has nothing to pool: fc:input is one row per image"),
        (
            ["--layer", "layer4", "--pool", "cls"],
            r"expected a layer with a class token for --pool cls, layer4 has none",
        ),
        (["--crop", 100], r"expected a crop that fits into the resized image, got crop 100 and resize 64"),
        (["--allow-partial"], r"--allow-partial need a weights file: expected --weights PATH, got 'none'"),
        (["--restore-exclude", "fc"], r"--restore-exclude and .* expected --weights PATH, got 'none'"),
    ],
    ids=words,
)
def test_an_option_that_the_network_cannot_use_exits_with_1_and_a_reason(images, options, words):
    out, err = run(images, "--model", MODEL, "--weights", "none", *SMALL, *options, code=1)

    assert out == ""
    assert re.search(f"error: .*{words}", err)


@each("options", [["--pool", "mean"], ["--resize", "0"], ["--crop", "-1"], ["--crop", "large"]])
def test_an_option_that_no_network_can_use_is_a_usage_error(images, options):
    out, err = run(images, *options, code=2)
    assert out == ""
    assert f"Invalid value for '{options[0]}'" in err


def test_restored_tensors_are_reported(images, saved):
    _, err = run(images, "--model", MODEL, "--weights", saved(), *SMALL)

    assert re.search(r"w\.pth: 75 of 75 tensors restored; 2 not needed: fc\.weight, fc\.bias\n", err)


def test_a_checkpoint_that_does_not_fit_exits_with_1_and_shows_the_tensors(images, saved):
    path = saved(layer1__0__conv1__weight=torch.zeros(32, 16, 3, 3), layer2__0__conv1__weight=None)
    out, err = run(images, "--model", MODEL, "--weights", path, code=1)
    rows = [re.split(r"\s{2,}", line.strip()) for line in err.splitlines()]

    assert out == ""
    assert ["73 tensors", "restored"] in rows
    assert ["layer1.0.conv1.weight", "wrong shape", "32x32x3x3", "32x16x3x3"] in rows
    assert ["layer2.0.conv1.weight", "missing"] in rows
    assert "--allow-partial" in err.splitlines()[-1]
    assert not list(Path("cache").glob("features/*"))


def test_a_checkpoint_that_does_not_fit_is_one_json_object_too(images, saved):
    path = saved(layer2__0__conv1__weight=None)
    found = run_json(images, "--model", MODEL, "--weights", path, code=1)

    assert found["error"]["type"] == "WeightsMismatch"
    assert "layer2.0.conv1.weight" in found["error"]["message"]


def test_with_allow_partial_other_tensors_are_random_by_the_seed_and_reported(images, saved):
    path = saved(layer2__0__conv1__weight=None)
    _, err = run(images, "--model", MODEL, "--weights", path, *SMALL, "--allow-partial")
    one, other = (from_file(images, path, "--allow-partial", "--seed", seed) for seed in (0, 1))

    assert "74 of 75 tensors restored; 1 missing: layer2.0.conv1.weight" in err
    assert "warning: 1 of 75 tensors of timm/test_resnet are random (seed 0)" in err
    assert (one["reused"], other["reused"]) == (4, 0)
    assert one["fingerprint"] != other["fingerprint"] != from_file(images, saved("whole.pth"))["fingerprint"]


def test_tensors_can_be_left_out_of_a_checkpoint(images, saved):
    path = saved(layer1__0__conv1__weight=torch.zeros(32, 16, 3, 3))
    found = from_file(images, path, "--restore-exclude", "layer1.0.conv1")
    whole = from_file(images, saved("whole.pth"))
    less = from_file(images, saved("whole.pth"), "--restore-exclude", "layer1.0.conv1")

    assert found["fingerprint"] == less["fingerprint"] != whole["fingerprint"]


def test_with_the_same_options_nothing_is_computed_again_and_torch_is_not_imported(images):
    options = [*SMALL, "--layer", "layer3", "--pool", "max", "--flip"]
    first = randomly(images, *options)
    words = ["extract", images, "--model", MODEL, "--weights", "none", *options, "--json"]
    code = (
        "import sys; from bottleneck.cli.main import main\n"
        f"sys.argv[1:] = {list(map(str, words))!r}\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'torchvision', 'timm'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, imported = answer.stdout.splitlines()

    assert (json.loads(found)["reused"], json.loads(found)["fingerprint"]) == (4, first["fingerprint"])
    assert imported == "[]"


def test_a_run_predicts_with_the_layer_and_the_flip_that_it_was_fitted_on(folder, network):
    images = folder(CLASSES)
    randomly(images, "--layer", "layer3", "--flip", model="timm/test_resnet")
    for words in (["fit", "--split", "60/0/40", "--C", "1"], ["predict", folder({"x.jpg": 900, "y.jpg": 901}, "new")]):
        found = CliRunner().invoke(cli, [str(word) for word in [*words, "--json"]])
        assert found.exit_code == 0, found.output

    (path,) = Path("runs").iterdir()
    card = json.loads((path / "card.json").read_text())
    assert (card["request"]["layer"], card["request"]["flip"]) == (["layer3"], True)
    (store,) = FeatureCache("cache").stores()
    assert store.spec.fingerprint == card["fingerprint"]
    assert len(store.digests()) == len(CLASSES) + 2
