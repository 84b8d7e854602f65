import pytest
import torch
from torch import Tensor

from bottleneck.backbones.pooling import GEM_POWER, GEM_SMALLEST, OutputLayout, layout_of, pooled
from bottleneck.errors import ModelError
from tests.variants import each

SQUARE, TALL, WIDE = (224, 224), (256, 128), (64, 160)
MAP, LAST, TOKENS = OutputLayout((2, 3)), OutputLayout((1, 2)), OutputLayout((1,))


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_position(output: Tensor, layout: OutputLayout) -> list[Tensor]:
    """Return ``(b, d)`` of each position that counts."""
    if layout == MAP:
        return [output[:, :, row, column] for row in range(output.shape[2]) for column in range(output.shape[3])]
    if layout == LAST:
        return [output[:, row, column] for row in range(output.shape[1]) for column in range(output.shape[2])]
    return [output[:, token] for token in range(layout.prefix, output.shape[1])]


def formula(rows: list[Tensor], pooling: str) -> Tensor:
    if pooling == "avg":
        return sum(rows) / len(rows)
    if pooling == "max":
        return torch.stack(rows).max(0).values
    clamped = [torch.where(row < GEM_SMALLEST, GEM_SMALLEST, row) for row in rows]
    return (sum(row**GEM_POWER for row in clamped) / len(rows)) ** (1 / GEM_POWER)


# Where the positions stand


@each(
    "shape, image, prefix, wanted",
    [
        ((2, 512), SQUARE, 0, OutputLayout(())),
        ((2, 512), SQUARE, 1, OutputLayout(())),
        ((2, 64, 7, 7), SQUARE, 0, MAP),
        ((2, 64, 1, 1), SQUARE, 0, MAP),
        ((2, 7, 7, 64), SQUARE, 0, LAST),
        ((2, 1, 1, 64), SQUARE, 0, LAST),
        ((2, 512, 8, 4), TALL, 0, MAP),
        ((2, 8, 4, 512), TALL, 0, LAST),
        ((2, 512, 2, 5), WIDE, 0, MAP),
        ((2, 2, 5, 512), WIDE, 0, LAST),
        ((2, 49, 96), SQUARE, 0, TOKENS),
        ((2, 50, 96), SQUARE, 1, OutputLayout((1,), 1)),
        ((2, 53, 96), SQUARE, 4, OutputLayout((1,), 4)),
        ((2, 49, 96), SQUARE, 1, TOKENS),
        ((2, 1, 96), SQUARE, 5, TOKENS),
        ((2, 32, 96), TALL, 0, TOKENS),
        ((2, 33, 96), TALL, 1, OutputLayout((1,), 1)),
        ((2, 32, 96), TALL, 1, TOKENS),
        ((2, 41, 96), WIDE, 1, OutputLayout((1,), 1)),
    ],
)
def test_positions_are_distinguished_from_channels(shape, image, prefix, wanted):
    assert layout_of(shape, image, prefix) == wanted


@each("shape", [(2, 512, 15, 7), (2, 512, 16, 8), (2, 512, 9, 4)])
def test_a_map_may_be_one_position_off_the_proportions_of_the_image(shape):
    assert layout_of(shape, (250, 128), 0) == MAP


@each("shape", [(2, 7, 7, 7), (2, 4, 4, 4)])
def test_channels_come_first_in_a_cube(shape):
    assert layout_of(shape, SQUARE, 0) == MAP


@each("prefix", [0, 1, 2])
def test_tokens_that_form_no_grid_are_refused(prefix):
    with pytest.raises(ModelError, match=r"the shape \(2, 40, 96\), in which positions cannot be distinguished"):
        layout_of((2, 40, 96), SQUARE, prefix)


def test_tokens_that_are_last_are_found():
    assert layout_of((2, 96, 49), SQUARE, 0) == OutputLayout((2,))


def test_a_prefix_that_leaves_no_token_is_ignored():
    assert layout_of((2, 1, 96), SQUARE, 1) == TOKENS


