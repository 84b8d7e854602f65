"""Select the labelled images that a run can be tested on: each once, and none that it was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.images.keys import as_digests
from bottleneck.runs.images import Role, RunImages
from bottleneck.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Numbers of images that are left out of an evaluation, by reason.

    Parameters
    ----------
    trained_on : int
        Training images of the run, or of the run that it is compared with.
    copies : int
        Repeated rows, and files with equal bytes: each image counts once.
    unlabelled : int
    two_labels : int
        Images with more than one label.
    failed : int
        Images that cannot be used.
    """

    trained_on: int = 0
    copies: int = 0
    unlabelled: int = 0
    two_labels: int = 0
    failed: int = 0


@dataclass(frozen=True)
class UnseenImages:
    """Labelled images that no run was trained on, each once.

    Parameters
    ----------
    rows : tuple of int
        Their rows among the given images.
    labels : tuple of str or None
        The labels of the given images.
    left : LeftOut
    selected_by : int
        The number of them that selected the epoch of a fine-tuning.
    unrecorded : tuple of Run
        Runs that do not record all images that they were trained on.
    """

    rows: tuple[int, ...]
    labels: tuple[str | None, ...]
    left: LeftOut
    selected_by: int
    unrecorded: tuple[Run, ...]

    @classmethod
    def among(
        cls, digests: Sequence[bytes | None], labels: Sequence[str | None], runs: Sequence[Run], failed: int
    ) -> "UnseenImages":
        """Select the unseen images; `failed` images cannot be used, and have the digest None."""
        labelled = [row for row, digest in enumerate(digests) if digest is not None and labels[row] is not None]
        names: dict[bytes | None, set[str | None]] = {}
        first: dict[bytes | None, int] = {}
        for row in labelled:
            names.setdefault(digests[row], set()).add(labels[row])
            first.setdefault(digests[row], row)
        ambiguous = sum(len(found) > 1 for found in names.values())
        rows = [row for digest, row in first.items() if len(names[digest]) == 1]
        roles, unrecorded = _roles(as_digests([digests[row] or b"" for row in rows]), runs)
        fresh = [row for row, role in zip(rows, roles.tolist(), strict=True) if role != Role.TRAINED]
        left = LeftOut(
            trained_on=len(rows) - len(fresh),
            copies=len(labelled) - len(first),
            unlabelled=len(digests) - failed - len(labelled),
            two_labels=ambiguous,
            failed=failed,
        )
        return cls(tuple(fresh), tuple(labels), left, int((roles == Role.SELECTED).sum()), unrecorded)


def _roles(digests: NDArray[np.uint8], runs: Sequence[Run]) -> tuple[NDArray[np.intp], tuple[Run, ...]]:
    """Return the first `Role` of each image in any run, and the runs that do not record all of their images."""
    roles, unrecorded = np.full(len(digests), int(Role.UNUSED), np.intp), []
    for run in runs:
        known: RunImages | None = run.images
        if known is not None:
            roles = np.minimum(roles, known.role_of(digests))
        if known is None or not known.complete:
            unrecorded.append(run)
    return roles, tuple(unrecorded)
