import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torchvision

from bottleneck.backbones import catalogue_maker
from bottleneck.backbones.catalogue import Catalogue, entries, models
from bottleneck.backbones.catalogue_table import COLUMNS, TABLE, ModelEntry, installed, read_table, written_for
from bottleneck.backbones.names import nearest_names
from bottleneck.backbones.published import NotPlain
from bottleneck.backbones.request import Request
from bottleneck.errors import ModelError
from tests.conftest import write
from tests.variants import each

MEASURED = [
    "resnet18",
    "squeezenet1_1",
    "inception_v3",
    "efficientnet_lite0",
    "timm/test_vit",
    "timm/test_resnet",
    "timm/test_efficientnet",
    "timm/test_convnext",
    "timm/test_byobnet",
]


@pytest.fixture(scope="module")
def published() -> list[ModelEntry]:
    """Return what the packages say that they publish."""
    return list(catalogue_maker.published())


def names(pattern: str = "", **options: bool) -> list[str]:
    return [entry.name for entry in models(pattern, **options)]


def only(pattern: str) -> ModelEntry:
    (found,) = [entry for entry in models(pattern) if pattern in (entry.name, f"{entry.name}.{entry.weights}")]
    return found


# --- the table ----------------------------------------------------------------------------------------------------


def test_the_table_can_be_read_and_holds_integers():
    for entry in read_table(TABLE):
        assert entry.name
        assert entry.parameters > 0
        assert entry.dim > 0
        assert min(entry.input_size) >= 32
        assert bool(entry.weights) == bool(entry.file)


def test_every_torchvision_classifier_is_listed_once_for_each_of_its_weights():
    wanted = [
        (name, entry.name)
        for name in torchvision.models.list_models(module=torchvision.models)
        for entry in torchvision.models.get_model_weights(name)
    ]
    found = [(entry.name, entry.weights) for entry in entries() if entry.source == "torchvision"]

    assert sorted(found) == sorted(wanted)


def test_every_timm_model_is_listed_once_for_each_of_its_weights():
    wanted = [f"timm/{name}" for name in timm.list_pretrained()]
    with_weights = {name.partition(".")[0] for name in wanted}
    wanted += [f"timm/{name}." for name in timm.list_models() if f"timm/{name}" not in with_weights]
    found = [f"{entry.name}.{entry.weights}" for entry in entries() if entry.source == "timm"]

    assert sorted(found) == sorted(wanted)


def test_models_are_listed_in_the_published_order_with_the_default_weights_first(published):
    found = [replace(entry, parameters=None, dim=None) for entry in entries()]

    assert found == published
    assert next(entry.weights for entry in found if entry.name == "resnet50") == "IMAGENET1K_V2"


def test_nearly_all_models_have_parameters_and_features():
    lacking = {entry.name for entry in entries() if entry.parameters is None or entry.dim is None}

    assert len(lacking) <= 100, "models of a later version than the table's: `make catalogue` writes it anew"


@each("name", MEASURED)
def test_a_network_has_the_parameters_and_features_that_the_table_lists(name):
    entry = next(entry for entry in entries() if entry.name == name)

    assert catalogue_maker.measured(replace(entry, parameters=None, dim=None)) == entry


def test_what_is_written_can_be_read(published, tmp_path):
    chosen = [entry for entry in published if entry.name in ("resnet18", "timm/test_vit")]
    with open(tmp_path / "table.csv", "w", encoding="ascii") as file:
        catalogue_maker.write(file, chosen)
    found = read_table(tmp_path / "table.csv")

    assert (tmp_path / "table.csv").read_text().splitlines()[1] == ",".join(COLUMNS)
    assert written_for(tmp_path / "table.csv") == installed()
    assert [(entry.name, entry.parameters, entry.dim, entry.input_size) for entry in found] == [
        ("resnet18", 11_689_512, 512, (224, 224)),
        ("timm/test_vit", sum(map(torch.numel, timm.create_model("test_vit").parameters())), 64, (160, 160)),
    ]


# --- without torch, whatever the versions -------------------------------------------------------------------------

