"""``bottleneck finetune``."""

import math
import sys
from typing import Any

import click
from click.core import ParameterSource

from bottleneck.cli.common import (
    command,
    exit_silently,
    give_up,
    is_first_process,
    progress_bar,
)
from bottleneck.cli.defaults import head_line, images_line
from bottleneck.cli.head_options import MOST_GIGABYTES, as_bytes
from bottleneck.cli.memory_option import memory_option
from bottleneck.cli.numbers import LARGEST, RealNumber, WholeNumber
from bottleneck.cli.output import put_json
from bottleneck.utils.gc_paused import no_collection


def _factors(ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """Read ``--lr-mult layer4=0.1``."""
    found = []
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            factor = float(number)
        except ValueError:
            factor = math.nan
        if not name or not 0 <= factor <= LARGEST:
            raise click.BadParameter(f"expected PATTERN=X such as layer4=0.1, got {text}", ctx, parameter)
        found.append((name, factor))
    return tuple(found)


@command("finetune", short_help="Train a network on, end to end, from where its head ended.")
@click.argument("images", required=False)
@click.option(
    "--run", help="Whose head becomes the last layer.  [default: the best linear one on the features of the last fit]"
)
@click.option(
    "--unfreeze",
    multiple=True,
    metavar="PATTERN",
    help="Train these modules and the head: names of `inspect`, patterns with *, or all. May be repeated.",
)
@click.option(
    "--last",
    type=WholeNumber(0),
    metavar="N",
    help="Instead: train the last N stages; 0: the head alone.  [default: 1]",
)
@click.option(
    "--train-bn", is_flag=True, help="Train the batch norms of the trained parts too; by default they stay as they are."
)
@click.option(
    "--from",
    "begin",
    type=click.Choice(["head", "weights"]),
    default="head",
    show_default=True,
    help="weights: the backbone as it is, and a random last layer.",
)
@click.option(
    "--head-init",
    type=click.Choice(["head", "random"]),
    help="What the last layer begins with.  [default: the head, with --from weights random]",
)
@click.option("--model", help="With --from weights: a model or spec that is cached.  [default: the last extracted]")
@click.option("--epochs", default=10, show_default=True, type=WholeNumber(1), help="Passes over the images.")
@click.option("--batch-size", default=16, show_default=True, type=WholeNumber(1), help="Images of a step.")
@click.option(
    "--optimizer", default="sgd", show_default=True, type=click.Choice(["sgd", "adamw"]), help="sgd has momentum."
)
@click.option(
    "--lr",
    type=RealNumber(0, min_open=True),
    help="The largest learning rate.  [default: 3e-4 for sgd, 1e-5 for adamw]",
)
@click.option("--momentum", default=0.9, show_default=True, type=RealNumber(0, 1, max_open=True), help="Of sgd.")
@click.option("--weight-decay", default=1e-4, show_default=True, type=RealNumber(0), help="Not of norms and biases.")
@click.option(
    "--lr-mult", multiple=True, callback=_factors, metavar="PATTERN=X", help="Multiply the learning rate of modules."
)
@click.option(
    "--layer-decay",
    default=1.0,
    show_default=True,
    type=RealNumber(0, 1, min_open=True),
    help="Each stage learns at the rate of the one after it times this.",
)
@click.option(
    "--schedule",
    default="cosine",
    show_default=True,
    type=click.Choice(["cosine", "step", "constant"]),
    help="How the learning rate falls.",
)
@click.option(
    "--step-epochs", default=7, show_default=True, type=WholeNumber(1), help="Of step: a tenth after so many."
)
@click.option(
    "--warmup",
    default=0.0,
    show_default=True,
    type=RealNumber(0),
    metavar="EPOCHS",
    help="In which the learning rate rises from zero first.",
)
@click.option(
    "--label-smoothing",
    default=0.0,
    show_default=True,
    type=RealNumber(0, 1, max_open=True),
    help="How much of a label is shared among all classes.",
)
@click.option("--class-weight", type=click.Choice(["balanced"]), help="Each class weighs as much.")
@click.option(
    "--clip", default=1.0, show_default=True, type=RealNumber(0), help="The largest norm of the gradient; 0: any."
)
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "fp32", "bf16"]),
    help="Of training; auto: bf16 where that is faster.",
)
@click.option("--ema", type=RealNumber(0, 1, min_open=True, max_open=True), help="Decay of averaged weights.")
@click.option("--patience", type=WholeNumber(1), metavar="EPOCHS", help="Stop when so many brought nothing better.")
@click.option(
    "--augment",
    default="light",
    show_default=True,
    type=click.Choice(["none", "light", "standard", "strong"]),
    help="Random views: large crops and mirror images; torchvision's usual crops; and TrivialAugment.",
)
@click.option(
    "--views",
    default=4,
    show_default=True,
    type=WholeNumber(0),
    help="Augmented views of each image that are cached; 0: new ones each epoch, through the whole network.",
)
@click.option(
    "--views-limit",
    default=20.0,
    show_default=True,
    type=RealNumber(0, MOST_GIGABYTES),
    callback=as_bytes,
    metavar="GB",
    help="What cached activations may take.",
)
@memory_option("What they may take in memory, such as 2G or 500M, or images.  [default: half of what is free]")
@click.option(
    "--folds",
    type=WholeNumber(2),
    metavar="K",
    help="Compare fine-tuning with its head on K folds of the training images too: K more trainings.",
)
@click.option("--device", help="As in torch.device.  [default: a GPU where there is one, else cpu]")
@click.option("--seed", default=0, show_default=True, type=WholeNumber(0, 2**32 - 1), help="Equal seeds, equal runs.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="last",
    metavar="[RUN]",
    help="Go on with one that was stopped: the last, or RUN. It keeps its own options.",
)
def finetune(
    images: str | None,
    run: str | None,
    begin: str,
    head_init: str | None,
    model: str | None,
    views_limit: int,
    memory: int | None,
    folds: int | None,
    device: str | None,
    resume: str | None,
    as_json: bool,
    cache: str,
    runs: str,
    **recipe: Any,
) -> None:
    """Fold the head of a run into its network, and train both on; by default the last stage and the head.

    IMAGES is by default what the head was fitted on. Before the first step the network says exactly what the head said.
    The validation part chooses the epoch that is kept; the hand-back itself is one of them.
    """
    first = is_first_process()
    try:
        _check(begin, head_init, model, run, resume, folds)
        _check_recipe(recipe)
    except click.UsageError:
        if first:
            raise
        exit_silently()
    with no_collection():
        from bottleneck.cli.show_finetune import Watcher, ended
        from bottleneck.errors import Diverged, TuningError
        from bottleneck.finetuning.finetune import finetune as tune
        from bottleneck.finetuning.recipe import Recipe

    try:
        asked = None if resume is not None else Recipe(**{**recipe, "clip": recipe["clip"] or None})
    except TuningError:
        if first:
            raise
        exit_silently()
    if first and resume is None:
        if begin == "weights":
            images_line(images, cache, model)
        elif run is None:
            head_line(images, runs)
    problem, watcher = "", Watcher()
    with progress_bar(hidden=as_json or not first) as progress:
        try:
            done = tune(
                images,
                recipe=asked,
                begin=begin,
                run=run,
                model=model,
                cache=cache,
                runs=runs,
                device=device,
                views_limit=views_limit,
                memory=memory,
                folds=folds,
                resume=resume,
                progress=progress,
                watch=watcher,
            )
        except Diverged as error:
            done, problem = error.run, str(error)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(watcher.goes_on()) from None
    if not first:
        sys.exit(1 if problem else 0)
    ended(done)
    if as_json:
        card, metrics = done.card, done.metrics
        epochs = [epoch["seconds"] for epoch in card["curves"][1:]]
        put_json(
            {
                "run": str(done.path),
                "from_run": card["from"]["run"],
                "model": card["model"],
                "trained": card["trained"],
                "start_accuracy": card["start_accuracy"],
                "accuracy": metrics["accuracy"],
                "accuracy_ci95": metrics["accuracy_ci95"],
                **{name: metrics[name] for name in ("balanced_accuracy", "macro_f1", "log_loss", "ece")},
                "heldout": card["heldout"],
                "heldout_test": card["heldout_test"],
                "fold_test": card["fold_test"],
                "n_train": card["n_train"],
                "n_validation": card["validation"]["n"],
                "n_heldout": card["n_heldout"],
                "best_epoch": card["best_epoch"],
                "epochs": len(epochs),
                "curves": card["curves"],
                "trained_parameters": card["trained_parameters"],
                "frozen_parameters": card["frozen_parameters"],
                "seconds_per_epoch": round(sum(epochs) / len(epochs), 3) if epochs else None,
                "seconds": round(card["seconds"], 3),
                "problem": problem or None,
            }
        )
    if problem:
        give_up(problem)


