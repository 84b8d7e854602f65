"""The images of an audit with their features and neighbours, from which findings are made."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.auditing.findings import SIMILAR, Finding, Kind, SimilarImage
from bottleneck.evaluation.neighbours import NOBODY, CosineNeighbours
from bottleneck.heads.features import Features
from bottleneck.images.dataset import Dataset


@dataclass(frozen=True)
class Evidence:
    """Images with their features and nearest neighbours.

    Parameters
    ----------
    images : Dataset
        n images, each once.
    features : ndarray of float32, shape (n, d)
    neighbours : CosineNeighbours
        Outside of the group of each image, and without its copies.
    """

    images: Dataset
    features: Features
    neighbours: CosineNeighbours

    def finding(
        self,
        kind: Kind,
        row: int,
        reason: str,
        score: float,
        *,
        suggested: str | None = None,
        similar: tuple[SimilarImage, ...] | None = None,
    ) -> Finding:
        """Return a finding on the image of a row, by default with its nearest neighbours as evidence."""
        images = self.images
        return Finding(
            kind=kind,
            path=images.paths[row],
            digest=images.digests[row].tobytes().hex(),
            split=images.splits[row],
            label=images.labels[row],
            suggested=suggested,
            score=score,
            reason=reason,
            similar=self._nearest(row) if similar is None else similar,
        )

    def image(self, row: int, cosine: float) -> SimilarImage:
        """Return the image of a row as evidence."""
        return SimilarImage(self.images.paths[row], self.images.labels[row], round(cosine, 4))

    def _nearest(self, row: int) -> tuple[SimilarImage, ...]:
        rows: NDArray[np.intp] = self.neighbours.rows[row, :SIMILAR]
        cosines = self.neighbours.cosines[row, :SIMILAR].tolist()
        return tuple(
            self.image(other, cosine) for other, cosine in zip(rows.tolist(), cosines, strict=True) if other != NOBODY
        )
