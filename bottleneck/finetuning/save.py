"""Saving the result of a fine-tuning: the weights, the card, the predictions and the curves."""

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.backbone import Backbone
from bottleneck.backbones.registry import load
from bottleneck.backbones.request import TIMM, Request
from bottleneck.backbones.tuned import WEIGHTS, Tuned, read_tuned, recorded_tuned
from bottleneck.backbones.weights import tensors_digest
from bottleneck.backbones.weights_files import RecordedRequest, described
from bottleneck.errors import BottleneckError, RunError
from bottleneck.evaluation.conformal import measured_coverage
from bottleneck.evaluation.stats import mcnemar
from bottleneck.finetuning import curves
from bottleneck.finetuning.context import FineTuningContext
from bottleneck.finetuning.handback import LinearLayer
from bottleneck.finetuning.head_comparison import compare_with_head
from bottleneck.finetuning.history import History
from bottleneck.finetuning.uncertainty import uncertainty_of
from bottleneck.finetuning.verify import Start, layer_probabilities, trunk_features
from bottleneck.fitting.train import Scored, scored
from bottleneck.fitting.uncertainty import uncertainty_card
from bottleneck.heads.linear import LinearHead
from bottleneck.images.dataset import Dataset
from bottleneck.runs.card import COLUMNS, common_card, prediction_rows
from bottleneck.runs.folder import delete_checkpoint
from bottleneck.runs.images import Role, RunImages, images_of, with_correctness
from bottleneck.runs.run import Run, images_of_weights
from bottleneck.runs.save import write_run
from bottleneck.utils.tree import Tree

HEAD = "finetuned"  # in place of the family of a head


@dataclass(frozen=True, kw_only=True)
class FineTuningResult:
    """The result of a fine-tuning, whose network has the weights of the best epoch.

    Parameters
    ----------
    context : FineTuningContext
    path : Path
        The run's folder.
    history : History
    start : Start
    first_layer : LinearLayer
        The last layer in epoch 0.
    finite : bool
        Whether all losses were finite.
    fold_test : dict or None
        From `bottleneck.finetuning.folds.compare_by_folds`.
    """

    context: FineTuningContext
    path: Path
    history: History
    start: Start
    first_layer: LinearLayer
    finite: bool
    fold_test: dict[str, Any] | None


def save_run(result: FineTuningResult, seconds: float) -> Run:
    """Test the network on the held-out images, and make its folder a run.

    Parameters
    ----------
    result : FineTuningResult
    seconds : float
        The time since the fine-tuning began.

    Raises
    ------
    RunError
        If the folder cannot be written, or the weights are not read back as they were written.
    """
    context, path = result.context, result.path
    heldout, classes = context.partition.heldout, context.initial.classes
    probabilities = _probabilities(context, heldout)
    labels = [str(label) for label in heldout.labels]
    tested = scored(probabilities, labels, classes, heldout.groups)
    before, after = _validated(result)
    try:
        backbone, request = _save_weights(result)
        head = _head(context, backbone)
        changed = request != context.initial.request
        uncertainty = uncertainty_of(context, head, after.probabilities, changed=changed)
        card = {
            **_card(result, backbone, request),
            "validation": _validation_card(context, before.right, after.right),
            "uncertainty": uncertainty_card(uncertainty, tuned=False),
            "coverage": None
            if context.partition.val_is_heldout
            else measured_coverage(uncertainty.conformal, probabilities, labels, classes, heldout.groups),
            "heldout_test": _heldout_test(result, tested.right),
            "fold_test": result.fold_test,
            "metrics": tested.metrics,
            "seconds": seconds,
        }
        runs = Tree.above(path, 1)
        runs.write(path / "curves.csv", curves.table(result.history.epochs).encode())
        runs.write(path / "curves.png", _plot(result))
        rows = prediction_rows(heldout, context.initial.cached.dataset, tested.predicted, probabilities)
        run = write_run(path, head, card, COLUMNS, rows, _images(result, after.right), uncertainty)
        delete_checkpoint(path)
    except BottleneckError:  # some are OSErrors
        raise
    except OSError as error:
        raise RunError(f"cannot write to {path}: {error.strerror or error}") from error
    return run


def _probabilities(context: FineTuningContext, images: Dataset) -> NDArray[np.float64]:
    """Return the probabilities ``(n, k)`` that the network predicts for images."""
    features = trunk_features(context.network, images, str(context.device))
    return layer_probabilities(context.network.layer(), features)


def _save_weights(result: FineTuningResult) -> tuple[Backbone, Request]:
    """Write the weights, and read them back as later commands do."""
    context, path = result.context, result.path / WEIGHTS
    initial, network = context.initial, context.network
    requested = initial.request
    own = {name: getattr(requested, name) for name in ("resize", "crop", "fast_jpeg") if getattr(requested, name)}
    model, weights = _model_and_weights(requested)
    tuned = Tuned(
        model=model, weights=weights, options=own, dataset=initial.cached.usable.fingerprint(), score=_score(result)
    )
    Tree.above(result.path, 1).write(path, network.to_safetensors(tuned.metadata()))
    request = replace(requested, model=model, weights=str(path.absolute()), restore_exclude=(), allow_partial=False)
    found, initial_spec = load(request), network.backbone.spec
    expected = replace(initial_spec, weights=tensors_digest(network.base_model))
    if found.spec != expected:
        read, written = found.spec.to_json(), expected.to_json()
        raise RunError(f"expected {path} to be read back as it was written; read {read}, wrote {written}")
    # If the hand-back is kept, or only the head was trained, the features are those of the original network.
    return found, requested if expected.weights == initial_spec.weights else request


