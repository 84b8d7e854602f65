from collections.abc import Callable

import pytest
import torch
from timm.layers import BatchNormAct2d, StdConv2d
from torch import Tensor, nn

from bottleneck.engines.folding import ReversibleChanges, prepared, probe, rounded
from tests.variants import each

SIZE = (28, 28)


def settled(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms statistics and weights of their own, so that leaving one out shows."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for value, least in ((module.running_var, 0.5), (module.running_mean, -0.5)):
                value.copy_(torch.rand(value.shape, generator=generator) + least)
            if module.affine:
                with torch.no_grad():
                    module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
                    module.bias.copy_(torch.rand(module.bias.shape, generator=generator) - 0.5)
    return network.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def same_weights() -> None:
    torch.manual_seed(0)


@pytest.fixture
def network() -> nn.Module:
    return settled(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.BatchNorm2d(8, affine=False),
            nn.Hardswish(),
            nn.Conv2d(8, 12, 1),
            nn.BatchNorm2d(12),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 10),
        )
    )


def state(network: nn.Module) -> dict[str, bytes]:
    """Return all tensors, bit for bit, with their types."""
    return {
        name: str(value.dtype).encode() + value.contiguous().view(torch.uint8).numpy().tobytes()
        if value.ndim
        else str(value).encode()
        for name, value in network.state_dict().items()
    }


def overridden(network: nn.Module) -> list[str]:
    """Return the modules that have a `forward` of their own."""
    return [name for name, module in network.named_modules() if "forward" in vars(module)]


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def cosine(one: Tensor, other: Tensor) -> float:
    return float(nn.functional.cosine_similarity(one.double(), other.double()).min())


CHANGES: dict[str, Callable[[ReversibleChanges], object]] = {
    "fold": lambda changes: changes.fold(probe(SIZE)),
    "round_weights": ReversibleChanges.round_weights,
    "narrow_weights": ReversibleChanges.narrow_weights,
    "add_biases_in_fp32": ReversibleChanges.add_biases_in_fp32,
    "as OpenVINO": lambda changes: (
        changes.fold(probe(SIZE)),
        changes.round_weights(),
        changes.add_biases_in_fp32(),
    ),
    "as torch in bf16": lambda changes: (changes.round_weights(), changes.narrow_weights()),
}


@each("change", CHANGES.values())
def test_every_change_is_undone_bit_for_bit(network, change):
    before, features = state(network), network(images())
    parameters = {name: id(value) for name, value in network.named_parameters()}
    changes = ReversibleChanges(network)
    change(changes)
    assert state(network) != before or overridden(network), "nothing was changed that could be undone"

    changes.undo()

    assert state(network) == before
    assert {name: id(value) for name, value in network.named_parameters()} == parameters
    assert not overridden(network)
    assert torch.equal(network(images()), features)


@each("change", CHANGES.values())
def test_changes_are_undone_after_an_error(network, change):
    before = state(network)

    def fail() -> None:
        with prepared(network) as changes:
            change(changes)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()

    assert state(network) == before
    assert not overridden(network)


def test_folding_is_undone_when_the_folded_network_fails_to_run(network):
    before, runs = state(network), []

    def fail_the_third_time(*_: object) -> None:
        runs.append(1)
        if len(runs) == 3:
            raise RuntimeError("out of memory")

    network.register_forward_pre_hook(fail_the_third_time)

    with pytest.raises(RuntimeError, match="out of memory"), prepared(network) as changes:
        changes.fold(probe(SIZE))

    assert state(network) == before
    assert not overridden(network)


def test_undoing_twice_is_undoing_once(network):
    before = state(network)
    changes = ReversibleChanges(network)
    changes.fold(probe(SIZE))
    changes.undo()
    changes.undo()

    assert state(network) == before


def test_changes_leave_no_hooks(network):
    with prepared(network) as changes:
        changes.fold(probe(SIZE))

        assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


# Folding


