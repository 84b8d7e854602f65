"""What ``fit`` says of how good a head is: more of many images than of few."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from bottleneck.cli.main import cli
from bottleneck.cli.show import cautions
from tests import tiny
from tests.conftest import write
from tests.variants import each

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.use(monkeypatch)


def run(*words: object) -> str:
    found = CliRunner().invoke(cli, [str(word) for word in words])
    assert found.exit_code == 0, found.output
    return found.stdout


def picture(tone: int, seed: int) -> bytes:
    """Return a picture of one tone, with noise that is its own."""
    noise = np.random.default_rng(seed).normal(tone, 20, (24, 24, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def extract(train: dict[str, int], test: dict[str, int], *, tones: tuple[int, ...] = (40, 120, 200)) -> None:
    """Extract so many pictures of each class; classes of one tone cannot be told apart."""
    for split, counts in (("train", train), ("test", test)):
        for name, count in counts.items():
            code = CLASSES.index(name)
            for number in range(count):
                seed = 10_000 * code + 1000 * (split == "test") + number
                write(Path("photos", split, name, f"{number}.png"), picture(tones[code], seed))
    run("extract", "photos")


def test_many_held_out_images_give_the_headline() -> None:
    extract({"ant": 30, "bee": 30}, {"ant": 50, "bee": 55})
    said = run("fit")
    assert "\ncross-validated accuracy 100.0%, 95 % interval 93.7% to 100.0%; balanced 100.0%\n" in said
    assert "\n ant        50 " in said
    assert "\naccuracy 100.0% on 105 held-out images (test), 95 % interval 96.5% to 100.0%; balanced 100.0%" in said
    assert "only show" not in said


def test_cross_validation_is_the_headline_of_few_held_out_images() -> None:
    extract({"ant": 30, "bee": 30}, {"ant": 4, "bee": 4})
    said = run("fit")
    assert "cross-validated predictions for 60 training images, mean of 5 divisions into folds:\n" in said
    assert "\n ant        30 " in said
    assert "\naccuracy 100.0% by cross-validation on 60 training images, 95 % interval 93.7% to 100.0%" in said
    assert "\n8 held-out images (test), 8 right, only show that the accuracy is between 67.6% and 100.0%\n" in said


def test_a_held_out_part_that_is_larger_than_the_training_part_is_the_headline() -> None:
    extract({"ant": 12, "bee": 12}, {"ant": 13, "bee": 13})
    found = json.loads(run("fit", "--json"))
    assert found["headline"] == "held-out"
    assert found["n_heldout"] == 26
    low, high = found["cv_ci95"]
    assert low < found["cv_accuracy"] <= high


def test_scores_of_a_class_with_one_held_out_image_are_cross_validated() -> None:
    extract({"ant": 60, "bee": 60, "cat": 20}, {"ant": 60, "bee": 60, "cat": 1})
    said = run("fit")
    assert (
        "\nsome classes have fewer than 2 held-out images; cross-validated predictions for 140 training images" in said
    )
    assert "\n cat        20 " in said
    assert " on 121 held-out images (test), " in said


def test_an_untested_class_has_no_scores() -> None:
    extract({"ant": 20, "bee": 20, "cat": 1}, {"ant": 4, "bee": 4})
    said = run("fit")
    (line,) = [line for line in said.splitlines() if line.startswith(" cat  ") and "·" in line][:1]
    assert line.split() == ["cat", "0", "·", "·", "·"]


def test_a_head_that_is_not_better_than_guessing_is_reported() -> None:
    extract({"ant": 30, "bee": 20}, {"ant": 3, "bee": 2}, tones=(90, 90, 90))
    said = run("fit")
    assert (
        "on these images the head is not significantly better than guessing: always predicting ant would be right for "
        "60.0% of them\n" in said
    )


def test_few_images_are_reported_to_give_a_rough_idea() -> None:
    extract({"ant": 4, "bee": 4}, {"ant": 1, "bee": 1})
    said = run("fit")
    assert "95 % interval 66.5% to 100.0%" in said
    assert (
        "\nthese images give only a rough idea of the accuracy; four times as many would halve the interval\n" in said
    )


def test_counts_that_are_means_over_divisions_add_up_to_the_images() -> None:
    extract({"ant": 25, "bee": 25}, {"ant": 3, "bee": 3}, tones=(90, 94, 0))
    said = run("fit").splitlines()
    (header,) = [place for place, line in enumerate(said) if line.startswith(" label \\ predicted")]
    rows = [line.split()[1:] for line in said[header + 2 : header + 4]]
    assert [sum(float(cell.replace("·", "0")) for cell in row) for row in rows] == [25, 25]
    assert any("." in cell for row in rows for cell in row)


def test_the_scaling_and_the_rule_are_named_in_the_card() -> None:
    extract({"ant": 12, "bee": 12}, {"ant": 4, "bee": 4})
    cards = {}
    for name, words in {"usual": (), "other": ("--normalize", "global", "--select", "simplest")}.items():
        path = json.loads(run("fit", "--json", *words))["run"]
        cards[name] = json.loads(Path(path, "card.json").read_text())

    usual, other = cards["usual"], cards["other"]
    assert usual["normalize"] in usual["search"]["scalings"]
    assert set(usual["search"]["scalings"]) == {"shrunk", "standard"}
    assert usual["search"]["select"] == "log-loss"
    assert usual["search"]["rule"].startswith("the least log-loss of the points whose balanced accuracy is within")
    assert len(usual["search"]["log_losses"]) == len(usual["search"]["points"])
    assert (other["normalize"], list(other["search"]["scalings"])) == ("global", ["global"])
    assert other["search"]["select"] == "simplest"
    assert other["search"]["rule"].startswith("the simplest of the points")
    place = other["search"]["points"].index(other["params"])
    accuracies = [np.mean(row) for row in other["search"]["fold_accuracy"]]
    assert max(accuracies[:place], default=0) < max(accuracies)  # a simpler point is worse


@each(
    "balanced, words",
    [
        (0.915, "always predicting ok would be right for 95.5% of these images: the balanced accuracy shows how well"),
        (
            0.510,
            "on these images the head is not significantly better than guessing: always predicting ok would be right "
            "for 95.5% of them",
        ),
    ],
)
def test_a_head_that_finds_a_rare_class_is_not_called_guessing(capsys, balanced, words) -> None:
    per_class = {"bad": {"n": 18}, "ok": {"n": 382}}
    cautions({"accuracy_ci95": (0.888, 0.947), "balanced_accuracy": balanced, "per_class": per_class})
    assert words in " ".join(capsys.readouterr().out.split())
