"""Features of more images than fit in memory, reduced to their principal components."""

from dataclasses import dataclass

import numpy as np

from bottleneck.cache.store import Store
from bottleneck.errors import HeadError
from bottleneck.heads.features import Features, FeatureTable, StreamedFeatures, mean
from bottleneck.images.keys import Digests
from bottleneck.utils.memory import allowed

COPIES = 4  # of the features in float32: as read, centred, scaled, and a working copy
_LEAST = 64  # components; with fewer, neighbours would not be those of the features
_ROWS = 4096


@dataclass(frozen=True)
class AuditedFeatures:
    """The features of the images of an audit, in memory.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d), or (n, components) if they were reduced
    kept : float
        The share of the variance that is kept, 1 if all features are.
    """

    features: Features
    kept: float = 1.0

    @property
    def remark(self) -> str | None:
        """A message if features were reduced."""
        if self.kept == 1:
            return None
        return (
            f"the features of {len(self.features):,} images do not fit in memory: they are reduced to "
            f"{self.features.shape[1]} principal components, which keep {self.kept:.1%} of the variance. --memory "
            f"allows more"
        )


def read_features(store: Store, digests: Digests, memory: int | None) -> AuditedFeatures:
    """Read features, reduced if they and their copies do not fit in memory.

    Parameters
    ----------
    store : Store
    digests : ndarray of uint8, shape (n, 32)
        Each image once.
    memory : int, optional
        Bytes that features and their copies may take; by default half of the free memory.

    Raises
    ------
    HeadError
        If even 64 components do not fit.
    """
    most = int(allowed(memory) / (4 * COPIES * max(1, len(digests))))
    if store.dim() <= most:
        return AuditedFeatures(store.read(digests))
    if most < _LEAST:
        raise HeadError(
            f"expected memory for {_LEAST} numbers for each of {len(digests):,} images and their copies, "
            f"{len(digests) * _LEAST * 4 * COPIES / 1e9:.1f} GB, found {allowed(memory) / 1e9:.1f} GB: allow more with "
            f"--memory, or audit fewer images"
        )
    return reduced(StreamedFeatures(store.stream(digests)), most)


def reduced(table: FeatureTable, components: int) -> AuditedFeatures:
    """Return the leading principal components of a table, plus its mean, in two passes.

    Parameters
    ----------
    table : FeatureTable
        n rows of d features.
    components : int
        At most d.

    Returns
    -------
    AuditedFeatures
        The rows are rotated, not centred: the mean is kept in an additional direction, so that cosine similarities of
        the original features are kept as well as those of the centred ones.
    """
    n, d = table.shape
    centre, moments = mean(table), np.zeros((d, d))
    for _, features in table.blocks(_ROWS):
        centred = features - centre
        moments += centred.T @ centred
    variances, axes = np.linalg.eigh(moments)
    leading = axes[:, :-components:-1]  # one less than `components`
    aside = centre - leading @ (leading.T @ centre)
    length = float(np.linalg.norm(aside))
    basis = np.column_stack([leading, aside / length if length else 0 * aside]).astype(np.float32)
    found = np.empty((n, basis.shape[1]), np.float32)
    for place, features in table.blocks(_ROWS):
        found[place] = features @ basis
    kept = float(variances[:-components:-1].sum() / variances.sum()) if variances.any() else 1.0
    return AuditedFeatures(found, min(kept, 1 - 1e-9))
