"""How similar copies are at least, from how similar the different images of a set are."""

import numpy as np
from numpy.typing import NDArray

LEAST_IMAGES = 20  # with fewer, it is unknown how similar different images are
LOWEST, HIGHEST = 0.3, 0.98  # cosines; bounds of the threshold, see `copy_threshold`
ALIKE = 0.8  # cosine; if it is usual, the images are as similar as copies
FAR = 10  # the neighbour that is rarely a copy
SAMPLE = 1000  # images whose neighbours are enough
_DEVIATIONS = 7.0
_OF_FEW = 10  # images, for which the deviations count twice
_EQUAL = 1 - 1e-5  # cosine of equal features
_LARGEST = 1 - 1e-6  # cosine, whose inverse hyperbolic tangent is finite


def copy_threshold(cosines: NDArray[np.float32]) -> tuple[float | None, float | None]:
    """Return the lowest cosine similarity of copies, and the median one of an image and the one most similar to it.

    Parameters
    ----------
    cosines : ndarray of float32, shape (n, FAR)
        Cosine similarities of each image and its nearest other ones, the most similar first; -inf for one that does not
        exist.

    Returns
    -------
    (float, float)
        Both are None if fewer than `LEAST_IMAGES` images have a neighbour. The threshold is None if most images are
        equal to ten others.

    Notes
    -----
    Similarities are transformed to z = atanh(cosine) (R. A. Fisher 1915, "Frequency distribution of the values of the
    correlation coefficient in samples from an indefinitely large population", Biometrika 10, 507-521). The threshold is
    the median of the nearest neighbours plus 7 median absolute deviations; with few images n, whose deviations are
    uncertain, plus 7 (1 + 10 / n). A minority of copies changes it little.

    In a set of which more than half are copies, both numbers are those of copies. Then the median is high, and only the
    most similar images are named, because the threshold is at most `HIGHEST`, or that of the tenth nearest neighbours
    if it is higher, as for features of few numbers.
    """
    if int(np.isfinite(cosines[:, 0]).sum()) < LEAST_IMAGES:
        return None, None
    usual, limit = _centre_and_limit(cosines[:, 0])
    far, highest = _centre_and_limit(cosines[:, -1])
    if np.tanh(far) >= _EQUAL:
        return None, float(np.tanh(usual))
    highest = max(float(np.arctanh(HIGHEST)), highest)
    return max(LOWEST, float(np.tanh(min(limit, highest)))), float(np.tanh(usual))


def _centre_and_limit(cosines: NDArray[np.float32]) -> tuple[float, float]:
    """Return the median of the transformed cosine similarities, and the median plus some deviations."""
    z = np.arctanh(np.clip(cosines[np.isfinite(cosines)], -_LARGEST, _LARGEST).astype(np.float64))
    if not len(z):
        return 0.0, 0.0
    centre = float(np.median(z))
    deviations = _DEVIATIONS * (1 + _OF_FEW / len(z))
    return centre, centre + deviations * float(np.median(np.abs(z - centre)))
