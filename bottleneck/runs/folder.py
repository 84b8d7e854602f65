"""The files in the folder of a run, by name and content, and their deletion."""

import re
from contextlib import suppress
from pathlib import Path

from bottleneck.runs.card_parts import FILES, PREDICTIONS
from bottleneck.utils.owned import Layout, any_content, delete, is_ours, json_with
from bottleneck.utils.tree import Tree

CHECKPOINT = "checkpoint"
_MARKS = ("card.json", "finetune.json")  # of which a run, or an unfinished fine-tuning, has one
_VERSIONED = json_with("version")
FOLDS = "folds.json"  # in the checkpoint
_CHECKPOINT: Layout = {
    r"state\.json": json_with("version", "tensors"),
    re.escape(FOLDS): json_with("version", "folds"),
    r"[0-9a-f]{64}(-[0-9a-f]{8}-\d+)?\.safetensors": any_content,
}
RUN_LAYOUT: Layout = {
    CHECKPOINT: _CHECKPOINT,
    r"(head|images|model|uncertainty)\.safetensors|curves\.(csv|png)": any_content,
    "|".join(map(re.escape, (PREDICTIONS, *FILES))): any_content,
    r"(card|finetune)\.json": _VERSIONED,
    r"finetune\.(lock|holder\.json)": any_content,
}


def delete_run(path: Path) -> None:
    """Delete our files in the folder of a run, complete or not; ignore files that cannot be deleted."""
    with suppress(OSError):
        delete(Tree.above(path, 1), path, RUN_LAYOUT)


def delete_checkpoint(run: Path) -> None:
    """Delete the checkpoint of a run; ignore files that cannot be deleted."""
    with suppress(OSError):
        delete(Tree.above(run, 1), run / CHECKPOINT, _CHECKPOINT)


def is_run_folder(path: Path) -> bool:
    """Return whether a folder is a run or an unfinished fine-tuning: it has a card or settings that are ours.

    Raises
    ------
    FileNotFoundError
        If it does not exist.
    OSError
        If it is a link, or cannot be read.
    """
    with Tree.above(path, 1).at(path) as folder:
        names = set(folder.names())
        return any(name in names and is_ours(folder, name, _VERSIONED) for name in _MARKS)
