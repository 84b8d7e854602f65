"""The maps of a dataset: principal components first, then clusters, then t-SNE, each remembered in the cache."""

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.exploring import projection
from bottleneck.exploring.child_process import in_child
from bottleneck.exploring.feature_rows import FeatureRows
from bottleneck.exploring.layout import Layout
from bottleneck.exploring.layout_memo import LayoutMemo
from bottleneck.exploring.projection import COMPONENTS, SEED, Components
from bottleneck.exploring.tasks import READY, BackgroundTask, Report

PCA, TSNE = "pca", "tsne"
TITLES = {PCA: "PCA", TSNE: "t-SNE"}
REDUCED = 128  # components that stand for the features of many images
_LEAST = 4  # images for t-SNE

RunChild = Callable[..., Any]


class Maps:
    """Makes the layouts and clusters of n images in the background.

    Parameters
    ----------
    features : callable
        Returns the `FeatureRows`, which are read when they are first needed.
    memo : LayoutMemo
    count : int
        n
    clusters : int
        The number of clusters.
    changed : callable
        Called without arguments when a layout or the clusters are there.
    tsne : bool
        Whether there is a map by t-SNE.
    run_child : callable
        `bottleneck.exploring.child_process.in_child`, or one in its place.
    """

    def __init__(
        self,
        features: Callable[[], FeatureRows],
        memo: LayoutMemo,
        count: int,
        clusters: int,
        changed: Callable[[], None],
        *,
        tsne: bool = True,
        run_child: RunChild = in_child,
    ) -> None:
        self._features, self._memo, self._changed, self._run_child = features, memo, changed, run_child
        self._count, self._groups = count, clusters
        self._lock = threading.Lock()
        self._components: Components | None = None
        self.layouts: dict[str, Layout] = {}
        self.clusters: NDArray[np.uint16] | None = None
        self.tasks = {PCA: BackgroundTask(self._make_pca, changed)}
        if tsne and count >= _LEAST and projection.has_tsne():
            self.tasks[TSNE] = BackgroundTask(self._make_tsne, changed)

    def start(self) -> None:
        """Start to make all maps that are not remembered."""
        for task in self.tasks.values():
            task.start_once()

    def components(self) -> Components:
        """Return the leading 128 principal directions of the features, computed once."""
        with self._lock:
            if self._components is None:
                rows = self._features()
                self._components = Components.of(rows, min(REDUCED, rows.dim))
            return self._components

    def projected(self, count: int) -> NDArray[np.float32]:
        """Return all images along the first `count` directions, ``(n, count)``."""
        known = self.components()
        return Components(known.centre, known.axes[:, :count]).project(self._features())

    def to_json(self) -> list[dict[str, Any]]:
        """Return a list of JSON objects."""
        return [{"name": name, "title": TITLES[name], **task.to_json()} for name, task in self.tasks.items()]

    def _make_pca(self, report: Report) -> None:
        points, groups = self._memo.get(PCA), self._memo.get("clusters", [self._groups])
        if points is not None:
            self._take(PCA, points)
        if points is None or groups is None:
            components = self.projected(COMPONENTS)
            if points is None:
                points = projection.plane(components)
                self._take(PCA, points)
                self._memo.put(PCA, points)
            report(0.5)
            groups = projection.clusters(components, self._groups).astype(np.float32)[:, None]
            self._memo.put("clusters", groups, [self._groups])
        self.clusters = groups[:, 0].astype(np.uint16)

    def _make_tsne(self, report: Report) -> None:
        points = self._memo.get(TSNE, [SEED])
        if points is None:
            self.tasks[PCA].wait()
            threads = os.cpu_count() or 1
            points = self._run_child(_embedded, self.projected(COMPONENTS), threads, report=report)
            self._memo.put(TSNE, points, [SEED])
        self._take(TSNE, points)

    def _take(self, name: str, points: NDArray[np.float32]) -> None:
        self.layouts[name] = Layout.of(points)
        self._changed()

    def state_of(self, name: str) -> str:
        """Return the state of a layout's task; a PCA map is ready before its clusters are."""
        return READY if name in self.layouts else self.tasks[name].state


def _embedded(components: NDArray[np.float32], threads: int, report: Report) -> NDArray[np.float32]:
    return projection.embed(components, report, threads=threads)
