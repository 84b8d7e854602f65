import csv
import io
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from bottleneck.finetuning.curves import COLUMNS, draw, plot, table, temporary_matplotlib_folders
from bottleneck.finetuning.history import Epoch
from tests.variants import each


def epochs(count):
    def one(number):
        train = None if number == 0 else 1 / number
        return Epoch(
            number=number, train_loss=train, train_accuracy=train, val_loss=1.5 / (number + 1),
            val_accuracy=1 - 0.5 / (number + 1), lr=0.001 * number, seconds=1 / 3,
        )  # fmt: skip

    return [one(number) for number in range(count + 1)]


def test_the_table_has_a_row_for_each_epoch():
    rows = list(csv.DictReader(io.StringIO(table(epochs(2)))))
    assert list(rows[0]) == list(COLUMNS)
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert (rows[0]["train_loss"], rows[0]["train_accuracy"]) == ("", "")
    assert rows[2] == {
        "epoch": "2", "train_loss": "0.5", "train_accuracy": "0.5", "val_loss": "0.5",
        "val_accuracy": "0.833333", "lr": "0.002", "seconds": "0.333333",
    }  # fmt: skip
    assert "\r" not in table(epochs(1))


def pixels(count, best=0, head=True):
    data = plot(epochs(count), best, "resnet18: layer4, from a run", head)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert 5_000 < len(data) < 200_000
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def near(image, colour):
    return int((np.abs(image - np.array(colour)).max(axis=-1) < 20).sum())


@each("count", [1, 2, 12])
def test_the_plot_is_a_png(count):
    image = pixels(count, best=count)
    assert image.shape == (432, 1080, 3)
    assert near(image, (0x6B, 0x7A, 0x8F)) > 20  # train
    assert near(image, (0x0B, 0x6B, 0xCB)) > 50  # validation


def axes(count, head=True):
    """Return the axes of a picture."""
    figure = Figure()
    draw(figure, epochs(count), 0, "resnet18: layer4, from a run", head)
    return figure.axes


@each("count", [0, 1, 5])
def test_the_axes_show_loss_and_accuracy(count):
    left, right = axes(count)
    for one in (left, right):
        low, high = one.get_xlim()
        assert low <= 0
        assert high >= count
        ticks = [tick for tick in one.get_xticks() if low <= tick <= high]
        assert all(tick == round(tick) for tick in ticks), ticks
        assert one.get_xlabel() == "epoch"
    assert left.get_ylim()[0] == 0
    assert left.get_ylim()[1] > 1.5
    assert "accuracy" in right.get_ylabel()
    assert [line.get_label() for line in right.lines].count("train") == bool(count)
    (validation,) = [line for line in right.lines if line.get_label() == "validation"]
    assert max(validation.get_ydata()) == pytest.approx(100 * (1 - 0.5 / (count + 1)))


def test_the_line_of_the_head_is_drawn_if_there_was_one():
    for head in (True, False):
        for one, level in zip(axes(3, head), (1.5, 50.0), strict=True):
            lines = [line for line in one.lines if line.get_label() == "head (validation)"]
            assert [line.get_ydata()[0] for line in lines] == ([level] if head else [])


def test_equal_curves_give_equal_bytes():
    assert plot(epochs(2), 1, "t", True) == plot(epochs(2), 1, "t", True)


def test_a_title_may_contain_any_characters():
    assert plot(epochs(1), 1, "a_b $x^ 100 % \\frac {", True).startswith(b"\x89PNG")


def test_a_loss_of_nan_is_plotted():
    found = [*epochs(1), Epoch(number=2, train_loss=math.nan, train_accuracy=0.1, val_loss=math.nan, val_accuracy=0.1, lr=1.0, seconds=1.0)]  # fmt: skip  # noqa: E501
    assert plot(found, 1, "t", True).startswith(b"\x89PNG")


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Return an empty home folder without settings of matplotlib."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("MPLCONFIGDIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "before"))
    return tmp_path


def redirected(imported=False, platform="linux"):
    """Return the environment variables that name a temporary folder while matplotlib is imported."""
    before = dict(os.environ)
    with temporary_matplotlib_folders(imported, platform):
        changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
        assert all(Path(folder).is_dir() for folder in changed.values())
    assert dict(os.environ) == before
    assert not any(Path(folder).exists() for folder in changed.values())
    return set(changed)


def test_matplotlib_writes_to_a_temporary_folder_except_where_the_user_has_settings(user):
    caches, settings = {"XDG_CACHE_HOME"}, {"XDG_CONFIG_HOME"}
    assert redirected() == redirected(platform="freebsd14") == caches | settings
    assert redirected(platform="darwin") == redirected(platform="win32") == {"MPLCONFIGDIR"}
    (user / ".config" / "matplotlib").mkdir(parents=True)
    (user / ".matplotlib").mkdir()
    (user / ".matplotlib" / "matplotlibrc").touch()
    assert redirected() == caches
    assert redirected(platform="darwin") == set()


def test_the_folders_of_the_caller_are_used_if_matplotlib_is_imported_or_its_folder_is_set(user, monkeypatch):
    assert redirected(imported=True) == set()
    (user / "elsewhere" / "matplotlib").mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(user / "elsewhere"))
    assert redirected() == {"XDG_CACHE_HOME"}
    monkeypatch.setenv("MPLCONFIGDIR", str(user))
    assert redirected() == set()


DRAWN = """
import hashlib, os, sys
from types import SimpleNamespace
from bottleneck.finetuning.curves import plot, table
e = [SimpleNamespace(number=0, train_loss=None, train_accuracy=None, val_loss=1., val_accuracy=.5, lr=0., seconds=0.)]
before = dict(os.environ)
table(e)
assert not {"matplotlib", "torch"} & set(sys.modules)  # a table needs neither
print(hashlib.sha256(plot(e, 0, 't', True)).hexdigest())
assert "matplotlib.pyplot" not in sys.modules
assert dict(os.environ) == before
import matplotlib
print(matplotlib.rcParams["lines.linewidth"])
"""


def drawn(folder, home, **environment):
    home.mkdir(exist_ok=True)
    gone = ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in gone}
    environment = {**kept, "HOME": str(home), "USERPROFILE": str(home), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    done = subprocess.run([sys.executable, "-c", DRAWN], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_home_is_not_written_and_a_matplotlibrc_in_the_folder_is_ignored(tmp_path):
    plain, _ = drawn(tmp_path, tmp_path / "home")
    assert list((tmp_path / "home").rglob("*")) == []
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "matplotlibrc").write_text("text.usetex: True\nsavefig.dpi: 7\nlines.linewidth: 40\n")
    assert drawn(folder, tmp_path / "home")[0] == plain
    assert list((tmp_path / "home").rglob("*")) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the folders of Linux")
def test_user_settings_of_matplotlib_are_kept(tmp_path):
    settings = tmp_path / "home" / ".config" / "matplotlib" / "matplotlibrc"
    settings.parent.mkdir(parents=True)
    settings.write_text("lines.linewidth: 4\n")
    _, width = drawn(tmp_path, tmp_path / "home")
    assert float(width) == 4
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == [settings]


def test_mplconfigdir_is_respected(tmp_path):
    drawn(tmp_path, tmp_path / "home", MPLCONFIGDIR=str(tmp_path / "named"))
    assert list((tmp_path / "home").rglob("*")) == []
    assert list((tmp_path / "named").iterdir())
