"""How results look: tables and lines for people, rows and JSON lines for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from bottleneck.cli.common import say
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.failures import by_reason

if TYPE_CHECKING:  # what is shown was made elsewhere; importing its makers would cost more than showing it
    from bottleneck.cache.maintain import StoreInfo
    from bottleneck.demo.tour import Example
    from bottleneck.extraction import Extraction, Note
    from bottleneck.prediction import Predictions
    from bottleneck.runs import Run

_FAILURES = 3  # paths that are shown of each reason
CONFUSION_CLASSES = 12
_CLASSES = 8


def failures_list(failures: Sequence[Failure], table: Path | None = None) -> None:
    """List the images that cannot be used, by reason, the first of each with its path."""
    for code, group in by_reason(failures).items():
        say(f"{len(group)} {code}:")
        for failure in group[:_FAILURES]:
            say(f"  {failure.path}: {failure.message}")
        if len(group) > _FAILURES:
            say(f"  ... and {len(group) - _FAILURES} more")
    if table:
        say(f"all that failed: {table}")


def notes_list(notes: Sequence[Note]) -> None:
    """Say what is odd about images that were used."""
    messages = Counter(note.message for note in notes)
    for message, count in messages.items():
        paths = [note.path for note in notes if note.message == message]
        more = f" and {count - _FAILURES} more" if count > _FAILURES else ""
        say(f"{count} with {message}: {', '.join(paths[:_FAILURES])}{more}")


def ignored_line(ignored: dict[str, int]) -> None:
    """Say which files were passed over."""
    if ignored:
        listed = ", ".join(f"{count} {reason}" for reason, count in ignored.items())
        count = sum(ignored.values())
        say(f"{count} file{'s' if count > 1 else ''} ignored: {listed}")


def engine_line(done: Extraction, indent: str = "") -> None:
    """Say what computed the features, how near it comes to torch in fp32, and why nothing faster did."""
    if not done.computed:
        return
    near = f", lowest cosine to torch in fp32 {done.check.lowest:.4f}" if done.check and done.check.lowest else ""
    say(f"{indent}engine: {done.engine}, {done.store.spec.precision}{near}")
    for remark in done.remarks:
        say(f"{indent}  {remark}")


def dataset_line(dataset: Dataset) -> None:
    """Say which classes and splits were found, so that a wrong folder is seen at once."""
    if not dataset.labelled:
        say("no labels: `bottleneck fit` needs a folder for each class, or a CSV with a column label")
        return
    labels = Counter(label for label in dataset.labels if label is not None)
    shown = ", ".join(f"{name} {labels[name]}" for name in sorted(labels)[:_CLASSES])
    more = f" and {len(labels) - _CLASSES} more" if len(labels) > _CLASSES else ""
    given = " (given)" if all(dataset.given_splits) else ""
    splits = Counter(dataset.splits)
    divided = ", ".join(f"{name} {splits[name]}" for name in ("train", "val", "test") if splits[name])
    say(f"{len(labels)} classes: {shown}{more}; splits{given}: {divided}")


def columns_line(columns: Columns) -> None:
    """Say which columns of a table were named, now or in an earlier command."""
    if columns:
        say(f"columns: {columns}")


def run_report(run: Run) -> None:
    """Say what was trained and how well it does."""
    card, metrics = run.card, run.metrics
    low, high = metrics["accuracy_ci95"]
    labels = ", ".join(f"{name} {count}" for name, count in sorted(card["dataset"]["labels"].items())[:_CLASSES])
    more = len(card["dataset"]["labels"]) - _CLASSES
    say(f"{card['dataset']['source']}: {labels}" + (f" and {more} more classes" if more > 0 else ""))
    columns_line(Columns.from_json(card["dataset"].get("columns", {})))
    say(
        f"{card['head']} on {run.features}: {card['n_train']} training images, {params_text(card['params'])} by "
        f"{card['search']['folds']}-fold cross-validation ({run.cv_accuracy:.1%} ± {card['search']['cv_spread']:.1%}, "
        f"balanced {card['search']['cv_balanced_accuracy']:.1%})"
    )
    aside = card["dataset"]["splits"].get("val") if card["heldout"] == "test" else None
    if aside:
        say(f"{aside} val images are kept aside (for fine-tuning, later); --split 80/0/20 would hold all out")
    console = plain_console()
    console.print(classes_table(metrics))
    if len(metrics["classes"]) <= CONFUSION_CLASSES:
        console.print(confusion_table(metrics))
    say(
        f"accuracy {metrics['accuracy']:.1%} on {card['n_heldout']} held-out images ({card['heldout']}), "
        f"95 % interval {low:.1%} to {high:.1%}; balanced {metrics['balanced_accuracy']:.1%}, "
        f"macro F1 {metrics['macro_f1']:.3f}"
    )
    top5 = "" if metrics["top5_accuracy"] is None else f", right among the first five {metrics['top5_accuracy']:.1%}"
    say(
        f"log-loss {metrics['log_loss']:.3f}, calibration error {metrics['ece']:.3f}{top5}; heads whose accuracies "
        f"differ by less than {metrics['resolution']:.1%} are not told apart by them on {card['n_heldout']} images"
    )
    said = [
        name
        for name, counts in zip(metrics["classes"], zip(*metrics["confusion"], strict=True), strict=True)
        if any(counts)
    ]
    several = sum(bool(row["n"]) for row in metrics["per_class"].values()) > 1
    if len(said) == 1 and several:  # else it may well be right
        weights = "" if card["class_weight"] == "balanced" else "--class-weight balanced, or "
        say(f"it says {said[0]} of every held-out image: {weights}more images of the others may help")
    if card["leaks"]["near_threshold"] is None:
        say("near copies across the splits were not looked for: the features are read in pieces")
    failures_list([Failure(**failure) for failure in card["failures"]])
    say(f"{len(card['failures'])} failed; {run.path} in {card['seconds']:.1f} s")


def params_text(params: dict[str, Any]) -> str:
    """Return what was chosen, ``C 0.01, kernel rbf``."""
    named = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in params.items()}
    return ", ".join(f"{name} {value}" for name, value in named.items()) or "nothing to choose"


def plain_console(width: int | None = None) -> Console:
    """Return the console of stderr; class names and paths are shown as they are, brackets too."""
    return Console(stderr=True, width=width, markup=False, highlight=False)


def runs_table(runs: Sequence[Run]) -> Table:
    """Return a table of runs, a line each."""
    table = Table("head", "chosen", "cross-validated", "held-out", "95 % interval", "seconds", box=box.SIMPLE_HEAD)
    for run in runs:
        low, high = run.metrics["accuracy_ci95"]
        table.add_row(
            run.card["head"],
            params_text(run.card["params"]),
            f"{run.cv_accuracy:.1%}",
            f"{run.metrics['accuracy']:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{run.card['seconds']:.1f}",
        )
    return table


def specs_table(specs: Sequence[StoreInfo], values: str = "features") -> Table:
    """Return a table of what is cached, a line a spec; `values` says what a row of numbers is called."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("spec", overflow="fold")
    for name in ("images", values, "shards", "MB"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("written", no_wrap=True)
    for spec in specs:
        held = f" (+{spec.quarantined} quarantined)" if spec.quarantined else ""
        shards, megabytes = f"{spec.shards}{held}", f"{spec.bytes / 1e6:,.1f}"
        table.add_row(spec.short_name, str(spec.images), str(spec.dim), shards, megabytes, (spec.last or "")[:10])
    return table


def specs_list(specs: Sequence[StoreInfo], values: str = "features") -> None:
    """Print `specs_table`, and what there is to say of a spec."""
    if specs:
        plain_console().print(specs_table(specs, values))
    for spec in specs:
        if spec.asked:
            say(f"{spec.short_name}: {spec.asked}")
        if spec.problem:
            say(f"{spec.short_name}: {spec.problem}")


def activations_list(specs: Sequence[StoreInfo]) -> None:
    """Print what fine-tuning has kept, at which layers, and how to be rid of it."""
    specs_list(specs, "activations")
    for layer in sorted({spec.layer for spec in specs}):
        say(f"at {layer}: {', '.join(spec.short_name for spec in specs if spec.layer == layer)}")
    say(
        f"activations of {len(specs)} specs, {sum(spec.images for spec in specs)} rows, "
        f"{sum(spec.bytes for spec in specs) / 1e6:,.1f} MB. They can be deleted at any time (fine-tuning computes "
        f"them again): bottleneck cache rm SPEC"
    )


def predictions_table(predictions: Predictions, target: IO[str]) -> None:
    """Print a table of predictions; paths are never cut."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("path", overflow="fold")  # where room is short a path goes on below, and a label never does
    table.add_column("label", no_wrap=True)
    table.add_column("probability", justify="right", no_wrap=True)
    table.add_column("next", no_wrap=True)
    for item in predictions:
        if item.failure:
            table.add_row(item.path, "", "", f"failed: {item.failure.code}")
            continue
        runners_up = ", ".join(f"{label} {share:.3f}" for label, share in item.top[1:])
        table.add_row(item.path, item.label, f"{item.probability:.3f}", runners_up)
    width = max((len(item.path) for item in predictions), default=0) + 80
    Console(file=target, width=None if target.isatty() else width, markup=False, highlight=False).print(table)


def prediction_rows(predictions: Predictions, top: int) -> Iterator[list[object]]:
    """Yield a header and a row an image: path, digest, label, probability, label_2, probability_2, ..., code, message.

    Of an image that cannot be used the labels and probabilities are empty; code and message are those of the others.
    """
    count = min(top, len(predictions.run.card["classes"]))
    more = [name for place in range(2, count + 1) for name in (f"label_{place}", f"probability_{place}")]
    yield ["path", "digest", "label", "probability", *more, "code", "message"]
    for item in predictions:
        if item.failure:
            yield [item.path, item.digest or "", *[""] * 2 * count, item.failure.code, item.failure.message]
            continue
        cells = [cell for label, share in item.top for cell in (label, f"{share:.6f}")]
        yield [item.path, item.digest, *cells, "", ""]


def prediction_lines(predictions: Predictions) -> Iterator[str]:
    """Yield a JSON object an image, in order; one that cannot be used has a code and a message, and no label."""
    for item in predictions:
        found = {"path": item.path, "digest": item.digest, "label": item.label, "probability": item.probability}
        if item.failure:
            yield json.dumps({**found, "error": {"code": item.failure.code, "message": item.failure.message}})
            continue
        top = [{"label": label, "probability": share} for label, share in item.top]
        yield json.dumps({**found, "top": top})


def classes_table(metrics: dict[str, Any]) -> Table:
    """Return precision, recall and F1 of each class."""
    table = Table("class", "images", "precision", "recall", "F1", box=box.SIMPLE_HEAD)
    for name, row in metrics["per_class"].items():
        table.add_row(name, str(row["n"]), *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1")))
    return table


def confusion_table(metrics: dict[str, Any]) -> Table:
    """Return labels as rows, predictions as columns."""
    classes, counts = metrics["classes"], metrics["confusion"]
    table = Table("label \\ predicted", *classes, box=box.SIMPLE_HEAD)
    for name, row in zip(classes, counts, strict=True):
        table.add_row(name, *(str(count) if count else "·" for count in row))
    return table


def examples_table(examples: Sequence[Example]) -> Table:
    """Return a table of held-out images, their labels and what the head says."""
    table = Table("image", "label", "predicted", "probability", "", box=box.SIMPLE_HEAD)
    for item in examples:
        mark = "" if item.label == item.predicted else "wrong"
        table.add_row(item.path, item.label, item.predicted, f"{item.probability:.3f}", mark)
    return table
