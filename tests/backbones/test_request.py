import inspect
import json
import shlex
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from bottleneck import extract
from bottleneck.backbones.request import DEFAULT_MODEL, POOLS, PRECISIONS, Request
from bottleneck.cli.extract import extract as command
from bottleneck.errors import ModelError
from tests.variants import each

CHANGED = {
    "model": "timm/resnet18.a1_in1k",
    "weights": "/data/w.pth",
    "seed": 5,
    "layer": ("layer3", "layer4:input"),
    "pool": "gem",
    "flip": True,
    "resize": 300,
    "crop": 288,
    "restore_exclude": ("fc", "head.*"),
    "allow_partial": True,
    "precision": "bf16",
    "fast_jpeg": True,
}


@each("weights", ["w.pth", "W.PT", "w.safetensors", "folder/weights", "/tmp/x.bin", "~/w"])
def test_a_path_is_known_as_one(weights):
    assert Request(weights=weights).file == Path(weights).expanduser()


@each("weights", ["DEFAULT", "IMAGENET1K_V2", "IMAGENET1K_SWAG_E2E_V1", "none"])
def test_a_name_is_not_a_path(weights):
    assert Request(weights=weights).file is None


@each("weights, random", [("none", True), ("None", True), ("DEFAULT", False), ("n.pth", False)])
def test_none_requests_random_weights(weights, random):
    assert Request(weights=weights).random is random


def test_a_request_can_be_made_again_from_another_folder(tmp_path, monkeypatch):
    value = json.loads(json.dumps(Request(model="resnet18", weights="w.pth", seed=5).to_json()))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert Request(**value) == Request(model="resnet18", weights=str(tmp_path / "w.pth"), seed=5)


def test_the_name_of_weights_is_unchanged_in_json():
    assert Request(weights="DEFAULT").to_json() == {"model": DEFAULT_MODEL, "weights": "DEFAULT", "seed": 0}


def test_a_request_of_an_earlier_version_is_still_read():
    value = json.loads('{"model": "resnet18", "weights": "IMAGENET1K_V1", "seed": 7}')

    assert Request(**value) == Request(model="resnet18", weights="IMAGENET1K_V1", seed=7)
    assert (Request(**value).precision, Request(**value).fast_jpeg) == ("auto", False)


def test_every_field_is_tried():
    assert CHANGED.keys() == {field.name for field in fields(Request)}
    assert not [name for name, value in CHANGED.items() if value == getattr(Request(), name)]


@each("name", CHANGED)
def test_each_field_survives_json(name):
    needed = {"weights": "/data/w.pth"} if name in ("restore_exclude", "allow_partial") else {}
    asked = Request(**{**needed, name: CHANGED[name]})
    value = json.loads(json.dumps(asked.to_json()))

    assert Request(**value) == asked
    assert getattr(Request(**value), name) == CHANGED[name]


def test_all_fields_together_survive_json():
    assert Request(**json.loads(json.dumps(Request(**CHANGED).to_json()))) == Request(**CHANGED)


def test_fields_at_their_default_are_not_in_json():
    assert Request(flip=True).to_json().keys() == {"model", "weights", "seed", "flip"}


def test_options_are_all_fields():
    assert Request(**CHANGED).options() == CHANGED
    assert Request(**Request(**CHANGED).options()) == Request(**CHANGED)


def test_options_are_the_arguments_of_extract():
    arguments = inspect.signature(extract).parameters
    usual = {**Request().options(), "model": None}  # which a fine-tuned run's weights may decide
    assert all(arguments[name].default == value for name, value in usual.items())


def test_lists_become_tuples():
    assert Request(layer=["layer3"], restore_exclude=["fc"], weights="w.pth") == Request(
        layer=("layer3",), restore_exclude=("fc",), weights="w.pth"
    )


@each("pool", POOLS)
def test_every_pooling_can_be_requested(pool):
    assert Request(pool=pool).pool == pool


@each("precision", PRECISIONS)
def test_every_precision_can_be_requested(precision):
    assert Request(precision=precision).precision == precision


