"""A fine-tuning from beginning to end, on a small network."""

import csv
import os
import re
import shutil
import signal
import warnings
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from bottleneck.backbones.registry import build
from bottleneck.backbones.request import Request
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.comparison.compare import compare
from bottleneck.errors import (
    BottleneckError,
    BottleneckWarning,
    Diverged,
    HeadError,
    RunError,
    TuningError,
    UnknownModule,
)
from bottleneck.extraction.extract import extract
from bottleneck.finetuning import finetune as module
from bottleneck.finetuning.distributed import Processes
from bottleneck.finetuning.finetune import finetune, lock_unfinished
from bottleneck.finetuning.history import Epoch
from bottleneck.finetuning.initial import default_head
from bottleneck.finetuning.outline import Outline
from bottleneck.finetuning.recipe import Recipe
from bottleneck.finetuning.verify import Start
from bottleneck.fitting.fit import fit
from bottleneck.images.scan import scan
from bottleneck.prediction.predict import predict
from bottleneck.runs.images import Role
from bottleneck.runs.ranking import default_run
from bottleneck.runs.run import Run, list_runs, load_run
from tests.conftest import write
from tests.finetuning.conftest import (
    CLASSES,
    CROP,
    LEARNS,
    MODEL,
    SHORT,
    Killed,
    Seen,
    change_card,
    fitted,
    make_images,
    picture,
)
from tests.finetuning.processes import command, started

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights:bottleneck.errors.BottleneckWarning")


def weights(run):
    return load_file(run.path / "model.safetensors")


def until_epoch_1(event):
    """Simulate a kill after the first epoch."""
    if isinstance(event, Epoch) and event.number == 1:
        raise Killed


def copy_at_epoch_1(event):
    """Leave a copy ``runs/killed`` of the run, as a kill after the first epoch would leave the run."""
    if isinstance(event, Epoch) and event.number == 1:
        (path,) = Path("runs").glob("*/checkpoint")
        shutil.copytree(path.parent, "runs/killed")


def kill_at(kind, epoch=None, **options):
    """Simulate a kill at the first event of a kind, or at an epoch, and return the events until then."""
    seen = Seen()

    def watch(event):
        seen(event)
        if isinstance(event, kind) and epoch in (None, getattr(event, "number", None)):
            raise Killed

    with pytest.raises(Killed):
        finetune(**options, watch=watch)
    return seen


