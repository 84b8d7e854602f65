"""Fine-tuning and its head by folds, on a small network."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bottleneck.backbones.tuned import Tuned, record_tuned
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.errors import BottleneckWarning, RunError, TuningError
from bottleneck.finetuning import folds as folds_module
from bottleneck.finetuning.finetune import finetune
from bottleneck.finetuning.folds import Fold
from bottleneck.finetuning.handback import refit_head
from bottleneck.finetuning.history import Epoch
from bottleneck.finetuning.outline import Outline
from bottleneck.finetuning.recipe import Recipe
from bottleneck.fitting.partition import once
from bottleneck.heads.folds import divide
from bottleneck.images.scan import scan
from tests.finetuning.conftest import CLASSES, Finished, Killed, Seen, copied, finished, fitted, make_images

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights:bottleneck.errors.BottleneckWarning")

RECIPE = Recipe(unfreeze=("layer4",), epochs=1, batch_size=8, views=1, precision="fp32", lr=0.01, augment="none")
HEAD_ALONE = replace(RECIPE, unfreeze=(), last=0)


@pytest.fixture(scope="module")
def compared(original, tmp_path_factory):
    """Return a folder in which a network was compared with its head by 3 folds, and the events."""
    return finished(original, tmp_path_factory.mktemp("folds"), RECIPE, folds=3)


@pytest.fixture
def whole(compared, original, tmp_path):
    """Return a copy of that in the current folder."""
    root, seen = compared
    copied(root, tmp_path, original / "images")
    return Finished(tmp_path, seen)


def test_each_training_image_is_tested_once(whole):
    folds, found = whole.seen.only(Fold), whole.run.card["fold_test"]
    assert [(fold.number, fold.folds, len(fold.tuned)) for fold in folds] == [(1, 3, 12), (2, 3, 12), (3, 3, 12)]
    tuned, head = (np.concatenate([getattr(fold, name) for fold in folds]) for name in ("tuned", "head"))
    assert (found["folds"], found["n"]) == (3, 36)
    assert (found["tuned_accuracy"], found["head_accuracy"]) == (tuned.mean(), head.mean())
    assert (found["only_tuned"], found["only_head"]) == ((tuned & ~head).sum(), (head & ~tuned).sum())
    assert len(whole.run.card["curves"]) == 2
    assert whole.seen.events[-3:] == folds


def divided(images, count):
    """Return the images that each fold tests, and those that it trains on."""
    dataset = scan(images)
    train = once(dataset.subset(row for row, split in enumerate(dataset.splits) if split == "train"))
    folds = divide(np.array([CLASSES.index(label) for label in train.labels]), train.groups, count, seed=0)
    columns = [np.flatnonzero(trained) for trained in folds.trained.T]
    return [(train.subset(np.setdiff1d(range(len(train)), rows).tolist()), train.subset(rows)) for rows in columns]


def test_the_head_of_a_fold_is_fitted_without_its_images(whole, original):
    run, store = whole.head, FeatureCache("cache").stores()[0]
    for event, (tested, others) in zip(whole.seen.only(Fold), divided(original / "images", 3), strict=True):
        predicted = refit_head(run, others, store).probabilities(store.read(tested.digests)).argmax(axis=1)
        right = [CLASSES[code] == label for code, label in zip(predicted, tested.labels, strict=True)]
        assert event.head.tolist() == right


def test_each_fold_trains_a_fresh_network_and_tests_its_best_epoch(home, original, monkeypatch):
    jobs = []

    def only_blue(job, optimizer, history, **_):
        """Stand for a training whose first epoch is the best, of a network that says blue of all images."""
        jobs.append(({name: value.clone() for name, value in job.trained_tensors.items()}, job.train.codes))
        history.best, history.best_tensors = 1, {name: 0 * value for name, value in job.trained_tensors.items()}
        history.best_tensors["fc.bias"] = torch.tensor([1.0, 0.0, 0.0])
        return True

    seen = Seen()
    with monkeypatch.context() as patch:
        patch.setattr(folds_module, "train", only_blue)
        finetune(recipe=RECIPE, folds=3, watch=seen)

    for event, (tested, _) in zip(seen.only(Fold), divided(original / "images", 3), strict=True):
        assert event.tuned.tolist() == [label == "blue" for label in tested.labels]
    assert [np.bincount(codes).tolist() for _, codes in jobs] == [[8, 8, 8]] * 3
    first, *others = [moving for moving, _ in jobs]
    for other in others:
        assert torch.equal(first["layer4.0.conv1.weight"], other["layer4.0.conv1.weight"])
        assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_a_fold_that_diverges_cancels_the_comparison_with_a_warning(home, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(folds_module, "train", lambda *_, **__: False)
        with pytest.warns(BottleneckWarning, match="training diverged in fold 1") as warned:
            done = finetune(recipe=HEAD_ALONE, folds=3)

    assert done.card["fold_test"] is None
    assert any("try a smaller learning rate" in str(one.message) for one in warned)


def test_folds_do_not_change_the_result_and_share_its_activations(home):
    seen = Seen()
    alone = finetune(recipe=replace(HEAD_ALONE, augment="light"), watch=seen)
    fold_head = finetune(recipe=replace(HEAD_ALONE, augment="light"), folds=2, watch=seen)
    again = finetune(recipe=replace(HEAD_ALONE, augment="light"), folds=3, watch=seen)

    assert fold_head.metrics == alone.metrics == again.metrics
    assert fold_head.card["heldout_test"] == alone.card["heldout_test"]
    assert alone.card["fold_test"] is None
    first, second, third = seen.only(Outline)
    assert first.missing == first.bytes
    assert second.missing * (36 + 18) == first.bytes * 36  # training images as they are, to be tested
    assert third.missing == 0


def kill_after_fold(number):
    """Return a watcher that simulates a kill."""

    def kill(event):
        if isinstance(event, Fold) and event.number == number:
            raise Killed

    return kill


def test_a_fold_finished_before_a_kill_is_not_repeated(whole):
    with pytest.raises(Killed):
        finetune(recipe=RECIPE, folds=3, run=whole.head.name, watch=kill_after_fold(2))
    seen = Seen()
    resumed = finetune(resume="last", watch=seen)

    assert [fold.number for fold in seen.only(Fold)] == [3]
    assert seen.only(Epoch) == []
    assert resumed.card["fold_test"] == whole.run.card["fold_test"]
    assert resumed.metrics == whole.run.metrics
    assert not (resumed.path / "checkpoint").exists()


def test_results_of_other_folds_are_refused(home):
    with pytest.raises(Killed):
        finetune(recipe=HEAD_ALONE, folds=2, watch=kill_after_fold(1))
    (file,) = (home / "runs").glob("*/checkpoint/folds.json")
    other = '{"version": 1, "folds": [{"tuned": [true], "head": [true]}]}'
    for text in ("{", "[]", '{"version": 2, "folds": []}', other):
        file.write_text(text)
        with pytest.raises(RunError, match=r"expected the results of folds in .*folds\.json"):
            finetune(resume="last")


def test_too_few_images_for_folds_are_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fitted(tmp_path, make_images(tmp_path / "images", {"train": 2, "val": 2, "test": 2}))
    seen = Seen()
    with pytest.raises(TuningError, match="fitted without the images of a fold"):
        finetune(recipe=RECIPE, folds=2, watch=seen)
    assert seen.only(Epoch) == []


def test_folds_refuse_a_fine_tuned_backbone(home):
    seen = Seen()
    store = FeatureCache("cache").stores()[0]
    record_tuned(store.folder, Tuned(model="resnet18", weights="none", options={}, dataset="0" * 64, score=0.9))
    with pytest.raises(TuningError, match="expected a backbone that has not been trained on these images"):
        finetune(recipe=RECIPE, folds=2, watch=seen)
    assert seen.only(Epoch) == []


def test_folds_need_a_head_and_at_least_two(home):
    with pytest.raises(TuningError, match="with folds, which compare fine-tuning with a head"):
        finetune(recipe=RECIPE, begin="weights", folds=2)
    with pytest.raises(TuningError, match="folds"):
        finetune(recipe=RECIPE, folds=1)