@each(
    "options, words",
    [
        ({"precision": "fp64"}, r"expected --precision auto, fp32, bf16, fp16, got 'fp64'"),
        ({"pool": "mean"}, r"expected --pool avg, max, gem, none, cls, got 'mean'"),
        (
            {"layer": ("layer3", "layer4", "layer3")},
            r"expected different layers to concatenate, got layer3, layer4, layer3",
        ),
        ({"resize": 0}, r"--resize and --crop in pixels, got 0 and None"),
        ({"crop": -3}, r"--resize and --crop in pixels, got None and -3"),
        ({"crop": 0, "resize": 256}, r"--resize and --crop in pixels, got 256 and 0"),
        ({"resize": 3 * 10**9}, r"--resize and --crop in pixels, got 3000000000 and None: 1 to 16,384"),
        ({"crop": 16_385}, r"--resize and --crop in pixels, got None and 16385: 1 to 16,384"),
        ({"allow_partial": True}, r"--allow-partial need a weights file.*got 'DEFAULT'"),
        ({"restore_exclude": ("fc",), "weights": "none"}, r"--restore-exclude.*expected --weights PATH.*got 'none'"),
    ],
)
def test_a_request_that_makes_no_sense_is_a_model_error(options, words):
    with pytest.raises(ModelError, match=words):
        Request(**options)


@each("short, full", [("lite0", "efficientnet_lite0"), ("lite2", "efficientnet_lite2")])
def test_a_short_name_is_the_full_one(short, full):
    assert Request(model=short) == Request(model=full)


@each("weights", ["default", "Default", "DEFAULT"])
def test_default_may_be_written_in_any_case(weights):
    assert Request(weights=weights).weights == "DEFAULT"


def test_a_name_is_a_list_of_one_name():
    assert Request(layer="layer3").layer == ("layer3",)
    assert Request(restore_exclude="fc", weights="w.pth").restore_exclude == ("fc",)


@each(
    "asked",
    [
        Request(),
        Request(model="resnet18", weights="none"),
        Request(**CHANGED),
        Request(weights="/a b/it's.pth", seed=1),
    ],
)
def test_the_command_makes_the_same_request(asked):
    context = command.make_context("extract", shlex.split(asked.command()))

    assert Request(**{name: context.params[name] for name in asked.options()}) == asked


def test_the_command_has_no_unnecessary_options():
    assert Request(flip=True, layer=("layer3",)).command() == "--model efficientnet_lite0 --layer layer3 --flip"


@each(
    "given, plain",
    [
        ({"seed": np.int64(3), "flip": np.True_}, {"seed": 3, "flip": True}),
        ({"resize": np.int32(64), "crop": np.array(56)}, {"resize": 64, "crop": 56}),
        ({"layer": np.array(["layer3", "layer4"])}, {"layer": ("layer3", "layer4")}),
        ({"layer": np.str_("layer3"), "pool": np.str_("max")}, {"layer": ("layer3",), "pool": "max"}),
        ({"weights": Path("a/w.pth"), "restore_exclude": ["fc"]}, {"weights": "a/w.pth", "restore_exclude": ("fc",)}),
        (
            {"model": np.str_("lite0"), "precision": np.str_("fp32")},
            {"model": "efficientnet_lite0", "precision": "fp32"},
        ),
        ({"fast_jpeg": np.bool_(False), "seed": 3.0}, {"seed": 3}),
    ],
)
def test_values_of_numpy_and_paths_make_the_same_request(given, plain):
    assert Request(**given) == Request(**plain)
    assert json.loads(json.dumps(Request(**given).to_json())) == json.loads(json.dumps(Request(**plain).to_json()))


@each("wrong", [
        {"seed": True}, {"seed": -1}, {"seed": 0.5}, {"seed": "1"}, {"seed": 2**64}, {"resize": "64"}, {"crop": 64.5},
        {"resize": np.nan}, {"flip": "yes"}, {"flip": None}, {"layer": 4}, {"layer": [b"layer4"]}, {"pool": 1},
        {"model": None}, {"model": Path("resnet18")}, {"weights": None}, {"weights": b"w.pth"}, {"precision": 16},
        {"allow_partial": 2}, {"restore_exclude": {"fc": 1}},
    ])  # fmt: skip
def test_values_of_another_kind_are_refused(wrong):
    with pytest.raises(ModelError, match=r"expected .* to be"):
        Request(**wrong)
