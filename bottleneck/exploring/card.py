"""What the page shows of one image, and of a picture that was dropped on it."""

import math
import os
from contextlib import suppress
from typing import Any

import numpy as np

from bottleneck.errors import ImageError, printable
from bottleneck.exploring.session import ExplorerSession

NEIGHBOURS = 12
FOUND = 24  # neighbours of a picture that is searched by
_PLACED = 5  # neighbours whose mean is its place on a map


def card_of(session: ExplorerSession, row: int) -> dict[str, Any]:
    """Return the card of an image as a JSON object."""
    images, known, guesses = session.images, session.annotations, session.guesses
    path, problem, width, height = images.paths[row], None, None, None
    try:
        width, height = session.pictures.size(int(session.first_rows[row]))
    except ImageError as error:
        problem = str(error)
    size = None
    with suppress(OSError, ValueError):
        size = os.stat(path).st_size
    probabilities = [] if guesses is None else guesses.probabilities(row)
    familiarity = None if guesses is None or guesses.familiarity is None else guesses.familiarity[row]
    clusters, findings = session.maps.clusters, session.findings
    return {
        "row": row,
        "digest": images.digests[row].tobytes().hex(),
        "path": printable(session.file_of(row)),
        "label": known.labels[row],
        "original_label": known.original[row],
        "split": images.splits[row],
        "group": images.groups[row],
        "width": width,
        "height": height,
        "bytes": size,
        "problem": problem,
        "prediction": probabilities[0][0] if probabilities else None,
        "probabilities": [[name, _rounded(share)] for name, share in probabilities],
        "familiarity": _rounded(familiarity),
        "cluster": None if clusters is None else str(int(clusters[row]) + 1),
        "tags": list(known.tags[row]),
        "excluded": bool(known.excluded[row]),
        "findings": [] if findings is None else findings.of(row),
        "neighbours": _neighbours(session, session.features.take(slice(row, row + 1))[0], NEIGHBOURS, row),
    }


def search_result(session: ExplorerSession, data: bytes, layout: str) -> dict[str, Any]:
    """Return the neighbours of a picture, given as bytes, and what is predicted for it, as a JSON object.

    Raises
    ------
    ImageError
        If it cannot be decoded.
    ModelError
        If its network cannot be built.
    """
    features = session.embedder(data)
    near = _neighbours(session, features, FOUND, -1)
    guesses, probabilities, familiarity = session.guesses, [], None
    if guesses is not None:
        used = session.maps.components()(features[None]) if guesses.reduced else features[None]
        shares = guesses.head.probabilities(used)[0]
        order = np.argsort(-shares, kind="stable")[:5].tolist()
        probabilities = [[guesses.classes[code], _rounded(shares[code])] for code in order]
        familiarity = None if guesses.usual is None else float(guesses.usual.p_values(used)[0])
    place = session.maps.layouts.get(layout)
    points = None if place is None else place.points[[one["row"] for one in near[:_PLACED]]].mean(axis=0)
    return {
        "neighbours": near,
        "prediction": probabilities[0][0] if probabilities else None,
        "probabilities": probabilities,
        "familiarity": _rounded(familiarity),
        "x": None if points is None else _rounded(points[0]),
        "y": None if points is None else _rounded(points[1]),
    }


def _neighbours(session: ExplorerSession, features: Any, count: int, leave_out: int) -> list[dict[str, Any]]:
    labels = session.annotations.labels
    found = session.features.nearest(features, count, leave_out)
    return [{"row": row, "cosine": _rounded(cosine), "label": labels[row]} for row, cosine in found]


def _rounded(value: Any) -> float | None:
    """Return a number for JSON, with six digits; None in place of NaN."""
    return None if value is None or not math.isfinite(value) else round(float(value), 6)
