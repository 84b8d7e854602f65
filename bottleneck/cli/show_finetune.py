"""How a fine-tuning looks while it runs, and what is said of it at the end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bottleneck.cli.output import say, show, width_of
from bottleneck.cli.show import failures_list
from bottleneck.finetuning.folds import Fold
from bottleneck.finetuning.head_comparison import LEAST
from bottleneck.finetuning.history import Epoch
from bottleneck.finetuning.verify import Start
from bottleneck.utils.text import counted

if TYPE_CHECKING:
    from bottleneck.finetuning.outline import Outline
    from bottleneck.runs.run import Run

_NAMES = 6  # of trained parts that are shown
_HEADING = "epoch   train loss  accuracy   validation loss  accuracy   seconds"


class Watcher:
    """Prints what is about to be done, how it starts, and a line for each epoch and fold."""

    def __init__(self) -> None:
        self._heading = True
        self._name = ""  # of the run
        self._last = -1  # epoch
        self._fold = 0

    def __call__(self, event: Outline | Start | Epoch | Fold) -> None:
        """Print one event."""
        if isinstance(event, Epoch):
            self._last = event.number
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
            self._name, self._last = event.path.name, -1 if event.resumed is None else event.resumed
            _outline(event)

    def goes_on(self) -> str:
        """Return what to say of a training that is stopped."""
        if not self._name:
            return "Stopped before anything was done"
        done = f"epoch {self._last}" + (f" and fold {self._fold}" if self._fold else "")
        after = f"after {done}" if self._last >= 0 else "before the first epoch; what was cached is kept"
        return f"Stopped {after}. This goes on from there: bottleneck finetune --resume {self._name}"


def ended(run: Run) -> None:
    """Say how well the best epoch does, and where it is."""
    card, metrics = run.card, run.metrics
    low, high = metrics["accuracy_ci95"]
    show(_choice(card))
    show(
        f"accuracy {metrics['accuracy']:.1%} on {counted(card['n_heldout'], 'held-out image')} ({card['heldout']}), "
        f"95 % interval {low:.1%} to {high:.1%}; it began at {card['start_accuracy']:.1%}"
    )
    for line in _against_head(card):
        show(line)
    if card["validation"]["is_heldout"]:
        which = "the accuracy and the comparison with the head are" if card["heldout_test"] else "the accuracy is"
        say(f"there is no test part: these images also selected the epoch, so {which} optimistic; add a folder test/")
    failures_list(run.failures)
    show(f"{len(run.failures)} failed; {run.path} in {card['seconds']:.1f} s, curves in {run.path / 'curves.png'}")


def _choice(card: dict[str, Any]) -> str:
    """Say which epoch is kept, and why."""
    best, curves = card["best_epoch"], card["curves"]
    images = counted(card["validation"]["n"], "validation image")
    first, chosen, done = curves[0], curves[best], len(curves) - 1
    stopped = f" of {done}, where patience ended" if done < card["recipe"]["epochs"] and not card["diverged"] else ""
    stopped = stopped or f" of {done}"
    had = f"{first['val_accuracy']:.1%} of {images}, loss {first['val_loss']:.4f}"
    if best == 0:
        what = "the hand-back" if card["from"]["run"] else "its beginning"
        worse = all(epoch["val_loss"] > 2 * first["val_loss"] for epoch in curves[1:])
        advice = f"; all were far worse: try --lr {card['recipe']['lr'] / 10:g}" if worse and done else ""
        return f"no epoch{stopped} was better than {what} ({had}): the network is kept as it began{advice}"
    by_loss = " by its loss," if chosen["val_accuracy"] == first["val_accuracy"] else ""
    return (
        f"epoch {best}{stopped} was the best,{by_loss} {chosen['val_accuracy']:.1%} of {images}, "
        f"loss {chosen['val_loss']:.4f}; it began with {first['val_accuracy']:.1%}, {first['val_loss']:.4f}"
    )


def _against_head(card: dict[str, Any]) -> list[str]:
    """Say whether the network is better than the head that it began with, by the images that only one has right."""
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
            f"by {folds['folds']} folds of {counted(folds['n'], 'training image')}, each judged by a network and head "
            f"that did not train on it: fine-tuned {folds['tuned_accuracy']:.1%}, head {folds['head_accuracy']:.1%}; "
            f"{_counts(folds)}: {_verdict(folds, 'fine-tuning')}"
        )
    elif test is not None and test["verdict"] == "cannot tell":
        images = counted(_train_images(card), "training image")
        lines.append(f"--folds 5 would compare fine-tuning with the head on {images} too")
    return lines


def _train_images(card: dict[str, Any]) -> int:
    validation = card["validation"]
    return int(card["n_train"] + (validation["n"] if validation["cut_from_train"] else 0))


def _counts(test: dict[str, Any]) -> str:
    if not test["only_tuned"] + test["only_head"]:
        return "both have the same images right"
    return (
        f"{test['only_tuned']} only the fine-tuned network has right, {test['only_head']} only the head "
        f"(p = {test['p_value']:.2g})"
    )


def _verdict(test: dict[str, Any], what: str) -> str:
    if test["verdict"] != "cannot tell":
        return f"{what} is {test['verdict']}"
    if test["n"] < LEAST:
        return "so few images can never tell which is better"
    return (
        f"these images cannot tell which is better; the smallest gain that they could show is "
        f"{100 * LEAST / test['n']:.1f} points ({LEAST} images)"
    )


def _fold(event: Fold) -> str:
    images = counted(len(event.tuned), "image")
    return (
        f"fold {event.number} of {event.folds}: of {images} the fine-tuned network has {event.tuned.sum()} right, the "
        f"head {event.head.sum()}; {event.seconds:.1f} s"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _outline(event: Outline) -> None:
    origin, plan, parts = event.origin, event.plan, event.parts
    begun = f"the {origin.run.card['head']} head of {origin.run.name}" if origin.run else "a random last layer"
    say(f"{origin.request.model} with {begun}")
    names = ", ".join(plan.names[:_NAMES]) + (f" and {len(plan.names) - _NAMES} more" if plan.names[_NAMES:] else "")
    trained = f"{names} and the head" if names else "the head alone"
    say(f"trains {trained}: {plan.trained:,} parameters in {event.precision}; {plan.frozen:,} stay frozen")
    say(
        f"{counted(len(parts.train), 'training image')}; {len(parts.val)} validate"
        f"{' (cut from train)' if parts.cut else ''}; "
        f"{len(parts.heldout)} held out ({parts.name}{', the same' if parts.val_is_heldout else ''})"
    )
    _boundary(event)
    if event.folds:
        say(f"then {counted(event.folds, 'fold')} of the training images, to compare fine-tuning with the head")
    if event.resumed is not None:
        say(f"goes on after epoch {event.resumed} in {event.path}")


def _boundary(event: Outline) -> None:
    boundary, recipe = event.boundary, event.recipe
    if boundary is None:
        why = "as asked" if not recipe.views else "all that is trained begins with the image"
        say(f"the whole network runs in each epoch ({why})")
        return
    shape = " x ".join(map(str, boundary.shape))
    views = "1 view" if recipe.augment == "none" else counted(event.views, f"{recipe.augment} view")
    said = f"{_size(event.missing)} of them to be computed, once" if event.missing else "all cached"
    say(f"activations at {boundary.module} ({shape}), {views} of each training image:")
    wide = " in float32, as float16 loses a part of them" if event.wide else ""
    say(f"  {_size(event.bytes)}{wide}, {said}")


def _start(event: Start) -> str:
    if event.head_accuracy is None or event.agreement is None:
        return f"starts at {event.accuracy:.1%} on the held-out images, with a random last layer"
    agreement = event.agreement
    if agreement.exact:
        how = f"every label the same, probabilities within {max(agreement.largest, 1e-7):.1g}"
        return f"starts at {event.accuracy:.1%}, as the head ({how}, on {counted(agreement.images, 'held-out image')})"
    return (
        f"starts at {event.accuracy:.1%}, as the head on features in fp32 (on those in {event.precision} it has "
        f"{event.head_accuracy:.1%}; {agreement.other_labels} of {agreement.images} held-out labels differ)"
    )


def _is_narrow() -> bool:
    """Whether a line for each epoch has no room for its columns."""
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
