"""Format results as tables and lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottleneck.cli.layout import TextTable, right
from bottleneck.cli.output import say, show
from bottleneck.evaluation.confusion import predicted_classes
from bottleneck.evaluation.stats import is_guessing
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.failures import by_reason
from bottleneck.reporting.scores import out_of_fold
from bottleneck.runs.card import params_text
from bottleneck.utils.text import counted

if TYPE_CHECKING:  # importing these modules would take longer than formatting their results
    from bottleneck.cache.maintain import StoreInfo
    from bottleneck.demo.tour import Example
    from bottleneck.extraction.result import Extraction, Note
    from bottleneck.runs.run import Run

_FAILURES = 3  # paths per reason
CONFUSION_CLASSES = 12
_CLASSES = 8
_LEAST = 2  # held-out images of each class, below which cross-validated tables are shown
_WIDE = 0.3  # width of an interval that gives only a rough idea


def failures_list(failures: Sequence[Failure], table: Path | None = None) -> None:
    """Print the images that cannot be used, by reason."""
    for code, group in by_reason(failures).items():
        say(f"{len(group)} {code}:")
        for failure in group[:_FAILURES]:
            say(f"  {failure.path}: {failure.message}")
        if len(group) > _FAILURES:
            say(f"  ... and {len(group) - _FAILURES} more")
    if table:
        say(f"all failed images: {table}")


def notes_list(notes: Sequence[Note]) -> None:
    """Print remarks on images that were used."""
    messages = Counter(note.message for note in notes)
    for message, count in messages.items():
        paths = [note.path for note in notes if note.message == message]
        more = f" and {count - _FAILURES} more" if count > _FAILURES else ""
        say(f"{count} with {message}: {', '.join(paths[:_FAILURES])}{more}")


def ignored_line(ignored: dict[str, int]) -> None:
    """Print how many files were ignored, by reason."""
    if ignored:
        listed = ", ".join(f"{count} {reason}" for reason, count in ignored.items())
        say(f"{counted(sum(ignored.values()), 'file')} ignored: {listed}")


def engine_line(done: Extraction, indent: str = "") -> None:
    """Print the engine, its similarity to torch in fp32, and why no faster one was used."""
    if not done.computed:
        return
    near = f", lowest cosine to torch in fp32 {done.check.lowest:.4f}" if done.check and done.check.lowest else ""
    say(f"{indent}engine: {done.engine}, {done.store.spec.precision}{near}")
    for remark in done.remarks:
        say(f"{indent}  {remark}")


def dataset_line(dataset: Dataset) -> None:
    """Print the classes and splits, which reveal a wrong folder at once."""
    if not dataset.labelled:
        say("no labels: `bottleneck fit` needs one folder per class, or a CSV with a column label")
        return
    labels = Counter(label for label in dataset.labels if label is not None)
    shown = ", ".join(f"{name} {labels[name]}" for name in sorted(labels)[:_CLASSES])
    more = f" and {len(labels) - _CLASSES} more" if len(labels) > _CLASSES else ""
    given = " (given)" if all(dataset.given_splits) else ""
    splits = Counter(dataset.splits)
    divided = ", ".join(f"{name} {splits[name]}" for name in ("train", "val", "test") if splits[name])
    show(f"{counted(len(labels), 'class')}: {shown}{more}; splits{given}: {divided}")


def columns_line(columns: Columns) -> None:
    """Print the columns of a table that were named, now or in an earlier command."""
    if columns:
        say(f"columns: {columns}")


def run_report(run: Run) -> None:
    """Print what was trained, and its scores."""
    card = run.card
    counts = run.part("dataset", "labels")
    labels = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())[:_CLASSES])
    more = len(counts) - _CLASSES
    more_text = f" and {counted(more, 'more class')}" if more > 0 else ""
    show(f"{card['dataset']['source']}: {labels}{more_text}")
    columns_line(Columns.from_json(card["dataset"].get("columns", {})))
    show(
        f"{card['head']} on {run.features}: {counted(card['n_train'], 'training image')}, "
        f"{params_text(card['params'])}{_scaling(card)} by {card['search']['folds']}-fold cross-validation"
        f"{_repeated(card['search'])}"
    )
    aside = card["dataset"]["splits"].get("val") if card["heldout"] == "test" else None
    if aside and not run.is_final:
        kept = f"{counted(aside, 'val image')} {'is' if aside == 1 else 'are'} not used (reserved for fine-tuning)"
        say(f"{kept}; --split 80/0/20 would hold them out, too")
    _accuracy_report(run)
    if run.is_final:
        final = card["final"]
        show(
            f"final head: trained on {counted(final['n_train'], 'labelled image')}, including the held-out ones, with "
            f"the same parameters; the scores above are of the head trained on {card['n_train']} of them. Both predict "
            f"the same label for {final['agreement']:.1%} of the held-out images"
        )
    if run.part("leaks")["near_threshold"] is None:
        reason = "the features are read in blocks" if card["streamed"] else "there are too few training images"
        say(f"the splits were not checked for near duplicates, because {reason}")
    failures_list(run.failures)
    show(f"{len(run.failures)} failed; {run.path} in {card['seconds']:.1f} s")


def _accuracy_report(run: Run) -> None:
    """Print the accuracy and its interval on the held-out split or, if that is small, by cross-validation."""
    card, held, folds = run.card, run.metrics, out_of_fold(run)
    by_folds = card["headline"] == "cross-validation"
    if not by_folds:
        show(f"cross-validated accuracy {_with_interval(folds)}; balanced {folds['balanced_accuracy']:.1%}")
    few = "" if by_folds else f"some classes have fewer than {_LEAST} held-out images; "
    is_thin = any(row["n"] < _LEAST for row in held["per_class"].values()) and "score" not in card
    if by_folds or is_thin:
        mean = f", mean of {card['search']['divisions']} divisions into folds" * (card["search"]["divisions"] > 1)
        _tables(folds, f"{few}cross-validated predictions for {counted(folds['n'], 'training image')}{mean}:")
    else:
        _tables(held)
    shown = folds if by_folds else held
    how = f"by cross-validation on {counted(folds['n'], 'training image')}"
    if not by_folds:
        how = f"on {counted(held['n'], 'held-out image')} ({card['heldout']})"
    show(
        f"accuracy {_with_interval(shown, how)}; balanced {shown['balanced_accuracy']:.1%}, "
        f"macro F1 {shown['macro_f1']:.3f}"
    )
    top5 = "" if shown["top5_accuracy"] is None else f", top-5 accuracy {shown['top5_accuracy']:.1%}"
    show(f"log-loss {shown['log_loss']:.3f}, calibration error {shown['ece']:.3f}{top5}")
    if by_folds:
        _small_split(held, card["heldout"])
    cautions(shown)
    _constant_prediction(shown, "training" if by_folds else "held-out", card["class_weight"])


def _with_interval(metrics: dict[str, Any], how: str = "") -> str:
    low, high = metrics["accuracy_ci95"]
    return f"{metrics['accuracy']:.1%}{how and ' '}{how}, 95 % interval {low:.1%} to {high:.1%}"


def _scaling(card: dict[str, Any]) -> str:
    """Return the scaling of the features, unless it is the usual one."""
    return "" if card["normalize"] == "shrunk" else f", {card['normalize']} scaling"


def _repeated(search: dict[str, Any]) -> str:
    return f", repeated {search['divisions']} times" if search["divisions"] > 1 else ""


def _small_split(held: dict[str, Any], split: str) -> None:
    """Print the interval of the accuracy on a held-out split that is too small for more."""
    low, high = held["accuracy_ci95"]
    right = round(held["accuracy"] * held["n"])
    show(
        f"{counted(held['n'], 'held-out image')} ({split}), {right} right, only show that the accuracy is between "
        f"{low:.1%} and {high:.1%}"
    )


def cautions(metrics: dict[str, Any]) -> None:
    """Print a caution if the interval is too wide to draw a conclusion."""
    low, high = metrics["accuracy_ci95"]
    counts = {name: row["n"] for name, row in metrics["per_class"].items()}
    largest = max(counts, key=counts.__getitem__)
    share = counts[largest] / sum(counts.values())
    if share == 1:
        show(f"only images of {largest} were tested: this does not show whether the head separates the classes")
    elif is_guessing((low, high), metrics["balanced_accuracy"], list(counts.values())):
        show(
            f"on these images the head is not significantly better than guessing: always predicting {largest} would be "
            f"right for {share:.1%} of them"
        )
    elif low <= share:
        show(
            f"always predicting {largest} would be right for {share:.1%} of these images: the balanced accuracy "
            f"shows how well the classes are separated"
        )
    elif high - low > _WIDE:
        show("these images give only a rough idea of the accuracy; four times as many would halve the interval")


def _constant_prediction(metrics: dict[str, Any], which: str, class_weight: str | None) -> None:
    """Print a caution if a head predicts the same label for all images of several classes."""
    if "confusion" not in metrics:  # of many classes
        return
    predicted = predicted_classes(metrics)
    several = sum(bool(row["n"]) for row in metrics["per_class"].values()) > 1
    if len(predicted) == 1 and several:
        weights = "" if class_weight == "balanced" else "--class-weight balanced, or "
        say(f"every {which} image is predicted as {predicted[0]}: {weights}more images of other classes may help")


def _tables(metrics: dict[str, Any], heading: str = "") -> None:
    show("", *([heading] if heading else []), classes_table(metrics))
    if len(metrics["classes"]) <= CONFUSION_CLASSES:
        show(confusion_table(metrics))


def runs_table(runs: Sequence[Run]) -> TextTable:
    """Return a table with a row per run."""
    numbers = right("cross-validated", "held-out", "95 % interval", "seconds")
    table = TextTable("head", "chosen", *numbers)
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


def specs_table(specs: Sequence[StoreInfo], values: str = "features") -> TextTable:
    """Return a table with a row per spec; `values` names the column of the number of values per image."""
    table = TextTable("spec", *right("images", values, "shards", "MB"), "written")
    for spec in specs:
        held = f" (+{spec.quarantined} quarantined)" if spec.quarantined else ""
        shards, megabytes = f"{spec.shards}{held}", f"{spec.bytes / 1e6:,.1f}"
        table.add_row(spec.short_name, str(spec.images), str(spec.dim), shards, megabytes, (spec.last or "")[:10])
    return table


def specs_list(specs: Sequence[StoreInfo], values: str = "features") -> None:
    """Print `specs_table` and remarks on specs."""
    if specs:
        show(specs_table(specs, values))
    for spec in specs:
        if spec.asked:
            show(f"{spec.short_name}: {spec.asked}")
        if spec.problem:
            show(f"{spec.short_name}: {spec.problem}")


def activations_list(specs: Sequence[StoreInfo]) -> None:
    """Print the activations that fine-tuning has cached, their layers, and how to delete them."""
    specs_list(specs, "activations")
    for layer in sorted({spec.layer for spec in specs}):
        show(f"at {layer}: {', '.join(spec.short_name for spec in specs if spec.layer == layer)}")
    show(
        f"activations of {counted(len(specs), 'spec')}, {counted(sum(spec.images for spec in specs), 'row')}, "
        f"{sum(spec.bytes for spec in specs) / 1e6:,.1f} MB. They can be deleted at any time with `bottleneck "
        f"cache rm SPEC`; fine-tuning computes them again"
    )


def classes_table(metrics: dict[str, Any]) -> TextTable:
    """Return a table of the precision, recall and F1 score of each class."""
    table = TextTable("class", *right("images", "precision", "recall", "F1"), nothing=("·",))
    for name, row in metrics["per_class"].items():
        cells = [f"{row[key]:.3f}" for key in ("precision", "recall", "f1")]
        table.add_row(name, str(row["n"]), *(cells if row["n"] else "···"))
    return table


def confusion_table(metrics: dict[str, Any]) -> TextTable:
    """Return the confusion matrix; counts are means if images were predicted several times."""
    classes, counts = metrics["classes"], metrics["confusion"]
    heading = "predictions for the images of each class:"
    table = TextTable("label \\ predicted", *right(*classes), nothing=("·",), heading=heading)
    for name, row in zip(classes, counts, strict=True):
        table.add_row(name, *(f"{count:.1f}".removesuffix(".0") if count else "·" for count in row))
    return table


def examples_table(examples: Sequence[Example]) -> TextTable:
    """Return a table of held-out images with their labels and predictions."""
    table = TextTable("image", "label", "predicted", *right("probability"), "")
    for item in examples:
        mark = "" if item.label == item.predicted else "wrong"
        table.add_row(item.path, item.label, item.predicted, f"{item.probability:.3f}", mark)
    return table
