"""What runs and weights consist of, and the product's own readers of it."""

import io
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save
from torch import nn

from bottleneck.backbones.tuned import Tuned, read_tuned, record_tuned, recorded_tuned
from bottleneck.backbones.weights import read_checkpoint
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.last import load_last, load_latest, save_latest
from bottleneck.cache.scans import read_scan, save_scan, scanned
from bottleneck.cache.shard import Rows
from bottleneck.engines.records import Check, EngineRecords
from bottleneck.errors import BottleneckError
from bottleneck.evaluation.conformal import Conformal
from bottleneck.evaluation.familiarity import familiarity
from bottleneck.finetuning.checkpoint import load_checkpoint, save_checkpoint
from bottleneck.finetuning.config import FineTuneConfig, load_config, save_config
from bottleneck.finetuning.history import Epoch, History
from bottleneck.finetuning.recipe import Recipe
from bottleneck.heads.head import Head
from bottleneck.heads.kernel import KernelHead
from bottleneck.heads.linear import LinearHead
from bottleneck.heads.load import load_head
from bottleneck.heads.neighbours import NeighbourHead
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.runs.backbone_request import located_source, spec_of
from bottleneck.runs.images import RunImages, load_run_images
from bottleneck.runs.run import load_run
from bottleneck.runs.uncertainty import Uncertainty, load_uncertainty
from bottleneck.utils.files import sha256_hex
from tests.fuzz.data_structures import floats, json_twice, json_value, offsets, safetensors_header
from tests.fuzz.mutate import Mutator
from tests.fuzz.target import Case, Target, Wrong
from tests.tiny import SPEC

_ACCEPTED = "accepted"


class Json(Target):
    """Every JSON file of a cache and of runs, each where its reader looks for it."""

    name, short = "json", 1500

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._cache, self._run = folder / "cache", folder / "runs" / "run"
        self._store = FeatureCache(self._cache).store(SPEC)
        self._training = _Training()
        self._files: dict[str, Path] = {}
        self._readers: dict[str, Callable[[], object]] = {
            "card": self._read_run,
            "finetune": lambda: load_config(self._run),
            "state": self._read_state,
            "spec": lambda: FeatureCache(self._cache).open(self._store.name).spec,
            "request": lambda: self._store.asked(),
            "tuned": lambda: recorded_tuned(self._store.folder),
            "check": lambda: [
                (check.passed, check.suits, check.lowest) for check in EngineRecords(self._store.engines).checks()
            ],
            "scan": lambda: read_scan(self._files["scan"]).fingerprint(),
            "latest": lambda: (load_latest(self._cache, self.folder), load_last(self._cache)),
        }

    @cached_property
    def seeds(self) -> dict[str, bytes]:
        self._run.mkdir(parents=True)
        self._store.commit(Rows(np.zeros((1, 32), np.uint8), np.ones((1, 2), np.float32)))
        _head("linear").save(self._run / "head.safetensors")
        card = {**_card(), "head_sha256": sha256_hex((self._run / "head.safetensors").read_bytes())}
        (self._run / "card.json").write_text(json.dumps(card))
        save_config(
            self._run, FineTuneConfig(recipe=Recipe(), run=None, model="tiny", source="/images", dataset="d" * 64)
        )
        self._training.save(self._run)
        self._store.remember_request({"model": "resnet18", "weights": "DEFAULT", "seed": 0, "resize": 100})
        record_tuned(self._store.folder, _tuned())
        EngineRecords(self._store.engines).keep_check("one", Check("torch 2", "bf16", 0.9999, 0.9993, 8, "d1"))
        save_scan(self._cache, _dataset())
        save_latest(self._cache, self.folder, self._store.name)
        self._files = {
            "card": self._run / "card.json",
            "finetune": self._run / "finetune.json",
            "state": self._run / "state.json",
            "spec": self._store.folder / "spec.json",
            "request": self._store.folder / "request.json",
            "tuned": self._store.folder / "tuned.json",
            "check": self._store.engines / "one.json",
            "scan": scanned(self._cache)[0],
            "latest": next((self._cache / "last" / "images").glob("*.json")),
        }
        return {name: path.read_bytes() for name, path in self._files.items()}

    def special(self, seed: str, data: bytes) -> Sequence[Mutator]:
        return (json_value, json_value, json_value, json_twice)

    def read(self, case: Case) -> str:
        path, sound = self._files[case.seed], self.seeds[case.seed]
        path.write_bytes(case.data)
        try:
            found = self._readers[case.seed]()
        except BottleneckError as error:
            return type(error).__name__
        finally:
            path.write_bytes(sound)
        if case.seed == "spec" and found != SPEC:
            raise Wrong("another spec in the folder of this one")
        return _ACCEPTED if found is not None else "nothing"

    def _read_run(self) -> object:
        """Read a run, and ask it what commands ask."""
        run = load_run(self._run)
        found = [repr(run), run.score, run.features, run.is_tuned, run.metrics]
        source, spec = (lambda: located_source(run.path, run.card)), (lambda: spec_of(run.card))
        asked = (lambda: run.request, lambda: run.head, lambda: run.images, source, spec)
        return found, [_answer(ask) for ask in asked]

    def _read_checks(self) -> object:
        return [(check.passed, check.suits, check.lowest) for check in EngineRecords(self._store.engines).checks()]

    def _read_state(self) -> object:
        found = load_checkpoint(self._run, self._training.optimizer)
        return None if found is None else (found[0].last, [epoch.finite for epoch in found[0].epochs], found[0].best)


