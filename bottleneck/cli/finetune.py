"""``bottleneck finetune``."""

import math
import sys
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from bottleneck.cli.common import command, give_up, progress_bar
from bottleneck.cli.defaults import head_line, images_line
from bottleneck.cli.head_options import MOST_GIGABYTES, as_bytes
from bottleneck.cli.memory_option import memory_option
from bottleneck.cli.numbers import LARGEST, RealNumber, WholeNumber
from bottleneck.cli.output import put_json
from bottleneck.finetuning.rank import is_rank_zero, raised_on_rank_zero
from bottleneck.finetuning.recipe import CHOICES, DEFAULTS, LEARNING_RATES, REAL, WHOLE, Recipe
from bottleneck.utils.gc_paused import no_collection

_RATES = ", ".join(f"{rate:.0e} for {name}".replace("e-0", "e-") for name, rate in LEARNING_RATES.items())


def _factors(ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """Parse ``--lr-mult layer4=0.1``."""
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


def _recipe_option(flag: str, help: str, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the option of a field of `Recipe`, with the default and the range of that field."""
    name = flag.removeprefix("--").replace("-", "_")
    if DEFAULTS[name] is not None and not settings.get("multiple"):
        settings = {"default": DEFAULTS[name], "show_default": True, **settings}
    if "type" not in settings and (kind := _type_of(name)):
        settings["type"] = kind
    return click.option(flag, help=help, **settings)


def _type_of(name: str) -> "click.ParamType[Any] | None":
    """Return the click type of a field of `Recipe`; None for one that is neither a number nor a choice."""
    if name in CHOICES:
        return click.Choice(CHOICES[name])
    if name in WHOLE:
        whole = WHOLE[name]
        return WholeNumber(whole["least"], whole["most"]) if "most" in whole else WholeNumber(whole["least"])
    if name not in REAL:
        return None
    real = REAL[name]
    return RealNumber(
        real.get("above", 0), real.get("below", LARGEST), min_open="above" in real, max_open="below" in real
    )


@command("finetune", short_help="Fine-tune a network end to end, starting from a fitted head.")
@click.argument("images", required=False)
@click.option(
    "--run",
    help="Run whose head initialises the last layer.  [default: the best linear head on the features of the last fit]",
)
@_recipe_option(
    "--unfreeze",
    "Train these modules and the head: names from `inspect`, patterns with *, or all. May be repeated.",
    multiple=True,
    metavar="PATTERN",
)
@_recipe_option("--last", "Train the last N stages and the head; 0: only the head.  [default: 1]", metavar="N")
@click.option(
    "--train-bn", is_flag=True, help="Also train the batch norms of the trained parts; by default they stay frozen."
)
@click.option(
    "--from",
    "begin",
    type=click.Choice(["head", "weights"]),
    default="head",
    show_default=True,
    help="weights: start from the backbone and a random last layer.",
)
@click.option(
    "--head-init",
    type=click.Choice(["head", "random"]),
    help="How the last layer is initialised.  [default: head; random with --from weights]",
)
@click.option("--model", help="With --from weights: a cached model or spec.  [default: the last extracted]")
@_recipe_option("--epochs", "Passes over the training images.")
@_recipe_option("--batch-size", "Images per step.")
@_recipe_option("--optimizer", "Optimizer; sgd uses --momentum.")
@_recipe_option("--lr", f"Maximum learning rate.  [default: {_RATES}]")
@_recipe_option("--momentum", "Momentum of sgd.")
@_recipe_option("--weight-decay", "Weight decay; norms and biases have none.")
@_recipe_option(
    "--lr-mult",
    "Multiply the learning rate of matching modules. May be repeated.",
    multiple=True,
    callback=_factors,
    metavar="PATTERN=X",
)
@_recipe_option(
    "--layer-decay",
    "Learning rate of each stage, as a multiple of that of the next stage.",
    type=RealNumber(0, 1, min_open=True),
)
@_recipe_option("--schedule", "How the learning rate decreases.")
@_recipe_option("--step-epochs", "For `step`: divide the learning rate by 10 every N epochs.")
@_recipe_option("--warmup", "Epochs during which the learning rate rises from zero.", metavar="EPOCHS")
@_recipe_option("--label-smoothing", "Share of a label's probability that is spread over all classes.")
@_recipe_option("--class-weight", "Give each class the same total weight.")
@_recipe_option("--clip", "Maximum norm of the gradient; 0: no limit.", type=RealNumber(0))
@_recipe_option("--precision", "Precision of training; auto: bf16 where that is faster.")
@_recipe_option("--ema", "Decay of the moving average of the weights.")
@_recipe_option("--patience", "Stop after this many epochs without improvement.", metavar="EPOCHS")
@_recipe_option(
    "--augment",
    "Augmentation. light: large crops and flips; standard: torchvision's usual crops and flips; strong: also "
    "TrivialAugment.",
)
@_recipe_option(
    "--views",
    "Augmented views of each image to cache; 0: new views in each epoch, through the whole network.",
)
@click.option(
    "--views-limit",
    default=20.0,
    show_default=True,
    type=RealNumber(0, MOST_GIGABYTES),
    callback=as_bytes,
    metavar="GB",
    help="Maximum size of cached activations on disk.",
)
@memory_option(
    "Memory for activations, and for images while they are read, such as 2G or 500M.  "
    "[default: half of the free memory]"
)
@click.option(
    "--folds",
    type=WholeNumber(2),
    metavar="K",
    help="Also compare fine-tuning with the head on K folds of the training images, which takes K more trainings.",
)
@click.option("--device", help="Device as in torch.device.  [default: a GPU if there is one, otherwise cpu]")
@_recipe_option("--seed", "Random seed; equal seeds give equal runs.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="last",
    metavar="[RUN]",
    help="Resume an interrupted fine-tuning, the last one or RUN, with its original options.",
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
    **options: Any,
) -> None:
    """Make the head of a run the last layer of its network, then train this layer and, by default, the last stage.

    IMAGES defaults to the images of the head. Before the first step, the command verifies that the network and the head
    give the same predictions. The best epoch on the validation images is kept; epoch 0 is the fitted head.
    """
    with raised_on_rank_zero():
        _check(begin, head_init, model, run, resume, folds)
        recipe = None if resume is not None else _recipe(options)
    with no_collection():
        from bottleneck.cli.show_finetune import Watcher, ended
        from bottleneck.errors import Diverged
        from bottleneck.finetuning.finetune import finetune as run_finetune

    first = is_rank_zero()
    if first and resume is None:
        _show_defaults(images, begin=begin, run=run, model=model, cache=cache, runs=runs)
    problem, watcher = None, Watcher()
    with progress_bar(hidden=as_json or not first) as progress:
        try:
            found = run_finetune(
                images,
                recipe=recipe,
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
            found, problem = error.run, str(error)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(watcher.how_to_resume()) from None
    if not first:
        sys.exit(problem is not None)
    ended(found)
    if as_json:
        put_json({**found.to_json(), "problem": problem})
    if problem:
        give_up(problem)


def _show_defaults(
    images: str | None, *, begin: str, run: str | None, model: str | None, cache: str, runs: str
) -> None:
    """Show which images, or which head, are used by default."""
    if begin == "weights":
        images_line(images, cache, model)
    elif run is None:
        head_line(images, runs)


def _recipe(options: dict[str, Any]) -> Recipe:
    """Return the recipe that options of the command line describe."""
    if options["unfreeze"] and options["last"] is not None:
        raise click.UsageError("--unfreeze and --last both select the trained modules: use only one of them")
    if options["train_bn"] and options["batch_size"] < 2:
        raise click.UsageError("--train-bn needs the statistics of several images: --batch-size 2 or more")
    return Recipe(**{**options, "clip": options["clip"] or None})


def _given() -> list[str]:
    """Return the options on the command line that change the result of a fine-tuning."""
    context = click.get_current_context()
    others = ("images", "resume", "cache", "runs", "device", "views_limit", "as_json", "debug")
    options = [one for one in context.command.params if one.name and one.name not in others]
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
        raise click.UsageError(f"--resume keeps the options of the interrupted fine-tuning: remove {given[0]}")
    if begin == "head":
        if head_init == "random":
            raise click.UsageError("--head-init random starts without a head: add --from weights")
        if model is not None:
            raise click.UsageError("--model needs --from weights; a head has its own model: see --run")
    elif folds is not None:
        raise click.UsageError("--folds compares with a head, and --from weights has none: use only one of them")
    elif head_init == "head":
        raise click.UsageError("--from weights has no head: remove --head-init, or use --head-init random")
    elif run is not None:
        raise click.UsageError("--run selects a head, and --from weights uses none: use only one of them")