def _model_and_weights(requested: Request) -> tuple[str, str]:
    """Return the model, and the pretrained weights that fine-tuning started from, to record in the weights file."""
    before = read_tuned(requested.file) if requested.file else None
    weights = before.weights if before else requested.file.name if requested.file else requested.weights
    model = requested.model
    has_tag = "." in model or requested.random or requested.file or weights == "DEFAULT"
    if model.startswith(TIMM) and not has_tag:
        model = f"{model}.{weights}"  # the tag decides the preprocessing
    return model, weights


def _score(result: FineTuningResult) -> float:
    """Return the score that ranks the run; see `bottleneck.runs.run.Run.score`."""
    epochs, best, run = result.history.epochs, result.history.best, result.context.initial.run
    return min(1.0, epochs[best].val_accuracy + (run.score - epochs[0].val_accuracy if run else 0.0))


def _validated(result: FineTuningResult) -> tuple[Scored, Scored]:
    """Return the predictions of epoch 0, and of the best epoch, for the validation images."""
    context = result.context
    val, initial = context.partition.val, context.initial
    labels = [str(label) for label in val.labels]
    first = layer_probabilities(result.first_layer, initial.cached.store.read(val.digests))
    before = scored(first, labels, initial.classes)
    if result.history.best == 0:
        return before, before
    return before, scored(_probabilities(context, val), labels, initial.classes)


def _validation_card(context: FineTuningContext, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the validation section of the card, with the test of the best epoch against epoch 0."""
    return {
        "n": len(context.partition.val),
        "cut_from_train": context.partition.cut,
        "is_heldout": context.partition.val_is_heldout,
        "against_start": mcnemar(after, before),
    }


def _heldout_test(result: FineTuningResult, right: NDArray[np.bool_]) -> dict[str, Any] | None:
    """Compare the network with its head on the held-out images; return None if it has none or is unchanged."""
    if result.context.initial.run is None or result.history.best == 0:
        return None
    return compare_with_head(right, result.start.right)


def _images(result: FineTuningResult, right: NDArray[np.bool_]) -> RunImages:
    """Return how each image was used: by the head, the network before, and this fine-tuning."""
    partition, initial = result.context.partition, result.context.initial
    of_head = _images_of(initial.run) if initial.run else None
    roles = {"train": Role.TRAINED, partition.name: Role.HELD_OUT, "val": Role.SELECTED}
    found = images_of(initial.cached.usable, roles)
    if partition.cut and (initial.run is None or of_head):
        found = found.with_role(partition.val.digests, Role.SELECTED)
    if of_head:
        found = found.after(of_head)
    if recorded_tuned(initial.cached.store.folder) is not None:
        found = found.after(images_of_weights(initial.request, result.path.parent))
    if partition.cut and result.history.best == 0:  # the kept head was fitted on them, unlike that of epoch 0
        return found
    return with_correctness(found, partition.val.digests, right)


def _images_of(run: Run) -> RunImages | None:
    """Return the images of a run; None if they cannot be read, which must not lose a finished fine-tuning."""
    with suppress(RunError):
        return run.images
    return None


def _head(context: FineTuningContext, backbone: Backbone) -> LinearHead:
    layer, dim = context.network.layer(), backbone.dim
    return LinearHead(
        family=HEAD,
        classes=context.initial.classes,
        mean=np.zeros(dim, np.float32),
        scale=np.ones(dim, np.float32),
        fingerprint=backbone.spec.fingerprint,
        weight=layer.weight,
        bias=layer.bias,
    )


def _card(result: FineTuningResult, backbone: Backbone, request: Request) -> dict[str, Any]:
    context, history, start = result.context, result.history, result.start
    initial, plan, boundary, partition = context.initial, context.plan, context.boundary, context.partition
    run, cached = initial.run, initial.cached
    return {
        **common_card("finetune", backbone.spec, initial.classes, cached.dataset, cached.usable, cached.failures),
        "head": HEAD,
        "params": {"unfreeze": ", ".join(plan.names) or "the head alone", "epoch": history.best},
        "from": {
            "run": run.name if run else None,
            "head": run.card["head"] if run else "random",
            "accuracy": start.head_accuracy,
            "features": cached.store.spec.to_json(),
        },
        "start_accuracy": start.accuracy,
        "agreement": asdict(start.agreement) if start.agreement else None,
        "score": _score(result),
        "recipe": context.recipe.to_json(),
        "precision": context.precision,
        "trained": list(plan.names),
        "trained_parameters": plan.trained,
        "frozen_parameters": plan.frozen,
        "boundary": {"module": boundary.module, "shape": list(boundary.shape)} if boundary else None,
        "best_epoch": history.best,
        "curves": [asdict(epoch) for epoch in history.epochs],
        "diverged": not result.finite,
        "seed": context.recipe.seed,
        "heldout": partition.name,
        "n_train": len(partition.train),
        "n_heldout": len(partition.heldout),
        "request": _request_json(result, request),
        "own_weights": request != initial.request,
        "leaks": run.part("leaks") if run else None,
    }


def _request_json(result: FineTuningResult, request: Request) -> dict[str, Any]:
    """Return the request of the backbone as a JSON object for the run's folder."""
    initial = result.context.initial
    recorded = initial.cached.store.request()
    digest = RecordedRequest(recorded, initial.cached.store.folder).sha256 if recorded else None
    if request.file and request == initial.request and request.file.is_file():
        return described(request, digest, result.path)
    return request.to_json()


def _plot(result: FineTuningResult) -> bytes:
    initial, history = result.context.initial, result.history
    trained = ", ".join(result.context.plan.names) or "the head alone"
    start = f"from {initial.run.name}" if initial.run else "from a random last layer"
    title = f"{initial.request.model}: {trained:.60}, {start}"
    return curves.plot(history.epochs, history.best, title, head=initial.run is not None)
