"""What the server knows about the images that are explored, and what changes while they are."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.auditing.selection import Selected
from bottleneck.auditing.subject import Subject
from bottleneck.engines.memory import return_freed_memory
from bottleneck.exploring import audit_task
from bottleneck.exploring.atlas import Atlas
from bottleneck.exploring.audit_task import Findings
from bottleneck.exploring.child_process import ChildService, in_child
from bottleneck.exploring.columns import NONE, MapColumn, categories, numbers
from bottleneck.exploring.feature_rows import FeatureRows
from bottleneck.exploring.guesses import Guesses, as_refitted, of_run, refitted
from bottleneck.exploring.labels_file import LabelsFile
from bottleneck.exploring.layout_memo import LayoutMemo
from bottleneck.exploring.maps import PCA, REDUCED, Maps
from bottleneck.exploring.next_labels import next_rows, remaining
from bottleneck.exploring.pictures import Pictures
from bottleneck.exploring.searching import PictureEmbedder
from bottleneck.exploring.tasks import READY, RUNNING, BackgroundTask, Report
from bottleneck.images.dataset import Dataset, two_labels
from bottleneck.images.keys import DigestSet
from bottleneck.prediction.predict import THRESHOLD
from bottleneck.runs.run import Run
from bottleneck.utils.text import counted

_IN_FULL = 6 << 20  # numbers of a table of features that a head is trained on; larger ones are reduced
_IN_THREAD = 4 << 20  # of those that are used in this process, so that it stays small
_FEWEST, _MOST, _USUAL = 2, 50, 10  # clusters
_PATIENCE = 1.0  # seconds that the end waits for work in the background
_MANY = 10_000  # rows of an edit after which memory is returned to the system
_LEAST_BUDGET = 50  # images that are suggested at once

SPLITS = ("train", "val", "test")
RIGHT, WRONG = "right", "wrong"
KEPT, EXCLUDED = "kept", "excluded"
ORIGINAL, EDITED = "original", "edited"


class ExplorerSession:
    """Images with their features, labels, predictions and findings, for one server.

    Parameters
    ----------
    subject : Subject
    run : Run or None
        Whose head predicts; without one, a head is trained on the labels.
    labels : Path
        The table of edited labels.
    cache, runs : Path
    run_child : callable
        `bottleneck.exploring.child_process.in_child`, or one in its place.
    tsne : bool
        Whether there is a map by t-SNE.

    Raises
    ------
    OutputError
        See `bottleneck.exploring.labels_file.LabelsFile`.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        run: Run | None,
        labels: Path,
        cache: Path,
        runs: Path,
        run_child: Callable[..., Any] = in_child,
        tsne: bool = True,
    ) -> None:
        self.subject, self.run, self.cache, self.runs, self._run_child = subject, run, cache, runs, run_child
        usable = subject.cached.usable
        self.first_rows: NDArray[np.intp] = usable.first_rows()
        self.images: Dataset = _without_ambiguous(usable, self.first_rows)
        self.store = subject.cached.store
        self.title = name_of(self.images.source)
        self.labels_file = LabelsFile(labels, self.images)
        self.pictures = Pictures(usable, cache)
        self.atlas = Atlas(self.pictures)
        self.embedder = ChildService(PictureEmbedder, self.store, run, cache)  # which keeps torch out of this process
        self.guesses: Guesses | None = None
        self.findings: Findings | None = None
        self._suggested: list[dict[str, Any]] = []
        self._budget = _LEAST_BUDGET
        self._asked = False  # whether the user has asked for a head that is trained on the labels
        self._lock = threading.RLock()
        self._revision = 0
        self._columns: dict[str, MapColumn] = {}
        self.tasks = {
            "audit": BackgroundTask(self._audit, self.refresh),
            "refit": BackgroundTask(self._predict, self.refresh),
            "suggestions": BackgroundTask(self._suggest, self._count_up),
        }
        named = len(self.annotations.classes)
        self.maps = Maps(
            lambda: self.features,
            LayoutMemo(cache, self.store.spec.fingerprint, self.images.digests),
            len(self.images),
            min(_MOST, max(_FEWEST, named)) if named > 1 else _USUAL,
            self.refresh,
            tsne=tsne,
            run_child=run_child,
        )
        self.refresh()

    @property
    def annotations(self) -> Any:
        """The current labels, exclusions and tags, see `bottleneck.exploring.annotations.Annotations`."""
        return self.labels_file.annotations

    @property
    def features(self) -> FeatureRows:
        """The features of all images, read once."""
        with self._lock:
            return self._features

    @cached_property
    def _features(self) -> FeatureRows:
        return FeatureRows.read(self.store, self.images.digests)

    @cached_property
    def _row_of(self) -> DigestSet:
        return DigestSet(self.images.digests)

    def row_of(self, digest: bytes) -> int:
        """Return the row of a digest of 32 bytes; -1 if it is not in the dataset."""
        return int(self._row_of.find(np.frombuffer(digest, np.uint8)[None])[0])

    @property
    def remarks(self) -> tuple[str, ...]:
        """What limits what is shown."""
        ambiguous = int(self.subject.ambiguous.sum())
        several = f"{counted(ambiguous, 'image')} with several labels: shown without a label, as `fit` leaves them out"
        return (*self.subject.remarks, *([several] if ambiguous else []))

    def start(self) -> None:
        """Start to make maps and predictions."""
        self.maps.start()
        threading.Thread(target=self.labels_file.prepare, daemon=True).start()
        if self.run is not None or len(self.annotations.classes) > 1:
            self.tasks["refit"].start()

    def close(self) -> None:
        """Release the labels, and end what runs in the background; what does not end within a second is left."""
        self.labels_file.close()
        running = (*self.tasks.values(), *self.maps.tasks.values())
        for task in running:
            task.stop()
        deadline = time.monotonic() + _PATIENCE
        for task in running:
            task.wait(max(0.0, deadline - time.monotonic()))
        self.embedder.close()
        self.pictures.close()

    def state(self) -> dict[str, Any]:
        """Return the state as a JSON object."""
        with self._lock:
            columns = [column.to_json() for column in self._columns.values()]
            revision = self._revision
        layouts = [{**one, "state": self.maps.state_of(one["name"])} for one in self.maps.to_json()]
        return {
            "title": self.title,
            "n": len(self.images),
            "revision": revision,
            "classes": list(self.annotations.classes),
            "columns": columns,
            "layouts": layouts,
            "tasks": {name: task.to_json() for name, task in self.tasks.items()},
            "edits": self.labels_file.to_json(),
            "model": None if self.guesses is None else self.guesses.to_json(),
            "unfamiliar_at": THRESHOLD,
        }

    def column(self, name: str) -> MapColumn | None:
        """Return a column; None if there is none of that name."""
        with self._lock:
            return self._columns.get(name)

    def edit(self, action: object, value: object, rows: object) -> tuple[int, ...]:
        """Make an edit, see `bottleneck.exploring.labels_file.LabelsFile.edit`."""
        changed = self.labels_file.edit(action, value, rows)
        self.refresh()
        if len(changed) > _MANY:
            return_freed_memory()
        return changed

    def step(self, action: str) -> tuple[str, tuple[int, ...]] | None:
        """Undo or redo; return what, and the rows that changed."""
        found = self.labels_file.undo() if action == "undo" else self.labels_file.redo()
        self.refresh()
        return found

    @property
    def revision(self) -> int:
        """A number that grows with each change of a column."""
        return self._revision

    def refit(self) -> None:
        """Start to train a head on the current labels."""
        self._asked = True
        self.tasks["refit"].start()

    def suggestions(self, budget: int) -> list[dict[str, Any]]:
        """Return what to label next; start the task if nothing was suggested yet, or too little is left."""
        task, known = self.tasks["suggestions"], self.annotations
        labelled = self._is_labelled()
        left = remaining(self._suggested, labelled | known.excluded)
        candidates = int((~labelled & ~known.excluded).sum())
        spent = task.state == READY and len(left) < min(budget, candidates) and len(left) < len(self._suggested) / 2
        if (spent or budget > self._budget) and task.state != RUNNING:
            self._budget = max(budget, self._budget)
            task.start()
        task.start_once()
        return left[:budget]

    @property
    def has_unlabelled(self) -> bool:
        """Whether an image that is not excluded has no label."""
        return bool((~self._is_labelled() & ~self.annotations.excluded).any())

    def refresh(self) -> None:
        """Make all columns anew; those that changed get a new revision."""
        with self._lock:
            fresh = {column.name: column for column in self._made()}
            changed = {name for name, column in fresh.items() if not column.same_as(self._columns.get(name))}
            if changed or fresh.keys() != self._columns.keys():
                self._revision += 1
            self._columns = {
                name: replace(column, revision=self._revision) if name in changed else self._columns[name]
                for name, column in fresh.items()
            }

    def _count_up(self) -> None:
        with self._lock:
            self._revision += 1

    def _made(self) -> list[MapColumn]:
        known, guesses, count = self.annotations, self.guesses, len(self.images)
        found = []
        if known.classes:
            found.append(categories("label", "Label", known.labels, known.classes))
        found.append(categories("split", "Split", list(self.images.splits), SPLITS))
        if guesses is not None:
            found.append(
                MapColumn(name="prediction", title="Prediction", data=guesses.best[:, 0], values=guesses.classes)
            )
            if known.classes:
                found.append(_errors(known.labels, guesses))
            found.append(numbers("confidence", "Confidence", guesses.shares[:, 0]))
            if guesses.familiarity is not None:
                found.append(numbers("familiarity", "Familiarity", guesses.familiarity))
        if self.maps.clusters is not None:
            names = tuple(str(number + 1) for number in range(int(self.maps.clusters.max(initial=0)) + 1))
            found.append(MapColumn(name="cluster", title="Cluster", data=self.maps.clusters, values=names))
        if self.findings is not None:
            found.append(categories("finding", "Finding", self.findings.kind_of(count)))
        found.append(categories("tag", "Tag", [tags[0] if tags else None for tags in known.tags]))
        found.append(
            MapColumn(name="excluded", title="Excluded", data=known.excluded.astype(np.uint16), values=(KEPT, EXCLUDED))
        )
        edited = np.fromiter(map(known.is_edited, range(count)), np.uint16, count)
        found.append(MapColumn(name="edited", title="Edited", data=edited, values=(ORIGINAL, EDITED)))
        return found

    def _is_labelled(self) -> NDArray[np.bool_]:
        labels = self.annotations.labels
        return np.fromiter((label is not None for label in labels), bool, len(labels))

    def _table(self) -> tuple[NDArray[np.float32], bool]:
        """Return the features that heads are trained on, and whether they are reduced."""
        rows = self.features
        if len(rows) * rows.dim <= _IN_FULL or rows.dim <= REDUCED:
            return rows.take(slice(None)), False
        return self.maps.projected(REDUCED), True

    def _predict(self, report: Report) -> None:
        self.maps.tasks[PCA].wait()  # the first map goes first
        if self.run is not None and not self._asked:
            self.guesses = of_run(self.run, self.features, self.images.digests, report)
            return
        asked, known = self._asked, self.annotations
        labels = [None if out else label for label, out in zip(known.labels, known.excluded.tolist(), strict=True)]
        features, reduced = self._table()
        name, fingerprint = self.store.spec.backbone, self.store.spec.fingerprint
        head, selected = self.subject.head, self._selected(reduced)
        arguments = (features, labels, self.images.groups, head, name, fingerprint, reduced, selected)
        if features.size > _IN_THREAD:
            found = self._run_child(refitted, *arguments, report=report)
        else:
            found = refitted(*arguments, report)
        self.guesses = as_refitted(found) if asked else found

    def _selected(self, reduced: bool) -> Selected | None:
        """Return the hyperparameters of the last head on the same features, or of the run; None if there are none."""
        known = self.guesses
        if known is not None and known.selected is not None and known.reduced == reduced:
            return known.selected
        return None if reduced else self.subject.selected

    def _audit(self, report: Report) -> None:
        known = self.annotations
        rows = np.flatnonzero(~known.excluded).tolist()
        images = replace(self.images, labels=tuple(known.labels)).subset(rows)
        found: Findings = self._run_child(
            audit_task.find,
            images,
            rows,
            self.store.name,
            None if self.run is None else self.run.path,
            self.cache,
            self.runs,
            report=report,
        )
        several = audit_task.copies(self.images, self.subject.cached.usable, self._shown)
        self.findings = replace(found, items=(*found.items, *several))

    def _suggest(self, report: Report) -> None:
        labelled, guesses = self._is_labelled(), self.guesses
        candidates = ~labelled & ~self.annotations.excluded
        if not candidates.any():
            self._suggested = []
            return
        features, _ = self._table()
        arguments = (
            features,
            labelled & ~self.annotations.excluded,
            candidates,
            None if guesses is None else guesses.shares,
            None if guesses is None else guesses.familiarity,
            self._budget,
        )
        if features.size > _IN_THREAD:
            self._suggested = self._run_child(next_rows, *arguments, report=report)
        else:
            self._suggested = next_rows(*arguments, report)

    def file_of(self, row: int) -> str:
        """Return the path of an image, below the folder of the dataset if possible, for people."""
        return self._shown(self.images.paths[row])

    def _shown(self, path: str) -> str:
        path = os.path.abspath(path)
        home = os.path.abspath(self.images.source)
        home = home if os.path.isdir(home) else os.path.dirname(home)
        return os.path.relpath(path, home) if path.startswith(os.path.join(home, "")) else path


def name_of(source: Path) -> str:
    """Return the name of a folder, or that of a table without its ending."""
    return (source.name if source.is_dir() else source.stem) or "images"


def _without_ambiguous(usable: Dataset, rows: NDArray[np.intp]) -> Dataset:
    """Return each image once; one that is there with several labels has none, because `fit` leaves it out."""
    ambiguous, images = two_labels(usable), usable.subset(rows.tolist())
    labels = [
        None if digest.tobytes() in ambiguous else label
        for digest, label in zip(images.digests, images.labels, strict=True)
    ]
    return replace(images, labels=tuple(labels)) if ambiguous else images


def _errors(labels: list[str | None], guesses: Guesses) -> MapColumn:
    """Return whether each prediction is the current label."""
    index: dict[str | None, int] = {name: code for code, name in enumerate(guesses.classes)}
    codes = np.fromiter((index.get(label, NONE) for label in labels), np.uint16, len(labels))
    wrong = (codes != guesses.best[:, 0]).astype(np.uint16)
    none = np.fromiter((label is None for label in labels), bool, len(labels))
    return MapColumn(
        name="error", title="Error", data=np.where(none, NONE, wrong).astype(np.uint16), values=(RIGHT, WRONG)
    )
