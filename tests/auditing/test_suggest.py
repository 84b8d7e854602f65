import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from bottleneck.auditing.suggest import labelled_images, suggest, uncertainty
from bottleneck.errors import ImagesError, RunError
from bottleneck.fitting.fit import fit
from bottleneck.images.scan import scan
from bottleneck.utils.csv_text import csv_bytes
from tests import tiny
from tests.auditing.conftest import cache_features, class_features
from tests.markup import parsed, text_in
from tests.variants import case

N = 80  # labelled images per class, a fifth of them between both classes
KNOWN = 9  # images of the pool like labelled ones
BETWEEN = 6  # images of the pool between two classes
NEW = 8  # images of a class that the run does not know
JUNK = 3  # images like nothing else


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return a folder with labelled images, a run, and a pool, all with made-up features."""
    root = tmp_path_factory.mktemp("suggest")
    random = np.random.default_rng(0)
    known = class_features([0] * N + [1] * N)
    middle = (known[:N].mean(axis=0) + known[N:].mean(axis=0)) / 2
    known[::5] = middle + random.normal(size=known[::5].shape)
    far = 6 - 9 * random.normal(size=known.shape[1])
    pool = np.vstack(
        [
            known[1:6] + random.normal(size=(5, known.shape[1])) / 4,
            known[N + 1 : N + 5] + random.normal(size=(4, known.shape[1])) / 4,
            middle + random.normal(size=(BETWEEN, known.shape[1])),
            far + random.normal(size=(NEW, known.shape[1])),
            40 * random.normal(size=(JUNK, known.shape[1])),
        ]
    )
    names = [f"{'ab'[row // N]}/{row}.jpg" for row in range(2 * N)]
    with pytest.MonkeyPatch.context() as patch:
        tiny.use(patch)
        patch.chdir(root)
        cache_features(tiny.SPEC, [f"pool{row:02d}.jpg" for row in range(len(pool))], pool.astype(np.float32))
        shutil.move("images", "pool")
        cache_features(tiny.SPEC, names, known, first=5000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit(split="80/0/20")
    return root


@pytest.fixture
def project(original, tmp_path, monkeypatch):
    tiny.use(monkeypatch)
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)


def numbers(found) -> list[int]:
    return [int(Path(one.path).stem[4:]) for one in found]


def kind(number: int) -> str:
    ends = np.cumsum([KNOWN, BETWEEN, NEW, JUNK])
    return ("known", "between", "new", "junk")[int(np.searchsorted(ends, number, side="right"))]


class TestWithARun:
    def test_uncertain_images_and_one_of_a_new_class(self, project):
        found = suggest("pool", budget=5)
        kinds = [kind(number) for number in numbers(found)]
        assert found.strategy == "margin_sampling"
        assert kinds.count("new") == 1
        assert kinds.count("between") == 4
        (new,) = [one for one in found if "a new class?" in one.reason]
        assert kind(numbers([new])[0]) == "new"
        assert new.familiarity < 0.01
        assert "5 of 26 images to label next chosen by margin sampling" in text_in(found._repr_html_())
        assert len(list(parsed(found._repr_html_()).iter("img"))) == 5

    def test_unfamiliar_images_come_last(self, project):
        found = suggest("pool", budget=100)
        assert len(found) == KNOWN + BETWEEN + NEW + JUNK
        assert {kind(number) for number in numbers(found)[-JUNK:]} <= {"junk", "new"}

    def test_strategies(self, project):
        for strategy in ("entropy", "core_set", "typi_clust", "random_sampling"):
            with case(strategy):
                found = suggest("pool", budget=4, strategy=strategy)
                assert len(set(numbers(found))) == 4
                assert found.strategy == strategy

    def test_the_order_of_the_files_has_no_effect(self, project):
        files = sorted(str(path) for path in Path("pool").iterdir())
        digests = [[one.digest for one in suggest(order, budget=6)] for order in (files, files[::-1])]
        assert digests[0] == digests[1]

    def test_images_of_the_run_and_copies_are_left_out(self, project):
        shutil.copy("images/a/0.jpg", "pool/known.jpg")
        shutil.copy("pool/pool12.jpg", "pool/copy.jpg")
        found = suggest("pool", budget=100)
        assert (found.pool.known, found.pool.copies) == (1, 1)
        assert "pool/known.jpg" not in [one.path for one in found]

    def test_json_rows_and_frames(self, project):
        found = suggest("pool", budget=3)
        value = json.loads(json.dumps(found.to_json()))
        assert [one["path"] for one in value["suggestions"]] == [one.path for one in found]
        assert value["pool"] == KNOWN + BETWEEN + NEW + JUNK
        assert found.to_frame()["suggested"].tolist() == [one.suggested for one in found]
        assert found.to_frame()["margin"].tolist() == [one.margin for one in found]
        assert 0 <= found[0].margin <= found[0].probability <= 1

    def test_a_table_with_the_labelled_images_is_the_next_dataset(self, project):
        found = suggest("pool", budget=3)
        table = Path("next.csv")
        header, *rows = found.to_rows(table, labelled_images(None, "cache", "runs"))
        assert [row[header.index("label")] for row in rows[:3]] == [None] * 3
        for row in rows[:3]:
            row[header.index("label")] = "c"
        table.write_bytes(csv_bytes([header, *rows]))
        dataset = scan(table)
        assert dataset.classes == ("a", "b", "c")
        assert len(dataset) == 2 * N + 3
        assert {dataset.splits[row] for row, label in enumerate(dataset.labels) if label == "c"} == {"train"}
        before = scan("images", split="80/0/20")
        splits = dict(zip(map(bytes, dataset.digests), dataset.splits, strict=True))
        assert [splits[bytes(row)] for row in before.digests] == list(before.splits)


class TestWithoutARun:
    def test_typical_images_of_different_clusters(self, project):
        shutil.rmtree("runs")
        found = suggest("pool", budget=3, model="tiny")
        assert found.strategy == "typi_clust"
        assert len({kind(number) for number in numbers(found)}) == 3
        assert found[0].suggested is found[0].probability is found[0].nearest_labelled is None
        with pytest.raises(RunError):
            labelled_images(None, "cache", "runs")

    def test_a_single_image(self, project):
        (only,) = suggest("pool/pool00.jpg", budget=5, model="tiny")
        assert only.path == "pool/pool00.jpg"


def test_invalid_values(project):
    for options, message in (
        ({"budget": 0}, "budget"),
        ({"budget": 2, "strategy": "magic"}, "margin_sampling"),
        ({"budget": 2, "strategy": "entropy", "model": "tiny"}, "expected a run"),
        ({"budget": 2, "run": "x", "model": "tiny"}, "got both"),
    ):
        with case(options), pytest.raises(ImagesError, match=message):
            suggest("pool", **options)


def test_uncertainty_is_between_0_and_1():
    shares = np.array([[1, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]])
    assert uncertainty(shares, "margin_sampling").tolist() == [0, 1, 1]
    assert np.allclose(uncertainty(shares, "entropy"), [0, np.log(2) / np.log(3), 1])