def test_a_folded_network_gives_the_same_features(network):
    features = network(images())

    with prepared(network) as changes:
        assert changes.fold(probe(SIZE))
        folded = network(images())

    torch.testing.assert_close(folded, features, rtol=1e-4, atol=1e-5)


def test_a_folded_batch_norm_is_not_computed_any_more(network):
    with prepared(network) as changes:
        changes.fold(probe(SIZE))
        for name in (1, 4, 7):
            network[name].running_mean.fill_(1e6)

        assert overridden(network) == ["1", "4", "7"]
        assert network(images()).abs().max() < 1e3


def test_folding_adds_a_missing_bias(network):
    assert network[0].bias is None

    with prepared(network) as changes:
        changes.fold(probe(SIZE))
        assert network[0].bias.shape == (8,)

    assert network[0].bias is None


def test_the_kernels_are_scaled_by_the_batch_norm(network):
    norm, weight = network[1], network[0].weight.clone()
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()

    with prepared(network) as changes:
        changes.fold(probe(SIZE))

        torch.testing.assert_close(network[0].weight, weight * scale.view(-1, 1, 1, 1))
        torch.testing.assert_close(network[0].bias, norm.bias - norm.running_mean * scale)


class Twice(nn.Module):
    """Runs a convolution twice, but its batch norm once."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, given: Tensor) -> Tensor:
        return (self.norm(self.convolution(given)) + self.convolution(given)).mean((2, 3))


class NormTwice(Twice):
    """Runs a batch norm on a convolution's result, and on something else."""

    def forward(self, given: Tensor) -> Tensor:
        return (self.norm(self.convolution(given)) + self.norm(given)).mean((2, 3))


class Residual(Twice):
    """Uses a convolution's result beside the batch norm too, which hooks do not see."""

    def forward(self, given: Tensor) -> Tensor:
        result = self.convolution(given)
        return (self.norm(result) + 5 * result).mean((2, 3))


class InPlace(Twice):
    """Changes a convolution's result on its way to the batch norm."""

    def forward(self, given: Tensor) -> Tensor:
        return self.norm(nn.functional.relu_(self.convolution(given))).mean((2, 3))


END = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
UNFOLDABLE = {
    "a convolution used twice": Twice,
    "a batch norm used twice": NormTwice,
    "an activation between": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), *END),
    "batch norm first": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), *END),
    "no batch norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *END),
    "a kernel of its own": lambda: nn.Sequential(StdConv2d(3, 4, 3), nn.BatchNorm2d(4), *END),
    "a transposed convolution": lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4), *END),
    "no statistics": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), *END),
    "another norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), *END),
}


@each("make", UNFOLDABLE.values())
def test_what_cannot_be_folded_is_left_unchanged(make):
    network = make().eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(getattr(module, "running_mean", None), Tensor):
            settled(module)
    before, features = state(network), network(images())

    with prepared(network) as changes:
        assert not changes.fold(probe(SIZE))
        assert state(network) == before
        assert not overridden(network)
        assert torch.equal(network(images()), features)


@each("make", [Residual, InPlace])
def test_a_network_that_folding_would_change_stays_unchanged(make):
    network = settled(make())
    before, features = state(network), network(images())
    changes = ReversibleChanges(network)

    assert not changes.fold(probe(SIZE))

    assert state(network) == before
    assert not overridden(network)
    assert torch.equal(network(images()), features)
    changes.undo()
    assert state(network) == before


@each("make", [Twice, NormTwice])
def test_what_is_used_twice_does_not_keep_the_rest_from_being_folded(make):
    network = settled(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), make()))
    features = network(images())

    with prepared(network) as changes:
        assert changes.fold(probe(SIZE))
        assert overridden(network) == ["1"]
        torch.testing.assert_close(network(images()), features, rtol=1e-4, atol=1e-5)


def test_a_batch_norm_in_training_mode_is_not_folded(network):
    network[1].train()

    with prepared(network) as changes:
        changes.fold(probe(SIZE))

        assert overridden(network) == ["4", "7"]


