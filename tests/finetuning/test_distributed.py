"""Several processes, started by torchrun, train as one does.

Tolerance, in fp32: each tensor of the weights within 1e-5 of its norm, each loss within 1e-5. Sums are added up in
another order, and convolutions of fewer images take other paths. Measured with two gloo processes on a CPU: 5e-8 (SGD)
and 1.5e-7 (AdamW) of the norm, 2e-7 of a loss.
"""

import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bottleneck.errors import BottleneckWarning, OtherFailed, TuningError
from bottleneck.finetuning import train
from bottleneck.finetuning.config import FineTuneConfig
from bottleneck.finetuning.context import build_context
from bottleneck.finetuning.distributed import Processes, TorchrunProcesses, joined, local_device, reported_once
from bottleneck.finetuning.finetune import finetune
from bottleneck.finetuning.history import Epoch
from bottleneck.finetuning.recipe import Recipe
from bottleneck.finetuning.train import set_learning_rate
from bottleneck.runs.run import list_runs, load_run
from tests.finetuning.conftest import Killed
from tests.finetuning.processes import by_torchrun, command, fine_tunings, started, together

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights:bottleneck.errors.BottleneckWarning")

WITHIN = 1e-5
# At a lower rate the losses of two epochs may differ by less than rounding, and either may be the best.
SHORT = Recipe(unfreeze=("layer4",), epochs=2, batch_size=7, views=2, precision="fp32", lr=1e-3)


def failing_on_rank_1(arguments: Sequence[str], output: str) -> None:
    """Run the command line; an error ends rank 1 before its third step."""
    steps = []

    def fail(*arguments: object) -> None:
        steps.append(1)
        if os.environ["RANK"] == "1" and len(steps) == 3:
            raise TuningError("expected to read an image that this process alone has lost")
        set_learning_rate(*arguments)

    train.set_learning_rate = fail
    command(arguments, output)