OTHERS = Catalogue(versions={"torchvision": "0.20.0", "timm": "99.0"})  # so the sources are read, not the table
REFUSED = [
    (Request(model="resnt18"), "got 'resnt18'; did you mean resnet18"),
    (Request(model="timm/vit_tinny_patch16_224"), "did you mean timm/vit_tiny_patch16_224"),
    (Request(model="resnet18.IMAGENET1K_V1"), "got 'resnet18.IMAGENET1K_V1'; did you mean resnet18"),
    (Request(model="resnet18", weights="IMAGENET1K_V7"), "DEFAULT, IMAGENET1K_V1, none, .*got 'IMAGENET1K_V7'"),
    (Request(model="efficientnet_lite0", weights="V1"), "weights of efficientnet_lite0: DEFAULT, none, .*got 'V1'"),
    (
        Request(model="timm/resnet18.a1_in1x"),
        "of timm/resnet18 in timm, got 'a1_in1x'; did you mean a1_in1k",
    ),
    (Request(model="timm/resnet18", weights="qqqq"), "got 'qqqq'; there are a1_in1k, "),
    (Request(model="timm/resnet18.qqqq", weights="none"), "got 'qqqq'; there are a1_in1k, "),
    (Request(model="timm/test_mambaout", weights="in1k"), "weights of timm/test_mambaout in timm, got 'in1k'"),
]
ACCEPTED = [
    Request(),
    Request(model="lite1", weights="none"),
    Request(model="resnet50", weights="imagenet1k_v1"),
    Request(model="vit_b_16", weights="IMAGENET1K_SWAG_E2E_V1"),
    Request(model="timm/resnet18.tv_in1k"),
    Request(model="timm/resnet18", weights="tv_in1k"),
    Request(model="timm/test_mambaout"),
    Request(model="timm/mnasnet_050.untrained", weights="none"),
]
WITHOUT_TORCH = """
import json, sys
from pathlib import Path
from bottleneck.backbones.catalogue import Catalogue
from bottleneck.backbones.describe import compare, describe
from bottleneck.backbones.published import NotPlain
from bottleneck.backbones.request import Request
from bottleneck.errors import ModelError

def answer(call, *arguments):
    try:
        return call(*arguments) or "accepted"
    except ModelError as error:
        return str(error)

requests = [Request(**value) for value in json.load(sys.stdin)]
for catalogue in (Catalogue(), Catalogue(versions={"torchvision": "0.20.0", "timm": "99.0"})):
    counts = [len(catalogue.models(pattern)) for pattern in ("", "resnet*")]
    here = [entry.is_here for entry in catalogue.models()]
    print(json.dumps([counts, len(here), [answer(catalogue.check, request) for request in requests]]))
print(json.dumps([answer(describe, "resnt18"), answer(compare, Path("x.pth"), "resnt18")]))
print(json.dumps(sorted({"torch", "torchvision", "timm"} & set(sys.modules))))
"""


def test_the_same_is_listed_by_the_table_and_by_the_sources(published):
    with_weights = [entry for entry in published if entry.weights]

    for found in (entries(), OTHERS.entries):
        assert [replace(entry, parameters=None, dim=None) for entry in found if entry.weights] == with_weights


def test_models_are_listed_and_requests_checked_without_torch_for_any_versions():
    requests = [*(request for request, _ in REFUSED), *ACCEPTED]
    script, given = [sys.executable, "-c", WITHOUT_TORCH], json.dumps([request.to_json() for request in requests])
    done = subprocess.run(script, input=given, capture_output=True, text=True, check=True)
    by_table, by_sources, described, imported = map(json.loads, done.stdout.splitlines())

    for (everything, some), here, answers in (by_table, by_sources):
        assert everything == here > some > 0
        for (request, message), answer in zip(REFUSED, answers, strict=False):
            assert re.search(message, answer), (request, answer)
        assert answers[len(REFUSED) :] == ["accepted"] * len(ACCEPTED)
    assert ["did you mean resnet18" in answer for answer in described] == [True, True]
    assert imported == []


def test_the_packages_are_imported_if_their_sources_cannot_be_read():
    def none(package: str) -> Path:
        raise NotPlain("another way")

    found = replace(OTHERS, models_folder=none)

    assert found.entries == entries()
    assert found.names == {entry.name for entry in entries()}
    found.check(Request(model="timm/mnasnet_050.untrained", weights="none"))