@each("act", [nn.ReLU, nn.SiLU, nn.Identity])
def test_a_batch_norm_of_timm_keeps_its_activation(act):
    network = settled(nn.Sequential(nn.Conv2d(3, 6, 3), BatchNormAct2d(6, act_layer=act), nn.Flatten()))
    features = network(images())

    with prepared(network) as changes:
        assert changes.fold(probe(SIZE))
        assert overridden(network) == ["1"]
        torch.testing.assert_close(network(images()), features, rtol=1e-4, atol=1e-5)

    assert torch.equal(network(images()), features)


def test_folding_adds_no_module_and_no_name(network):
    timms = settled(nn.Sequential(nn.Conv2d(3, 6, 3), BatchNormAct2d(6)))
    for one in (network, timms):
        modules = [name for name, _ in one.named_modules()]
        with prepared(one) as changes:
            changes.fold(probe(SIZE))

            assert [name for name, _ in one.named_modules()] == modules


def test_a_network_whose_features_are_not_finite_stays_unchanged(network):
    network[10].bias.fill_(torch.inf)
    with prepared(network) as changes:
        assert not changes.fold(probe(SIZE))


# Rounding


def bf16_steps(weight: Tensor) -> Tensor:
    """Return how far apart the bfloat16 numbers beside each weight are."""
    nearest = weight.to(torch.bfloat16)
    up = torch.nextafter(nearest, torch.full_like(nearest, torch.inf)).double()
    down = torch.nextafter(nearest, torch.full_like(nearest, -torch.inf)).double()
    return torch.maximum(up - nearest.double(), nearest.double() - down)


def sum_errors(weight: Tensor, found: Tensor) -> Tensor:
    return (found.double() - weight.double()).sum((-2, -1)).abs()


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    differences = torch.randn(16, 8, 3, 3, generator=generator)
    wide = (
        torch.randn(16, 1, 5, 5, generator=generator)
        * 10.0 ** torch.randint(-6, 3, (16, 1, 5, 5), generator=generator).float()
    )
    return {
        "random": torch.randn(16, 8, 3, 3, generator=generator) * 0.1,
        "differences": differences - differences.mean((2, 3), keepdim=True),
        "depthwise": torch.randn(32, 1, 7, 7, generator=generator),
        "one row": torch.randn(8, 8, 1, 5, generator=generator),
        "wide range": wide,
        "tiny": torch.randn(4, 4, 3, 3, generator=generator) * 1e-38,
        "powers of two": 2.0 ** torch.randint(-9, 9, (8, 8, 3, 3), generator=generator).float(),
    }


@each("weight", weights().values())
def test_rounded_weights_are_numbers_of_bfloat16_near_the_weights(weight):
    found = rounded(weight)

    assert found.dtype == torch.float32
    assert found.shape == weight.shape
    assert torch.equal(found.to(torch.bfloat16).float(), found)
    nearest = weight.to(torch.bfloat16).double()
    assert ((found.double() - nearest).abs() <= bf16_steps(weight)).all(), "more than a step from the nearest"
    assert ((found.double() - weight.double()).abs() < bf16_steps(weight)).all() or torch.equal(found, weight)


@each("weight", weights().values())
def test_the_sum_of_no_kernel_is_farther_off_than_by_plain_rounding(weight):
    plain = weight.to(torch.bfloat16).float()

    assert (sum_errors(weight, rounded(weight)) <= sum_errors(weight, plain)).all()


@each("name", ["random", "differences", "depthwise", "one row"])
def test_the_sums_of_kernels_stay_much_nearer_than_by_plain_rounding(name):
    weight = weights()[name]

    found = sum_errors(weight, rounded(weight)).mean()

    assert found < sum_errors(weight, weight.to(torch.bfloat16).float()).mean() / 3