@each(
    "shape, image",
    [
        ((2, 64, 7, 8), SQUARE),
        ((2, 64, 1, 7), SQUARE),
        ((2, 64, 4, 8), TALL),
        ((2, 3, 4, 5, 6), SQUARE),
        ((2,), SQUARE),
        ((), SQUARE),
    ],
)
def test_a_shape_without_clear_positions_is_refused(shape, image):
    with pytest.raises(ModelError, match="positions cannot be distinguished from channels") as error:
        layout_of(shape, image, 0)
    assert str(shape) in str(error.value)


# What becomes of them


@each("pooling", ["avg", "max", "gem"])
@each(
    "shape, layout",
    [
        ((3, 5, 4, 4), MAP),
        ((3, 5, 2, 6), MAP),
        ((3, 5, 1, 1), MAP),
        ((3, 4, 4, 5), LAST),
        ((3, 9, 5), TOKENS),
        ((3, 9, 5), OutputLayout((1,), 1)),
        ((3, 9, 5), OutputLayout((1,), 4)),
    ],
)
def test_the_pooled_row_is_that_of_the_formula(pooling, shape, layout):
    output = values(*shape)

    row = pooled(output, layout, pooling)

    assert row.shape == (3, 5)
    assert torch.allclose(row, formula(by_position(output, layout), pooling), rtol=1e-5, atol=1e-7)


def test_the_generalised_mean_of_known_numbers():
    output = torch.tensor([[[[1.0, 2.0], [3.0, -4.0]]]])

    assert pooled(output, MAP, "gem").item() == pytest.approx(((1 + 8 + 27) / 4) ** (1 / 3))


def test_the_generalised_mean_of_nothing_positive_is_its_smallest_value():
    row = pooled(-values(2, 3, 4, 4).abs(), MAP, "gem")

    assert torch.allclose(row, torch.full((2, 3), GEM_SMALLEST), rtol=1e-3, atol=0)


@each("layout", [MAP, LAST, TOKENS, OutputLayout((1,), 1), OutputLayout(())])
def test_no_pooling_keeps_all_values(layout):
    output = values(2, 3, 4, 5) if layout in (MAP, LAST) else values(2, 3, 4)

    assert torch.equal(pooled(output, layout, "none"), output.reshape(2, -1))


@each("pooling", ["avg", "max", "gem", "cls", "none"])
def test_a_row_stays_unchanged(pooling):
    output = values(3, 5)

    assert torch.equal(pooled(output, OutputLayout(()), pooling), output)


@each("prefix", [1, 4])
def test_the_class_token_is_the_first(prefix):
    output = values(2, 9, 5)

    assert torch.equal(pooled(output, OutputLayout((1,), prefix), "cls"), output[:, 0])


@each("pooling", ["avg", "max", "gem"])
def test_tokens_of_the_prefix_do_not_count(pooling):
    output, other = values(2, 9, 5), values(2, 9, 5)
    other[:, :2] = 1000
    changed = other.clone()
    changed[:, 2] = 1000

    assert torch.equal(pooled(output, OutputLayout((1,), 2), pooling), pooled(other, OutputLayout((1,), 2), pooling))
    assert not torch.equal(
        pooled(output, OutputLayout((1,), 2), pooling), pooled(changed, OutputLayout((1,), 2), pooling)
    )


@each("pooling", ["avg", "max", "gem", "none", "cls"])
@each(
    "shape, layout",
    [
        ((2, 5), OutputLayout(())),
        ((2, 5, 4, 4), MAP),
        ((2, 5, 1, 1), MAP),
        ((2, 1, 1, 5), LAST),
        ((2, 1, 5), TOKENS),
        ((2, 9, 5), OutputLayout((1,), 1)),
    ],
)
def test_the_row_is_unaffected_by_work_in_place(pooling, shape, layout):
    output = values(*shape)
    row = pooled(output, layout, pooling)
    before = row.clone()

    output.fill_(7)

    assert torch.equal(row, before)
