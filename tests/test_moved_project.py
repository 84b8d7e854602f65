"""A project that is renamed, copied or mounted elsewhere goes on; so does one without its weights file."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
import timm
import torch

from bottleneck.comparison.compare import compare
from bottleneck.errors import RunError, WeightsUnavailable
from bottleneck.extraction.extract import extract
from bottleneck.finetuning.config import FineTuneConfig, load_config, save_config
from bottleneck.finetuning.finetune import finetune
from bottleneck.finetuning.recipe import Recipe
from bottleneck.fitting.fit import fit
from bottleneck.fitting.inputs import select
from bottleneck.prediction.predict import predict
from bottleneck.runs.run import list_runs
from bottleneck.utils.files import file_sha256
from tests.conftest import write
from tests.finetuning.conftest import make_images, picture
from tests.variants import each

ASKED = {"model": "timm/test_resnet", "resize": 32, "crop": 32, "engine": "torch", "precision": "fp32"}
RECIPE = Recipe(last=0, epochs=1, views=1, augment="none")


def save_weights(path: Path, seed: int = 1) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.save(timm.create_model("test_resnet").state_dict(), path)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return a project of relative paths that was renamed since."""
    root = tmp_path_factory.mktemp("projects") / "before"
    make_images(root / "photos", {"train": 6, "val": 3, "test": 3})
    save_weights(root / "mine.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        extract("photos", weights="mine.pth", **ASKED)
        fit(head="centroid")
    return root.rename(root.parent / "after")


@pytest.fixture
def project(original, tmp_path, monkeypatch):
    """Return a copy of it, in which the test runs."""
    copy = shutil.copytree(original, tmp_path / "project")
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def run(project):
    (found,) = list_runs("runs")
    return found


def new_image(project: Path, seed: int = 77) -> Path:
    return write(project / "new" / f"{seed}.png", picture("red", seed))


def forget(project: Path) -> None:
    """Take from what is recorded all that versions before did not record."""
    for file in (*project.glob("runs/*/card.json"), *project.glob("cache/features/*/request.json")):
        value = json.loads(file.read_text())
        request = value.get("request", value)
        del request["weights_file"]
        value.get("dataset", {}).pop("place", None)
        file.write_text(json.dumps(value))


@pytest.mark.parametrize("old", [False, True], ids=["", "of an older version"])
def test_its_runs_predict_images_that_are_new(project, run, old):
    if old:
        forget(project)

    (found,) = predict(new_image(project), run=run.name)

    assert found.label in run.head.classes


def test_nothing_is_written_for_images_that_are_cached(project, run):
    def files() -> dict[Path, int]:
        """Return all but memos."""
        found = (path for path in project.rglob("*") if path.is_file())
        return {
            path: path.stat().st_mtime_ns for path in found if path.suffix != ".sqlite" and "index" not in path.parts
        }

    before = files()

    assert len(predict("photos/test", run=run.name)) == 9

    assert files() == before


@pytest.mark.parametrize("old", [False, True], ids=["", "of an older version"])
def test_without_the_weights_file_cached_images_are_predicted_and_new_ones_tell_which_it_was(project, run, old):
    wanted = [one.probability for one in predict("photos/test", run=run.name)]
    digest = file_sha256("mine.pth")
    if old:
        forget(project)
    Path("mine.pth").unlink()

    assert [one.probability for one in predict("photos/test", run=run.name)] == wanted
    fit(head="ridge")
    with pytest.raises(WeightsUnavailable, match=r"before/mine\.pth.*pass its new path") as caught:
        predict(new_image(project), run=run.name)
    assert (digest in str(caught.value)) is not old


def test_a_weights_file_that_was_renamed_or_named_again_is_found(project, run, tmp_path):
    file = Path("mine.pth")
    for seed, place in enumerate(["other-name.pth", "weights/mine.pth"]):
        Path(place).parent.mkdir(exist_ok=True)
        file = file.rename(place)
        assert len(predict(new_image(project, seed), run=run.name)) == 1, place

    far = tmp_path / "far" / "away"
    far.mkdir(parents=True)
    file.rename(far / "x.pth")
    with pytest.raises(WeightsUnavailable):
        predict(new_image(project), run=run.name)

    assert extract("photos", weights=str(far / "x.pth"), **ASKED).computed == 0

    assert len(predict(new_image(project), run=run.name)) == 1


def test_another_file_in_its_place_is_not_taken_for_it(project, run):
    save_weights(Path("mine.pth"), seed=2)

    with pytest.raises(RunError, match="The weights or the libraries have changed"):
        predict(new_image(project), run=run.name)


def test_all_commands_go_on(project, run):
    write(project / "photos" / "train" / "red" / "more.png", picture("red", 78))
    asked = select("photos/test", model=None, cache="cache", runs="runs", labels=False).store.asked()
    assert asked.file == project / "mine.pth"

    done = extract("photos", weights=asked.weights, **ASKED)

    assert (done.computed, done.reused) == (1, 36)
    assert fit("photos", head="centroid").card["fingerprint"] == run.card["fingerprint"]
    compared = compare("photos", models=[done.store.short_name], heads=["ridge"])
    assert len(compared.rows) == 1


@pytest.mark.parametrize("old", [False, True], ids=["", "of an older version"])
def test_its_head_is_fine_tuned_on_the_images_where_they_are_now(project, run, old):
    if old:
        forget(project)

    tuned = finetune(recipe=RECIPE, run=run.name)

    assert tuned.card["from"]["run"] == run.name
    assert Path(tuned.card["dataset"]["source"]) == project / "photos"
    Path("mine.pth").unlink()
    assert len(predict(new_image(project), run=tuned)) == 1  # it has the whole network
    moved = project.rename(project.parent / "again")
    (again,) = [one for one in list_runs(moved / "runs") if one.is_tuned]
    write(moved / "new" / "2.png", picture("red", 79))
    assert len(predict(moved / "new", run=again, cache=moved / "cache", runs=moved / "runs")) == 2


@each("moved, old", itertools.product([False, True], repeat=2))
def test_a_fine_tuning_that_is_resumed_finds_its_run_and_images(tmp_path, moved, old):
    home = tmp_path / "before"
    for name in ("runs/one", "runs/tuned", "photos"):
        (home / name).mkdir(parents=True)
    settings = FineTuneConfig(recipe=RECIPE, run=str(home / "runs" / "one"), source=str(home / "photos"))
    save_config(home / "runs" / "tuned", settings)
    if old:
        file = home / "runs" / "tuned" / "finetune.json"
        file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "places"}))
    if moved:
        home = home.rename(tmp_path / "after")

    found = load_config(home / "runs" / "tuned")

    assert (found.run, found.source) == (str(home / "runs" / "one"), str(home / "photos"))


def test_a_resumed_fine_tuning_that_misses_a_file_names_its_former_path(tmp_path):
    (tmp_path / "runs" / "tuned").mkdir(parents=True)
    save_config(tmp_path / "runs" / "tuned", FineTuneConfig(recipe=RECIPE, run="/gone/runs/one", source="/gone/photos"))

    found = load_config(tmp_path / "runs" / "tuned")

    assert (found.run, found.source) == ("/gone/runs/one", "/gone/photos")
