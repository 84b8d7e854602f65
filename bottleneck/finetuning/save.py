"""What a fine-tuning leaves: the weights, the card, the predictions, the curves."""

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck._version import __version__
from bottleneck.backbones.backbone import Backbone
from bottleneck.backbones.registry import load
from bottleneck.backbones.request import TIMM, Request
from bottleneck.backbones.tuned import WEIGHTS, Tuned, read_tuned, recorded_tuned
from bottleneck.backbones.weights import tensors_digest
from bottleneck.backbones.weights_files import RecordedRequest, described
from bottleneck.errors import BottleneckError, RunError
from bottleneck.evaluation.stats import mcnemar
from bottleneck.finetuning import curves
from bottleneck.finetuning.boundary import Boundary
from bottleneck.finetuning.freeze import Plan
from bottleneck.finetuning.handback import Layer
from bottleneck.finetuning.head_comparison import against_head
from bottleneck.finetuning.history import Progress
from bottleneck.finetuning.initial import InitialState
from bottleneck.finetuning.network import Network
from bottleneck.finetuning.partition import Parts
from bottleneck.finetuning.recipe import Recipe
from bottleneck.finetuning.verify import Start, features_of, probabilities_of
from bottleneck.fitting.train import scored
from bottleneck.heads.linear import LinearHead
from bottleneck.runs.card import COLUMNS, dataset_card, prediction_rows, versions
from bottleneck.runs.folder import delete_checkpoint
from bottleneck.runs.images import Role, RunImages, images_of, judged
from bottleneck.runs.run import Run, images_of_weights
from bottleneck.runs.save import write_run
from bottleneck.utils.tree import Tree

HEAD = "finetuned"  # what stands for the family of its head


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a fine-tuning; the network has the weights of the best epoch, and had `first_layer` in epoch 0."""

    path: Path
    origin: InitialState
    network: Network
    plan: Plan
    parts: Parts
    boundary: Boundary | None
    recipe: Recipe
    precision: str
    progress: Progress
    start: Start
    finite: bool
    device: str
    first_layer: Layer
    by_folds: dict[str, Any] | None


def write(result: Result, seconds: float) -> Run:
    """Test the network on the held-out images, and make its folder a run.

    Parameters
    ----------
    result : Result
    seconds : float
        That it took until now.

    Raises
    ------
    RunError
        If the folder cannot be written, or the weights cannot be read back as they are.
    """
    heldout, classes = result.parts.heldout, result.origin.classes
    probabilities = probabilities_of(result.network.layer(), features_of(result.network, heldout, result.device))
    found = scored(probabilities, [str(label) for label in heldout.labels], classes, heldout.groups)
    before, after = _validated(result)
    try:
        backbone, request = _weights(result)
        head = _head(result, backbone)
        card = {
            **_card(result, backbone, request),
            "validation": _validation_card(result, before, after),
            "heldout_test": _heldout_test(result, found.right),
            "fold_test": result.by_folds,
            "metrics": found.metrics,
            "seconds": seconds,
        }
        runs = Tree.above(result.path, 1)
        runs.write(result.path / "curves.csv", curves.table(result.progress.epochs).encode())
        runs.write(result.path / "curves.png", _picture(result))
        rows = prediction_rows(heldout, result.origin.dataset, found.predicted, probabilities)
        run = write_run(result.path, head, card, COLUMNS, rows, _images(result, after))
        delete_checkpoint(result.path)
    except BottleneckError:  # some of which are OSErrors
        raise
    except OSError as error:
        raise RunError(f"cannot write to {result.path}: {error.strerror or error}") from error
    return run


def _weights(result: Result) -> tuple[Backbone, Request]:
    """Write the weights, and read them back as every later command does."""
    asked, path = result.origin.request, result.path / WEIGHTS
    before = read_tuned(asked.file) if asked.file else None
    known = before.weights if before else asked.file.name if asked.file else asked.weights
    model = asked.model
    if model.startswith(TIMM) and "." not in model and not (asked.random or asked.file or known == "DEFAULT"):
        model = f"{model}.{known}"  # whose tag decides the preprocessing
    own = {name: getattr(asked, name) for name in ("resize", "crop", "fast_jpeg") if getattr(asked, name)}
    said = Tuned(
        model=model, weights=known, options=own, dataset=result.origin.usable.fingerprint(), score=_score(result)
    )
    Tree.above(result.path, 1).write(path, result.network.file(said.metadata()))
    request = replace(asked, model=model, weights=str(path.absolute()), restore_exclude=(), allow_partial=False)
    found, before_it = load(request), result.network.backbone.spec
    wanted = replace(before_it, weights=tensors_digest(result.network.named))
    if found.spec != wanted:
        read, written = found.spec.to_json(), wanted.to_json()
        raise RunError(f"expected {path} to be read back as it was written; it is not: {read}, not {written}")
    # Where the hand-back itself is kept, or the head alone was trained, features are those of the network as it was.
    return found, asked if wanted.weights == before_it.weights else request


def _score(result: Result) -> float:
    """Return what the run is chosen by; see `bottleneck.runs.run.Run.score`."""
    epochs, best, run = result.progress.epochs, result.progress.best, result.origin.run
    return min(1.0, epochs[best].val_accuracy + (run.score - epochs[0].val_accuracy if run else 0.0))


def _validated(result: Result) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return whether epoch 0, and the epoch that is kept, are right about each validation image."""
    val, classes, origin = result.parts.val, result.origin.classes, result.origin
    labels = [str(label) for label in val.labels]
    before = scored(probabilities_of(result.first_layer, origin.store.read(val.digests)), labels, classes).right
    if result.progress.best == 0:
        return before, before
    features = features_of(result.network, val, result.device)
    return before, scored(probabilities_of(result.network.layer(), features), labels, classes).right


