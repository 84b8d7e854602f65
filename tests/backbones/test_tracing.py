import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from bottleneck.backbones.tracing import first_tensor, run, trace
from bottleneck.errors import ModelError
from tests.variants import each

DEVICES = ["cpu", "meta"]


class Net(nn.Module):
    """Calls `shared` three times, `second` before `first`, and `never` not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.second = nn.Conv2d(3, 4, 1)
        self.shared = nn.ReLU()
        self.never = nn.Linear(5, 5)
        self.block = nn.Sequential(nn.Flatten(), nn.Linear(6 * 4 * 4, 2))

    def forward(self, images: Tensor) -> Tensor:
        seen = self.shared(self.second(images))
        return self.shared(self.block(self.shared(self.first(seen))))


class Several(nn.Module):
    """Receives and gives what `kind` says."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, value: object) -> object:
        image = first_tensor(value)
        row = image.mean((2, 3))
        return {
            "tuple": (None, "text", [row, image]),
            "dict": {"row": row},
            "None": None,
            "number": 3.0,
        }[self.kind]


class Attention(nn.Module):
    """Each position is a token."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        tokens = images.mean(1).flatten(1)[:, :, None].repeat(1, 1, 8)
        if self.fused:
            return functional.scaled_dot_product_attention(tokens, tokens, tokens)
        return self.attention(tokens, tokens, tokens)[0]


def images(device: str = "cpu", count: int = 2, size: int = 8) -> Tensor:
    return torch.zeros(count, 3, size, size, device=device)


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


@each("device", DEVICES)
def test_modules_are_in_the_order_in_which_they_are_entered(device):
    calls = trace(Net().to(device), images(device))

    assert list(calls) == ["", "second", "shared", "first", "block", "block.0", "block.1"]
    assert [call.entered for call in calls.values()] == list(range(7))


def test_a_module_that_does_not_run_is_not_listed():
    assert "never" not in trace(Net(), images())


def test_repeated_calls_are_counted():
    calls = trace(Net(), images())

    assert {name: call.calls for name, call in calls.items() if call.calls > 1} == {"shared": 3}


@each("device", DEVICES)
def test_shapes_are_those_of_the_last_call(device):
    calls = trace(Net().to(device), images(device))

    assert {name: (call.inputs, call.outputs) for name, call in calls.items()} == {
        "": ((2, 3, 8, 8), (2, 2)),
        "second": ((2, 3, 8, 8), (2, 4, 8, 8)),
        "shared": ((2, 2), (2, 2)),
        "first": ((2, 4, 8, 8), (2, 6, 4, 4)),
        "block": ((2, 6, 4, 4), (2, 2)),
        "block.0": ((2, 6, 4, 4), (2, 96)),
        "block.1": ((2, 96), (2, 2)),
    }


def test_what_had_been_entered_before_the_last_run_and_after_it():
    calls = trace(Net(), images())

    assert {name: (call.opened, call.closed) for name, call in calls.items()} == {
        "": (0, 7),
        "second": (1, 2),
        "shared": (7, 7),
        "first": (3, 4),
        "block": (4, 7),
        "block.0": (5, 6),
        "block.1": (6, 7),
    }


@each("kind, shape", [("tuple", (2, 3)), ("dict", None), ("None", None), ("number", None)])
def test_the_shape_is_that_of_the_first_tensor(kind, shape):
    calls = trace(Several(kind), images())

    assert calls[""].inputs == (2, 3, 8, 8)
    assert calls[""].outputs == shape


def test_an_input_that_is_a_sequence_counts_with_its_first_tensor():
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Several("tuple")

        def forward(self, given: Tensor) -> object:
            return self.inner([given[:, :, :4, :4], given])

    assert trace(Outer(), images())["inner"].inputs == (2, 3, 4, 4)


@each("device", DEVICES)
@each("count", [1, 2])
def test_multiply_adds_of_convolutions_and_linear_layers(device, count):
    calls = trace(Net().to(device), images(device, count))

    second, first, last = count * 8 * 8 * 4 * 3, count * 4 * 4 * 6 * 4 * 3 * 3, count * 96 * 2
    assert {name: call.macs for name, call in calls.items()} == {
        "": second + first + last,
        "second": second,
        "shared": 0,
        "first": first,
        "block": last,
        "block.0": 0,
        "block.1": last,
    }


@each("device", DEVICES)
def test_multiply_adds_of_a_grouped_convolution(device):
    network = nn.Conv2d(3, 6, (3, 1), groups=3).to(device)

    assert trace(network, images(device, 1))[""].macs == (6 * 8) * 6 * 3


@each("device", DEVICES)
def test_multiply_adds_of_all_calls_of_a_module_count(device):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, given: Tensor) -> Tensor:
            return self.conv(self.conv(given)[:, :, ::2, ::2])

    assert trace(Twice().to(device), images(device, 1))["conv"].macs == (8 * 8 + 4 * 4) * 3 * 3 * 9


@each("device", DEVICES)
def test_multiply_adds_of_attention(device):
    tokens, width = 64, 8
    projections, products = 4 * tokens * width * width, 2 * tokens * tokens * width

    calls = trace(Attention(fused=False).eval().to(device), images(device))

    assert calls["attention"].macs == calls[""].macs == 2 * (projections + products)


@each("device", DEVICES)
def test_multiply_adds_of_fused_attention(device):
    assert trace(Attention(fused=True).eval().to(device), images(device))[""].macs == 2 * 2 * 64 * 64 * 8


HEADS = {  # arguments of attention between 64 tokens in 2 heads of 4 numbers each
    "plain": {},
    "masked": {"attn_mask": torch.zeros(64, 64)},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.5},
    "with a dropout": {"dropout_p": 0.1},
}


@each("device", DEVICES)
@each("dtype", [torch.float32, torch.bfloat16])
@each("kind", HEADS)
def test_multiply_adds_of_attention_are_the_same_for_all_kernels(device, dtype, kind):
    class Heads(nn.Module):
        def forward(self, given: Tensor) -> Tensor:
            tokens = given.to(dtype).mean(1).flatten(1)[:, None, :, None].repeat(1, 2, 1, 4)
            options = {
                name: value.to(device, dtype) if isinstance(value, Tensor) else value
                for name, value in HEADS[kind].items()
            }
            return functional.scaled_dot_product_attention(tokens, tokens, tokens, **options)

    assert trace(Heads(), images(device))[""].macs == 2 * 2 * (2 * 64 * 64 * 4)


@each("device", DEVICES)
@each("weights", [True, False])
def test_multiply_adds_of_multi_head_attention_with_and_without_its_weights(device, weights):
    class Weighed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, given: Tensor) -> Tensor:
            tokens = given.mean(1).flatten(1)[:, :, None].repeat(1, 1, 8)
            return self.attention(tokens, tokens, tokens, need_weights=weights)[0]

    found = trace(Weighed().eval().to(device), images(device))

    assert found[""].macs == 2 * (4 * 64 * 8 * 8 + 2 * 64 * 64 * 8)


def test_the_choice_of_attentions_kernel_is_unchanged():
    flash = torch.backends.cuda.flash_sdp_enabled()
    torch.backends.cuda.enable_flash_sdp(not flash)
    try:
        trace(Net(), images())
        assert torch.backends.cuda.flash_sdp_enabled() is not flash
    finally:
        torch.backends.cuda.enable_flash_sdp(flash)


@each("device", DEVICES)
def test_the_layers_of_a_transformer_run_one_by_one(device):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    network = nn.Sequential(nn.Flatten(2), nn.Linear(64, 8), layer).eval().to(device)

    calls = trace(network, images(device))

    assert calls["2.linear1"].outputs == (2, 3, 16)
    assert calls["2"].macs == 2 * (4 * 3 * 8 * 8 + 2 * 3 * 3 * 8 + 2 * 3 * 8 * 16)


def test_the_fast_path_of_attention_is_unchanged():
    for enabled in (True, False):
        torch.backends.mha.set_fastpath_enabled(enabled)
        try:
            trace(Net(), images())
            assert torch.backends.mha.get_fastpath_enabled() is enabled
        finally:
            torch.backends.mha.set_fastpath_enabled(True)


def test_a_residual_network_without_numbers_has_the_multiply_adds_that_its_authors_give():
    with torch.device("meta"):
        network = torchvision.models.resnet18(weights=None).eval()

    calls = trace(network, images("meta", 1, 224))

    assert calls[""].macs == 1_814_073_344  # "1.8 x 10^9", He et al. 2015, table 1
    assert calls["layer4"].outputs == (1, 512, 7, 7)
    assert calls["layer1.0.relu"].calls == 2


@each(
    "error, reason",
    [
        (AssertionError("Input height (9) doesn't match"), "Input height \\(9\\) doesn't match"),
        (AssertionError(), "AssertionError"),
        (RuntimeError("\n first line \nsecond line"), "first line ?$"),
        (ValueError("x" * 1000), "x{300}$"),
        (KeyError("size"), "'size'"),
    ],
)
def test_images_that_the_network_rejects_are_a_model_error(error, reason):
    class Picky(nn.Module):
        def forward(self, given: Tensor) -> Tensor:
            raise error

    with pytest.raises(ModelError, match=rf"^the network does not accept images of 8 x 9 pixels: {reason}") as caught:
        trace(nn.Sequential(nn.ReLU(), Picky()), torch.zeros(2, 3, 8, 9))

    assert caught.value.__cause__ is error


def test_images_that_are_too_small_are_a_model_error():
    with pytest.raises(ModelError, match=r"the network does not accept images of 2 x 2 pixels: .*[Kk]ernel size"):
        run(nn.Conv2d(3, 3, 5), images(size=2))


def test_running_gives_what_the_network_gives():
    network = nn.Conv2d(3, 2, 1)

    assert torch.equal(run(network, images() + 1), network(images() + 1))


def test_no_hook_stays():
    network = Net()
    trace(network, images())

    assert hooks(network) == 0


def test_no_hook_stays_after_an_error():
    network = Net()

    with pytest.raises(ModelError):
        trace(network, images(size=9))

    assert hooks(network) == 0


def test_hooks_of_others_stay_and_run():
    network, seen = Net(), []
    network.first.register_forward_hook(lambda *_: seen.append("first"))

    trace(network, images())

    assert hooks(network) == 1
    assert seen == ["first"]


def test_weights_stay_as_they_are_and_need_no_gradient_of_the_trace():
    network = Net()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    outputs = []
    network.register_forward_hook(lambda _, __, output: outputs.append(output))

    trace(network, images())

    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not outputs[0].requires_grad


def test_a_second_trace_is_like_the_first():
    network = Net()

    assert trace(network, images()) == trace(network, images())


@each("value", [None, 3, "text", b"bytes", [], (), ["text", [None]], {"a": torch.ones(1)}])
def test_there_may_be_no_tensor(value):
    assert first_tensor(value) is None


def test_the_first_tensor_is_found_at_any_depth():
    one, two = torch.ones(1), torch.ones(2)

    assert first_tensor(two) is two
    assert first_tensor([None, ("text", [], (one, two)), two]) is one