class Safetensors(Target):
    """Heads of every form, what runs know of their images, checkpoints, and weights of networks."""

    name, short = "safetensors", 1500

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._training = _Training()
        self._state: dict[str, Any] = {}

    @cached_property
    def seeds(self) -> dict[str, bytes]:
        found = {}
        for form in ("linear", "kernel", "neighbours"):
            _head(form).save(self.folder / "head.safetensors")
            found[form] = (self.folder / "head.safetensors").read_bytes()
        digests = np.arange(160, dtype=np.uint8).reshape(5, 32)
        roles = np.arange(5, dtype=np.uint8) % 4
        found["images"] = RunImages(digests=digests, roles=roles, right=np.zeros(5, np.int8)).to_bytes()
        features = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
        usual = familiarity(features, ["a", "b"] * 12)
        found["uncertainty"] = Uncertainty(usual, Conformal(np.array([0.1, 0.5], np.float32))).to_bytes()
        self._training.save(self.folder)
        self._state = json.loads((self.folder / "state.json").read_text())
        found["checkpoint"] = (self.folder / self._state["tensors"]).read_bytes()
        found["weights"] = save({"a.weight": np.ones((3, 4), np.float32), "a.bias": np.ones(3)}, _tuned().metadata())
        return found

    def special(self, seed: str, data: bytes) -> Sequence[Mutator]:
        return (safetensors_header, safetensors_header, floats)

    def read(self, case: Case) -> str:
        try:
            self._read(case)
        except BottleneckError as error:
            return type(error).__name__
        return _ACCEPTED

    def _read(self, case: Case) -> None:
        if case.seed == "checkpoint":
            name = f"{sha256_hex(case.data)}.safetensors"
            (self.folder / name).write_bytes(case.data)
            (self.folder / "state.json").write_text(json.dumps({**self._state, "tensors": name}))
            try:
                load_checkpoint(self.folder, self._training.optimizer)
            finally:
                (self.folder / name).unlink()
        elif case.seed == "images":
            (self.folder / "images.safetensors").write_bytes(case.data)
            found = load_run_images(self.folder)
            if found is not None and found.digests.shape != (len(found.roles), 32):
                raise Wrong(f"digests {found.digests.shape} of {len(found.roles)} images")
        elif case.seed == "uncertainty":
            (self.folder / "uncertainty.safetensors").write_bytes(case.data)
            known = load_uncertainty(self.folder, dim=4)
            with np.errstate(all="ignore"):
                p_values = known.familiarity.p_values(np.eye(4, dtype=np.float32))
                known.conformal.sets(np.full((2, 3), 1 / 3), 0.9)
            if not ((p_values > 0) & (p_values <= 1)).all():
                raise Wrong(f"familiarity {p_values}")
        elif case.seed == "weights":
            (self.folder / "w.safetensors").write_bytes(case.data)
            read_tuned(self.folder / "w.safetensors")
            _use(read_checkpoint(self.folder / "w.safetensors").tensors)
        else:
            (self.folder / "head.safetensors").write_bytes(case.data)
            head = load_head(self.folder / "head.safetensors")
            with np.errstate(all="ignore"):
                head.probabilities(np.zeros((2, len(head.mean)), np.float32))


