from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bottleneck.demo.digits import INK, MARGIN, PAPER, SIDE, write_digits
from bottleneck.images.scan import scan


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("demo") / "digits")


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}


def test_there_are_1797_png_files_in_ten_folders(digits: Path) -> None:
    files = [path for path in digits.rglob("*") if path.is_file()]
    assert len(files) == 1797
    assert {path.suffix for path in files} == {".png"}
    assert sorted(path.name for path in digits.iterdir()) == list("0123456789")


def test_the_folders_hold_the_classes_of_scikit_learn(digits: Path) -> None:
    counts = Counter(path.parent.name for path in digits.rglob("*.png"))
    assert [counts[label] for label in "0123456789"] == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_no_two_digits_are_the_same_image(digits: Path) -> None:
    dataset = scan(digits, cache=None)
    assert len(dataset.first_rows()) == 1797
    assert dataset.classes == tuple("0123456789")
    assert not dataset.failures
    assert not dataset.ignored


def test_a_second_call_rewrites_nothing(digits: Path) -> None:
    before = state(digits)
    assert write_digits(digits) == digits
    assert state(digits) == before


def test_a_second_call_writes_what_is_missing_and_keeps_the_rest(digits: Path) -> None:
    path = digits / "0" / "0000.png"
    data, before = path.read_bytes(), state(digits)
    path.unlink()
    write_digits(digits)
    assert path.read_bytes() == data
    changed = {name for name, found in state(digits).items() if before[name] != found}
    assert changed == {str(path), str(path.parent)}


def test_a_second_call_keeps_what_the_user_changed(digits: Path) -> None:
    path = digits / "0" / "0000.png"
    data = path.read_bytes()
    path.write_bytes(b"mine")
    write_digits(digits)
    assert path.read_bytes() == b"mine"
    path.write_bytes(data)


def test_each_page_is_light_and_its_ink_is_dark(digits: Path) -> None:
    for path in sorted(digits.rglob("*.png"))[::20]:
        page = pixels(path)
        assert page.shape == (SIDE, SIDE)
        assert page.dtype == np.uint8
        assert np.median(page) > 200
        assert INK <= page.min() < 60
        assert page.max() == PAPER


def test_each_page_has_a_margin_without_ink(digits: Path) -> None:
    for path in sorted(digits.rglob("*.png"))[::20]:
        page = pixels(path)
        page = np.where(np.pad(np.zeros((SIDE - 2 * MARGIN,) * 2, bool), MARGIN, constant_values=True), page, PAPER)
        assert (page == PAPER).all()


def test_a_zero_has_a_hole_and_a_one_has_ink_in_the_middle(digits: Path) -> None:
    middle = slice(SIDE // 2 - 6, SIDE // 2 + 6)
    zero, one = (pixels(digits / name)[middle, middle].mean() for name in ("0/0000.png", "1/0001.png"))
    assert zero > 200
    assert one < 100