def _given() -> list[str]:
    """Return the options on the command line that decide what comes of a fine-tuning."""
    context = click.get_current_context()
    place = ("images", "resume", "cache", "runs", "device", "views_limit", "as_json", "debug")
    options = [one for one in context.command.params if one.name and one.name not in place]
    return [
        one.opts[0]
        for one in options
        if one.name and context.get_parameter_source(one.name) is ParameterSource.COMMANDLINE
    ]


def _check(
    begin: str, head_init: str | None, model: str | None, run: str | None, resume: str | None, folds: int | None
) -> None:
    """Refuse options that contradict each other."""
    if resume is not None and (given := _given()):
        raise click.UsageError(f"what is resumed keeps the options that it was begun with: leave {given[0]} out")
    if begin == "head":
        if head_init == "random":
            raise click.UsageError("--head-init random begins with no head: add --from weights")
        if model is not None:
            raise click.UsageError("--model is of --from weights; a head brings its own: see --run")
    elif folds is not None:
        raise click.UsageError("--from weights begins with no head for --folds to compare with: leave one of them out")
    elif head_init == "head":
        raise click.UsageError("--from weights begins with no head: leave --head-init out, or say --head-init random")
    elif run is not None:
        raise click.UsageError("--run names a head, and --from weights begins with none: leave one of them out")


def _check_recipe(recipe: dict[str, Any]) -> None:
    """Refuse options of the recipe that contradict each other."""
    if recipe["unfreeze"] and recipe["last"] is not None:
        raise click.UsageError("--unfreeze and --last say what is trained in two ways: leave one of them out")
    if recipe["train_bn"] and recipe["batch_size"] < 2:
        raise click.UsageError("--train-bn takes statistics of a batch, and one image has none: --batch-size 2 or more")