def _validation_card(result: Result, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> dict[str, Any]:
    """Return what a card says of the validation images, and of the epoch that is kept against epoch 0 on them."""
    return {
        "n": len(result.parts.val),
        "cut_from_train": result.parts.cut,
        "is_heldout": result.parts.val_is_heldout,
        "against_start": mcnemar(after, before),
    }


def _heldout_test(result: Result, right: NDArray[np.bool_]) -> dict[str, Any] | None:
    """Return the network against its head on the held-out images; None where there was no head, or it is kept."""
    if result.origin.run is None or result.progress.best == 0:
        return None
    return against_head(right, result.start.right)


def _images(result: Result, right: NDArray[np.bool_]) -> RunImages:
    """Return what each image was used for, by the head, the network below it, and this fine-tuning."""
    parts, origin = result.parts, result.origin
    of_head = _known_of(origin.run) if origin.run else None
    roles = {"train": Role.TRAINED, parts.name: Role.HELD_OUT, "val": Role.SELECTED}
    found = images_of(origin.usable, roles)
    if parts.cut and (origin.run is None or of_head):
        found = found.with_role(parts.val.digests, Role.SELECTED)
    if of_head:
        found = found.after(of_head)
    if recorded_tuned(origin.store.folder) is not None:
        found = found.after(images_of_weights(origin.request, result.path.parent))
    if parts.cut and result.progress.best == 0:  # the head that is kept has seen them, that of epoch 0 has not
        return found
    return judged(found, parts.val.digests, right)


def _known_of(run: Run) -> RunImages | None:
    """Return the images of a run; what cannot be read must not lose a fine-tuning that has ended."""
    with suppress(RunError):
        return run.images
    return None


def _head(result: Result, backbone: Backbone) -> LinearHead:
    layer, dim = result.network.layer(), backbone.dim
    return LinearHead(
        family=HEAD,
        classes=result.origin.classes,
        mean=np.zeros(dim, np.float32),
        scale=np.ones(dim, np.float32),
        fingerprint=backbone.spec.fingerprint,
        weight=layer.weight,
        bias=layer.bias,
    )


def _card(result: Result, backbone: Backbone, request: Request) -> dict[str, Any]:
    origin, progress, plan = result.origin, result.progress, result.plan
    epochs, boundary = progress.epochs, result.boundary
    return {
        "kind": "finetune",
        "bottleneck": __version__,
        "head": HEAD,
        "model": backbone.spec.backbone,
        "classes": list(origin.classes),
        "params": {"unfreeze": ", ".join(plan.names) or "the head alone", "epoch": progress.best},
        "from": {
            "run": origin.run.name if origin.run else None,
            "head": origin.run.card["head"] if origin.run else "random",
            "accuracy": result.start.head_accuracy,
            "features": origin.store.spec.to_json(),
        },
        "start_accuracy": result.start.accuracy,
        "agreement": asdict(result.start.agreement) if result.start.agreement else None,
        "score": _score(result),
        "recipe": result.recipe.to_json(),
        "precision": result.precision,
        "trained": list(plan.names),
        "trained_parameters": plan.trained,
        "frozen_parameters": plan.frozen,
        "boundary": {"module": boundary.module, "shape": list(boundary.shape)} if boundary else None,
        "best_epoch": progress.best,
        "curves": [asdict(epoch) for epoch in epochs],
        "diverged": not result.finite,
        "seed": result.recipe.seed,
        "heldout": result.parts.name,
        "n_train": len(result.parts.train),
        "n_heldout": len(result.parts.heldout),
        "dataset": dataset_card(origin.dataset, origin.usable),
        "failures": [vars(failure) for failure in origin.failures],
        "spec": backbone.spec.to_json(),
        "fingerprint": backbone.spec.fingerprint,
        "request": _kept(result, request),
        "own_weights": request != result.origin.request,
        "leaks": origin.run.part("leaks") if origin.run else None,
        "versions": versions(),
    }


def _kept(result: Result, request: Request) -> dict[str, Any]:
    """Return how the backbone is asked for, as JSON for the run's folder."""
    before = result.origin.store.request()
    digest = RecordedRequest(before, result.origin.store.folder).sha256 if before else None
    if request.file and request == result.origin.request and request.file.is_file():
        return described(request, digest, result.path)
    return request.to_json()


def _picture(result: Result) -> bytes:
    what = ", ".join(result.plan.names) or "the head alone"
    begun = f"from {result.origin.run.name}" if result.origin.run else "from a random last layer"
    title = f"{result.origin.request.model}: {what:.60}, {begun}"
    return curves.picture(result.progress.epochs, result.progress.best, title, head=result.origin.run is not None)