@contextmanager
def as_rank(rank: int, target: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Make this process one of two ranks for the duration, and run a function in the other one, which must succeed."""
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    shared = {
        "MASTER_ADDR": "localhost", "MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": True,
        "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2,
    }  # fmt: skip
    ranks = [{name: str(value) for name, value in {**shared, "RANK": n, "LOCAL_RANK": n}.items()} for n in (0, 1)]
    other, errors = started(target, *arguments, environ=ranks[1 - rank])
    with errors, pytest.MonkeyPatch.context() as patch:
        for name, value in ranks[rank].items():
            patch.setenv(name, value)
        try:
            yield
        except BaseException:
            other.join(5)  # it may be reporting the cause
            other.kill()
            raise
        finally:
            print(errors.read())
            other.join()
    assert other.exitcode == 0


def assert_same(run, other):
    assert run.card["best_epoch"] == other.card["best_epoch"]
    for epoch, its in zip(run.card["curves"], other.card["curves"], strict=True):
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"):
            if (value := epoch[name]) is None:
                assert its[name] is None
            else:
                assert its[name] == pytest.approx(value, rel=WITHIN), (epoch["number"], name)
    weights, others = load_file(run.path / "model.safetensors"), load_file(other.path / "model.safetensors")
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        assert (others[name] - value).norm() <= WITHIN * value.norm(), name


def never_called(*event):
    pytest.fail(f"rank 1 reports {event}")


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one(home):
    """With 36 images, the last batch of 7, and that of 5, has one image, and the second process none."""
    cases = [
        ({"clip": 1.0, "patience": 1}, {"begin": "weights", "memory": 1}),  # read from the cache in each epoch
        (
            {"optimizer": "adamw", "views": 0, "batch_size": 5, "epochs": 1, "ema": 0.5, "class_weight": "balanced"},
            {"begin": "weights"},
        ),
        ({"lr": 1e29, "epochs": 1, "views": 1}, {}),
    ]
    said = [({**SHORT.to_json(), **changes}, {**options, "device": "cpu"}) for changes, options in cases]
    with as_rank(1, fine_tunings, said, home / "paths.json"):
        silent = {"progress": never_called, "watch": never_called}
        fine_tunings([(recipe, {**options, **silent}) for recipe, options in said], home / "paths.json")
    shared = [load_run(path) for path in json.loads((home / "paths.json").read_text())]
    assert len(list_runs("runs")) == 1 + len(cases)  # that of the head, and one for each
    assert shared[-1].card["diverged"]
    for (changes, options), run in zip(cases[:-1], shared, strict=False):
        alone = finetune(recipe=replace(SHORT, **changes), **options)
        assert alone.card["best_epoch"] > 0
        assert_same(alone, run)


@pytest.mark.slow
def test_two_processes_resume_a_killed_one_and_report_once(home):
    def kill(event):
        if isinstance(event, Epoch) and event.number == 1:
            raise Killed

    whole = finetune(recipe=SHORT, begin="weights")
    with pytest.raises(Killed):
        finetune(recipe=SHORT, begin="weights", watch=kill)
    codes, errors = together(command, ["finetune", "--resume", "--json"], str(home / "stdout"))
    assert codes == [0, 0], errors
    assert_same(whole, load_run(json.loads((home / "stdout").read_text())["run"]))
    lines = "".join(errors).splitlines()
    assert len(lines) == len(set(lines))
    for start in ("warning: timm/test_resnet has random weights", "continues after epoch 1", "    2 ", "accuracy "):
        assert sum(line.startswith(start) for line in lines) == 1, errors
    for odd in ("Initializing", "destroy", "Warning", "Traceback"):
        assert odd not in "".join(errors)


@pytest.mark.slow
def test_an_error_of_one_process_ends_all_and_is_reported_once(home):
    options = ["--unfreeze", "layer4", "--views", "1", "--batch-size", "6", "--lr", "1e-5", "--precision", "fp32"]
    code, errors = by_torchrun(failing_on_rank_1, ["finetune", *options, "--json"], str(home / "stdout"))
    assert code == 1, errors
    (error,) = map(json.loads, (home / "stdout").read_text().splitlines())
    assert error["error"]["message"].startswith("expected to read an image that this process alone")
    assert errors.count("error: expected to read an image") == 1
    assert errors.count("error: ") == 1


def warning_shown() -> float:
    """Warn in a new group; return how many of its ranks show the warning."""
    with warnings.catch_warnings(record=True) as shown, joined("cpu") as processes:
        warnings.simplefilter("always")
        warnings.warn("each rank finds this", BottleneckWarning, stacklevel=1)
        return processes.sum(torch.tensor(float(len(shown)))).item()


def second_of_two(folder: Path) -> None:
    """Take part in `test_two_processes_share_sums_texts_and_folders` as rank 1."""
    with joined("cpu") as processes:
        assert not processes.is_rank_zero
        tensor = torch.tensor([7.0, 8.0])
        processes.sync([tensor])
        assert tensor.tolist() == [1.0, 2.0]
        assert processes.sum(torch.tensor([3.0])).tolist() == [8.0]
        assert processes.broadcast("of rank 1") == "of rank 0"
        assert processes.rank_zero_path("") == folder
        (folder / "seen").touch()
        processes.barrier()
        with joined("cpu"):
            processes.barrier()
        processes.barrier()
    assert [warning_shown(), warning_shown()] == [1, 1]


@pytest.mark.slow
def test_two_processes_share_sums_texts_and_folders(tmp_path):
    with as_rank(0, second_of_two, tmp_path):
        with joined("cpu") as processes:
            assert (processes.rank, processes.world_size, processes.local_world_size) == (0, 2, 2)
            tensor, own = torch.tensor([1.0, 2.0]), torch.tensor([5.0])
            processes.sync([tensor])
            assert tensor.tolist() == [1.0, 2.0]
            assert (processes.sum(own).tolist(), own.tolist()) == ([8.0], [5.0])
            assert processes.broadcast("of rank 0") == "of rank 0"
            assert processes.rank_zero_path(str(tmp_path)) == tmp_path
            processes.barrier()
            assert (tmp_path / "seen").exists()
            with joined("cpu"):  # in the group of the caller, who destroys it
                processes.barrier()
            assert torch.distributed.is_initialized()
            processes.barrier()
        assert not torch.distributed.is_initialized()
        assert [warning_shown(), warning_shown()] == [1, 1]


def ends_at_once() -> None:
    """Join, and end without leaving."""
    with joined("cpu"):
        os._exit(0)


@pytest.mark.slow
def test_a_process_that_died_is_reported_and_the_group_is_kept_until_exit():
    with (
        as_rank(0, ends_at_once),
        pytest.raises(TuningError, match=r"another process ended without an error message.*--resume continues"),
        joined("cpu") as processes,
    ):
        processes.barrier()
    assert torch.distributed.is_initialized()  # without it, the others would report a lost connection first
    torch.distributed.destroy_process_group()


# --- without a second process -----------------------------------------------------------------------------------


@pytest.fixture
def torchrun_environ(monkeypatch):
    """Set the numbers of the second of two processes."""
    for name, value in {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))


def warn_and_fail(store):
    with reported_once(store):
        warnings.simplefilter("always", BottleneckWarning)
        warnings.warn("a warning", BottleneckWarning, stacklevel=1)
        raise TuningError("broken")


def test_a_message_of_another_process_is_not_repeated():
    store = torch.distributed.HashStore()
    with warnings.catch_warnings(record=True) as shown:
        for expected in (TuningError, OtherFailed):
            with pytest.raises(expected, match="broken"):
                warn_and_fail(store)
    assert [str(warning.message) for warning in shown] == ["a warning"]


def test_a_message_is_reported_if_the_process_that_kept_the_store_has_ended():
    class Lost(torch.distributed.HashStore):
        def add(self, *_):
            raise RuntimeError("Connection reset by peer")

    with pytest.warns(BottleneckWarning, match="a warning"), pytest.raises(TuningError, match="broken"):
        warn_and_fail(Lost())


def test_a_folder_that_this_rank_does_not_see_is_an_error(torchrun_environ, tmp_path):
    class WithAnotherDisk(TorchrunProcesses):
        """Rank 0 has created a folder on its own disk."""

        def broadcast(self, text):
            return str(tmp_path / "missing")

    with pytest.raises(TuningError, match=r"missing that rank 0 created, rank 1 does not see it.*keep --runs and"):
        WithAnotherDisk(torch.device("cpu")).rank_zero_path(str(tmp_path))


def test_only_rank_0_reports_an_interrupt(torchrun_environ, monkeypatch):
    store = torch.distributed.HashStore()
    for rank, expected in (("1", OtherFailed), ("0", KeyboardInterrupt)):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(expected), reported_once(store):
            raise KeyboardInterrupt


def test_processes_that_torchrun_did_not_start_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(TuningError, match=r"WORLD_SIZE=2 and no RANK.*start them with torchrun"):
        finetune(recipe=SHORT)


def test_devices_that_cannot_be_joined_are_refused(torchrun_environ, monkeypatch):
    for device, here, everywhere, message in (
        ("mps", 2, 2, "cpu, cuda"),
        ("cuda", 64, 64, "a GPU for each of the 64"),
        ("cpu", 2, 3, "on each machine"),
    ):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
        monkeypatch.setenv("WORLD_SIZE", str(everywhere))
        with pytest.raises(TuningError, match=message):
            local_device(device)


def test_batch_norms_are_not_trained_on_several_processes(home, monkeypatch):
    class TwoProcesses(Processes):
        world_size = 2

    with pytest.raises(TuningError, match="leave out --train-bn"):
        build_context(
            FineTuneConfig(recipe=replace(SHORT, train_bn=True)), None, cache="cache", runs="runs",
            processes=TwoProcesses(torch.device("cpu")), memory=None, progress=None,
        )  # fmt: skip


def test_gradients_are_summed_and_unused_parameters_have_none(torchrun_environ):
    class WithATwin(TorchrunProcesses):
        """The other process has the same images."""

        def sum(self, value):
            return 2 * value

    used, unused = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3)), torch.nn.Parameter(torch.ones(2))
    WithATwin(torch.device("cpu")).backward((used**2).sum(), [used, unused])
    assert np.allclose(used.grad, 4 * used.detach())
    assert unused.grad is None
