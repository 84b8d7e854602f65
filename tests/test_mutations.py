"""The table of `tests.mutations` keeps up with the library."""

import shutil
from pathlib import Path

import pytest

import bottleneck
from tests.mutations import MUTATIONS, ROOT, Mutation
from tests.variants import each

PACKAGE = Path(bottleneck.__file__).parent


@each("mutation", MUTATIONS, ids=lambda mutation: mutation.mistake)
def test_the_text_is_found_once_and_so_are_the_tests(mutation):
    assert len(mutation.files(PACKAGE)) == 1
    assert mutation.old != mutation.new
    for name in mutation.tests:
        assert (ROOT / "tests" / name).exists()


def test_one_text_is_replaced(tmp_path):
    shutil.copytree(PACKAGE / "utils", tmp_path / "utils")
    (tmp_path / "utils" / "one.py").write_text("a = 1 - 2\n")
    mutation = Mutation("a sign", "1 - 2", "1 + 2", ())

    assert mutation.apply(tmp_path) == tmp_path / "utils" / "one.py"

    assert (tmp_path / "utils" / "one.py").read_text() == "a = 1 + 2\n"


@each("count", [0, 2])
def test_a_text_that_is_not_found_once_is_refused(tmp_path, count):
    (tmp_path / "one.py").write_text("a = 1 - 2\n" * count)

    with pytest.raises(ValueError, match=f"found it {count} times"):
        Mutation("a sign", "1 - 2", "1 + 2", ()).apply(tmp_path)
