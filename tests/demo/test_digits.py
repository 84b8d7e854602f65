from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from bottleneck.demo.digits import INK, MARGIN, PAPER, SIDE, write_digits
from bottleneck.images.scan import scan

LABELS = "0123456789"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the first ten digits of each class."""
    return write_digits(tmp_path_factory.mktemp("demo") / "digits", count=10)


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}


def test_the_folders_hold_the_classes_of_scikit_learn(tmp_path: Path) -> None:
    write_digits(tmp_path, labels="8")
    assert [path.name for path in tmp_path.iterdir()] == ["8"]
    numbers = [int(path.stem) for path in sorted((tmp_path / "8").iterdir()) if path.suffix == ".png"]
    assert numbers == np.flatnonzero(load_digits().target == 8).tolist()
    assert len(numbers) == 174


def test_each_digit_is_a_different_png_file(digits: Path) -> None:
    dataset = scan(digits, cache=None)
    assert Counter(dataset.labels) == dict.fromkeys(LABELS, 10)
    assert len(dataset.first_rows()) == 100
    assert {Path(path).suffix for path in dataset.paths} == {".png"}
    assert (dataset.classes, dataset.failures, dataset.ignored) == (tuple(LABELS), (), {})
    levels = load_digits().images.reshape(-1, 64)
    assert len(np.unique(levels, axis=0)) == len(levels) == 1797


def test_a_second_call_rewrites_nothing_but_what_is_missing(digits: Path) -> None:
    before = state(digits)
    assert write_digits(digits, count=10) == digits
    assert state(digits) == before

    path, other = (digits / "0" / f"{number:04d}.png" for number in (0, 10))
    data, mine = path.read_bytes(), other.read_bytes()
    path.unlink()
    other.write_bytes(b"mine")
    before = state(digits)
    write_digits(digits, count=10)
    assert (path.read_bytes(), other.read_bytes()) == (data, b"mine")
    assert {name for name, found in state(digits).items() if before.get(name) != found} == {str(path), str(path.parent)}
    other.write_bytes(mine)


def test_each_page_is_light_with_dark_ink_within_its_margin(digits: Path) -> None:
    for path in sorted(digits.rglob("*.png")):
        page = pixels(path)
        assert page.shape == (SIDE, SIDE)
        assert page.dtype == np.uint8
        assert np.median(page) > 200
        assert INK <= page.min() < 60
        assert page.max() == PAPER
        page = np.where(np.pad(np.zeros((SIDE - 2 * MARGIN,) * 2, bool), MARGIN, constant_values=True), page, PAPER)
        assert (page == PAPER).all()


def test_a_zero_has_a_hole_and_a_one_has_ink_in_the_middle(digits: Path) -> None:
    middle = slice(SIDE // 2 - 6, SIDE // 2 + 6)
    zero, one = (pixels(digits / name)[middle, middle].mean() for name in ("0/0000.png", "1/0001.png"))
    assert zero > 200
    assert one < 100
