"""A run in words and numbers: what was trained on what, how well it predicts, and how to make it again."""

from dataclasses import asdict, dataclass
from typing import Any

from bottleneck.errors import RunError
from bottleneck.reporting.reproduction import Reproduction, reproduction
from bottleneck.runs.card import params_text
from bottleneck.runs.listing import RunFile, RunSummary, files_of, summary_of
from bottleneck.runs.run import Run
from bottleneck.utils.text import counted

_LABELS = 8  # classes that are named


@dataclass(frozen=True, kw_only=True)
class RunDescription:
    """A run in words and numbers.

    Parameters
    ----------
    summary : RunSummary
    version : str or None
        Of bottleneck.
    trained : str
        What was trained: a sentence without a full stop.
    images : str
        On what images.
    scores : tuple of str
        How well it predicts, each with its interval.
    reproduction : Reproduction
    files : tuple of RunFile
    """

    summary: RunSummary
    version: str | None
    trained: str
    images: str
    scores: tuple[str, ...]
    reproduction: Reproduction
    files: tuple[RunFile, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            **self.summary.to_json(),
            "version": self.version,
            "description": [self.trained, self.images, *self.scores],
            "commands": list(self.reproduction.commands),
            "facts": dict(self.reproduction.facts),
            "versions": self.reproduction.versions,
            "files": [asdict(file) for file in self.files],
        }


def describe_run(run: Run) -> RunDescription:
    """Describe a run, as far as its card records it.

    Raises
    ------
    RunError
        If a part of its card cannot be read.
    """
    try:
        return _described(run)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"cannot describe {run.path}: its card has an unexpected value: {error}") from error


def _described(run: Run) -> RunDescription:
    summary = summary_of(run)
    return RunDescription(
        summary=summary,
        version=run.card.get("bottleneck"),
        trained=_tuned(run) if run.is_tuned else _fitted(run),
        images=_images(run, summary),
        scores=tuple(_scores(run, summary)),
        reproduction=reproduction(run),
        files=tuple(files_of(run.path)),
    )


def _fitted(run: Run) -> str:
    card = run.card
    parameters = f" ({params_text(card['params'])})" if card.get("params") else ""
    return f"a head, {card.get('head', 'linear')}{parameters}, on the features of {_network(run)}, which is frozen"


def _tuned(run: Run) -> str:
    card = run.card
    start = card.get("from", {}).get("run")
    begun = f"the head of {start}" if start else "a random last layer"
    parts = " and ".join((", ".join(card.get("trained") or ()), "the head")).removeprefix(" and ")
    return (
        f"the network {_network(run)}, fine-tuned from {begun}: {parts}; epoch {card.get('best_epoch')} of "
        f"{len(card.get('curves') or [0]) - 1} is kept"
    )


def _network(run: Run) -> str:
    return run.features if "model" in run.card else "a network that the card does not name"


def _images(run: Run, summary: RunSummary) -> str:
    counts = run.part("dataset", "labels") or {}
    names = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())[:_LABELS])
    more = f" and {counted(len(counts) - _LABELS, 'more class')}" if len(counts) > _LABELS else ""
    used = "" if summary.n_train is None else f"; {summary.n_train} to train, {summary.n_heldout} held out"
    labels = f": {names}{more}" if names else ""
    return f"{summary.source or 'images that the card does not name'}{labels}{used} ({summary.heldout or 'held out'})"


def _scores(run: Run, summary: RunSummary) -> list[str]:
    found = []
    if summary.accuracy is not None:
        which = f"on {counted(summary.n_heldout, 'held-out image')}" if summary.n_heldout else "on the held-out images"
        whose = "of the head before it was trained on all images, " if summary.final else ""
        found.append(f"accuracy {whose}{which}: {_with_interval(summary.accuracy, summary.accuracy_ci95)}")
    if summary.cv_accuracy is not None and "score" not in run.card:
        found.append(f"cross-validated accuracy: {_with_interval(summary.cv_accuracy, summary.cv_ci95)}")
    if run.card.get("start_accuracy") is not None:
        found.append(f"before fine-tuning, on the same images: {run.card['start_accuracy']:.1%}")
    if run.card.get("validation", {}).get("is_heldout"):
        found.append("the held-out images also selected the epoch, so their accuracy is optimistic")
    final = run.card.get("final")
    if final:
        found.append(
            f"the final head is trained on all {final['n_train']} labelled images; no image is left to test it"
        )
    return found


def _with_interval(accuracy: float, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return f"{accuracy:.1%}"
    low, high = interval
    return f"{accuracy:.1%}; the accuracy on new images like these is between {low:.1%} and {high:.1%} (95 % interval)"