class Weights(Target):
    """What ``torch.save`` writes: archives, and the files of old versions."""

    name, short = "weights", 1200

    @cached_property
    def seeds(self) -> dict[str, bytes]:
        torch.manual_seed(0)
        values, layer = torch.randn(16), nn.Linear(3, 4, bias=False)
        state = {"weight": values[:12].reshape(4, 3), "bias": values[12:]}  # of one storage, for files to be the same
        whole = {"model": state, "epoch": 3, "path": Path("/x"), "scores": np.arange(3.0), "optimizer": {"lr": 0.1}}
        found = {}
        for name, value, storage in (
            ("state", state, values),
            ("whole", whole, values),
            ("layer", layer, layer.weight),
        ):
            for new in (True, False):
                buffer = io.BytesIO()
                torch.save(value, buffer, _use_new_zipfile_serialization=new)
                found[f"{name}-{'zip' if new else 'old'}"] = _without_address(buffer.getvalue(), storage)
        return found

    def special(self, seed: str, data: bytes) -> Sequence[Mutator]:
        return (offsets, floats)

    def read(self, case: Case) -> str:
        path = self.folder / "weights.pth"
        path.write_bytes(case.data)
        try:
            _use(read_checkpoint(path).tensors)
        except BottleneckError as error:
            return type(error).__name__
        return _ACCEPTED