def test_it_starts_with_the_predictions_of_the_head_and_saves_a_run(tuned):
    run, done = tuned.head, tuned.run
    (start,), (outline,) = tuned.seen.only(Start), tuned.seen.only(Outline)
    assert start.agreement.exact
    assert start.accuracy == start.head_accuracy == run.metrics["accuracy"]
    assert start.agreement.images == 18
    assert outline.boundary.module == "layer3"
    assert [epoch.number for epoch in tuned.seen.only(Epoch)] == [0, 1]
    files = {path.name for path in done.path.iterdir()}
    assert {
        "model.safetensors",
        "head.safetensors",
        "card.json",
        "predictions.csv",
        "curves.csv",
        "curves.png",
    } <= files
    assert "checkpoint" not in files
    card = done.card
    assert (card["kind"], card["from"]["run"]) == ("finetune", run.name)
    assert card["start_accuracy"] == run.metrics["accuracy"]
    assert card["trained_parameters"] + card["frozen_parameters"] == sum(
        value.numel() for name, value in weights(done).items() if "running" not in name
    )
    best = card["curves"][card["best_epoch"]]
    assert best["val_accuracy"] >= card["curves"][0]["val_accuracy"]
    assert (done.path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert 0 < sum(epoch["seconds"] for epoch in card["curves"]) < card["seconds"]


def test_only_the_unfrozen_modules_change(learned):
    done = learned.run
    before = build(Request(**learned.head.card["request"])).network.state_dict()
    changed = {name for name, value in weights(done).items() if name in before and not name.startswith("fc.")
               and not torch.equal(value, before[name])}  # fmt: skip
    assert all(name.startswith("layer4.") and "bn" not in name and "downsample.2" not in name for name in changed)
    assert done.card["best_epoch"]
    assert {name for name in weights(done) if name.startswith("layer4.") and "conv" in name} <= changed


@pytest.fixture
def unsure(home) -> Run:
    """Return the run of a head with a loss that steps which are too large can make worse."""
    shutil.rmtree(home / "runs")
    return fit(C=0.001)


def test_epoch_0_is_kept_if_training_only_harms(unsure):
    run = unsure
    done = finetune(recipe=replace(SHORT, lr=0.05, clip=1e3, augment="none"))

    assert done.card["best_epoch"] == 0
    assert done.metrics["accuracy"] == run.metrics["accuracy"]
    rows = {row["path"]: row for row in csv.DictReader((done.path / "predictions.csv").open())}
    of_head = {row["path"]: row for row in csv.DictReader((run.path / "predictions.csv").open())}
    assert rows.keys() == of_head.keys()
    for path, row in rows.items():
        assert row["predicted"] == of_head[path]["predicted"]
        assert float(row["probability"]) == pytest.approx(float(of_head[path]["probability"]), abs=1e-4)


def test_every_linear_head_is_handed_back(home):
    for head in ("svm", "softmax", "ridge", "centroid"):
        run = fit(head=head, C=None if head == "centroid" else 0.01)
        recipe = replace(SHORT, last=0, unfreeze=(), views=1)
        (start,) = kill_at(Start, recipe=recipe, run=run.name).only(Start)
        assert start.agreement.exact, head
        assert start.accuracy == run.metrics["accuracy"], head


def test_equal_seeds_give_equal_weights_and_others_do_not(home):
    recipe = replace(LEARNS, epochs=1, augment="light")
    first, again = (finetune(recipe=replace(recipe, seed=1), begin="weights") for _ in range(2))
    assert first.card["best_epoch"]
    one, two = (run.card["curves"][1]["train_loss"] for run in (first, again))
    seen = kill_at(Epoch, epoch=1, recipe=replace(recipe, seed=2), begin="weights")
    assert one == two != seen.only(Epoch)[1].train_loss
    for name, value in weights(first).items():
        assert torch.equal(value, weights(again)[name]), name


def process_wide_settings():
    """Return the settings of this process that a library call must not change."""
    cudnn = torch.backends.cudnn
    return (
        torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, torch.is_grad_enabled(), torch.get_default_dtype(),
        torch.distributed.is_initialized(), torch.get_rng_state().tolist(), torch.initial_seed(),
        warnings.showwarning, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), dict(os.environ),
    )  # fmt: skip


def test_the_settings_of_the_process_are_unchanged_afterwards(home):
    before = process_wide_settings()
    finetune(recipe=SHORT)
    assert process_wide_settings() == before
    with pytest.raises(TuningError):
        finetune(recipe=replace(SHORT, last=9, unfreeze=()))
    assert process_wide_settings() == before


# --- a call that fails ------------------------------------------------------------------------------------------


def left(home):
    return sorted(path.name for path in (home / "runs").iterdir() if not (path / "card.json").exists())


def test_an_error_before_the_start_leaves_no_folder(home, monkeypatch):
    for place in ("bottleneck.runs.save.make_under_free_name", "bottleneck.finetuning.finetune.save_config"):
        for error in (KeyboardInterrupt, RuntimeError, OSError):

            def fail(*_, error=error):
                raise error("here")

            with monkeypatch.context() as patch:
                patch.setattr(place, fail)
                with pytest.raises((error, RunError)):
                    finetune(recipe=SHORT, begin="weights")
            assert left(home) == [], (place, error)