# --- another version of the packages ------------------------------------------------------------------------------


def test_a_table_of_other_versions_gives_counts_and_the_installed_packages_give_names(tmp_path):
    text = "# torchvision 0.1 timm 0.2\n" + ",".join(COLUMNS) + "\n"
    text += "resnet18,IMAGENET1K_V1,11689512,224,224,512,resnet18-f37072fd.pth\n"
    text += "gone,IMAGENET1K_V1,7,224,224,512,gone.pth\n"
    short = Catalogue(table=write(tmp_path / "table.csv", text.encode()))
    found = {f"{entry.name}.{entry.weights}": entry for entry in short.entries}

    assert found["resnet18.IMAGENET1K_V1"].parameters == 11_689_512
    assert found["resnet18.IMAGENET1K_V1"].dim == 512
    assert found["squeezenet1_1.IMAGENET1K_V1"] == ModelEntry(
        name="squeezenet1_1",
        weights="IMAGENET1K_V1",
        parameters=None,
        input_size=(224, 224),
        dim=None,
        file="squeezenet1_1-b8a52dc0.pth",
    )
    assert found["timm/test_vit.r160_in1k"].parameters is None
    assert "gone" not in short.names
    with pytest.raises(ModelError):
        short.models("gone")


def test_a_local_version_is_that_version(tmp_path, monkeypatch):
    for name, version in (("torchvision", "0.29.2+cu130"), ("timm", "1.2.3")):
        write(tmp_path / f"{name}-{version}.dist-info" / "METADATA", f"Name: {name}\nVersion: {version}\n".encode())
    monkeypatch.syspath_prepend(tmp_path)

    assert installed() == {"torchvision": "0.29.2", "timm": "1.2.3"}


def test_a_package_that_is_not_installed_has_no_version():
    assert installed(["no-such-package"]) == {"no-such-package": ""}


# --- patterns -----------------------------------------------------------------------------------------------------


def test_without_a_pattern_every_model_is_listed_once():
    assert len(names()) == len(set(names()))
    assert {"efficientnet_lite0", "resnet18", "timm/resnet18"} <= set(names())


def test_the_bundled_come_first_then_torchvisions_then_timms():
    sources = [entry.source for entry in models()]

    assert sources == sorted(sources, key=["bundled", "torchvision", "timm"].index)
    assert sources[0] == "bundled"
    assert sources[-1] == "timm"


def test_a_part_of_a_name_finds_all_that_have_it():
    found = names("resnet18")

    assert {"resnet18", "timm/resnet18", "timm/resnet18d"} <= set(found)
    assert all("resnet18" in name for name in found)


def test_capitals_do_not_matter_in_a_part_of_a_name():
    assert names("ResNet18") == names("resnet18")


@each(
    "pattern, found, left",
    [
        ("resnet1*", {"resnet18", "resnet101", "resnet152"}, {"timm/resnet18", "resnet50"}),
        ("resnet1?", {"resnet18"}, {"resnet101"}),
        ("resnet[13]*", {"resnet18", "resnet34"}, {"resnet50"}),
        ("timm/resnet18*", {"timm/resnet18", "timm/resnet18d"}, {"resnet18"}),
    ],
)
def test_a_pattern_is_for_the_whole_name(pattern, found, left):
    assert found <= set(names(pattern))
    assert not left & set(names(pattern))


def test_a_model_is_listed_with_its_default_weights():
    (found,) = [entry for entry in models("resnet50") if entry.name == "resnet50"]

    assert found.weights == "IMAGENET1K_V2"


@each("pattern", ["resnet50.", "resnet50.*"])
def test_a_pattern_with_a_dot_lists_all_weights_the_default_first(pattern):
    assert [entry.weights for entry in models(pattern) if entry.name == "resnet50"] == [
        "IMAGENET1K_V2",
        "IMAGENET1K_V1",
    ]


def test_all_weights_of_timms_models_are_listed_too():
    found = [entry.weights for entry in models("timm/resnet18.*")]

    assert found[0] == timm.get_pretrained_cfg("resnet18").tag
    assert {f"timm/resnet18.{tag}" for tag in found} == {f"timm/{one}" for one in timm.list_pretrained("resnet18.*")}


