"""What torchvision and timm publish, read from sources: these packages' own, and small ones written here."""

import sys
from pathlib import Path
from textwrap import dedent

import pytest
import timm
import torchvision

from bottleneck.backbones import catalogue_maker
from bottleneck.backbones.published import (
    NotPlain,
    model_names,
    models_folder,
    timm_entries,
    timm_tags,
    torchvision_entries,
)
from tests.variants import each


@pytest.fixture(scope="module")
def imported() -> list:
    """Return what the registries of the packages say, with torch."""
    return list(catalogue_maker.published())


# --- the installed packages ---------------------------------------------------------------------------------------


def test_the_sources_of_torchvision_list_what_its_registry_lists(imported):
    found = torchvision_entries(models_folder("torchvision"))

    assert found == [entry for entry in imported if entry.source == "torchvision"]
    assert len(found) >= 100


def test_the_sources_of_timm_list_what_its_registry_lists(imported):
    found = timm_entries(models_folder("timm"))

    assert found == [entry for entry in imported if entry.source == "timm"]
    assert len(found) >= 1000


def test_the_names_are_those_of_the_registries():
    assert sorted(model_names(models_folder("timm"))) == sorted(timm.list_models())
    assert sorted(model_names(models_folder("torchvision"))) == torchvision.models.list_models(torchvision.models)


@each("name", ["resnet18", "vit_base_patch32_clip_224", "mnasnet_050", "tf_efficientnet_lite0"])
def test_the_tags_are_those_of_the_registry(name):
    wanted = [full.partition(".")[2] for full in timm.models.get_arch_pretrained_cfgs(name)]

    assert sorted(timm_tags(models_folder("timm"), name)) == sorted(wanted)


def test_a_package_that_is_not_here_is_not_plain():
    with pytest.raises(NotPlain, match="expected no_such_package with a folder of models"):
        models_folder("no_such_package")


