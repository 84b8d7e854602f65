"""A fine-tuned network against the head that it began with, image by image."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.evaluation.stats import mcnemar
from bottleneck.runs.ranking import LEVEL

Right = NDArray[np.bool_]  # (n,), whether the label of each image is right
LEAST = math.floor(1 - math.log2(LEVEL)) + 1  # images that one side alone has right, for p = 2 / 2**LEAST below LEVEL


def against_head(tuned: Right, head: Right) -> dict[str, Any]:
    """Test by McNemar whether a fine-tuned network is right more often than its head on the same images.

    Parameters
    ----------
    tuned, head : ndarray of bool, shape (n,)

    Returns
    -------
    dict
        A JSON object: ``n``; ``only_tuned`` and ``only_head``, the images that only one of them has right; ``p_value``;
        ``verdict``, ``better`` or ``worse`` where p is below 0.05, else ``cannot tell``.
    """
    test = mcnemar(tuned, head)
    verdict = "cannot tell"
    if test["p_value"] < LEVEL:
        verdict = "better" if test["only_a"] > test["only_b"] else "worse"
    return {
        "n": len(tuned),
        "only_tuned": test["only_a"],
        "only_head": test["only_b"],
        "p_value": test["p_value"],
        "verdict": verdict,
    }
