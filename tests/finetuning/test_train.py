from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from bottleneck.finetuning import train as train_module
from bottleneck.finetuning.boundary import Tail
from bottleneck.finetuning.config import FineTuneConfig
from bottleneck.finetuning.distributed import Processes
from bottleneck.finetuning.freeze import trainable_plan
from bottleneck.finetuning.history import History
from bottleneck.finetuning.optim import build_optimizer, learning_rate
from bottleneck.finetuning.precision import training_precision
from bottleneck.finetuning.recipe import Recipe
from bottleneck.finetuning.train import LabelledImages, TrainingJob, predict_codes, train, validate
from tests.finetuning.small import context_of, known, small
from tests.variants import each

COUNT, VAL = 22, 9
RECIPE = Recipe(
    unfreeze=("last",), epochs=2, batch_size=4, lr=0.1, weight_decay=0.05, class_weight="balanced",
    label_smoothing=0.1, clip=0.5, schedule="cosine", warmup=0.5, precision="fp32", seed=3,
)  # fmt: skip


class Numbers:
    """A loader of random pixels."""

    def __init__(self, count, seed):
        self.values = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        self.orders = []

    def batches(self, epoch, size, random, share):
        order = np.arange(len(self.values)) if random is None else random.permutation(len(self.values))
        self.orders.append((epoch, order.tolist()))
        for start in range(0, len(order), size):
            rows = order[start : start + size][share]
            yield rows, self.values[torch.from_numpy(rows)]


def job(recipe=RECIPE, network=None, val_codes=None, count=COUNT):
    network = network or small()
    context = context_of(network, recipe)
    context.plan.apply(network)
    random = np.random.default_rng(0)
    codes = random.choice(3, count, p=[0.6, 0.3, 0.1]).astype(np.int64)
    val = random.integers(0, 3, VAL) if val_codes is None else np.array(val_codes, np.int64)
    return TrainingJob(
        context=context,
        tail=Tail(network, None),
        train=LabelledImages(loader=Numbers(count, 1), codes=codes),
        val=LabelledImages(loader=Numbers(len(val), 2), codes=val),
    )


def with_recipe(made, **changes):
    """Return a job with another recipe."""
    config = FineTuneConfig(recipe=replace(made.context.recipe, **changes))
    return replace(made, context=replace(made.context, config=config))


def trained(made, history=None, watch=lambda _: None):
    history = history or History()
    chosen = build_optimizer(made.context.network, made.context.plan, made.context.recipe)
    kept = []
    finite = train(made, chosen, history, lambda now: kept.append(now.last), watch)
    return finite, history, kept


