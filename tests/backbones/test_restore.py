import pytest
import torch
import torchvision
from torch import Tensor, nn

from bottleneck.backbones.restore import Restored, match, restore
from bottleneck.backbones.weights import Checkpoint, tensors_digest
from bottleneck.errors import ModelError, WeightsMismatch
from tests.variants import each

Tensors = dict[str, Tensor]


class Net(nn.Module):
    """A backbone of two convolutions, with or without its classifier."""

    def __init__(self, classifier: bool = False, blocks: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, bias=False)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)) for _ in range(blocks)))
        self.scale = nn.Parameter(torch.rand(()))
        self.fc = nn.Linear(4, 5) if classifier else nn.Identity()


class Indexed(nn.Module):
    """A layer and a buffer of whole numbers, as relative positions are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("index", torch.arange(4))


def network(seed: int = 1, **options: int) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = Net(**options)
        torch.manual_seed(seed)  # the rest of the network does not depend on its classifier
        for value in built.state_dict().values():
            if value.is_floating_point():
                value.normal_()  # those of a norm too, else any two networks would have them alike
    return built


def tensors(seed: int = 2, **options: int) -> Tensors:
    return {name: value.clone() for name, value in network(seed, **options).state_dict().items()}


def without_counters(names: Tensors) -> tuple[str, ...]:
    return tuple(name for name in names if not name.endswith("num_batches_tracked"))


def checkpoint(found: Tensors, *remarks: str) -> Checkpoint:
    return Checkpoint("w.pth", found, remarks)


def prefixed(prefix: str, found: Tensors) -> Tensors:
    return {f"{prefix}{name}": value for name, value in found.items()}


def refused(target: nn.Module, found: Tensors, **options: object) -> WeightsMismatch:
    """Return the error, of a restoration that must fail and leave the network as it was."""
    before = tensors_digest(target)
    with pytest.raises(WeightsMismatch) as error:
        restore(target, checkpoint(found), **options)
    assert tensors_digest(target) == before
    return error.value


WANTED = without_counters(tensors())
FC = ("fc.weight", "fc.bias")


# All of it


def test_all_tensors_are_restored():
    target = network()

    found = restore(target, checkpoint(tensors()))

    assert tensors_digest(target) == tensors_digest(network(2))
    assert found == Restored(
        source="w.pth",
        remarks=(),
        restored=WANTED,
        excluded=(),
        missing=(),
        misshapen={},
        unexpected=(),
        unneeded=(),
    )


def test_matching_changes_nothing_and_gives_what_to_copy():
    target = network()

    found, chosen = match(target, checkpoint(tensors()))

    assert tensors_digest(target) == tensors_digest(network())
    assert found.complete
    assert tuple(chosen) == WANTED
    assert all(torch.equal(value, tensors()[name]) for name, value in chosen.items())


def test_the_classifier_of_the_network_is_not_needed_once_it_is_cut_off():
    target = network()

    found = restore(target, checkpoint(tensors(classifier=True)), known=tensors(classifier=True))

    assert found.complete
    assert found.unneeded == FC
    assert tensors_digest(target) == tensors_digest(network(2))


@each(
    "names",
    [
        ("classifier.weight", "classifier.bias"),
        ("head.fc.weight", "head.fc.bias"),
        ("classifier.6.weight", "classifier.6.bias"),
        ("logits.weight",),
    ],
)
def test_a_classifier_of_another_name_and_width_is_not_needed(names):
    target = network()
    head = {name: torch.ones(1000, 4) if name.endswith("weight") else torch.ones(1000) for name in names}

    found = restore(target, checkpoint({**tensors(), **head}), known=tensors(classifier=True))

    assert found.complete
    assert found.unneeded == names
    assert tensors_digest(target) == tensors_digest(network(2))


def test_two_classifiers_are_not_needed_either():
    heads = {"head.weight": torch.ones(9, 4), "head_dist.weight": torch.ones(9, 4), "head_dist.bias": torch.ones(9)}

    assert restore(network(), checkpoint({**tensors(), **heads})).unneeded == tuple(heads)


def test_a_new_classifier_next_to_that_of_the_network_is_not_needed():
    old, new = ("head.old.weight", "head.old.bias"), ("head.new.weight", "head.new.bias")
    heads = {name: torch.ones(9, 4) if name.endswith("weight") else torch.ones(9) for name in (*old, *new)}

    found = restore(network(), checkpoint({**tensors(), **heads}), known=old)

    assert found.complete
    assert found.unneeded == (*old, *new)


@each(
    "extra",
    [
        {"neck.weight": torch.ones(4, 4, 1, 1)},
        {"neck.0.weight": torch.ones(4, 4), "neck.1.weight": torch.ones(4, 4)},
        {"neck.weight": torch.ones(4, 4), "neck.scale": torch.ones(4)},
        {"neck.fc.weight": torch.ones(4, 4), "neck.norm.bias": torch.ones(4)},
        {"neck.bias": torch.ones(4)},
        {"positions": torch.ones(4, 4)},
        {"neck.running_mean": torch.ones(4)},
    ],
    ids=lambda extra: " ".join(extra),
)
def test_what_is_not_a_classifier_is_unexpected(extra):
    error = refused(network(), {**tensors(), **extra})

    assert error.found.unexpected == tuple(extra)
    assert error.found.unneeded == ()
    assert f"{len(extra)} unexpected: {', '.join(extra)}" in str(error)


def test_a_classifier_inside_a_module_of_the_network_is_unexpected():
    extra = {"blocks.9.weight": torch.ones(4, 4), "blocks.10.weight": torch.ones(4, 4)}

    assert refused(network(), {**tensors(), **extra}).found.unexpected == tuple(extra)


@each("where", ["step", "blocks.step"])
def test_a_single_number_too_many_is_not_needed(where):
    found = restore(network(), checkpoint({**tensors(), where: torch.tensor(3.0)}))

    assert found.complete
    assert found.unneeded == (where,)


def test_a_single_number_of_the_network_is_restored():
    target = network()
    restore(target, checkpoint(tensors()))

    assert target.scale.item() == network(2).scale.item() != network().scale.item()


def test_a_single_number_of_the_network_may_not_be_missing():
    found = tensors()
    del found["scale"]

    assert refused(network(), found).found.missing == ("scale",)


@each("name", ["blocks.0.1.num_batches_tracked", "head.num_batches_tracked"])
def test_counters_are_neither_wanted_nor_unexpected(name):
    target, found = network(), tensors()
    del found["blocks.1.1.num_batches_tracked"]
    found[name] = torch.tensor(77)

    assert restore(target, checkpoint(found)).restored == WANTED
    assert restore(target, checkpoint(found)).unneeded == ()
    assert target.state_dict()["blocks.0.1.num_batches_tracked"] == 0


@each("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_precision_are_converted(dtype):
    target = network()
    restore(target, checkpoint({name: value.to(dtype) for name, value in tensors().items()}))

    assert target.stem.weight.dtype == torch.float32
    assert torch.equal(target.stem.weight, tensors()["stem.weight"].to(dtype).float())


def test_integers_for_floats_do_not_fit():
    wrong = tensors()["stem.weight"].to(torch.int8)

    error = refused(network(), {**tensors(), "stem.weight": wrong})

    assert list(error.found.misshapen) == ["stem.weight"]


def test_floats_for_integers_do_not_fit():
    target = Indexed()

    error = refused(target, {**target.state_dict(), "index": torch.zeros(4)})

    assert list(error.found.misshapen) == ["index"]
    assert error.found.restored == ("layer.weight", "layer.bias")


def test_integers_are_restored():
    target = Indexed()
    restore(target, checkpoint({**target.state_dict(), "index": torch.tensor([4, 3, 2, 1], dtype=torch.int32)}))

    assert target.index.tolist() == [4, 3, 2, 1]


# Not all of it


def test_a_wrong_shape_is_named_with_both_and_leaves_the_network_unchanged():
    error = refused(network(), {**tensors(), "blocks.0.0.weight": torch.ones(4, 7, 1, 1)})

    assert "1 of another shape: blocks.0.0.weight (expected (4, 4, 1, 1), found (4, 7, 1, 1))" in str(error)
    assert "which needs 14 tensors: 1 of another shape" in str(error)
    assert "unexpected" not in str(error)
    assert error.found.misshapen == {"blocks.0.0.weight": ((4, 4, 1, 1), (4, 7, 1, 1))}
    assert error.found.restored == tuple(name for name in WANTED if name != "blocks.0.0.weight")
    assert not error.found.complete


def test_missing_tensors_are_named():
    found = tensors()
    del found["blocks.1.0.bias"], found["blocks.1.1.running_var"]

    error = refused(network(), found)

    assert "the network, which needs 14 tensors: 2 missing: blocks.1.0.bias, blocks.1.1.running_var. " in str(error)
    assert error.found.missing == ("blocks.1.0.bias", "blocks.1.1.running_var")


def test_a_classifier_that_the_network_still_has_must_be_there():
    assert refused(network(classifier=True), tensors()).found.missing == FC


def test_a_classifier_of_another_width_does_not_fit():
    wrong = {**tensors(classifier=True), "fc.weight": torch.ones(9, 4), "fc.bias": torch.ones(9)}

    assert refused(network(classifier=True), wrong).found.misshapen == {
        "fc.weight": ((5, 4), (9, 4)),
        "fc.bias": ((5,), (9,)),
    }


def test_the_first_four_of_many_tensors_are_named():
    error = refused(network(), {"stem.weight": tensors()["stem.weight"]})

    first = "blocks.0.0.weight, blocks.0.0.bias, blocks.0.1.weight and 9 more"
    assert f"13 missing: scale, {first}" in str(error)


def test_the_tensors_of_a_deeper_network_do_not_fit():
    deeper = tensors(blocks=3)

    error = refused(network(), deeper)

    assert error.found.restored == WANTED
    assert error.found.unexpected == tuple(name for name in without_counters(deeper) if name.startswith("blocks.2"))
    assert "6 unexpected: blocks.2.0.weight, " in str(error)


def test_a_deeper_residual_network_does_not_fit():
    with torch.device("meta"):
        target, deeper = (torchvision.models.get_model(f"resnet{depth}") for depth in (18, 34))
    known = tuple(target.state_dict())
    target.fc = nn.Identity()

    found, _ = match(target, checkpoint(dict(deeper.state_dict())), known=known)

    assert (found.missing, found.misshapen) == ((), {})
    assert not found.complete
    assert {name[:8] for name in found.unexpected} == {
        "layer1.2", "layer2.2", "layer2.3", "layer3.2", "layer3.3", "layer3.4", "layer3.5", "layer4.2"
    }  # fmt: skip
    assert found.unneeded == FC


def test_the_tensors_of_a_residual_network_fit_it():
    with torch.device("meta"):
        target = torchvision.models.resnet18()
    known = tuple(target.state_dict())
    found = checkpoint(dict(target.state_dict()))
    target.fc = nn.Identity()

    assert match(target, found, known=known)[0].complete


def test_what_fits_is_taken_when_a_part_is_enough():
    target, found = network(), {**tensors(), "stem.weight": torch.ones(4, 1, 3, 3), "neck.bias": torch.ones(1)}
    del found["blocks.0.1.running_mean"]

    done = restore(target, checkpoint(found), allow_partial=True)

    assert (done.missing, list(done.misshapen)) == (("blocks.0.1.running_mean",), ["stem.weight"])
    assert done.unexpected == ("neck.bias",)
    assert (len(done.restored), done.wanted, done.complete) == (12, 14, False)
    for name in WANTED:
        wanted = tensors()[name] if name in done.restored else network().state_dict()[name]
        assert torch.equal(target.state_dict()[name], wanted), name


@each("allow_partial", [False, True])
def test_a_checkpoint_without_any_fitting_tensor_is_refused(allow_partial):
    error = refused(network(), {"other.weight": torch.ones(2, 2)}, allow_partial=allow_partial)

    assert error.found.restored == ()
    assert not allow_partial or "they contain no tensor of the network" in str(error)


# Left out


@each(
    "patterns, excluded",
    [
        (["stem.weight"], ["stem.weight"]),
        (["stem"], ["stem.weight"]),
        (["stem."], ["stem.weight"]),
        (["blocks.1.0"], ["blocks.1.0.weight", "blocks.1.0.bias"]),
        (["blocks.*.bias"], [f"blocks.{block}.{layer}.bias" for block in (0, 1) for layer in (0, 1)]),
        (["blocks.?.0.bias"], ["blocks.0.0.bias", "blocks.1.0.bias"]),
        (["blocks.[1-9].0.bias"], ["blocks.1.0.bias"]),
        (["scale", "stem"], ["scale", "stem.weight"]),
        (["*.running_*", "scale"], ["scale", *(name for name in WANTED if "running" in name)]),
    ],
)
def test_what_is_excluded_stays_unchanged(patterns, excluded):
    target = network()

    found = restore(target, checkpoint(tensors()), exclude=patterns)

    assert sorted(found.excluded) == sorted(excluded)
    assert found.complete
    assert found.wanted == len(WANTED)
    for name in WANTED:
        wanted = network().state_dict()[name] if name in excluded else tensors()[name]
        assert torch.equal(target.state_dict()[name], wanted), name


@each("wrong", [None, torch.ones(4, 7, 3, 3)])
def test_what_is_excluded_need_not_fit(wrong):
    found = {**tensors(), "stem.weight": wrong}
    if wrong is None:
        del found["stem.weight"]

    assert restore(network(), checkpoint(found), exclude=["stem"]).complete


def test_tensors_of_the_checkpoint_can_be_excluded():
    found = {**tensors(), "neck.weight": torch.ones(4, 4, 1, 1), "neck.bias": torch.ones(4)}

    done = restore(network(), checkpoint(found), exclude=["neck"])

    assert done.complete
    assert done.restored == WANTED
    assert done.excluded == done.unexpected == done.unneeded == ()


@each(
    "pattern, hint",
    [
        ("stm", "did you mean stem"),
        ("blocks.0.0.wieght", r"did you mean blocks\.0\.0\.weight"),
        ("ste", "did you mean stem"),
        ("tem", "did you mean stem"),
        ("STEM", r"found none\.?$"),
        ("zzz*", r"found none\.?$"),
    ],
)
def test_a_pattern_that_fits_nothing_is_refused_with_the_nearest(pattern, hint):
    target = network()
    with pytest.raises(ModelError, match=hint) as error:
        restore(target, checkpoint(tensors()), exclude=["scale", pattern])

    assert f"match --restore-exclude {pattern!r}, found none" in str(error.value)
    assert tensors_digest(target) == tensors_digest(network())


# Other names


@each("prefix", ["module.", "model.", "encoder.backbone.", "module.encoder.", "_orig_mod.", "a.b.c."])
def test_a_prefix_is_dropped_and_reported(prefix):
    target = network()

    found = restore(target, checkpoint(prefixed(prefix, tensors()), "taken from 'state_dict'"))

    assert tensors_digest(target) == tensors_digest(network(2))
    assert found.remarks == ("taken from 'state_dict'", f"prefix {prefix!r} dropped")
    assert found.restored == WANTED
    assert found.unneeded == ()


def test_what_is_outside_of_a_prefix_is_not_needed():
    outside = {"head.weight": torch.ones(9, 4), "projector.0.weight": torch.ones(3, 3, 3), "queue": torch.ones(8, 4)}

    found = restore(network(), checkpoint({**prefixed("backbone.", tensors()), **outside}))

    assert found.complete
    assert found.unneeded == tuple(outside)


def test_what_is_inside_of_a_prefix_must_fit():
    extra = {"encoder.neck.weight": torch.ones(4, 4, 1, 1)}

    error = refused(network(), {**prefixed("encoder.", tensors()), **extra})

    assert error.found.unexpected == ("neck.weight",)


def test_a_classifier_inside_of_a_prefix_is_not_needed():
    found = restore(network(), checkpoint(prefixed("module.", tensors(classifier=True))), known=FC)

    assert found.unneeded == FC


@each("lacking", ["stem.weight", "scale", "blocks.1.1.bias"])
def test_a_prefix_is_dropped_from_a_checkpoint_that_does_not_fit(lacking):
    found = prefixed("module.", tensors())
    del found[f"module.{lacking}"]

    error = refused(network(), found)

    assert error.found.missing == (lacking,)
    assert error.found.remarks == ("prefix 'module.' dropped",)


def test_the_prefix_that_fits_better_is_dropped():
    part = {"student.stem.weight": torch.ones(4, 3, 3, 3), "student.scale": torch.ones(())}
    target = network()

    found = restore(target, checkpoint({**prefixed("teacher.", tensors()), **part}))

    assert found.remarks == ("prefix 'teacher.' dropped",)
    assert found.unneeded == tuple(part)
    assert tensors_digest(target) == tensors_digest(network(2))


def test_names_that_fit_as_they_are_keep_a_prefix_that_fits_too():
    target = network()

    error = refused(target, {**tensors(), **prefixed("ema.", tensors(3))})

    assert error.found.remarks == ()
    assert error.found.unneeded == ("ema.scale",)
    assert set(error.found.unexpected) == set(prefixed("ema.", dict.fromkeys(WANTED))) - {"ema.scale"}


@each("part", [["stem.weight"], WANTED[1:]])
def test_names_that_fit_as_they_are_are_not_given_up_for_a_prefix(part):
    found = tensors()
    del found["stem.weight"]

    error = refused(network(), {**found, **prefixed("ema.", {name: tensors(3)[name] for name in part})})

    assert error.found.missing == ("stem.weight",)
    assert error.found.remarks == ()


@each("prefixes", [("student.", "teacher."), ("model.a.", "model.b.")])
def test_two_prefixes_that_fit_alike_are_refused(prefixes):
    one, other = prefixes
    target = network()
    with pytest.raises(ModelError, match=f"several networks that fit, under the prefixes {one} and {other}:"):
        restore(target, checkpoint({**prefixed(other, tensors()), **prefixed(one, tensors(3))}))

    assert tensors_digest(target) == tensors_digest(network())


def stem_for_first(found: Tensors) -> Tensors:
    """Undo what another framework did to the names."""
    return {"stem.weight" if name == "first.weight" else name: value for name, value in found.items()}


@each("prefix", ["", "module."])
def test_names_of_other_forms_are_changed_by_the_rule_of_the_network(prefix):
    target = network()
    other = {"first.weight" if name == "stem.weight" else name: value for name, value in tensors().items()}

    restore(target, checkpoint(prefixed(prefix, other)), rename=stem_for_first)

    assert tensors_digest(target) == tensors_digest(network(2))


@each("prefix", ["", "module."])
def test_the_rule_is_not_used_where_the_names_fit(prefix):
    def never(found: Tensors) -> Tensors:
        if prefix and any(name.startswith(prefix) for name in found):
            return found  # the names do not fit yet
        raise AssertionError("this ran")

    assert restore(network(), checkpoint(prefixed(prefix, tensors())), rename=never).complete


# What is said


def test_a_line_summarises_what_was_restored():
    whole = restore(network(), checkpoint(tensors(), "taken from 'model'"))

    assert whole.summary() == "w.pth: 14 of 14 tensors restored; taken from 'model'"


def test_the_line_names_what_is_not_restored():
    found = Restored(
        source="w.pth",
        remarks=("prefix 'module.' dropped",),
        restored=("a",),
        excluded=("b",),
        missing=("c1", "c2"),
        misshapen={"d": ((1,), (2,))},
        unexpected=("e1", "e2", "e3", "e4", "e5"),
        unneeded=("f", "g", "h", "i"),
    )

    assert found.summary() == (
        "w.pth: 1 of 5 tensors restored; prefix 'module.' dropped; 1 excluded: b; 2 missing: c1, c2; "
        "1 of another shape: d; 5 unexpected: e1, e2, e3, e4 and 1 more; 4 not needed: f, g, h, i"
    )


@each(
    "change, complete, wanted",
    [
        ({}, True, 1),
        ({"excluded": ("b", "c")}, True, 3),
        ({"unneeded": ("b",)}, True, 1),
        ({"unexpected": ("b",)}, False, 1),
        ({"missing": ("b", "c")}, False, 3),
        ({"misshapen": {"b": ((1,), (2,))}}, False, 2),
    ],
)
def test_complete_means_that_no_tensor_is_missing_or_unexpected(change, complete, wanted):
    nothing = dict.fromkeys(("remarks", "excluded", "missing", "unexpected", "unneeded"), ())
    found = Restored(**{"source": "w.pth", "restored": ("a",), "misshapen": {}, **nothing, **change})

    assert (found.complete, found.wanted) == (complete, wanted)


def test_the_error_is_a_model_error_that_says_what_to_do():
    error = refused(network(), {**tensors(), "stem.weight": torch.ones(1)})

    assert isinstance(error, ModelError)
    assert isinstance(error.found, Restored)
    assert error.found.source == "w.pth"
    for word in (
        "w.pth",
        "--restore-exclude NAME",
        "--allow-partial",
        "bottleneck inspect w.pth --against the network",
    ):
        assert word in str(error)