def test_a_pattern_can_be_a_single_tag():
    assert (only("timm/resnet18.tv_in1k").name, only("timm/resnet18.tv_in1k").weights) == ("timm/resnet18", "tv_in1k")


@each("pattern", ["resnet50.IMAGENET1K_V1", "resnet50.imagenet1k_v1", "resnet50.*V1"])
def test_torchvisions_weights_can_be_requested_by_their_name(pattern):
    assert [entry.weights for entry in models(pattern) if entry.name == "resnet50"] == ["IMAGENET1K_V1"]


def test_all_weights_can_be_listed_with_a_flag():
    assert [entry.weights for entry in models("resnet50", weights=True) if entry.name == "resnet50"] == [
        "IMAGENET1K_V2",
        "IMAGENET1K_V1",
    ]


@each("misspelt, meant", [("rsnet18", "resnet18"), ("timm/resnet18x", "timm/resnet18d"), ("tset_vit", "timm/test_vit")])
def test_a_pattern_that_finds_nothing_names_the_nearest(misspelt, meant):
    with pytest.raises(ModelError, match=rf"got '{misspelt}'; did you mean .*\b{meant}\b"):
        models(misspelt)


def test_a_pattern_without_similar_names_names_the_command_that_lists_all():
    with pytest.raises(ModelError, match="got 'qqqqzzzz'; `bottleneck models` lists all"):
        models("qqqqzzzz")


@each(
    "asked, nearest",
    [
        ("resnet81", "resnet18"),
        ("RESNET18", "resnet18"),
        ("timm/resnet18", "resnet18"),
        ("resnet18d.ra2_in1k", "timm/resnet18d"),
    ],
)
def test_the_nearest_name_comes_first(asked, nearest):
    assert nearest_names(asked, ["resnet18", "timm/resnet18", "timm/resnet18d", "vgg11"])[0] == nearest


def test_a_name_without_similar_names_has_no_nearest():
    assert nearest_names("qqqqzzzz", ["resnet18", "vgg11"]) == []


# --- what is on this machine --------------------------------------------------------------------------------------


def test_weights_of_torchvision_are_here_once_torch_has_downloaded_them(torch_home):
    assert not only("squeezenet1_1").is_here

    write(torch_home / "squeezenet1_1-b8a52dc0.pth", b"tensors")

    assert only("squeezenet1_1").is_here
    assert not only("squeezenet1_0").is_here


def test_torchs_cache_is_found_without_torch_home_too(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    write(tmp_path / "torch" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth", b"tensors")

    assert only("squeezenet1_1").is_here


def test_only_downloaded_weights_are_here(torch_home):
    write(torch_home / "resnet50-0676ba61.pth", b"tensors")
    found = {entry.weights: entry.is_here for entry in models("resnet50.*") if entry.name == "resnet50"}

    assert found == {"IMAGENET1K_V1": True, "IMAGENET1K_V2": False}


@each("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_of_timm_are_here_when_the_hubs_cache_has_them(hub_cache, name):
    folder = hub_cache / "models--timm--test_vit.r160_in1k"
    write(folder / "refs" / "main", b"c" * 40)
    write(folder / "snapshots" / ("c" * 40) / name, b"tensors")

    assert only("timm/test_vit.r160_in1k").is_here
    assert not only("timm/test_resnet").is_here


def test_a_repository_with_only_its_settings_downloaded_has_no_weights_here(hub_cache):
    folder = hub_cache / "models--timm--test_vit.r160_in1k"
    write(folder / "refs" / "main", b"c" * 40)
    write(folder / "snapshots" / ("c" * 40) / "config.json", b"{}")

    assert not only("timm/test_vit.r160_in1k").is_here


def test_weights_of_a_package_are_here_when_it_is_installed():
    (entry,) = [entry for entry in models("efficientnet_lite0") if entry.source == "bundled"]

    assert entry.is_here
    assert not replace(entry, file="pip no-such-package-of-weights").is_here


def test_unpublished_weights_are_never_here(hub_cache, torch_home):
    write(torch_home / "x", b"")

    assert not only("timm/test_vit_relpos").is_here