def test_weights_are_changed_as_they_are_in_a_difference_filter():
    # 1.003 lies between 1 and 1.0078: nearest would give 8 x 1 - 8, and all of an even area but 8 x 0.003.
    weight = torch.full((1, 1, 3, 3), 1.003)
    weight[0, 0, 1, 1] = -8 * 1.003

    found = rounded(weight)

    assert abs(float(found.double().sum())) < 0.01
    assert set(found.flatten().tolist()) <= {1.0, 1.0078125, -8.0, -8.0625}


def test_rounding_twice_is_rounding_once():
    for name, weight in weights().items():
        once = rounded(weight)
        assert torch.equal(rounded(once), once), name


def test_what_bfloat16_has_stays():
    weight = torch.randn(8, 8, 3, 3).to(torch.bfloat16).float()

    assert torch.equal(rounded(weight), weight)


@each("value", [0.0, -0.0, 1.0, 2.0**-126])
def test_a_kernel_of_one_value_that_bfloat16_has_stays(value):
    weight = torch.full((2, 2, 3, 3), value)

    assert torch.equal(rounded(weight), weight)


def test_kernels_of_one_pixel_are_rounded_plainly():
    weight = torch.randn(16, 16, 1, 1)

    assert torch.equal(rounded(weight), weight.to(torch.bfloat16).float())


@each("value", [torch.inf, -torch.inf, torch.nan])
def test_weights_that_are_not_finite_are_rounded_plainly(value):
    weight = torch.randn(2, 2, 3, 3)
    weight[0, 0, 0, 0] = value

    torch.testing.assert_close(rounded(weight), weight.to(torch.bfloat16).float(), rtol=0, atol=0, equal_nan=True)


def test_the_largest_weights_stay_finite_if_plain_rounding_keeps_them_finite():
    weight = torch.full((1, 1, 3, 3), 3.3895e38) * torch.linspace(0.99, 1, 9).view(1, 1, 3, 3)
    assert torch.isfinite(weight.to(torch.bfloat16)).all()

    assert torch.isfinite(rounded(weight)).all()


def test_the_weights_that_were_given_are_left_unchanged():
    weight = torch.randn(4, 4, 3, 3)
    before = weight.clone()
    rounded(weight)

    assert torch.equal(weight, before)


# The network with other weights


def test_rounded_weights_leave_features_nearly_the_same(network):
    features = network(images())

    with prepared(network) as changes:
        changes.round_weights()

        for name in (0, 3, 6):
            weight = network[name].weight
            assert torch.equal(weight.to(torch.bfloat16).float(), weight)
        assert 0.9999 < cosine(network(images()), features) < 1


def test_narrow_weights_leave_features_of_autocast_bit_for_bit(network):
    with torch.autocast("cpu", torch.bfloat16):
        features = network(images())

        with prepared(network) as changes:
            changes.narrow_weights()

            assert {network[name].weight.dtype for name in (0, 3, 6, 10)} == {torch.bfloat16}
            assert network[1].weight.dtype == network[3].bias.dtype == torch.float32
            assert torch.equal(network(images()), features)


def test_biases_added_afterwards_leave_features_nearly_the_same(network):
    features = network(images())

    with prepared(network) as changes:
        changes.add_biases_in_fp32()

        assert all(network[name].bias is None for name in (0, 3, 6))
        torch.testing.assert_close(network(images()), features, rtol=1e-5, atol=1e-6)


def test_biases_of_a_folded_network_are_added_afterwards(network):
    features = network(images())

    with prepared(network) as changes:
        changes.fold(probe(SIZE))
        changes.add_biases_in_fp32()

        torch.testing.assert_close(network(images()), features, rtol=1e-4, atol=1e-5)


def test_a_probe_is_the_same_each_time_and_leaves_torchs_generator_alone():
    before = torch.random.get_rng_state()
    one, other = probe((5, 7)), probe((5, 7))

    assert one.shape == (1, 3, 5, 7)
    assert torch.equal(one, other)
    assert one.std() > 0.1
    assert torch.equal(torch.random.get_rng_state(), before)
