import json
import os
import shlex
from pathlib import Path

from bottleneck.cli.main import cli
from tests.cli.conftest import run
from tests.conftest import write


def only():
    (name,) = os.listdir("runs")
    return name


def second(name="second", **changes):
    """Copy the run under another name, with other entries in its card."""
    first = Path("runs") / only()
    for file in first.iterdir():
        write(Path("runs") / name / file.name, file.read_bytes())
    card = json.loads((first / "card.json").read_text())
    (Path("runs") / name / "card.json").write_text(json.dumps({**card, "number": 2, **changes}))
    return first.name


def unfinished(name="tuning"):
    write(Path("runs") / name / "finetune.json", b'{"version": 1, "number": 9, "model": "x", "source": "photos"}')


def test_the_group_lists_its_commands():
    assert list(cli.commands["runs"].commands) == ["list", "show", "compare", "rm"]
    assert "Without a subcommand, list them" in " ".join(run("runs", "--help")[0].split())


def test_runs_are_listed_on_a_line_each(fitted):
    name = only()
    out, err = run("runs")
    assert out == run("runs", "list")[0] == run("runs", "--runs", "runs")[0]
    (line,) = [line for line in out.splitlines() if line.split()[:1] == [name]]
    assert "logistic" in line
    assert line.count("%") == 2
    assert line.count(" to ") == 2
    assert (out.splitlines()[-1].startswith("1 run, "), err) == (True, "")


def test_a_list_fits_the_terminal_and_keeps_names_whole(fitted, monkeypatch):
    unfinished()
    for width in (80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        out, _ = run("runs")
        assert max(map(len, out.splitlines())) <= width
        assert [name for name in os.listdir("runs") if name not in out] == []


def test_the_list_as_json(fitted):
    name = only()
    unfinished()
    out, err = run("runs", "--json")
    found = json.loads(out)
    assert [(one["name"], one["kind"]) for one in found["runs"]] == [(name, "fit"), ("tuning", "unfinished")]
    assert found["runs"][0]["accuracy_ci95"][0] < found["runs"][0]["accuracy"]
    assert "1 run, 1 unfinished fine-tuning" in err
    assert "bottleneck finetune --resume tuning" in err


def test_no_runs_is_no_error():
    assert run("runs", "--runs", "new")[0] == "0 runs in new: `bottleneck fit` creates one\n"
    assert not Path("new").exists()


def test_an_option_before_a_subcommand_is_refused_rather_than_ignored(fitted):
    name = only()
    run("runs", "--runs", "elsewhere", "rm", name, code=2)
    assert only() == name


def test_show_describes_the_default_run_and_how_to_make_it_again(fitted):
    name = only()
    out, err = run("runs", "show")
    assert out.startswith(f"{name} was made on ")
    assert "what: a head, logistic (C 1), on the features of efficientnet_lite0" in out
    assert "images: a 8, b 8; " in out
    assert "95 % interval" in out
    assert err.endswith("the only run\n")
    lines = [shlex.split(line) for line in out.splitlines() if line.startswith("bottleneck ")]
    assert [words[1:3] for words in lines] == [["extract", "images"], ["fit", "images"]]
    assert lines[1][3:] == ["--head", "logistic", "--split", "60/0/40", "--C", "1"]
    assert [file in out for file in os.listdir(f"runs/{name}")] == [True] * len(os.listdir(f"runs/{name}"))


def test_show_as_json(fitted):
    found = json.loads(run("runs", "show", only(), "--json")[0])
    assert found["name"] == only()
    assert sum(file["bytes"] for file in found["files"]) == found["bytes"]
    assert len(found["commands"]) == 2
    assert found["versions"]["python"]


def test_show_of_an_unfinished_fine_tuning_says_how_to_continue():
    unfinished()
    assert "bottleneck finetune --resume tuning" in run("runs", "show", "tuning", code=1)[1]


def test_compare_of_runs_on_the_same_images(fitted):
    first = second(seed=7)
    out, _ = run("runs", "compare", first, "second")
    assert "B against A, on the same 6 held-out images" in out
    assert "McNemar's test p = 1: the difference is not significant" in out
    assert [line.split() for line in out.splitlines() if line.startswith(" seed")] == [["seed", "0", "7"]]
    found = json.loads(run("runs", "compare", first, "second", "--json")[0])
    assert found["pairs"][0]["same_images"]


def test_compare_of_runs_on_other_images_says_so(fitted):
    first = second()
    file = Path("runs/second/predictions.csv")
    header, *rows = file.read_text().splitlines()
    file.write_text("\n".join([header, *rows[:3]]) + "\n")
    assert "only 3 shared held-out images of 3 and 6" in run("runs", "compare", first, "second")[0]
    other = [row.replace(row.split(",")[1], f"{number:064x}") for number, row in enumerate(rows)]
    file.write_text("\n".join([header, *other]) + "\n")
    out, _ = run("runs", "compare", first, "second")
    assert "B and A were not tested on the same images" in out
    assert f"bottleneck evaluate IMAGES --run second --against {first}" in out


def test_rm_deletes_what_is_named_and_a_dry_run_nothing(fitted):
    first = second()
    unfinished()
    assert run("runs", "rm", "second", "tuning", "--dry-run")[0].splitlines()[1] == "would delete tuning: 0.0 MB"
    assert len(os.listdir("runs")) == 3
    out, err = run("runs", "rm", "second", "tuning", "--json")
    assert [gone["name"] for gone in json.loads(out)["deleted"]] == ["second", "tuning"]
    assert err.startswith("deleted second: ")
    assert only() == first


def test_rm_refuses_what_is_no_run_and_names_what_it_keeps(fitted):
    first = only()
    write(Path("runs/photos/a.jpg"), b"x")
    assert "nothing is deleted" in run("runs", "rm", "photos", first, code=1)[1]
    write(Path("runs") / first / "notes.txt", b"mine")
    assert "notes.txt is kept: it is a link, or not a file of bottleneck" in run("runs", "rm", first)[0]
    assert sorted(os.listdir("runs")) == sorted(["photos", first])