class _Training:
    """A layer that is trained."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(self.layer.parameters(), lr=0.1, momentum=0.9)
        self.layer(torch.ones(2, 3)).sum().backward()
        self.optimizer.step()
        self.progress = History()
        for number in (0, 1):
            train = 0.5 if number else None
            said = {"train_loss": train, "train_accuracy": train, "val_loss": 0.4, "val_accuracy": 0.5}
            epoch = Epoch(number=number, **said, lr=0.1, seconds=1.0)
            self.progress.add(epoch, self.layer.state_dict())

    def save(self, folder: Path) -> None:
        """Write a checkpoint whose name tells nothing of its writer."""
        save_checkpoint(folder, self.progress, self.layer.state_dict(), self.optimizer)
        state = json.loads((folder / "state.json").read_text())
        path = folder / state["tensors"]
        state["tensors"] = f"{sha256_hex(path.read_bytes())}.safetensors"
        path.rename(folder / state["tensors"])
        (folder / "state.json").write_text(json.dumps(state))


def _without_address(data: bytes, tensor: torch.Tensor) -> bytes:
    """Return a file of ``torch.save`` in which the storage of a tensor is called 0: old ones name it by its address."""
    key = str(tensor.untyped_storage()._cdata).encode()
    return data.replace(b"X" + len(key).to_bytes(4, "little") + key, b"X\x01\0\0\x000")


def _use(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise Wrong(f"{name!r} is no tensor of a name")
        tensor.double().sum()  # read all of it


def _answer(ask: Callable[[], object]) -> object:
    """Return an answer, or an error of ours."""
    try:
        return ask()
    except BottleneckError as error:
        return error


def _tuned() -> Tuned:
    return Tuned(model="resnet18", weights="DEFAULT", options={"resize": 100}, dataset="d" * 64, score=0.9)


def _head(form: str) -> Head:
    common: dict[str, Any] = {
        "classes": ("a", "b", "c"),
        "mean": np.zeros(4, np.float32),
        "scale": np.ones(4, np.float32),
        "fingerprint": SPEC.fingerprint,
    }
    rows = np.arange(24, dtype=np.float32).reshape(6, 4)
    if form == "kernel":
        solved = {"dual": np.ones((2, 6)), "intercept": np.zeros(3), "sizes": np.array([2, 2, 2]), "gamma": 0.1}
        return KernelHead(family="svm", vectors=rows, **solved, **common)
    if form == "neighbours":
        return NeighbourHead(family="knn", rows=rows, codes=np.arange(6) % 3, neighbours=2.0, **common)
    return LinearHead(family="logistic", weight=rows[:3], bias=np.zeros(3, np.float32), **common)


def _card() -> dict[str, Any]:
    """Return a card as `bottleneck.fit` writes it, of no time and no place."""
    metrics = {
        "n": 6, "accuracy": 0.5, "accuracy_ci95": [0.2, 0.8], "balanced_accuracy": 0.5, "macro_f1": 0.4,
        "classes": ["a", "b", "c"], "per_class": {"a": {"precision": 1.0, "recall": 0.5, "f1": 0.6, "n": 2}},
        "confusion": [[1, 1, 0], [0, 2, 0], [1, 1, 0]], "log_loss": 1.0, "brier": 0.6, "ece": 0.1, "ece_bins": 15,
        "top5_accuracy": None, "mean_confidence": 0.6, "resolution": 0.2,
    }  # fmt: skip
    return {
        "version": 1, "created": "2026-01-01T00:00:00.000+00:00", "folder": "..", "kind": "fit",
        "bottleneck": "0.1.0", "head": "logistic", "model": "tiny", "classes": ["a", "b", "c"], "params": {"C": 0.1},
        "normalize": "standard", "class_weight": None, "streamed": False, "sharpness": 1.0,
        "search": {"cv_accuracy": 0.5, "cv_ci95": [0.3, 0.7], "cv_spread": 0.1, "cv_balanced_accuracy": 0.5,
                   "cv": metrics, "folds": 5, "divisions": 1, "search": "fast", "searched": 20, "points": [{"C": 0.1}],
                   "fold_accuracy": [[0.5] * 5], "rule": "simplest"},
        "score": 0.5, "seed": 0, "heldout": "test", "n_train": 20, "n_heldout": 6, "headline": "cross-validation",
        "metrics": metrics,
        "dataset": {"source": "/images", "place": "../../images", "digest": "d" * 64, "images_digest": "e" * 64,
                    "images": 26, "used": 26, "splits": {"train": 20, "test": 6}, "split_given": False,
                    "shares": "80/10/10", "columns": {}, "labels": {"a": 9, "b": 9, "c": 8}},
        "leaks": {"counts": {"near_duplicates": 0}, "near_threshold": 0.9, "near_duplicates": []},
        "failures": [{"path": "/images/x.jpg", "code": "empty", "message": "the file has no bytes", "digest": None}],
        "spec": SPEC.to_json(), "fingerprint": SPEC.fingerprint, "request": {"model": "resnet18", "weights": "none"},
        "engines": [{"engine": "torch 2", "precision": "fp32", "cosine": 1.0}], "versions": {"torch": "2"},
        "seconds": 1.5,
    }  # fmt: skip


def _dataset() -> Dataset:
    return Dataset(
        source=Path("/images"),
        paths=tuple(f"/images/{name}/{number}.jpg" for name in "ab" for number in range(4)),
        digests=np.arange(256, dtype=np.uint8).reshape(8, 32),
        labels=tuple("aaaabbbb"),
        given_splits=("train",) * 6 + ("test",) * 2,
        groups=("g", None) * 4,
        failures=(Failure("/images/a/9.jpg", "corrupt", "broken", "f" * 64),),
        ignored={"hidden": 2},
    )
