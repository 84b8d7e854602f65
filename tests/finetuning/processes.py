"""Processes that are forked from a server which has imported the library, so that each starts at once."""

import faulthandler
import json
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TextIO

import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from bottleneck.cli.main import main
from bottleneck.errors import Diverged
from bottleneck.finetuning.finetune import finetune
from bottleneck.finetuning.recipe import Recipe

_LIMIT = 120  # seconds after which a process is killed, so that no test waits for it for ever
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["bottleneck.cli.main", "bottleneck.finetuning.finetune"])


def started(
    target: Callable[..., None], *arguments: Any, environ: Mapping[str, str] | None = None
) -> tuple[BaseProcess, TextIO]:
    """Start a process in the current folder; return it and its standard error. It is killed after two minutes."""
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_run, args=(target, arguments, sender, environ or {}), daemon=True)
    process.start()
    sender.close()
    return process, os.fdopen(os.dup(receiver.fileno()))


def together(target: Callable[..., None], *arguments: Any, count: int = 2) -> tuple[list[int], list[str]]:
    """Run a function in processes that find each other as those of torchrun; return exit codes and standard errors."""
    # As that of torchrun's agent, the store outlives each of several trainings.
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    ranks = []
    for rank in range(count):
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        environ = {**shared, "CUDA_VISIBLE_DEVICES": "", **{name: str(number) for name, number in numbers.items()}}
        ranks.append(started(target, *arguments, environ=environ))
    texts = [errors.read() for _, errors in ranks]
    for process, errors in ranks:
        process.join()
        errors.close()
    return [process.exitcode for process, _ in ranks], texts


def by_torchrun(target: Callable[..., None], *arguments: Any, count: int = 2) -> tuple[int, str]:
    """Run a function in processes under the agent of torchrun; return the exit code and standard error of all."""
    agent, errors = started(_agent, target, arguments, count, environ={"CUDA_VISIBLE_DEVICES": ""})
    with errors:
        text = errors.read()
    agent.join()
    return agent.exitcode, text


def _agent(target: Callable[..., None], arguments: tuple[Any, ...], count: int) -> None:
    """Do what ``torchrun --standalone`` does, but fork the processes instead of starting Python anew in each."""
    place = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": "test"}
    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=count, max_restarts=0, start_method="fork", **place)
    multiprocessing.current_process().daemon = False  # or it may have no children
    elastic_launch(config, target)(*arguments)


def command(arguments: Sequence[str], output: str = os.devnull) -> None:
    """Run the command line, with its standard output appended to a file."""
    with open(output, "a") as file:
        os.dup2(file.fileno(), 1)
    sys.argv = ["bottleneck", *arguments]
    main()


def fine_tunings(cases: Sequence[tuple[dict[str, Any], dict[str, Any]]], output: Path) -> None:
    """Fine-tune by each recipe, also if training diverges, and let rank 0 write the paths of the runs."""
    warnings.simplefilter("ignore")
    paths = []
    for recipe, options in cases:
        try:
            run = finetune(recipe=Recipe(**recipe), **options)
        except Diverged as error:
            run = error.run
        paths.append(str(run.path))
    assert not torch.distributed.is_initialized()
    if os.environ["RANK"] == "0":
        output.write_text(json.dumps(paths))


def _run(
    target: Callable[..., None], arguments: tuple[Any, ...], errors: Connection, environ: Mapping[str, str]
) -> None:
    os.environ.update(environ)
    os.dup2(errors.fileno(), 2)
    signal.alarm(_LIMIT)
    faulthandler.dump_traceback_later(_LIMIT - 10, file=2)
    errors.close()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    target(*arguments)
