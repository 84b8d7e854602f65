import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
import torchvision

from bottleneck.backbones import catalogue, catalogue_maker
from bottleneck.backbones.catalogue import COLUMNS, TABLE, Entry, models, nearest_names, read_table
from bottleneck.errors import ModelError
from tests.conftest import write

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

written_for_these = pytest.mark.skipif(
    catalogue.written_for(TABLE) != catalogue.installed(), reason="the table is for other versions of the packages"
)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Let no test see what another has looked up."""
    catalogue.entries.cache_clear()
    yield
    catalogue.entries.cache_clear()


@pytest.fixture
def torch_home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def names(pattern: str = "", **options: bool) -> list[str]:
    return [entry.name for entry in models(pattern, **options)]


def only(pattern: str) -> Entry:
    (found,) = [entry for entry in models(pattern) if pattern in (entry.name, f"{entry.name}.{entry.weights}")]
    return found


# --- the table ----------------------------------------------------------------------------------------------------


def test_the_table_is_readable_and_whole_numbers_stand_in_it():
    for entry in read_table(TABLE):
        assert entry.name
        assert entry.parameters > 0
        assert entry.dim > 0
        assert min(entry.input_size) >= 32
        assert bool(entry.weights) == bool(entry.file)


@written_for_these
def test_the_table_has_every_torchvision_classifier_once_for_each_of_its_weights():
    wanted = [
        (name, entry.name)
        for name in torchvision.models.list_models(module=torchvision.models)
        for entry in torchvision.models.get_model_weights(name)
    ]
    found = [(entry.name, entry.weights) for entry in read_table(TABLE) if entry.source == "torchvision"]

    assert sorted(found) == sorted(wanted)


@written_for_these
def test_the_table_has_every_timm_model_once_for_each_of_its_weights():
    wanted = [f"timm/{name}" for name in timm.list_pretrained()]
    with_weights = {name.partition(".")[0] for name in wanted}
    wanted += [f"timm/{name}." for name in timm.list_models() if f"timm/{name}" not in with_weights]
    found = [f"{entry.name}.{entry.weights}" for entry in read_table(TABLE) if entry.source == "timm"]

    assert sorted(found) == sorted(wanted)


@written_for_these
def test_the_table_is_in_the_order_of_what_is_published_with_the_default_weights_first():
    found = [(entry.name, entry.weights, entry.input_size, entry.file) for entry in read_table(TABLE)]

    assert found == [(entry.name, entry.weights, entry.input_size, entry.file) for entry in catalogue_maker.published()]
    assert next(weights for name, weights, *_ in found if name == "resnet50") == "IMAGENET1K_V2"


@written_for_these
@pytest.mark.parametrize("name", MEASURED)
def test_a_network_measured_anew_is_as_the_table_says(name):
    entry = next(entry for entry in read_table(TABLE) if entry.name == name)

    assert catalogue_maker.measured(replace(entry, parameters=None, dim=None)) == entry


def test_what_is_written_can_be_read(monkeypatch, tmp_path):
    published = [entry for entry in catalogue_maker.published() if entry.name in ("resnet18", "timm/test_vit")]
    monkeypatch.setattr(catalogue_maker, "published", lambda: published)
    with open(tmp_path / "table.csv", "w", encoding="ascii") as file:
        catalogue_maker.write(file)
    found = read_table(tmp_path / "table.csv")

    assert (tmp_path / "table.csv").read_text().splitlines()[1] == ",".join(COLUMNS)
    assert catalogue.written_for(tmp_path / "table.csv") == catalogue.installed()
    assert [(entry.name, entry.parameters, entry.dim, entry.input_size) for entry in found] == [
        ("resnet18", 11_689_512, 512, (224, 224)),
        ("timm/test_vit", sum(map(torch.numel, timm.create_model("test_vit").parameters())), 64, (160, 160)),
    ]


@pytest.mark.parametrize("code", ["models()", "models('resnet*')", "[entry.is_here for entry in models()]"])
def test_models_are_listed_without_torch(code):
    script = (
        f"import sys; from bottleneck.backbones.catalogue import models; assert {code}\n"
        "print(sorted({'torch', 'torchvision', 'timm'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert answer.stdout.split("\n")[0] == "[]"


# --- another version of the packages ------------------------------------------------------------------------------


@pytest.fixture
def short_table(tmp_path, monkeypatch) -> None:
    """Let the table be one of other versions that knew only a part of a single model."""
    text = "# torchvision 0.1 timm 0.2\n" + ",".join(COLUMNS) + "\n"
    text += "resnet18,IMAGENET1K_V1,11689512,224,224,512,resnet18-f37072fd.pth\n"
    text += "gone,IMAGENET1K_V1,7,224,224,512,gone.pth\n"
    monkeypatch.setattr(catalogue, "TABLE", write(tmp_path / "table.csv", text.encode()))


def test_a_table_of_other_versions_gives_what_it_knows_and_the_installed_packages_the_names(short_table):
    assert (only("resnet18").parameters, only("resnet18").dim) == (11_689_512, 512)
    assert only("squeezenet1_1") == Entry(
        name="squeezenet1_1",
        weights="IMAGENET1K_V1",
        parameters=None,
        input_size=(224, 224),
        dim=None,
        file="squeezenet1_1-b8a52dc0.pth",
    )
    assert only("timm/test_vit.r160_in1k").parameters is None


def test_a_model_that_the_installed_packages_no_longer_have_is_not_listed(short_table):
    assert "gone" not in names()
    with pytest.raises(ModelError):
        models("gone")


@written_for_these
@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_with_another_version_of_a_package_the_same_models_are_found_from_the_registries(monkeypatch, package):
    table = catalogue.entries()
    catalogue.entries.cache_clear()
    monkeypatch.setattr(catalogue, "installed", lambda: {**catalogue.written_for(TABLE), package: "99.0"})

    assert catalogue.entries() == table


def test_a_local_version_is_that_version(monkeypatch):
    monkeypatch.setattr(catalogue.metadata, "version", lambda name: "0.29.2+cu130")

    assert catalogue.installed() == {"torchvision": "0.29.2", "timm": "0.29.2"}


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


@pytest.mark.parametrize(
    ("pattern", "found", "left"),
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


@pytest.mark.parametrize("pattern", ["resnet50.", "resnet50.*"])
def test_a_pattern_with_a_dot_lists_all_weights_the_default_first(pattern):
    assert [entry.weights for entry in models(pattern) if entry.name == "resnet50"] == [
        "IMAGENET1K_V2",
        "IMAGENET1K_V1",
    ]


def test_all_weights_of_timms_models_are_listed_too():
    found = [entry.weights for entry in models("timm/resnet18.*")]

    assert found[0] == timm.get_pretrained_cfg("resnet18").tag
    assert {f"timm/resnet18.{tag}" for tag in found} == {f"timm/{one}" for one in timm.list_pretrained("resnet18.*")}


def test_one_tag_can_be_asked_for():
    assert (only("timm/resnet18.tv_in1k").name, only("timm/resnet18.tv_in1k").weights) == ("timm/resnet18", "tv_in1k")


@pytest.mark.parametrize("pattern", ["resnet50.IMAGENET1K_V1", "resnet50.imagenet1k_v1", "resnet50.*V1"])
def test_torchvisions_weights_can_be_asked_for_by_their_name(pattern):
    assert [entry.weights for entry in models(pattern) if entry.name == "resnet50"] == ["IMAGENET1K_V1"]


def test_weights_can_be_asked_for_by_a_word():
    assert [entry.weights for entry in models("resnet50", weights=True) if entry.name == "resnet50"] == [
        "IMAGENET1K_V2",
        "IMAGENET1K_V1",
    ]


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [("rsnet18", "resnet18"), ("timm/resnet18x", "timm/resnet18d"), ("tset_vit", "timm/test_vit")],
)
def test_a_pattern_that_finds_nothing_names_the_nearest(misspelt, meant):
    with pytest.raises(ModelError, match=rf"got '{misspelt}'; did you mean .*\b{meant}\b"):
        models(misspelt)


def test_a_pattern_that_is_near_to_nothing_says_what_lists_all():
    with pytest.raises(ModelError, match="got 'qqqqzzzz'; `bottleneck models` lists all"):
        models("qqqqzzzz")


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("resnet81", "resnet18"),
        ("RESNET18", "resnet18"),
        ("timm/resnet18", "resnet18"),
        ("resnet18d.ra2_in1k", "timm/resnet18d"),
    ],
)
def test_the_nearest_name_comes_first(asked, nearest):
    assert nearest_names(asked, ["resnet18", "timm/resnet18", "timm/resnet18d", "vgg11"])[0] == nearest


def test_a_name_that_is_near_to_none_has_no_nearest():
    assert nearest_names("qqqqzzzz", ["resnet18", "vgg11"]) == []


# --- what is on this machine --------------------------------------------------------------------------------------


def test_weights_of_torchvision_are_here_when_torch_has_fetched_them(torch_home):
    assert not only("squeezenet1_1").is_here

    write(torch_home / "squeezenet1_1-b8a52dc0.pth", b"tensors")

    assert only("squeezenet1_1").is_here
    assert not only("squeezenet1_0").is_here


def test_torchs_cache_is_found_without_torch_home_too(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    write(tmp_path / "torch" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth", b"tensors")

    assert only("squeezenet1_1").is_here


def test_only_the_weights_that_are_here_are_said_to_be(torch_home):
    write(torch_home / "resnet50-0676ba61.pth", b"tensors")
    found = {entry.weights: entry.is_here for entry in models("resnet50.*") if entry.name == "resnet50"}

    assert found == {"IMAGENET1K_V1": True, "IMAGENET1K_V2": False}


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_of_timm_are_here_when_the_hubs_cache_has_them(hub_cache, name):
    folder = hub_cache / "models--timm--test_vit.r160_in1k"
    write(folder / "refs" / "main", b"c" * 40)
    write(folder / "snapshots" / ("c" * 40) / name, b"tensors")

    assert only("timm/test_vit.r160_in1k").is_here
    assert not only("timm/test_resnet").is_here


def test_a_repository_of_which_only_the_settings_were_fetched_has_no_weights_here(hub_cache):
    folder = hub_cache / "models--timm--test_vit.r160_in1k"
    write(folder / "refs" / "main", b"c" * 40)
    write(folder / "snapshots" / ("c" * 40) / "config.json", b"{}")

    assert not only("timm/test_vit.r160_in1k").is_here


def test_weights_of_a_package_are_here_when_it_is_installed():
    (entry,) = [entry for entry in models("efficientnet_lite0") if entry.source == "bundled"]

    assert entry.is_here
    assert not replace(entry, file="pip no-such-package-of-weights").is_here


def test_weights_that_nobody_published_are_never_here(hub_cache, torch_home):
    write(torch_home / "x", b"")

    assert not only("timm/test_vit_relpos").is_here
