import pytest
import torch

from bottleneck.backbones.restore import place
from bottleneck.backbones.weights import Checkpoint
from bottleneck.errors import ModelError
from tests.variants import each

WANTED = {
    "stem.weight": torch.zeros(4, 3, 2, 2),
    "pos_embed": torch.zeros(1, 4, 8),
    "block.qkv.weight": torch.zeros(24, 8),
    "block.bias": torch.zeros(8),
}


def checkpoint(tensors: dict[str, torch.Tensor]) -> Checkpoint:
    return Checkpoint("w.pth", tensors)


def doubled(tensors):
    """A rule that resamples whatever is smaller than the network has it."""
    return {name: torch.zeros_like(WANTED[name]) if name in WANTED else value for name, value in tensors.items()}


def joined(tensors):
    """A rule that joins three tensors of another form, and reshapes one."""
    left = {name: value for name, value in tensors.items() if name[:6] not in ("block.", "patch.")}
    if "patch.weight" in tensors:
        left["stem.weight"] = tensors["patch.weight"].reshape(4, 3, 2, 2)
    parts = [tensors[f"block.{part}.weight"] for part in "qkv" if f"block.{part}.weight" in tensors]
    return {**left, "block.qkv.weight": torch.cat(parts), "block.bias": tensors["block.bias"]} if parts else tensors


def test_tensors_that_fit_are_unchanged():
    placed = place(checkpoint(WANTED), WANTED, rename=lambda tensors: {})

    assert placed.tensors == WANTED
    assert (placed.prefix, placed.remarks, placed.outside) == ("", (), ())


def test_other_forms_are_renamed_and_it_is_reported():
    other = {name: WANTED[name] for name in ("pos_embed", "block.bias")}
    other |= {"patch.weight": torch.ones(4, 12), **{f"block.{part}.weight": torch.ones(8, 8) for part in "qkv"}}
    placed = place(checkpoint(other), WANTED, rename=joined)

    assert {name: value.shape for name, value in placed.tensors.items()} == {
        name: value.shape for name, value in WANTED.items()
    }
    assert placed.remarks == ("2 tensors renamed",)


def test_other_forms_behind_a_prefix_are_renamed_too():
    other = {f"module.{name}": WANTED[name] for name in ("pos_embed", "block.bias", "stem.weight")}
    other |= {f"module.block.{part}.weight": torch.ones(8, 8) for part in "qkv"}
    placed = place(checkpoint(other), WANTED, rename=joined)

    assert placed.tensors.keys() == WANTED.keys()
    assert placed.remarks == ("prefix 'module.' dropped", "1 tensor renamed")


@each("resized", [False, True])
@each("name", ["stem.weight", "block.bias"])
def test_values_are_never_interpolated(name, resized):
    other = {**WANTED, name: torch.ones(5)}
    placed = place(checkpoint(other), WANTED, rename=doubled, resized=resized)

    assert placed.tensors[name].shape == (5,)
    assert placed.remarks == ()


def test_position_embeddings_are_interpolated_where_another_size_was_requested():
    other = {**WANTED, "pos_embed": torch.ones(1, 9, 8)}

    assert place(checkpoint(other), WANTED, rename=doubled).tensors["pos_embed"].shape == (1, 9, 8)
    placed = place(checkpoint(other), WANTED, rename=doubled, resized=True)
    assert placed.tensors["pos_embed"].shape == (1, 4, 8)
    assert placed.remarks == ("pos_embed interpolated",)


def test_a_tensor_that_only_interpolation_would_give_is_not_placed():
    other = {name: value for name, value in WANTED.items() if name != "stem.weight"}
    placed = place(checkpoint(other), WANTED, rename=lambda tensors: {**tensors, "stem.weight": torch.ones(4, 3, 2, 2)})

    assert "stem.weight" not in placed.tensors


def test_names_without_the_prefix_are_outside():
    other = {**{f"encoder.{name}": value for name, value in WANTED.items()}, "criterion.weight": torch.ones(1)}
    placed = place(checkpoint(other), WANTED)

    assert (placed.prefix, placed.outside) == ("encoder.", ("criterion.weight",))


def test_no_choice_is_made_between_two_networks():
    other = {f"{prefix}.{name}": value for prefix in ("q", "k") for name, value in WANTED.items()}

    with pytest.raises(ModelError, match=r"several networks that fit, under the prefixes k\. and q\."):
        place(checkpoint(other), WANTED)