def test_an_error_before_the_first_checkpoint_leaves_no_folder(home):
    for error in (RuntimeError, ZeroDivisionError, TuningError):

        def fail(event, error=error):
            raise error("here")

        with pytest.raises(error):
            finetune(recipe=SHORT, begin="weights", watch=fail)
        assert left(home) == [], error


def test_a_run_that_is_not_read_back_can_be_resumed(home, monkeypatch):
    def fail(*_):
        raise RunError("it is not as it was written")

    with monkeypatch.context() as patch:
        patch.setattr("bottleneck.runs.save.check_read_back", fail)
        with pytest.raises(RunError, match="not as it was written"):
            finetune(recipe=SHORT)
    (name,) = left(home)
    assert not [run for run in list_runs("runs") if run.is_tuned]
    assert finetune(resume=name).name == name
    assert left(home) == []


def test_numpy_scalars_and_a_run_are_accepted(home, run):
    recipe = Recipe(last=np.int64(0), epochs=np.int32(1), lr=np.float32(1e-3), seed=np.array(1), views=np.uint8(1))
    done = finetune(recipe=recipe, run=run, views_limit=np.int64(10**9), memory=np.float64(1e9), runs=home / "runs")

    assert done.card["from"]["run"] == run.name
    assert load_run(np.str_(done.path)).card["recipe"]["epochs"] == 1


def test_invalid_arguments_are_refused_before_any_work(home):
    for wrong in (
        {"recipe": {"epochs": 1}}, {"begin": 1}, {"run": 3}, {"views_limit": "20 GB"}, {"views_limit": -1},
        {"memory": True}, {"runs": 3}, {"cache": None}, {"device": 0}, {"model": 3}, {"images": 3}, {"resume": 1},
    ):  # fmt: skip
        seen = Seen()
        with pytest.raises(BottleneckError, match="expected"):
            finetune(**wrong, watch=seen)
        assert (seen.events, left(home)) == ([], []), wrong


# --- killed, resumed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train_bn": True, "views": 0},
        {
            **{"optimizer": "adamw", "lr": 1e-3, "ema": 0.9, "schedule": "step", "step_epochs": 1, "warmup": 1.0},
            **{"class_weight": "balanced", "label_smoothing": 0.1},
        },
    ],
    ids=["plain", "bn-whole-network", "adamw-ema-schedule"],
)
def test_a_resumed_run_trains_the_same_weights(home, changes):
    recipe = replace(LEARNS, augment="light", **changes)
    whole = finetune(recipe=recipe, begin="weights", watch=copy_at_epoch_1)
    assert whole.card["best_epoch"] or recipe.train_bn

    seen = Seen()
    resumed = finetune(resume="last", watch=seen)
    assert seen.only(Outline)[0].resumed == 1
    assert [epoch.number for epoch in seen.only(Epoch)] == [2]
    assert resumed.path.name == "killed"
    assert resumed.card["best_epoch"] == whole.card["best_epoch"]
    untimed = [[{**epoch, "seconds": 0} for epoch in run.card["curves"]] for run in (whole, resumed)]
    assert untimed[0] == untimed[1]
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_a_running_fine_tuning_is_not_resumed(home):
    refused = []

    def second(event):
        if isinstance(event, Epoch):
            with pytest.raises(RunError, match=f"process {os.getpid()} .* is fine-tuning it") as caught:
                finetune(resume="last")
            refused.append(caught.value)

    done = finetune(recipe=SHORT, watch=second)

    assert len(refused) == 2
    assert len(done.card["curves"]) == 2
    assert not {path.name for path in done.path.iterdir()} & {"finetune.lock", "finetune.holder.json", "checkpoint"}


def test_two_fine_tunings_of_one_head_run_at_once(home):
    def begin_another(event):
        if isinstance(event, Outline) and not others:
            others.append(None)
            others[0] = finetune(recipe=SHORT)

    others = []
    done = finetune(recipe=SHORT, watch=begin_another)
    assert done.path != others[0].path
    assert done.card["curves"][1]["val_loss"] == others[0].card["curves"][1]["val_loss"]


