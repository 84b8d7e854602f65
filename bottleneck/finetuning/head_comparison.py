"""Comparison of a fine-tuned network with the head that it started from, image by image."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.evaluation.stats import mcnemar
from bottleneck.runs.ranking import LEVEL

Correct = NDArray[np.bool_]  # (n,), whether each image is classified correctly
# The smallest n with p = 2 / 2**n below LEVEL, if n images are classified correctly by one side only.
MIN_DISCORDANT = math.floor(1 - math.log2(LEVEL)) + 1


def compare_with_head(tuned: Correct, head: Correct) -> dict[str, Any]:
    """Run McNemar's test of a fine-tuned network against its head on the same images.

    Parameters
    ----------
    tuned, head : ndarray of bool, shape (n,)
        Whether each of them classifies each image correctly.

    Returns
    -------
    dict
        A JSON object: ``n``; ``only_tuned`` and ``only_head``, the numbers of images that only one of them classifies
        correctly; ``p_value``; ``verdict``, ``better`` or ``worse`` if p is below 0.05, else ``cannot tell``.
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
