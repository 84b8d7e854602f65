"""Every JSON file that a stranger may hand over, with something else in each of its places."""

import copy
import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bottleneck.backbones.request import Request
from bottleneck.backbones.spec_memo import recall
from bottleneck.backbones.tuned import Tuned, record_tuned, recorded_tuned
from bottleneck.cache.feature_cache import FeatureCache, find_anywhere
from bottleneck.cache.last import load_last, load_latest
from bottleneck.cache.maintain import gc, info
from bottleneck.cache.merge import merge
from bottleneck.cache.scans import load_scan, read_scan, scanned
from bottleneck.engines.records import Check, EngineRecords
from bottleneck.errors import BottleneckError, BottleneckWarning
from bottleneck.extraction.extract import extract
from bottleneck.finetuning.config import FineTuneConfig, load_config, save_config, unfinished
from bottleneck.finetuning.handback import handback_obstacle, refit_or_keep
from bottleneck.finetuning.initial import default_head, from_head
from bottleneck.finetuning.recipe import Recipe
from bottleneck.fitting.fit import fit
from bottleneck.fitting.inputs import select
from bottleneck.images.splits import Shares
from bottleneck.prediction.predict import predict
from bottleneck.runs.backbone_request import located_source, spec_of
from bottleneck.runs.ranking import choose
from bottleneck.runs.run import Run, list_runs, load_run
from tests.conftest import photo, write
from tests.variants import each

GONE = object()
ODD: list[Any] = [
    GONE, None, True, 0, -1, 7.5, math.nan, math.inf, 10**400, "", "x\0", "~nobody9/x.pth", "x" * 5000,
    "\ud800", [], ["x", 5], {}, {"\udc80": 1},
]  # fmt: skip
ASKED = {"model": "mobilenet_v3_small", "weights": "none", "crop": 32, "resize": 32, "precision": "fp32"}
MODEL = ASKED["model"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with images, their features and two runs."""
    root = tmp_path_factory.mktemp("original")
    for place, name in enumerate("ab"):
        for number in range(8):
            write(root / "images" / name / f"{number}.jpg", photo(100 * place + number))
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore", BottleneckWarning)
        patch.chdir(root)
        store = extract("images", engine="torch", **ASKED).store
        for _ in range(2):
            fit(split="60/20/20", C=1.0)
        record_tuned(
            store.folder, Tuned(model=MODEL, weights="none", options={"crop": 32}, dataset="0" * 64, score=0.5)
        )
        EngineRecords(store.engines).keep_check("one", Check("torch", "fp32", 0.9999, 0.9998, 3, "0" * 64))
        save_config(make(Path("runs/begun")), FineTuneConfig(recipe=Recipe(lr_mult=(("a", 2.0),)), run="r", source="s"))
    return root


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture
def project(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(original / "cache", tmp_path / "cache")
    shutil.copytree(original / "runs", tmp_path / "runs")
    shutil.copytree(original / "images", tmp_path / "images")
    return tmp_path


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where something is in a JSON value; of long lists only the first."""
    yield above
    if isinstance(value, dict):
        for name, inside in value.items():
            yield from places(inside, (*above, name))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*above, 0))


def changed(value: Any, place: tuple[Any, ...], other: Any) -> Any:
    """Return a JSON value with something else in a place."""
    if not place:
        return other
    found = inside = copy.deepcopy(value)
    for name in place[:-1]:
        inside = inside[name]
    if other is GONE:
        del inside[place[-1]]
    else:
        inside[place[-1]] = other
    return found


def mutations(file: Path, every: int = 1) -> Iterator[tuple[str, str]]:
    """Yield the texts of a file with something else in each place, and what that is.

    In each place some of the odd values, one of so many, in the next place the next of them.
    """
    value = json.loads(file.read_text())
    for number, place in enumerate(places(value)):
        for other in ODD[number % every :: every]:
            if place or other is not GONE:
                yield json.dumps(changed(value, place, other)), f"{file.name} {place}: {other!r:.40}"


def only_ours(what: str, *calls: Callable[[], object]) -> None:
    """Call functions, none of which may raise anything but an error of ours."""
    for call in calls:
        try:
            with suppress(BottleneckError), warnings.catch_warnings():
                warnings.simplefilter("ignore", BottleneckWarning)
                call()
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


def the_store() -> Path:
    (folder,) = Path("cache/features").iterdir()
    return folder


def asked_of_stores() -> None:
    for store in FeatureCache("cache").stores():
        store.asked()