def test_a_fine_tuning_that_ends_before_it_is_locked_is_not_resumed(tuned):
    with pytest.raises(RunError, match="has ended"), ExitStack() as stack:
        lock_unfinished(tuned.run.path, "runs", Processes(torch.device("cpu")), stack)


def test_after_a_kill_before_the_first_checkpoint_it_starts_again(home, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "train", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            finetune(recipe=SHORT)
    seen = Seen()
    done = finetune(resume="last", watch=seen)
    assert seen.only(Outline)[0].resumed is None
    assert done.card["recipe"]["epochs"] == 1


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_at_most_an_epoch(home):
    whole = finetune(recipe=LEARNS, begin="weights")
    assert whole.card["best_epoch"]
    options = "--unfreeze layer4 --epochs 2 --batch-size 8 --views 1 --augment none --precision fp32 --lr 0.001"
    first, again = ["finetune", *options.split(), "--from", "weights"], ["finetune", "--resume"]
    for kills in range(3):
        process, errors = started(command, first if not kills else again)
        with errors:
            for line in errors:
                if kills < 2 and re.match(r" +\d+ ", line):  # an epoch's line: its checkpoint is there
                    process.kill()
                    break
            process.join()
        if kills < 2:
            assert process.exitcode == -signal.SIGKILL
            (path,) = [path for path in (home / "runs").iterdir() if not (path / "card.json").exists()]
            assert not [run for run in list_runs("runs") if run.path == path]
    assert process.exitcode == 0
    resumed = max((run for run in list_runs("runs") if run.is_tuned), key=lambda run: run.name)
    assert resumed.path != whole.path
    for name, value in weights(resumed).items():
        assert torch.equal(value, weights(whole)[name]), name


def test_a_finished_run_is_neither_resumed_nor_handed_back(tuned):
    name = tuned.run.name
    with pytest.raises(RunError, match="there is nothing to resume"):
        finetune(resume="last")
    with pytest.raises(RunError, match="has ended"):
        finetune(resume=name)
    with pytest.raises(RunError, match="found none"):
        finetune(resume="nothing")
    with pytest.raises(TuningError, match="fine-tuned already: extract with --weights"):
        finetune(recipe=SHORT, run=name)


def test_a_damaged_checkpoint_is_refused(home):
    with pytest.raises(Killed):
        finetune(recipe=SHORT, watch=until_epoch_1)
    (folder,) = [path for path in (home / "runs").iterdir() if (path / "checkpoint").exists()]
    (tensors,) = (folder / "checkpoint").glob("*.safetensors")
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    with pytest.raises(RunError, match="has changed"):
        finetune(resume="last")
    with pytest.raises(RunError, match=r"finetune --resume"):
        load_run(folder)


def test_changed_images_are_refused(home):
    kill_at(Outline, recipe=SHORT)
    card = load_run(next(path for path in (home / "runs").iterdir() if (path / "card.json").exists())).card
    source = card["dataset"]["source"]
    copy = home / "images"
    shutil.copytree(source, copy)
    write(copy / "val" / "red" / "more.png", picture("red", 77))
    extract(copy, model=MODEL, weights="none", crop=CROP, resize=CROP, engine="torch", precision="fp32")
    with pytest.raises(TuningError, match="found different ones"):
        finetune(copy, resume="last")


# --- what goes wrong --------------------------------------------------------------------------------------------


def test_nan_stops_training_and_saves_the_best_epoch_before(run):
    with pytest.raises(Diverged, match=r"smaller learning rate, --lr 1e\+28") as caught:
        finetune(recipe=replace(SHORT, lr=1e29, clip=None))
    left = caught.value.run
    assert left.card["diverged"]
    assert left.card["best_epoch"] == 0
    assert left.metrics["accuracy"] == run.metrics["accuracy"]
    assert all(torch.isfinite(value).all() for value in weights(left).values())
    assert load_run(left.path).head.classes == CLASSES


def test_unknown_names_get_suggestions_and_the_stages(run):
    with pytest.raises(
        UnknownModule, match=r"did you mean layer.*stages are conv1\+bn1, layer1, layer2, layer3, layer4"
    ):
        finetune(recipe=replace(SHORT, unfreeze=("layer5",)))
    with pytest.raises(TuningError, match=r"at most 5 stages"):
        finetune(recipe=replace(SHORT, unfreeze=(), last=9))
    with pytest.raises(TuningError, match=r"'layer1' fits none"):
        finetune(recipe=replace(SHORT, lr_mult=(("layer1", 0.1),)))
    assert not [path for path in run.path.parent.iterdir() if path != run.path and (path / "card.json").exists()]


def test_another_run_with_the_module_is_suggested(home, original):
    images = original / "images"
    fitted(home, images, model="squeezenet1_1", C=1.0)
    with pytest.raises(
        UnknownModule, match=r"test_resnet has a layer4: --run \d+-\d+-images-timm_test_resnet-logistic fine-tunes that"
    ):
        finetune(recipe=SHORT)


def test_heads_that_are_not_linear_are_refused(home, run):
    cases = [
        ({"head": "knn"}, "knn head is not a linear layer: fit another"),
        ({"head": "svm", "kernel": "rbf", "C": 1.0}, "rbf kernel is not a linear layer"),
        ({"normalize": "l2", "C": 1.0}, "--normalize auto"),
        ({"final": True, "C": 1.0}, "fit without --final, and fine-tune that"),
    ]
    bad = [fit(**options) for options, _ in cases]
    for found, (_, message) in zip(bad, cases, strict=True):
        with pytest.raises(TuningError, match=message):
            finetune(recipe=SHORT, run=found.name)
        (only := home / found.name).mkdir()
        shutil.copytree(found.path, only / found.name)
        with pytest.raises(TuningError, match=message):
            finetune(recipe=SHORT, runs=only)
    assert default_head("runs").run.name == run.name  # the best that is linear


def test_a_head_on_another_layer_is_refused(home, original):
    extract(original / "images", model=MODEL, weights="none", crop=CROP, resize=CROP, layer="layer3", engine="torch")
    fit(C=1.0)
    with pytest.raises(
        TuningError, match=r"input of the classifier of timm/test_resnet, fc:input; got one on features of layer3"
    ):
        finetune(recipe=SHORT)


def test_without_a_run_the_error_says_how_to_create_one(home):
    shutil.rmtree(home / "runs")
    with pytest.raises(TuningError, match=r"bottleneck extract IMAGES.*--from weights"):
        finetune(recipe=SHORT)


def test_activations_that_take_too_much_space_are_refused(home):
    with pytest.raises(TuningError, match=r"at most 1e-05 GB, those at layer3 take .*--views 0.*--views-limit"):
        finetune(recipe=SHORT, views_limit=10_000)
    assert not FeatureCache("cache").activations().stores()


def test_changed_weights_of_the_backbone_are_refused(run):
    change_card(run, request={**run.card["request"], "seed": 1})
    with pytest.raises(RunError, match="have changed since"):
        finetune(recipe=SHORT)


# --- small and odd ----------------------------------------------------------------------------------------------


def test_one_training_image_of_a_class_one_of_a_batch_and_none_in_validation(tmp_path):
    images = make_images(tmp_path / "images", {"train": 4, "val": 2, "test": 2})
    for number in range(1, 4):
        (images / "train" / "red" / f"{number:02}.png").unlink()
    shutil.rmtree(images / "val" / "red")
    fitted(tmp_path, images, C=0.1)
    with pytest.warns(BottleneckWarning, match="no validation image of red"):
        done = finetune(recipe=replace(SHORT, batch_size=2, epochs=1))  # 9 images: the last batch has one
    assert done.card["n_train"] == 9
    with pytest.warns(BottleneckWarning, match="no validation image of red"):
        again = finetune(recipe=replace(SHORT, batch_size=1, epochs=1, views=1))
    assert again.card["curves"][1]["train_loss"] is not None


def test_a_class_without_training_images_counts_as_an_error(tmp_path):
    images = make_images(tmp_path / "images", {"train": 6, "val": 2, "test": 2})
    write(images / "val" / "violet" / "0.png", picture("violet", 5))
    fitted(tmp_path, images, C=0.1)
    with pytest.warns(BottleneckWarning, match="no training image of violet"):
        done = finetune(recipe=replace(SHORT, views=1))
    assert done.card["classes"] == list(CLASSES)
    assert done.card["curves"][0]["val_accuracy"] <= 6 / 7


def test_without_a_validation_split_one_is_cut_from_train(tmp_path):
    images = make_images(tmp_path / "images", {"train": 15, "test": 6})
    run = fitted(tmp_path, images, C=0.1)
    seen = Seen()
    done = finetune(recipe=replace(SHORT, lr=1e-6, views=1), watch=seen)
    (outline,), (start,) = seen.only(Outline), seen.only(Start)
    assert outline.context.partition.cut
    assert len(outline.context.partition.train) + len(outline.context.partition.val) == 45
    assert not {row.tobytes() for row in outline.context.partition.train.digests} & {
        row.tobytes() for row in outline.context.partition.val.digests
    }
    assert start.accuracy == run.metrics["accuracy"]  # the head of all training images
    assert done.card["validation"]["cut_from_train"]


def test_a_held_out_val_split_also_selects_the_epoch(tmp_path):
    images = make_images(tmp_path / "images", {"train": 8, "val": 6})
    run = fitted(tmp_path, images, C=0.1)
    done = finetune(recipe=replace(SHORT, views=1))
    assert done.card["validation"]["is_heldout"]
    assert done.card["coverage"] is None, "the held-out images also calibrate the sets"
    assert done.metrics["accuracy"] >= run.metrics["accuracy"]


# --- what is done with it ---------------------------------------------------------------------------------------


def test_predict_works_after_the_run_was_moved(learned, original):
    done = learned.run
    moved = done.path.parent.parent / "elsewhere"
    shutil.move(done.path, moved)
    found = predict(original / "images" / "test", run=moved)
    predictions = {row["digest"]: row for row in csv.DictReader((moved / "predictions.csv").open())}
    for item in found:
        assert item.label == predictions[item.digest]["predicted"]
        assert item.probability == pytest.approx(float(predictions[item.digest]["probability"]), abs=1e-4)
        assert item.familiarity in [pytest.approx(number / 19) for number in range(1, 20)]


def test_images_that_the_network_was_not_trained_on_calibrate_familiarity_and_sets(learned, original):
    done = learned.run
    assert done.card["uncertainty"] == {
        **{"references": 36, "calibrated": 18, "calibrated_sets": 18, "unseen": True, "optimistic": False},
    }
    assert [one["n"] for one in done.card["coverage"]] == [18, 18, 18]
    val = predict(original / "images" / "val", run=done)
    ranks = [round(19 * item.familiarity) for item in val]
    lowest, highest = sum(range(1, 19)), sum(range(2, 20))  # rounding decides whether an image is as unusual as itself
    assert lowest - 2 <= sum(ranks) <= highest + 2


def test_a_significant_gain_on_validation_makes_it_the_default_run(tuned):
    run, done = tuned.head, tuned.run
    validation = done.card["validation"]
    gained = done.card["curves"][done.card["best_epoch"]]["val_accuracy"] - done.card["curves"][0]["val_accuracy"]
    assert done.score == pytest.approx(min(1, run.cv_accuracy + gained))
    test = validation["against_start"]
    assert test["only_a"] - test["only_b"] == round(gained * validation["n"])
    assert default_run("runs").run.name == (done.name if gained > 0 and test["p_value"] < 0.05 else run.name)
    change_card(done, validation={**validation, "against_start": {"only_a": 9, "only_b": 0, "p_value": 0.004}})
    assert default_run("runs").run.name == done.name


def test_it_records_the_role_of_each_image(tuned, original):
    run, done = tuned.head, tuned.run
    for one, val in ((run, Role.UNUSED), (done, Role.SELECTED)):
        images, dataset = one.images, scan(original / "images", cache=None)
        for split, role in (("train", Role.TRAINED), ("val", val), ("test", Role.HELD_OUT)):
            rows = [row for row, found in enumerate(dataset.splits) if found == split]
            assert set(images.role_of(dataset.digests[rows]).tolist()) == {role}
    judged = {name: int((one.images.right >= 0).sum()) for name, one in (("head", run), ("tuned", done))}
    assert judged == {"head": 54, "tuned": 18}  # out-of-fold and val; val


def test_its_backbone_extracts_features_and_heads_on_them_are_scored_fairly(learned, original):
    done = learned.run
    assert done.card["best_epoch"]
    extracted = extract(original / "images", weights=f"run:{done.name}", engine="torch", precision="fp32")
    assert extracted.store.spec.fingerprint == done.card["fingerprint"]
    assert extracted.store.spec.preprocessing.crop == CROP
    with pytest.warns(BottleneckWarning, match="the cross-validated accuracy is optimistic"):
        head = fit()
    assert head.score <= done.score
    assert head.card["headline"] == "held-out"
    assert head.card["uncertainty"]["unseen"]
    assert head.card["uncertainty"]["calibrated_sets"] == head.card["uncertainty"]["calibrated"] == 18
    with pytest.warns(BottleneckWarning) as caught:
        final = fit(final=True)
    assert any("no validation image is left that it was not trained on" in str(one.message) for one in caught)
    assert final.card["uncertainty"]["optimistic"]
    assert "more images are unfamiliar" in predict(original / "images" / "test", run=final).cautions[-1]
    done.weights.rename(done.path / "moved.safetensors")  # the warning does not hang on the file
    with pytest.warns(BottleneckWarning, match="the cross-validated accuracy is optimistic"):
        fit(head="centroid")
    (done.path / "moved.safetensors").rename(done.weights)
    seen = Seen()
    finetune(recipe=SHORT, run=head.name, watch=seen)
    assert seen.only(Start)[0].agreement.exact


def test_from_weights_with_a_random_layer(home):
    seen = Seen()
    done = finetune(recipe=replace(SHORT, unfreeze=("all",)), begin="weights", watch=seen)
    (outline,) = seen.only(Outline)
    assert outline.boundary is None
    assert done.card["from"] == {**done.card["from"], "run": None, "head": "random"}
    assert done.score == done.card["curves"][done.card["best_epoch"]]["val_accuracy"]


def test_activations_are_computed_once_and_damage_is_quarantined(tuned):
    seen = Seen()
    finetune(recipe=replace(SHORT, lr=0.02), run=tuned.head.name, watch=seen)
    (first,), (second,) = tuned.seen.only(Outline), seen.only(Outline)
    assert first.missing == first.bytes > 0
    assert second.missing == 0
    stores = FeatureCache("cache").activations().stores()
    assert len(stores) == 3  # two views, and the images as they are
    assert {store.spec.layer for store in stores} == {"layer3"}
    shard = stores[0].shards()[0]
    shard.chmod(0o644)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.warns(BottleneckWarning, match="quarantine"):
        finetune(recipe=SHORT, run=tuned.head.name, watch=seen)
    assert 0 < seen.only(Outline)[-1].missing < first.bytes


@pytest.mark.filterwarnings("ignore:.* near (cop|duplicate)")  # random features may be alike
def test_activations_too_small_for_float16_keep_the_validation_accuracy(home, original):
    for channels in (slice(None), slice(0, 90)):  # all of 96, and most of them
        network = timm.create_model("test_resnet")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network.init_weights()
        block = network.layer4[0]
        for norm in (block.bn2, block.downsample[2]):
            for tensor in (norm.weight.data, norm.bias.data):
                tensor[channels] *= 1e-9
        name = f"small-{channels.start}.pth"
        torch.save(network.state_dict(), name)
        extract(original / "images", model=MODEL, weights=name, resize=CROP, crop=CROP, engine="torch",
                precision="fp32")  # fmt: skip
        run = fit(head="logistic", C=1.0)
        seen = Seen()
        done = finetune(recipe=Recipe(last=0, epochs=1, views=1, augment="none"), run=run.name, watch=seen)

        (outline,) = seen.only(Outline)
        assert (outline.wide, outline.precision) == (True, "fp32")
        assert outline.bytes == (36 + 18) * (4 * outline.boundary.size + 32)
        assert done.card["from"]["run"] == run.name
        store = FeatureCache("cache").find(run.card["fingerprint"])
        rows = run.head.probabilities(store.read(outline.context.partition.val.digests))
        right = [run.head.classes[code] for code in rows.argmax(axis=1)]
        wanted = sum(label == guess for label, guess in zip(outline.context.partition.val.labels, right, strict=True))
        assert seen.only(Epoch)[0].val_accuracy == wanted / len(right), channels


def test_missing_files_are_an_error(home, original):
    copy = home / "images"
    shutil.copytree(original / "images", copy)
    shutil.rmtree(home / "runs")
    fitted(home, copy, "centroid")
    shutil.rmtree(copy)
    with (
        pytest.raises(TuningError, match=r"images/.*: No such file or directory. Put it back"),
        pytest.warns(BottleneckWarning, match="does not exist: using the features of its last scan"),
    ):
        finetune(recipe=SHORT)


@pytest.mark.filterwarnings("ignore:.* near duplicate")  # random features may be alike
def test_compare_lists_it_with_its_own_head(learned):
    run, done = learned.head, learned.run
    found = compare(models=[run.card["model"] + "@none", f"run:{done.name}"], heads=["centroid"], learning_curve=True)
    tuned = next(row for row in found.rows if row.model == f"run:{done.name}")
    assert (tuned.head, tuned.cv_spread, tuned.cv_accuracy) == ("finetuned", None, done.score)
    assert tuned.accuracy == done.metrics["accuracy"]
    assert {row.verdict for row in found.rows} <= {"best", "not told apart", "worse", "better"}
    assert len(found.rows) == 2


def test_compare_refuses_a_run_on_other_splits(tuned, original):
    done = tuned.run
    fewer = scan(original / "images").subset(range(40))
    with pytest.raises(HeadError, match="fine-tuned on other images, labels or splits"):
        compare(fewer, models=[f"run:{done.name}"])


def test_a_kept_hand_back_requests_the_original_network(unsure, original):
    run = unsure
    done = finetune(recipe=replace(SHORT, lr=0.05, clip=1e3, augment="none"))
    assert done.card["best_epoch"] == 0
    assert not done.card["own_weights"]
    assert done.card["fingerprint"] == run.card["fingerprint"]
    predict(original / "images" / "test", run=done)
    extract(original / "images", weights=f"run:{done.name}", engine="torch", precision="fp32")
    assert FeatureCache("cache").stores()[0].asked().weights == "none"
    assert fit(head="centroid").score == pytest.approx(fit(head="centroid").cv_accuracy)  # and no warning


def test_a_memory_of_0_is_respected(home):
    whole = finetune(recipe=LEARNS, begin="weights", memory=0, watch=copy_at_epoch_1)
    resumed = finetune(resume="killed")
    assert resumed.card["curves"][2]["train_loss"] == whole.card["curves"][2]["train_loss"]