def by_hand(made):
    """Train as anybody would in plain PyTorch; return the mean losses."""
    network, recipe, part = made.context.network, made.context.recipe, made.train
    parameters = [network.parameters_by_name()[name] for name in made.context.plan.parameters]
    decays = [recipe.weight_decay if one.dim() > 1 else 0.0 for one in parameters]
    counts = Counter(part.codes.tolist())
    weights = torch.tensor([COUNT / (len(counts) * counts[code]) for code in range(3)])
    chosen = torch.optim.SGD(
        [{"params": [one], "weight_decay": decay} for one, decay in zip(parameters, decays, strict=True)],
        lr=1.0, momentum=recipe.momentum,
    )  # fmt: skip
    steps, losses = -(-COUNT // recipe.batch_size), []
    for epoch in range(1, recipe.epochs + 1):
        order = np.random.default_rng((recipe.seed, epoch)).permutation(COUNT)
        total = 0.0
        for step in range(steps):
            rows = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            for group in chosen.param_groups:
                group["lr"] = learning_rate(recipe, (epoch - 1) * steps + step, steps)
            network.eval()  # `last` has no dropout, and its batch norms stay
            logits = network(part.loader.values[torch.from_numpy(rows)])
            codes = torch.from_numpy(part.codes[rows])
            each = functional.cross_entropy(
                logits, codes, weight=weights, reduction="none", label_smoothing=recipe.label_smoothing
            )
            chosen.zero_grad()
            each.mean().backward()
            torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
            chosen.step()
            total += each.sum().item()
        losses.append(total / COUNT)
    return losses


def test_it_trains_like_plain_pytorch():
    one, other = job(), job()
    finite, history, kept = trained(one)
    losses = by_hand(other)
    assert finite
    assert kept == [0, 1, 2]
    assert [epoch.train_loss for epoch in history.epochs[1:]] == pytest.approx(losses, rel=1e-5)
    for name, value in other.context.network.state().items():
        torch.testing.assert_close(one.context.network.state()[name], value, rtol=1e-5, atol=1e-6, msg=name)
    before = small().state()
    changed = {name for name, value in one.context.network.state().items() if not torch.equal(value, before[name])}
    assert changed == set(one.context.plan.parameters) == {"last.0.weight", "last.0.bias", "fc.weight", "fc.bias"}


def test_adamw_and_batch_norms_train():
    made = job(replace(RECIPE, optimizer="adamw", train_bn=True, lr=0.01))
    finite, history, _ = trained(made)
    assert finite
    assert history.epochs[2].train_loss < history.epochs[1].train_loss
    before = small().state()
    assert not torch.equal(made.context.network.state()["last.1.running_mean"], before["last.1.running_mean"])
    assert torch.equal(made.context.network.state()["middle.1.running_mean"], before["middle.1.running_mean"])


def test_the_order_depends_only_on_seed_and_epoch():
    one, other = job(), job(replace(RECIPE, seed=4))
    trained(one), trained(other)
    orders = dict(one.train.loader.orders)
    assert sorted(orders[1]) == list(range(COUNT))
    assert orders[1] != orders[2] != dict(other.train.loader.orders)[2]
    assert one.val.loader.orders == [(0, list(range(VAL)))] * 3
    resumed = job(replace(RECIPE))
    history = History()
    history.add(trained(job(replace(RECIPE, epochs=1)))[1].epochs[0], resumed.trained_tensors)
    trained(resumed, history)
    assert dict(resumed.train.loader.orders) == orders


def test_the_random_state_of_the_caller_is_restored():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    trained(job(replace(RECIPE, unfreeze=("middle",))))
    assert torch.equal(torch.rand(3), wanted)


def test_dropout_is_reproducible():
    one, other = (job(replace(RECIPE, unfreeze=("middle",))) for _ in range(2))
    torch.manual_seed(1)
    trained(one)
    torch.manual_seed(2)
    trained(other)
    for name, value in one.context.network.state().items():
        assert torch.equal(value, other.context.network.state()[name]), name


def test_a_last_batch_of_one_image_is_skipped_with_train_bn():
    recipe = replace(RECIPE, train_bn=True, batch_size=7, epochs=1, class_weight=None, lr=1e-12)
    made = job(recipe)  # batches of 7, 7, 7 and 1
    finite, history, _ = trained(made)
    assert finite
    assert made.context.network.state()["last.1.num_batches_tracked"].item() == 3
    shown, order = history.epochs[1], made.train.loader.orders[0][1]
    other = job(recipe)
    other.context.plan.set_modes(other.context.network)
    losses, right = [], 0
    for start in (0, 7, 14):
        rows = order[start : start + 7]
        codes = torch.from_numpy(other.train.codes[rows])
        logits = other.context.network(other.train.loader.values[rows])
        losses.append(functional.cross_entropy(logits, codes, label_smoothing=0.1).item())
        right += int((logits.argmax(1) == codes).sum())
    assert shown.train_loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert shown.train_accuracy == pytest.approx(right / 21)  # of those that were seen


def test_a_loss_of_nan_ends_training_at_once():
    made = job(replace(RECIPE, lr=1e30, clip=None, epochs=5, warmup=0.0))
    seen = []
    finite, history, kept = trained(made, watch=seen.append)
    assert not finite
    assert kept == [0]
    assert [epoch.number for epoch in seen] == [0, 1]
    assert not seen[1].finite
    assert history.best == 0
    assert all(torch.isfinite(value).all() for value in history.best_tensors.values())


# --- validation -------------------------------------------------------------------------------------------------


def test_predictions_are_those_of_the_network_in_eval_mode():
    made, loader = job(), Numbers(150, 5)
    with torch.no_grad():
        made.context.network.head.bias -= made.context.network(loader.values).mean(
            0
        )  # so that several classes are predicted
    made.context.network.train()
    found = predict_codes(made.tail, loader, 150, torch.device("cpu"))
    made.context.network.eval()
    with torch.no_grad():
        wanted = made.context.network(loader.values).argmax(1)
    assert found.tolist() == wanted.tolist()
    assert len(set(found.tolist())) > 1


def test_validation_is_loss_and_accuracy_of_all_images():
    made = job()
    with torch.no_grad():
        logits = made.context.network.eval()(made.val.loader.values)
    codes = torch.from_numpy(made.val.codes)
    loss, accuracy = validate(made)
    assert loss == pytest.approx(functional.cross_entropy(logits, codes).item(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == codes).double().mean().item())


def test_validation_uses_eval_mode():
    made = job(replace(RECIPE, unfreeze=("all",), train_bn=True))
    made.context.network.train()
    assert validate(made) == validate(made)
    assert not any(module.training for module in made.context.network.modules())
    assert made.context.network.state()["last.1.num_batches_tracked"].item() == 0


def test_classes_without_training_images_count_as_errors_and_not_in_the_loss():
    plain = job()
    with torch.no_grad():
        logits = plain.context.network.eval()(plain.val.loader.values)
    codes = logits.argmax(1).numpy()
    codes[:4] = -1
    loss, accuracy = validate(job(val_codes=codes))
    assert accuracy == pytest.approx(5 / 9)
    assert loss == pytest.approx(functional.cross_entropy(logits[4:], torch.from_numpy(codes[4:])).item(), rel=1e-5)
    assert validate(job(val_codes=[-1] * 3)) == (0.0, 0.0)


def test_each_rank_validates_its_share_and_skips_batches_without_an_image():
    class Rank(Processes):
        world_size = 2

        def __init__(self, rank):
            super().__init__(torch.device("cpu"))
            self.rank = rank

    count = 65  # a batch of 64, and one of a single image
    made, sizes = job(val_codes=np.random.default_rng(0).integers(0, 3, count)), []
    made.context.network.trunk.stem.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    whole_loss, whole_accuracy = validate(made)
    ranks = [replace(made, context=replace(made.context, processes=Rank(rank))) for rank in (0, 1)]
    (loss, accuracy), (other_loss, other_accuracy) = (validate(one) for one in ranks)
    assert sizes == [64, 1, 32, 1, 32]
    assert accuracy + other_accuracy == pytest.approx(whole_accuracy)
    assert (33 * loss + 32 * other_loss) / count == pytest.approx(whole_loss)


def test_validation_uses_the_averages():
    made = job(replace(RECIPE, ema=0.5, epochs=1))
    _, history, _ = trained(made)
    assert not torch.equal(history.average["fc.weight"], made.trained_tensors["fc.weight"])
    if history.best == 1:
        assert torch.equal(history.best_tensors["fc.weight"], history.average["fc.weight"])
    made.context.network.set_state(history.average)
    assert validate(made) == (history.epochs[1].val_loss, history.epochs[1].val_accuracy)


# --- the end ----------------------------------------------------------------------------------------------------


@each(
    "accuracies, patience, last",
    [
        ([0.5, 0.4, 0.4, 0.4, 0.9], 2, 2),
        ([0.5, 0.6, 0.5, 0.5, 0.9], 2, 3),
        ([0.5, 0.6, 0.5, 0.7, 0.7, 0.7], 2, 5),
        ([0.5, 0.4, 0.4, 0.4, 0.4], None, 4),
        ([0.5, 0.4, 0.6], 1, 1),
    ],
)
def test_patience_stops_training(monkeypatch, accuracies, patience, last):
    made = job(replace(RECIPE, epochs=len(accuracies) - 1, patience=patience))
    values = iter(accuracies)
    monkeypatch.setattr(train_module, "validate", lambda _: (1.0, next(values)))
    finite, history, _ = trained(made)
    assert finite
    assert history.last == last


def test_patience_continues_after_a_resume(monkeypatch):
    accuracies = [0.5, 0.4, 0.4, 0.4]
    values = iter(accuracies)
    monkeypatch.setattr(train_module, "validate", lambda _: (1.0, next(values)))
    made = job(replace(RECIPE, epochs=1, patience=2))
    _, history, _ = trained(made)
    trained(with_recipe(made, epochs=5), history)
    assert history.last == 2
    trained(with_recipe(made, epochs=5), history)
    assert history.last == 2


@each(
    "model, unfreeze, native, wanted",
    [
        ("resnet18", "layer4", True, "bf16"),
        ("resnet18", "layer4", False, "fp32"),
        ("mobilenet_v3_small", "features.11", True, "fp32"),  # grouped convolutions
        ("mobilenet_v3_small", "features.12", True, "bf16"),  # none in it
        ("timm/vit_tiny_patch16_224", "blocks.11", True, "bf16"),
    ],
)
def test_the_precision_of_auto(model, unfreeze, native, wanted):
    network = known(model, 32)
    recipe = Recipe(unfreeze=(unfreeze,))
    found = trainable_plan(network, recipe, network.trace())
    hardware = {"native": lambda: native}
    assert training_precision(recipe, network, found, torch.device("cpu"), **hardware) == wanted
    for asked in ("fp32", "bf16"):
        assert training_precision(replace(recipe, precision=asked), network, found, torch.device("cpu")) == asked


def test_bf16_is_used_in_steps_and_not_in_validation():
    made = job(replace(RECIPE, precision="bf16", epochs=1))
    seen = []
    made.context.network.trunk.last[0].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    trained(made)
    assert seen[0] == seen[-1] == torch.float32
    assert set(seen[1:-1]) == {torch.bfloat16}
    assert made.context.network.head.weight.dtype == torch.float32