@each("name", ["request.json", "spec.json", "tuned.json", "engines/one.json"])
def test_the_files_of_a_store(project: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(project / "cache", "cache")
    file = the_store() / name
    for text, what in mutations(file):
        file.write_text(text)
        only_ours(
            what,
            lambda: info(FeatureCache("cache")),
            lambda: find_anywhere(FeatureCache("cache"), "mobilenet_v3_small"),
            asked_of_stores,
            lambda: recorded_tuned(file.parent),
            lambda: EngineRecords(file.parent).checks(),
        )


@each("name", ["request.json", "spec.json", "tuned.json"])
def test_a_merge_takes_over_only_what_can_be_read_again(project: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(project / "cache", "theirs")
    (folder,) = Path("theirs/features").iterdir()
    file = folder / name
    for text, what in mutations(file, 3):
        file.write_text(text)
        shutil.rmtree("cache", ignore_errors=True)
        only_ours(what, lambda: merge(FeatureCache("cache"), "theirs"))
        only_ours(what, lambda: info(FeatureCache("cache")), asked_of_stores)
        for store in FeatureCache("cache").stores():
            assert (store.request() is None) == (not (store.folder / "request.json").exists()), what
            assert (recorded_tuned(store.folder) is None) == (not (store.folder / "tuned.json").exists()), what


def test_a_scan(project: Path) -> None:
    (file,) = scanned(Path("cache"))
    whole, right = file.read_text(), load_scan(Path("cache"), "images", Shares())
    assert len(right) == 16
    shutil.copytree("cache", "theirs")
    theirs = "theirs" / file.relative_to("cache")
    for text, what in mutations(file, 3):
        file.write_text(text)
        theirs.write_text(text)
        only_ours(what, lambda: load_scan(Path("cache"), "images", Shares()))
        only_ours(what, lambda: gc(FeatureCache("cache"), dry_run=True))
        shutil.rmtree("ours", ignore_errors=True)
        only_ours(what, lambda: merge(FeatureCache("ours"), "theirs"))
        for taken in scanned(Path("ours")):
            assert read_scan(taken).paths == read_scan(theirs).paths, what
    file.write_text(whole)
    again = load_scan(Path("cache"), "images", Shares())
    assert (again.paths, again.labels) == (right.paths, right.labels)


def test_what_was_extracted_last(project: Path) -> None:
    right = (load_last(Path("cache")), load_latest(Path("cache"), Path("images")))
    assert None not in right
    for file in Path("cache/last").rglob("*.json"):
        whole = file.read_text()
        for text, what in mutations(file, 2):
            file.write_text(text)
            only_ours(
                what,
                lambda: load_last(Path("cache")),
                lambda: load_latest(Path("cache"), Path("images")),
                lambda: select(None, model=None, cache="cache", runs="runs"),
            )
        file.write_text(whole)
        assert (load_last(Path("cache")), load_latest(Path("cache"), Path("images"))) == right


def test_the_memo_of_a_spec_is_read_back_or_missing(project: Path) -> None:
    (file,) = Path("cache/specs").iterdir()
    right = recall(Request(**ASKED), Path("cache"))
    assert right is not None
    for text, what in mutations(file, 2):
        file.write_text(text)
        assert recall(Request(**ASKED), Path("cache")) in (None, right), what


def test_a_memo_that_was_changed_changes_no_result(project: Path) -> None:
    (file,) = Path("cache/specs").iterdir()
    value = json.loads(file.read_text())
    value["preprocessing"]["resize"] = 40
    file.write_text(json.dumps(value))
    with pytest.warns(BottleneckWarning, match="random weights"):
        done = extract("images", engine="torch", **ASKED)
    assert (done.computed, done.reused) == (0, 16)
    assert len(FeatureCache("cache").stores()) == 1


def read_runs() -> None:
    runs = list_runs("runs")
    assert len(runs) >= 1  # the other one goes on
    if runs:
        choose(runs)


def read_one(run: Run) -> None:
    """Take from a card whatever a command takes."""
    _ = repr(run), run.request, run.features, spec_of(run.card), handback_obstacle(run), run.head
    if "source" in run.card["dataset"]:
        located_source(run.path, run.card)


def fit_again(run: Run) -> None:
    train = select("images", model=None, cache="cache", runs="runs").usable
    refit_or_keep(run, train, FeatureCache("cache").stores()[0])


def hand_back(run: Run) -> None:
    from_head(None, run.path, cache="cache", runs="runs", progress=None)


def test_a_card_of_a_run(project: Path) -> None:
    first = sorted(Path("runs").glob("*/card.json"))[0]
    tried = []
    for text, what in mutations(first, 4):
        tried.append(what)
        first.write_text(text)
        only_ours(what, read_runs, lambda: default_head("runs"), lambda: default_head("runs", "images"))
        only_ours(what, lambda: read_one(load_run(first.parent)))
        if "params" in what or "normalize" in what or "seed" in what:
            only_ours(what, lambda: fit_again(load_run(first.parent)))
        if "request" in what or "dataset" in what:
            only_ours(what, lambda: hand_back(load_run(first.parent)))
    assert len(tried) > 100  # and none raised an error that is not ours


def test_a_card_of_a_final_run(project: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BottleneckWarning)  # of few images
        final = fit("images", split="60/20/20", C=1.0, final=True)
    file = final.path / "card.json"
    value = json.loads(file.read_text())
    for place in places(value["final"], ("final",)):
        for other in ODD:
            file.write_text(json.dumps(changed(value, place, other)))
            only_ours(f"{place}: {other!r:.40}", read_runs, lambda: default_head("runs"))
            only_ours(f"{place}: {other!r:.40}", lambda: read_one(load_run(final.path)))
    file.write_text(json.dumps(changed(value, ("final", "n_train"), "7")))
    with pytest.raises(BottleneckError, match=r"card\.json.*final"):
        load_run(final.path)


@each(
    "place, other",
    [
        (("request", "weights"), 5),
        (("request", "weights"), "~nobody9/x.pth"),
        (("search", "cv_accuracy"), 10**400),
        (("dataset", "digest"), math.nan),
        (("classes", 0), "\ud800"),
        (("spec", "precision"), ["fp32"]),
    ],
)
def test_images_are_not_predicted_with_a_card_that_is_wrong(project: Path, place: tuple[Any, ...], other: Any) -> None:
    file = sorted(project.glob("runs/*/card.json"))[0]
    whole = file.read_text()
    file.write_text(json.dumps(changed(json.loads(whole), place, other)))
    with pytest.raises(BottleneckError, match=r"card\.json"):
        predict(project / "images", run=file.parent, cache=project / "cache")
    file.write_text(whole)


def test_the_settings_of_a_fine_tuning(project: Path) -> None:
    file = Path("runs/begun/finetune.json")
    tried = []
    for text, what in mutations(file):
        tried.append(what)
        file.write_text(text)
        only_ours(what, lambda: load_config(file.parent), lambda: unfinished("runs", "last"))
    assert len(tried) > 20  # and none raised an error that is not ours
