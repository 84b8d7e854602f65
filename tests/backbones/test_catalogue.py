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

from bottleneck.backbones import catalogue, catalogue_maker, catalogue_table, published
from bottleneck.backbones.catalogue import check_request, models
from bottleneck.backbones.catalogue_table import COLUMNS, TABLE, ModelEntry, read_table
from bottleneck.backbones.names import nearest_names
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


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Let no test see what another has looked up."""
    forget()
    yield
    forget()


@pytest.fixture
def torch_home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def forget() -> None:
    catalogue.entries.cache_clear()
    catalogue.names.cache_clear()


def names(pattern: str = "", **options: bool) -> list[str]:
    return [entry.name for entry in models(pattern, **options)]


def only(pattern: str) -> ModelEntry:
    (found,) = [entry for entry in models(pattern) if pattern in (entry.name, f"{entry.name}.{entry.weights}")]
    return found


# --- the table ----------------------------------------------------------------------------------------------------


def test_the_table_is_readable_and_integers_are_in_it():
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
    found = [(entry.name, entry.weights) for entry in catalogue.entries() if entry.source == "torchvision"]

    assert sorted(found) == sorted(wanted)


def test_every_timm_model_is_listed_once_for_each_of_its_weights():
    wanted = [f"timm/{name}" for name in timm.list_pretrained()]
    with_weights = {name.partition(".")[0] for name in wanted}
    wanted += [f"timm/{name}." for name in timm.list_models() if f"timm/{name}" not in with_weights]
    found = [f"{entry.name}.{entry.weights}" for entry in catalogue.entries() if entry.source == "timm"]

    assert sorted(found) == sorted(wanted)


def test_all_is_listed_in_the_order_of_what_is_published_with_the_default_weights_first():
    found = [replace(entry, parameters=None, dim=None) for entry in catalogue.entries()]

    assert found == list(catalogue_maker.published())
    assert next(entry.weights for entry in found if entry.name == "resnet50") == "IMAGENET1K_V2"


def test_nearly_all_models_have_parameters_and_features():
    lacking = {entry.name for entry in catalogue.entries() if entry.parameters is None or entry.dim is None}

    assert len(lacking) <= 100, "models of a later version than the table's: `make catalogue` writes it anew"


@each("name", MEASURED)
def test_a_network_measured_anew_is_as_the_table_says(name):
    entry = next(entry for entry in catalogue.entries() if entry.name == name)

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


# --- without torch, whatever the versions -------------------------------------------------------------------------

VERSIONS = {
    "the table's": lambda: catalogue.written_for(TABLE),
    "others": lambda: {"torchvision": "0.20.0", "timm": "99.0"},
}


@pytest.fixture(params=VERSIONS)
def versions(request, monkeypatch) -> None:
    """Let the table be of the installed versions, or of others."""
    found = VERSIONS[request.param]()
    monkeypatch.setattr(catalogue, "installed", lambda: found)


@pytest.fixture
def without_torch(monkeypatch) -> None:
    """Let every import of torch, and of what would import it, fail."""
    for module in list(sys.modules):
        if module.partition(".")[0] in ("torch", "torchvision", "timm") or module.endswith("catalogue_maker"):
            monkeypatch.delitem(sys.modules, module)
    for module in ("torch", "bottleneck.backbones.catalogue_maker"):
        monkeypatch.setitem(sys.modules, module, None)


def test_the_same_is_listed_by_the_table_and_by_the_sources(versions):
    with_weights = [entry for entry in catalogue.entries() if entry.weights]

    assert [replace(entry, parameters=None, dim=None) for entry in with_weights] == [
        entry for entry in catalogue_maker.published() if entry.weights
    ]


@each("look", [models, lambda: models("resnet*"), lambda: [entry.is_here for entry in models()]])
def test_models_are_listed_without_torch(versions, without_torch, look):
    assert look()


@each(
    "request_, message",
    [
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
    ],
)
def test_names_that_are_none_are_refused_without_torch(versions, without_torch, request_, message):
    with pytest.raises(ModelError, match=message):
        check_request(request_)


@each(
    "request_",
    [
        Request(),
        Request(model="lite1", weights="none"),
        Request(model="resnet50", weights="imagenet1k_v1"),
        Request(model="vit_b_16", weights="IMAGENET1K_SWAG_E2E_V1"),
        Request(model="timm/resnet18.tv_in1k"),
        Request(model="timm/resnet18", weights="tv_in1k"),
        Request(model="timm/test_mambaout"),
        Request(model="timm/mnasnet_050.untrained", weights="none"),
    ],
    ids=lambda one: f"{one.model}@{one.weights}",
)
def test_names_that_there_are_pass_without_torch(versions, without_torch, request_):
    check_request(request_)


@each("code", ["describe('resnt18')", "compare(Path('x.pth'), 'resnt18')"])
def test_an_unknown_model_is_described_without_torch(code):
    script = f"""
