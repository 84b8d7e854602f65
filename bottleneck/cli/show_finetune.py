"""The output of ``bottleneck finetune``: its progress and its result."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bottleneck.cli.output import say, show, width_of
from bottleneck.cli.show import failures_list
from bottleneck.finetuning.folds import Fold
from bottleneck.finetuning.head_comparison import MIN_DISCORDANT
from bottleneck.finetuning.history import Epoch
from bottleneck.finetuning.verify import Start
from bottleneck.utils.text import counted

if TYPE_CHECKING:
    from bottleneck.finetuning.outline import Outline
    from bottleneck.runs.run import Run

_MAX_NAMES = 6  # of trained modules
_HEADING = "epoch   train loss  accuracy   validation loss  accuracy   seconds"


class Watcher:
    """Prints the outline of a fine-tuning, its start, and a line for each epoch and fold."""

    def __init__(self) -> None:
        self._heading = True
        self._run = ""
        self._epoch = -1  # the last finished one
        self._fold = 0

    def __call__(self, event: Outline | Start | Epoch | Fold) -> None:
        """Print one event."""
        if isinstance(event, Epoch):
            self._epoch = event.number
            if self._heading:
                self._heading = False
                if not _is_narrow():
                    say(_HEADING)
            say(_sentence(event) if _is_narrow() else _line(event))
        elif isinstance(event, Fold):
            self._fold = event.number
            say(_fold(event))
        elif isinstance(event, Start):
            say(_start(event))
        else:
            self._run, self._epoch = event.path.name, -1 if event.resumed is None else event.resumed
            _outline(event)

    def how_to_resume(self) -> str:
        """Return the message of a training that was interrupted."""
        if not self._run:
            return "Stopped before the fine-tuning began"
        done = f"epoch {self._epoch}" + (f" and fold {self._fold}" if self._fold else "")
        after = f"after {done}" if self._epoch >= 0 else "before the first epoch; cached activations are kept"
        return f"Stopped {after}. To continue: bottleneck finetune --resume {self._run}"


def ended(run: Run) -> None:
    """Show the accuracy of the best epoch, and where the run is."""
    card, metrics = run.card, run.metrics
    low, high = metrics["accuracy_ci95"]
    show(_choice(card))
    show(
        f"accuracy {metrics['accuracy']:.1%} on {counted(card['n_heldout'], 'held-out image')} ({card['heldout']}), "
        f"95 % interval {low:.1%} to {high:.1%}; before fine-tuning {card['start_accuracy']:.1%}"
    )
    for line in _against_head(card):
        show(line)
    if card["validation"]["is_heldout"]:
        which = "the accuracy and the comparison with the head are" if card["heldout_test"] else "the accuracy is"
        say(f"there is no test split: these images also selected the epoch, so {which} optimistic; add a folder test/")
    failures_list(run.failures)
    show(f"{len(run.failures)} failed; {run.path} in {card['seconds']:.1f} s, curves in {run.path / 'curves.png'}")


def _choice(card: dict[str, Any]) -> str:
    """Return which epoch is kept, and why."""
    best, curves = card["best_epoch"], card["curves"]
    images = counted(card["validation"]["n"], "validation image")
    first, chosen, done = curves[0], curves[best], len(curves) - 1
    stopped = f" of {done}, when patience ran out," if done < card["recipe"]["epochs"] and not card["diverged"] else ""
    stopped = stopped or f" of {done}"
    first_metrics = f"{first['val_accuracy']:.1%} of {images}, loss {first['val_loss']:.4f}"
    if best == 0:
        what = "the head" if card["from"]["run"] else "the start"
        far_worse = all(epoch["val_loss"] > 2 * first["val_loss"] for epoch in curves[1:])
        advice = f"; all were far worse: try --lr {card['recipe']['lr'] / 10:g}" if far_worse and done else ""
        return f"no epoch{stopped} was better than {what} ({first_metrics}): the initial network is kept{advice}"
    by_loss = " by its loss," if chosen["val_accuracy"] == first["val_accuracy"] else ""
    return (
        f"epoch {best}{stopped} was the best,{by_loss} {chosen['val_accuracy']:.1%} of {images}, "
        f"loss {chosen['val_loss']:.4f}; before fine-tuning {first['val_accuracy']:.1%}, {first['val_loss']:.4f}"
    )


def _against_head(card: dict[str, Any]) -> list[str]:
    """Return lines that compare the network with its head, by the images that only one of them classifies correctly."""
    test, folds, validation = card["heldout_test"], card["fold_test"], card["validation"]
    lines = []
    if test is not None:
        images = counted(test["n"], "held-out image")
        lines.append(f"against the head on {images}: {_counts(test)}: {_verdict(test, 'the network')}")
        if not validation["is_heldout"]:
            before = validation["against_start"]
            found = {"only_tuned": before["only_a"], "only_head": before["only_b"], "p_value": before["p_value"]}
            images = counted(validation["n"], "validation image")
            lines.append(f"on {images}, which selected the epoch and so favour fine-tuning: {_counts(found)}")
    if folds is not None:
        lines.append(
            f"by {folds['folds']} folds of {counted(folds['n'], 'training image')}, each classified by a network and "
            f"a head that were not trained on it: "
            f"fine-tuned {folds['tuned_accuracy']:.1%}, head {folds['head_accuracy']:.1%}; "
            f"{_counts(folds)}: {_verdict(folds, 'fine-tuning')}"
        )
    elif test is not None and test["verdict"] == "cannot tell":
        images = counted(_train_images(card), "training image")
        lines.append(f"--folds 5 would also compare fine-tuning with the head on {images}")
    return lines


def _train_images(card: dict[str, Any]) -> int:
    validation = card["validation"]
    return int(card["n_train"] + (validation["n"] if validation["cut_from_train"] else 0))


def _counts(test: dict[str, Any]) -> str:
    if not test["only_tuned"] + test["only_head"]:
        return "both classify the same images correctly"
    return (
        f"only the fine-tuned network classifies {test['only_tuned']} correctly, only the head {test['only_head']} "
        f"(p = {test['p_value']:.2g})"
    )


def _verdict(test: dict[str, Any], what: str) -> str:
    if test["verdict"] != "cannot tell":
        return f"{what} is {test['verdict']}"
    if test["n"] < MIN_DISCORDANT:
        return "too few images to show which is better"
    return (
        f"these images do not show which is better; the smallest gain that they could show is "
        f"{100 * MIN_DISCORDANT / test['n']:.1f} points ({MIN_DISCORDANT} images)"
    )


def _fold(event: Fold) -> str:
    images = counted(len(event.tuned), "image")
    return (
        f"fold {event.number} of {event.folds}: of {images}, the fine-tuned network classifies {event.tuned.sum()} "
        f"correctly, the head {event.head.sum()}; {event.seconds:.1f} s"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _outline(event: Outline) -> None:
    context = event.context
    initial, plan, partition = context.initial, context.plan, context.partition
    start = f"the {initial.run.card['head']} head of {initial.run.name}" if initial.run else "a random last layer"
    say(f"{initial.request.model} with {start}")
    names = ", ".join(plan.names[:_MAX_NAMES]) + (
        f" and {len(plan.names) - _MAX_NAMES} more" if plan.names[_MAX_NAMES:] else ""
    )
    trained = f"{names} and the head" if names else "the head alone"
    say(f"trains {trained}: {plan.trained:,} parameters in {context.precision}; {plan.frozen:,} stay frozen")
    say(
        f"{counted(len(partition.train), 'training image')}; {counted(len(partition.val), 'validation image')}"
        f"{' (set aside from train)' if partition.cut else ''}; {counted(len(partition.heldout), 'held-out image')} "
        f"({partition.name}{', the same images' if partition.val_is_heldout else ''})"
    )
    _boundary(event)
    if context.config.folds:
        say(
            f"then {counted(context.config.folds, 'fold')} of the training images, to compare fine-tuning with the head"
        )
    if event.resumed is not None:
        say(f"continues after epoch {event.resumed} in {event.path}")


def _boundary(event: Outline) -> None:
    boundary, recipe, stats = event.context.boundary, event.context.recipe, event.context.stats
    if boundary is None:
        why = "--views 0" if not recipe.views else "the trained part starts at the input"
        say(f"the whole network runs in each epoch ({why})")
        return
    shape = " x ".join(map(str, boundary.shape))
    views = "1 view" if recipe.augment == "none" else counted(event.views, f"{recipe.augment} view")
    missing = f"{_size(event.missing)} to compute, once" if event.missing else "all cached"
    say(f"activations at {boundary.module} ({shape}), {views} of each training image:")
    wide = " in float32, since float16 would lose information" if stats and stats.wide else ""
    say(f"  {_size(event.bytes)}{wide}, {missing}")


def _start(event: Start) -> str:
    if event.head_accuracy is None or event.agreement is None:
        return f"starts at {event.accuracy:.1%} on the held-out images, with a random last layer"
    agreement = event.agreement
    if agreement.exact:
        how = f"all labels equal, probabilities within {max(agreement.largest, 1e-7):.1g}"
        return (
            f"starts at {event.accuracy:.1%}, like the head ({how}, on {counted(agreement.images, 'held-out image')})"
        )
    return (
        f"starts at {event.accuracy:.1%}, like the head on fp32 features ({event.head_accuracy:.1%} on "
        f"{event.precision} features; {agreement.other_labels} of {agreement.images} held-out labels differ)"
    )


def _is_narrow() -> bool:
    """Whether the terminal is too narrow for a table of epochs."""
    width = width_of(sys.stderr)
    return width is not None and width < len(_HEADING)


def _line(epoch: Epoch) -> str:
    seconds = f"{epoch.seconds:.1f}" if epoch.number else ""
    return (
        f"{epoch.number:5}   {_number(epoch.train_loss):>10}  {_share(epoch.train_accuracy):>8}   "
        f"{_number(epoch.val_loss):>15}  {_share(epoch.val_accuracy):>8}   {seconds:>7}"
    ).rstrip()


def _sentence(epoch: Epoch) -> str:
    trained = f"train loss {_number(epoch.train_loss)}, accuracy {_share(epoch.train_accuracy)}; "
    seconds = f"; {epoch.seconds:.1f} s" if epoch.number else ""
    return (
        f"epoch {epoch.number}: {trained if epoch.train_loss is not None else ''}"
        f"validation loss {_number(epoch.val_loss)}, accuracy {_share(epoch.val_accuracy)}{seconds}"
    )


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
