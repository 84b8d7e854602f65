"""Format an evaluation as a report and notes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bottleneck.cli.layout import TextTable, right
from bottleneck.cli.output import Thing, say
from bottleneck.cli.show import CONFUSION_CLASSES, classes_table, confusion_table, failures_list
from bottleneck.utils.text import counted

if TYPE_CHECKING:
    from bottleneck.prediction.evaluation import Evaluation, Summary
    from bottleneck.prediction.unseen import LeftOut
    from bottleneck.runs.run import Run

_SHOWN = 10  # errors on a screen
_NEAR = 3  # near duplicates that a warning names


def evaluation_report(found: Evaluation) -> list[Thing]:
    """Return the metrics, the tables and the most confident errors."""
    metrics = found.metrics
    lines: list[Thing] = [
        f"{found.run.name} on {counted(found.n, 'image')}: {_accuracy(found)}",
        "",
        classes_table(metrics),
    ]
    if len(metrics["classes"]) <= CONFUSION_CLASSES:
        lines.append(confusion_table(metrics))
    lines.append(
        f"balanced accuracy {metrics['balanced_accuracy']:.1%}, macro F1 {metrics['macro_f1']:.3f}{_top(metrics)}"
    )
    lines.append(
        f"calibration: mean probability {metrics['mean_confidence']:.1%} at an accuracy of {found.accuracy:.1%}, "
        f"calibration error {metrics['ece']:.3f}, log-loss {metrics['log_loss']:.3f}, Brier score "
        f"{metrics['brier']:.3f}"
    )
    return [*lines, *_errors(found), *_against(found)]


def evaluation_lines(found: Evaluation) -> None:
    """Print on stderr where the labels come from, and what was left out."""
    say(f"compared with {' and '.join(found.labels_from)}")
    for line in _left(found.left, found.run, against=found.against is not None):
        say(line)
    for run in found.unrecorded:
        say(_unrecorded(run))
    if found.selected_by:
        say(
            f"{found.selected_by} of these images also selected the epoch of a fine-tuning, so the "
            f"accuracy is optimistic"
        )
    if found.near:
        shown = ", ".join(f"{path} ({cosine:.2f})" for path, cosine in found.near[:_NEAR])
        more = f" and {len(found.near) - _NEAR} more" if len(found.near) > _NEAR else ""
        say(
            f"warning: {len(found.near)} of these images may be edited copies of training images, so the "
            f"accuracy may be optimistic: {shown}{more}"
        )
    if found.unknown_labels:
        listed = ", ".join(f"{name} ({count})" for name, count in list(found.unknown_labels.items())[:_SHOWN])
        more = f" and {len(found.unknown_labels) - _SHOWN} more" if len(found.unknown_labels) > _SHOWN else ""
        say(f"warning: images with labels that are not classes of {found.run.name} count as wrong: {listed}{more}")
    for remark in found.remarks:
        say(remark)
    failures_list(found.failures)


def summary_lines(found: Summary, run: Run) -> None:
    """Print the accuracy of predictions, and on which images it was measured."""
    for line in found.passed_over:
        say(line)
    if not found.labels_from:
        return
    labels = " and ".join(found.labels_from)
    if not found.n:
        say(f"not compared with {labels}: {'; '.join(_left(found.left, run)) or 'no image has a label'}")
        return
    low, high = found.accuracy_ci95
    say(
        f"compared with {labels}: {found.right} of {found.n} right, accuracy {found.right / found.n:.1%}, 95 % "
        f"interval {low:.1%} to {high:.1%}; --no-labels omits this"
    )
    for line in _left(found.left, run):
        say(line)
    if found.unrecorded:
        say(_unrecorded(run))


def _left(left: LeftOut, run: Run, *, against: bool = False) -> list[str]:
    """Return a line per reason for which images are left out."""
    who = "one of the runs" if against else run.name
    lines = []
    if left.trained_on:
        lines.append(f"{counted(left.trained_on, 'image')} left out, because {who} was trained on them")
    if left.copies:
        lines.append(f"{counted(left.copies, 'copy', 'copies')} left out, because each image counts once")
    if left.two_labels:
        lines.append(f"{counted(left.two_labels, 'image')} left out, because they have more than one label")
    if left.unlabelled:
        lines.append(f"{counted(left.unlabelled, 'image')} left out, because they have no label")
    return lines


def _unrecorded(run: Run) -> str:
    return (
        f"warning: {run.name} does not record all images that it was trained on, so some may be evaluated and the "
        f"accuracy may be optimistic; fit again to record them"
    )


def _accuracy(found: Evaluation) -> str:
    low, high = found.accuracy_ci95
    return f"accuracy {found.accuracy:.1%}, 95 % interval {low:.1%} to {high:.1%}"


def _top(metrics: dict[str, Any]) -> str:
    top = metrics["top5_accuracy"]
    return "" if top is None else f", top-5 accuracy {top:.1%}"


def _errors(found: Evaluation) -> list[Thing]:
    if not found.errors:
        return ["no errors"]
    table = TextTable("path", "label", "predicted", *right("probability"))
    for error in found.errors[:_SHOWN]:
        table.add_row(error.path, error.label, error.predicted, f"{error.probability:.3f}")
    count = len(found.errors)
    said = f"{counted(count, 'error')}, the most confident first"
    more = [f"... and {count - _SHOWN} more: --out errors.csv lists all"] if count > _SHOWN else []
    return [said, table, *more]


def _against(found: Evaluation) -> list[Thing]:
    other = found.against
    if other is None:
        return []
    low, high = other.accuracy_ci95
    verdicts = {
        "better": f"{found.run.name} is better",
        "worse": f"{found.run.name} is worse",
        "not told apart": "the difference is not significant",
    }
    return [
        f"against {other.run.name}: accuracy {other.accuracy:.1%}, 95 % interval {low:.1%} to {high:.1%} on the same "
        f"images",
        f"only {found.run.name} classifies {counted(other.only_run, 'image')} correctly, only {other.run.name} "
        f"{other.only_against}; "
        f"McNemar's test p = {other.p_value:.2g}: {verdicts[other.verdict]}",
    ]