@each("kind", ["one module", "a package without models"])
def test_a_package_without_a_folder_of_models_is_not_plain(tmp_path, monkeypatch, kind):
    if kind == "one module":
        (tmp_path / "quite_other.py").write_text("")
    else:
        (tmp_path / "quite_other").mkdir()
        (tmp_path / "quite_other" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(NotPlain, match="expected quite_other with a folder of models"):
        models_folder("quite_other")


def test_finding_the_folder_imports_nothing(tmp_path, monkeypatch):
    (tmp_path / "quite_other" / "models").mkdir(parents=True)
    (tmp_path / "quite_other" / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path)

    assert models_folder("quite_other") == tmp_path / "quite_other" / "models"
    assert "quite_other" not in sys.modules


# --- timm's way of writing ----------------------------------------------------------------------------------------

CFG = """
from torch import nn
from ._registry import register_model, generate_default_cfgs

def _cfg(url='', **kwargs):
    return {'url': url, 'input_size': (3, 96, 128), 'mean': MEAN, **kwargs}

"""


def written(folder: Path, source: str, name: str = "nets") -> Path:
    (folder / f"{name}.py").write_text(CFG + dedent(source))
    return folder


def rows(folder: Path) -> list[tuple[str, str, str]]:
    return [(entry.name, entry.weights, entry.file) for entry in timm_entries(folder)]


BUILDERS = """

@register_model
def net10(pretrained=False, **kwargs):
    return nn.Linear(1, 1)


# @register_model
# def net0(pretrained=False, **kwargs):
#     return nn.Linear(1, 1)


@register_model
@other
def net9(pretrained=False, **kwargs) -> Net:
    return nn.Linear(1, 1)
"""


@each(
    "configs, tags",
    [
        ("{'net9.a': _cfg(url='x/a.pth'), 'net9.b': _cfg(url='x/b.pth')}", [("a", "a.pth"), ("b", "b.pth")]),
        ("{'net9.a': _cfg(), 'net9.b': _cfg(hf_hub_id='timm/')}", [("b", "timm/net9.b")]),
        ("{'net9.a': _cfg(url='a.pth'), 'net9.b*': _cfg(url='b.pth')}", [("b", "b.pth"), ("a", "a.pth")]),
        ("{'net9.a': _cfg(hf_hub_id='x/y'), 'net9.b': _cfg(file='z.pth')}", [("a", "x/y"), ("b", "")]),
        ("{'net9.a': _cfg(), 'net9.b': _cfg()}", [("", "")]),
        ("{'net9': _cfg(url='x/plain.pth')}", [("", "")]),
        ("{}", [("", "")]),
        ("{**{f'net9.{tag}': _cfg(url=f'x/{tag}.pth') for tag in 'ab'}}", [("a", "a.pth"), ("b", "b.pth")]),
    ],
)
def test_weights_are_listed_as_timm_orders_them(tmp_path, configs, tags):
    folder = written(tmp_path, f"default_cfgs = generate_default_cfgs({configs})\n{BUILDERS}")

    assert rows(folder) == [*(("timm/net9", *one) for one in tags), ("timm/net10", "", "")]


def test_configurations_may_be_changed_before_they_are_registered(tmp_path):
    source = """
        import copy
        default_cfgs = {'net9.a': _cfg(url='x/a.pth', notes=('other',))}
        for name in [n for n, c in default_cfgs.items() if c.get('notes')]:
            changed = copy.deepcopy(default_cfgs[name])
            changed['input_size'] = (3, 32, 64)
            default_cfgs[name.replace('net9', 'net10')] = changed
        default_cfgs = generate_default_cfgs(default_cfgs)
        """
    found = timm_entries(written(tmp_path, dedent(source) + BUILDERS))

    assert [(one.name, one.weights, one.input_size) for one in found] == [
        ("timm/net9", "a", (96, 128)),
        ("timm/net10", "a", (32, 64)),
    ]


def test_a_configuration_without_a_size_has_the_default_of_timm(tmp_path):
    folder = written(tmp_path, f"default_cfgs = generate_default_cfgs({{'net9.a': dict(url='a.pth')}})\n{BUILDERS}")

    assert timm_entries(folder)[0].input_size == (224, 224)


def test_all_tags_are_those_without_weights_too(tmp_path):
    source = "default_cfgs = generate_default_cfgs({'net9.a': _cfg(), 'net9.b*': _cfg(url='b.pth')})\n"
    folder = written(tmp_path, source + BUILDERS)

    assert timm_tags(folder, "net9") == ["a", "b"]
    assert timm_tags(folder, "net10") == timm_tags(folder, "none") == []


@each(
    "networks",
    [
        "@decorated\nclass Net(nn.Module):\n    x = 1\n\n    def forward(self, x):\n        return x\n",
        "class Net(\n        nn.Module,\n):\n    x = 1\n# a note\n    y = 2\n",
        'class Net:\n    """A text.\n\nclass of its own\n\nat the margin\n    """\n    x = 1\n',
        'TEXT = """\nclass without an end\n    """\n',
        "def helper(\n    x,\n):\n    return x\n",
    ],
)
def test_networks_between_the_configurations_do_not_matter(tmp_path, networks):
    source = f"{networks}\ndefault_cfgs = generate_default_cfgs({{'net9.a': _cfg(url='x/a.pth')}})\n{BUILDERS}"

    assert rows(written(tmp_path, source)) == [("timm/net9", "a", "a.pth"), ("timm/net10", "", "")]


@each(
    "source",
    [
        "for name in ('a', 'b'):\n    register_model(make(name))\n",
        "if True:\n    @register_model\n    def net(): ...\n",
        "@register_model\nclass Net: ...\n",
        "@register_model(\n    name='a')\ndef net(): ...\n",
        "default_cfgs = generate_default_cfgs({'net.a': Config(url='a.pth')})\n@register_model\ndef net(): ...\n",
        "default_cfgs = generate_default_cfgs({'net.a': _cfg(input_size=SIZE)})\n@register_model\ndef net(): ...\n",
        "default_cfgs = generate_default_cfgs({'net.a': _cfg(hf_hub_id=HUB)})\n@register_model\ndef net(): ...\n",
        "default_cfgs = generate_default_cfgs({'net.a': _cfg(input_size=96)})\n@register_model\ndef net(): ...\n",
        "default_cfgs = read('table.json')\n@register_model\ndef net(): ...\n",
        "default_cfgs = generate_default_cfgs({'net.a': \n@register_model\ndef net(): ...\n",
    ],
)
def test_sources_of_another_form_are_refused(tmp_path, source):
    with pytest.raises(NotPlain, match="expected"):
        rows(written(tmp_path, source))


def test_a_folder_in_which_nothing_is_registered_is_not_plain(tmp_path):
    written(tmp_path, "x = 1")
    written(tmp_path, BUILDERS, "_hidden")

    with pytest.raises(NotPlain, match="found none"):
        model_names(tmp_path)


# --- torchvision's way of writing ---------------------------------------------------------------------------------

ENUM = """
from functools import partial
from ..transforms._presets import ImageClassification
from ._api import register_model, Weights, WeightsEnum

_COMMON = {"min_size": (1, 1)}

class Net_Weights(WeightsEnum):
    V1 = Weights(url="https://a/net-0123.pth", transforms=partial(ImageClassification, crop_size=224), meta=_COMMON)
    V2 = Weights(
        url="https://a/net-4567.pth?x=1",
        transforms=partial(ImageClassification, crop_size=300, resize_size=320),
        meta={**_COMMON, "note": ImageClassification.note},
    )
    DEFAULT = V2
"""
BUILDER = """
@register_model()
@handle_legacy_interface(weights=("pretrained", Net_Weights.V1))
def net(*, weights: Optional[Net_Weights] = None, progress: bool = True, **kwargs: Any) -> Net:
    return Net()
"""


def test_weights_are_listed_with_torchvisions_default_first(tmp_path):
    (tmp_path / "net.py").write_text(ENUM + BUILDER)
    (tmp_path / "_api.py").write_text("def register_model(name): ...\n@register_model\n")
    found = torchvision_entries(tmp_path)

    assert [(one.name, one.weights, one.input_size, one.file) for one in found] == [
        ("net", "V2", (300, 300), "net-4567.pth"),
        ("net", "V1", (224, 224), "net-0123.pth"),
    ]


@each(
    "builder",
    [
        BUILDER.replace("Optional[Net_Weights]", "Net_Weights | None"),
        BUILDER.replace("*, weights", "weights"),
        BUILDER.replace("Optional[Net_Weights]", "Union[None, Net_Weights, Other]"),
    ],
)
def test_the_annotation_names_the_weights_of_a_model(tmp_path, builder):
    (tmp_path / "net.py").write_text(ENUM + ENUM.replace("Net_Weights", "Other_Weights") + builder)

    assert [one.weights for one in torchvision_entries(tmp_path)] == ["V2", "V1"]


@each(
    "source",
    [
        ENUM + BUILDER.replace("Optional[Net_Weights]", "Any"),
        ENUM.replace("partial(ImageClassification, crop_size=224)", "ImageClassification(224)") + BUILDER,
        ENUM.replace("crop_size=224", "crop_size=SIZE") + BUILDER,
        ENUM.replace("    DEFAULT = V2\n", "") + BUILDER,
        ENUM.replace('url="https://a/net-0123.pth"', "url=URL") + BUILDER,
        ENUM + BUILDER.replace("register_model()", "register_model(name='other')").replace("def net", "class Net: #"),
    ],
)
def test_weights_of_another_form_are_refused(tmp_path, source):
    (tmp_path / "net.py").write_text(source)

    with pytest.raises(NotPlain, match="expected"):
        torchvision_entries(tmp_path)
