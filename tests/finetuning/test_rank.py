import subprocess
import sys

import pytest

from bottleneck.errors import OtherFailed, TuningError
from bottleneck.finetuning.rank import is_rank_zero, raised_on_rank_zero


@pytest.fixture
def rank(monkeypatch):
    """Return a function that sets the rank of this process among two."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    return lambda number: monkeypatch.setenv("RANK", str(number))


def test_a_single_process_has_rank_0(monkeypatch):
    for size in ("", "1"):
        monkeypatch.setenv("WORLD_SIZE", size)
        monkeypatch.setenv("RANK", "3")  # left over from elsewhere
        assert is_rank_zero()


def test_only_one_of_several_processes_has_rank_0(rank):
    found = []
    for number in (0, 1):
        rank(number)
        found.append(is_rank_zero())
    assert found == [True, False]


def test_only_rank_0_reports_an_error_of_all(rank):
    for number, expected in ((0, TuningError), (1, OtherFailed)):
        rank(number)
        with pytest.raises(expected, match="wrong"), raised_on_rank_zero():
            raise TuningError("wrong")


def test_the_module_does_not_import_torch():
    code = "import sys, bottleneck.finetuning.rank; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
