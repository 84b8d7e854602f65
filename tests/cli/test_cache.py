import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bottleneck.cache.compact import compact
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.lock import maintenance
from bottleneck.cache.maintain import gc, remove
from bottleneck.cli.main import cli
from bottleneck.errors import CacheError
from tests.cli.conftest import EXTRACT, run
from tests.conftest import photo, write
from tests.variants import each

CLASSES = {f"{name}/{number}.jpg": 100 * place + number for place, name in enumerate("ab") for number in range(5)}
COMMANDS = ["info", "verify", "merge", "compact", "export", "rm", "gc"]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return a folder of images and a cache with their features in one shard."""
    root = tmp_path_factory.mktemp("cache")
    for name, seed in CLASSES.items():
        write(root / "images" / name, photo(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run(*EXTRACT, "images")
        run("cache", "compact")  # a slow machine may have left several
    return root


@pytest.fixture
def images(original, tmp_path):
    """Return the images, of which features are in ``cache``."""
    shutil.copytree(original / "cache", tmp_path / "cache")
    return shutil.copytree(original / "images", tmp_path / "images")


def store():
    (found,) = FeatureCache("cache").stores()
    return found


def test_the_group_lists_its_commands_in_the_order_of_the_work():
    assert list(cli.commands["cache"].commands) == COMMANDS
    help_ = run("cache", "--help")[0]
    assert [help_.index(f"  {name} ") for name in COMMANDS] == sorted(help_.index(f"  {name} ") for name in COMMANDS)


@each("name", COMMANDS)
def test_every_command_has_help_and_the_common_options(name):
    printed = run("cache", name, "--help")[0]
    for option in ("--cache", "--runs", "--json", "--debug"):
        assert option in printed


def test_info_shows_each_spec_on_one_line_of_80_columns(images):
    stdout, stderr = run("cache", "info")
    assert stderr == ""
    (line,) = [line for line in stdout.splitlines() if line.split()[:1] == [store().short_name]]
    assert line.split()[1:3] == ["10", "1280"]
    assert max(map(len, stdout.splitlines())) <= 80
    assert "1 spec, 10 rows" in stdout
    assert f"{store().short_name}: --resize 32 --crop 32 --precision fp32" in stdout.splitlines()


def test_info_as_json_has_bytes_and_dates(images):
    (found,) = json.loads(run("cache", "info", "--json")[0])["specs"]
    assert (found["images"], found["dim"], found["dtype"], found["shards"]) == (10, 1280, "float32", 1)
    assert found["bytes"] == store().shards()[0].stat().st_size
    assert found["first"] <= found["last"]


@each(
    "make, says",
    [
        (lambda path: None, "there is no folder new"),
        (lambda path: path.mkdir(), "new has no folder features/"),
        (lambda path: (path / "features").mkdir(parents=True), "new is empty"),
        (lambda path: write(path / "a/photo.jpg", photo(1)), "new has no folder features/"),
    ],
)
def test_info_of_nothing_says_so_and_creates_nothing(tmp_path, make, says):
    make(tmp_path / "new")
    before = sorted(tmp_path.rglob("*"))
    out, err = run("cache", "info", "--cache", "new")
    assert out == "0 specs, 0 rows, 0.0 MB in new\n"
    assert err.startswith(says)
    assert "bottleneck extract" in err
    assert json.loads(run("cache", "info", "--cache", "new", "--json")[0])["specs"] == []
    assert sorted(tmp_path.rglob("*")) == before


@each(
    "words",
    [["verify"], ["compact"], ["gc"], ["rm", "resnet18"], ["export", "--out", "x.npz"], ["merge", "other"]],
    ids=lambda words: words[0],
)
def test_a_missing_cache_is_an_error_and_is_not_created(tmp_path, words):
    _, err = run("cache", *words, "--cache", "new", code=1)
    assert err.startswith("error: ")
    assert "bottleneck extract" in err or words[0] == "merge"
    assert list(tmp_path.iterdir()) == []


@each("name, says", [("verify", "nothing to verify"), ("compact", "nothing to compact")])
def test_an_empty_cache_is_no_error(tmp_path, name, says):
    (tmp_path / "new").mkdir()
    assert says in run("cache", name, "--cache", "new")[0]
    assert list((tmp_path / "new").iterdir()) == []


@each("name", ["info", "verify", "compact", "gc"])
def test_a_cache_that_is_a_file_is_refused(tmp_path, name):
    (tmp_path / "new").write_text("x")
    assert "expected the folder of a cache at new" in run("cache", name, "--cache", "new", code=1)[1]


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    os.utime(path, (1, 1))


def test_verify_exits_with_1_on_damage_and_extract_says_so_and_computes_again(images):
    assert run("cache", "verify") == ("1 shard, all intact\n", "")
    damage(store().shards()[0])
    stdout, stderr = run("cache", "verify", "--json", code=1)
    assert len(json.loads(stdout)["damage"]) == 1
    assert "damaged" in stderr
    assert json.loads(run(*EXTRACT, images, "--json")[0])["computed"] == 10
    found = json.loads(run("cache", "verify", "--json")[0])
    assert (found["cache"], found["damage"]) == ("cache", [])

    damage(store().shards()[0])
    stdout, stderr = run(*EXTRACT, images, "--json")
    assert json.loads(stdout)["computed"] > 0
    assert "moved to" in stderr


def test_heads_can_be_fitted_on_merged_features(folder, images, tmp_path):
    stdout, stderr = run("cache", "merge", "cache", "--cache", "other", "--json")
    (merged,) = json.loads(stdout)["merged"]
    assert (merged["added"], merged["known"], merged["scans"], merged["problems"]) == (10, 0, 1, [])
    assert "10 images added" in stderr
    shutil.rmtree(images)
    assert (
        "held-out" in run("fit", images, "--cache", "other", "--split", "60/0/40", "--cv", "2", "--head", "centroid")[0]
    )


def test_merge_of_several_with_damage_takes_the_rest_and_exits_with_1(images, folder):
    more = folder(
        {f"{name}/{n}.jpg": 700 + 10 * place + n for place, name in enumerate("ab") for n in range(3)}, "more"
    )
    run(*EXTRACT, more, "--cache", "second")
    damage(next(Path("cache").glob("features/*/shards/*.h5")))
    stdout, stderr = run("cache", "merge", "cache", "second", "--cache", "third", "--json", code=1)
    assert [merged["added"] for merged in json.loads(stdout)["merged"]] == [0, 6]
    assert "all others were merged" in stderr


def test_merge_refuses_features_that_are_not_those_of_the_images(images):
    theirs = store()
    digests = theirs.digests()
    features = -theirs.read(digests)
    for path in theirs.shards():
        theirs.drop(path.stem)
    theirs.append(digests, features)
    stdout, stderr = run("cache", "merge", "cache", "--cache", "third", "--json", code=1)
    (merged,) = json.loads(stdout)["merged"]
    assert (merged["added"], merged["recomputed"], len(merged["problems"])) == (0, 3, 1)
    assert "no features of this spec are merged" in stderr
    stdout, stderr = run("cache", "merge", "cache", "--cache", "fourth", "--json", "--recompute", "0")
    (merged,) = json.loads(stdout)["merged"]
    assert (merged["added"], merged["recomputed"], merged["notes"]) == (10, 0, [])
    run("cache", "merge", "cache", "--recompute", "-1", code=2)


def test_merge_reports_specs_that_cannot_be_recomputed(images):
    shutil.rmtree(images)
    stdout, stderr = run("cache", "merge", "cache", "--cache", "other", "--json")
    assert json.loads(stdout)["merged"][0]["added"] == 10
    assert "nothing was recomputed: none of its images is on this machine" in stderr


def test_merging_a_folder_that_is_no_cache_is_an_error(images):
    assert "expected a cache" in run("cache", "merge", images, code=1)[1]
    run("cache", "merge", code=2)


def test_compact_joins_what_several_extractions_left(images):
    for number in range(3):
        write(images / f"a/new{number}.jpg", photo(500 + number))
        run(*EXTRACT, images)
    stdout, stderr = run("cache", "compact", "--json")
    assert list(json.loads(stdout)["specs"].values()) == [{"before": 4, "after": 1}]
    assert "4 shards before, 1 after" in stderr
    assert json.loads(run(*EXTRACT, images, "--json")[0])["reused"] == 13
    run("cache", "compact", store().short_name)
    assert "found 0 specs" in run("cache", "compact", "nothing", code=1)[1]


@each("name, words", [("x.npz", []), ("x.bin", ["--format", "npz"])])
def test_export_writes_what_was_extracted_last(images, tmp_path, name, words):
    where = ["--cache", images.parent / "cache", "--json"]
    stdout, stderr = run("cache", "export", images, "--out", name, *words, *where)
    answer = json.loads(stdout)
    assert (answer["rows"], answer["format"], answer["failed"]) == (10, "npz", 0)
    assert "10 rows written" in stderr
    with np.load(name) as arrays:
        assert arrays["features"].shape == (10, 1280)
        assert arrays["label"].tolist() == ["a"] * 5 + ["b"] * 5
        assert arrays["path"].tolist() == sorted(str(images / name) for name in CLASSES)
        assert set(arrays["split"].tolist()) <= {"train", "val", "test"}


def test_export_lists_what_failed_and_leaves_out_labels_that_are_not_there(folder, images):
    write(images / "a/page.jpg", b"<html>")
    run(*EXTRACT, images)
    stdout, stderr = run("cache", "export", "--out", "x.npz", "--json")
    assert (json.loads(stdout)["rows"], json.loads(stdout)["failed"]) == (10, 1)
    assert "page.jpg" in stderr

    flat = folder({"1.jpg": 801, "2.jpg": 802}, "flat")
    run(*EXTRACT, flat, "--no-labels")
    run("cache", "export", "--out", "x.npz")
    with np.load("x.npz") as arrays:
        assert arrays["label"].tolist() == ["", ""]


def test_export_needs_features_a_file_and_a_format(folder, images):
    more = folder({"a/1.jpg": 901, "b/2.jpg": 902}, "more")
    assert "extract" in run("cache", "export", more, "--out", "x.npz", code=1)[1]
    assert not Path("x.npz").exists()
    run("cache", "export", code=2)
    for name in ("x.csv", "x.html", "x"):
        assert (
            "to end in one of .npz, .h5, .hdf5, .parquet, or --format; got"
            in run("cache", "export", "--out", name, code=2)[1]
        )


def test_export_with_parts_writes_maps_neighbours_and_pictures(images):
    pq = pytest.importorskip("pyarrow.parquet")
    words = ["--with", "map,neighbours", "--with", "pictures", "--json"]
    stdout, stderr = run("cache", "export", images, "--out", "x.parquet", *words)
    answer = json.loads(stdout)
    assert (answer["rows"], answer["failed"], answer["without_picture"]) == (10, 0, 0)
    assert answer["with"] == ["map", "neighbours", "pictures"]
    assert "10 rows written to x.parquet (parquet) with map, neighbours, pictures, 0 failed" in stderr
    table = pq.read_table("x.parquet")
    assert table.column_names[-4:] == ["x", "y", "neighbours", "image"]
    assert [len(row["ids"]) for row in table["neighbours"].to_pylist()] == [9] * 10


def test_export_with_parts_needs_parquet(images):
    assert "expected --out FILE.parquet" in run("cache", "export", "--out", "x.npz", "--with", "map", code=2)[1]
    assert "got 'maps'" in run("cache", "export", "--out", "x.parquet", "--with", "maps", code=2)[1]


def test_rm_deletes_a_spec(images):
    stdout, stderr = run("cache", "rm", "efficientnet_lite0", "--json")
    assert json.loads(stdout)["deleted"]["images"] == 10
    assert "deleted efficientnet_lite0-" in stderr
    assert FeatureCache("cache").stores() == []
    assert "found 0 specs" in run("cache", "rm", "efficientnet_lite0", code=1)[1]
    assert json.loads(run(*EXTRACT, images, "--json")[0])["computed"] == 10


def test_gc_deletes_what_no_dataset_names_once_it_is_old(images):
    (images / "a/0.jpg").unlink()
    run(*EXTRACT, images)
    assert json.loads(run("cache", "gc", "--json")[0])["young"] == 1
    stdout, stderr = run("cache", "gc", "--days", "0", "--dry-run", "--json")
    assert (json.loads(stdout)["images"], json.loads(stdout)["dry_run"]) == (1, True)
    assert "would delete" in stderr
    assert len(store().digests()) == 10
    run("cache", "gc", "--days", "0")
    assert len(store().digests()) == 9
    assert json.loads(run(*EXTRACT, images, "--json")[0])["reused"] == 9


def test_two_maintenance_jobs_at_once_are_refused(images):
    cache = FeatureCache("cache")
    with maintenance(store().folder):
        for job in (
            lambda: compact(store(), patience=0.0),
            lambda: gc(cache, days=0.0, patience=0.0),
            lambda: remove(cache, "efficientnet_lite0", patience=0.0),
        ):
            with pytest.raises(CacheError, match="try again later"):
                job()
    assert len(store().digests()) == 10


# --- activations ------------------------------------------------------------------------------------------------


@pytest.fixture
def activations(images):
    """Return a store of wide activations of two of the images."""
    kept = FeatureCache("cache").activations().store(replace(store().spec, layer="blocks.6.0", pooling="none"))
    kept.append(store().digests()[:2], np.ones((2, 200_704), np.float16))
    return kept


def test_info_shows_activations_below_the_features_and_how_to_delete_them(activations):
    lines = run("cache", "info")[0].splitlines()
    rows = [line.split() for line in lines]
    features, kept = ([row[0] for row in rows if row].index(one.short_name) for one in (store(), activations))
    assert features < kept
    (row,) = [row for row in rows if row[:1] == [activations.short_name]]
    assert row[1:4] == ["2", "200704", "1"]
    assert max(map(len, lines[: [line.startswith("at ") for line in lines].index(True)])) <= 80
    assert "1 spec, 10 rows" in "\n".join(lines)
    assert "activations of 1 spec, 2 rows" in "\n".join(lines)
    assert f"at blocks.6.0: {activations.short_name}" in lines
    assert "deleted at any time with `bottleneck cache rm SPEC`; fine-tuning computes them again" in lines[-1]


def test_info_without_activations_does_not_mention_them(images):
    stdout, stderr = run("cache", "info", "--json")
    assert "activations" not in stderr
    assert json.loads(stdout)["activations"] == []


def test_info_as_json_lists_activations_separately(activations):
    told = json.loads(run("cache", "info", "--json")[0])
    assert [one["name"] for one in told["specs"]] == [store().name]
    (kept,) = told["activations"]
    assert (kept["name"], kept["layer"], kept["images"], kept["dim"]) == (activations.name, "blocks.6.0", 2, 200_704)
    assert told["bytes"] == told["specs"][0]["bytes"]


def test_verify_checks_activations(activations):
    damage(activations.shards()[0])
    stdout, stderr = run("cache", "verify", "--json", code=1)
    assert json.loads(stdout)["shards"] == 2
    assert "fine-tuning computes its images again" in stderr
    assert len(store().digests()) == 10


def test_rm_deletes_activations(activations):
    assert "name one of features/" in run("cache", "rm", "efficientnet_lite0", code=1)[1]
    assert "2 images" in run("cache", "rm", activations.short_name)[0]
    assert FeatureCache("cache").activations().stores() == []
    assert len(store().digests()) == 10


def test_compact_joins_activations(activations):
    activations.append(store().digests()[2:3], np.ones((1, 200_704), np.float16))
    told = json.loads(run("cache", "compact", "--json")[0])
    assert told["activations"] == {activations.name: {"before": 2, "after": 1}}
    assert list(told["specs"]) == [store().name]
    run("cache", "compact", activations.short_name)


def test_gc_reports_old_activations(activations):
    for path in activations.folder.rglob("*"):
        os.utime(path, (1, 1))
    stdout, stderr = run("cache", "gc", "--dry-run", "--json")
    assert json.loads(stdout)["activations"] == 1
    assert "activations of 1 spec, " in stderr
    run("cache", "gc")
    assert not activations.folder.exists()


def test_no_other_command_sees_activations(activations):
    shutil.rmtree(store().folder)
    assert "cached are: none" in run("fit", "--model", "efficientnet_lite0", code=1)[1]
    assert "found none" in run("cache", "export", "--out", "x.npz", code=1)[1]
    assert "found none" in run("compare", "--heads", "centroid", code=1)[1]
    run("cache", "merge", "cache", "--cache", "other")
    assert FeatureCache("other").activations().stores() == []