import sys
from pathlib import Path
from bottleneck.backbones.describe import compare, describe
from bottleneck.errors import ModelError
try:
    {code}
except ModelError as error:
    print("did you mean resnet18" in str(error), sorted({{"torch", "torchvision", "timm"}} & set(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "True []"


def test_where_the_sources_do_not_tell_the_packages_do(monkeypatch):
    table = catalogue.entries()
    forget()
    monkeypatch.setattr(catalogue, "installed", lambda: {"torchvision": "99.0", "timm": "99.0"})

    def fail(folder, *_):
        raise published.NotPlain("another way")

    for reader in ("model_names", "torchvision_entries", "timm_entries", "timm_tags"):
        monkeypatch.setattr(published, reader, fail)

    assert catalogue.entries() == table
    assert catalogue.names() == {entry.name for entry in table}
    check_request(Request(model="timm/mnasnet_050.untrained", weights="none"))


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
    assert only("squeezenet1_1") == ModelEntry(
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


def test_a_local_version_is_that_version(monkeypatch):
    monkeypatch.setattr(catalogue_table.metadata, "version", lambda name: "0.29.2+cu130")

    assert catalogue.installed() == {"torchvision": "0.29.2", "timm": "0.29.2"}


def test_a_package_whose_version_is_not_recorded_is_of_no_known_version(monkeypatch):
    def missing(name):
        raise catalogue_table.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(catalogue_table.metadata, "version", missing)

    assert catalogue.installed() == {"torchvision": "", "timm": ""}


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


def test_one_tag_can_be_requested():
    assert (only("timm/resnet18.tv_in1k").name, only("timm/resnet18.tv_in1k").weights) == ("timm/resnet18", "tv_in1k")


@each("pattern", ["resnet50.IMAGENET1K_V1", "resnet50.imagenet1k_v1", "resnet50.*V1"])
def test_torchvisions_weights_can_be_requested_by_their_name(pattern):
    assert [entry.weights for entry in models(pattern) if entry.name == "resnet50"] == ["IMAGENET1K_V1"]


def test_weights_can_be_requested_by_a_word():
    assert [entry.weights for entry in models("resnet50", weights=True) if entry.name == "resnet50"] == [
        "IMAGENET1K_V2",
        "IMAGENET1K_V1",
    ]


@each("misspelt, meant", [("rsnet18", "resnet18"), ("timm/resnet18x", "timm/resnet18d"), ("tset_vit", "timm/test_vit")])
def test_a_pattern_that_finds_nothing_names_the_nearest(misspelt, meant):
    with pytest.raises(ModelError, match=rf"got '{misspelt}'; did you mean .*\b{meant}\b"):
        models(misspelt)


def test_a_pattern_that_is_near_to_nothing_says_what_lists_all():
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


@each("name", ["model.safetensors", "pytorch_model.bin"])
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
