import contextlib
import hashlib
import io
import pickle
import re
import socket
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from bottleneck.backbones.backbone import Backbone
from bottleneck.backbones.registry import build_without_numbers, load
from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.backbones.weights import tensors_digest
from bottleneck.errors import BottleneckWarning, ModelError, WeightsUnavailable
from bottleneck.images.decode import decode
from tests.backbones.conftest import closed_address, torch_features
from tests.conftest import photo
from tests.variants import each

PHOTOS = [photo(1, (400, 300)), photo(2, (260, 500)), photo(3, (300, 300), "PNG")]
OFFICIAL = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1

# name: the module whose input is the feature, how many features; tests/backbones/test_parity.py has more
CASES = {
    "vit_b_32": ("heads.head", 768),
    "densenet121": ("classifier", 1024),
}


def randomly(name: str, seed: int = 0) -> Backbone:
    with pytest.warns(BottleneckWarning):
        return load(Request(model=name, weights="none", seed=seed))


@cache
def random_spec(name: str, seed: int = 0) -> Spec:
    return randomly(name, seed).spec


def torchvisions(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of another random initialisation some day
        network = torchvision.models.get_model(name, weights=None)
    if hasattr(network, "transform_input"):
        # Set where trained weights are loaded, not with weights=None. Ours holds for both: the images of Inception
        # and GoogLeNet come normalised as for all of torchvision's networks, and theirs were trained on -1..1.
        network.transform_input = True
    return network.eval()


def with_tensors(name: str, tensors: dict[str, torch.Tensor]) -> nn.Module:
    """Return torchvision's network with these tensors; those that are missing are zeros."""
    with torch.device("meta"):
        network = torchvision.models.get_model(name, weights=None)
    zeros = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in network.state_dict().items()}
    network.load_state_dict({**zeros, **tensors}, assign=True)
    return network.eval()


def official_pixels(name: str) -> torch.Tensor:
    transforms = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    return torch.stack([transforms(Image.open(io.BytesIO(data)).convert("RGB")) for data in PHOTOS])


def our_features(backbone: Backbone) -> np.ndarray:
    pixels = np.stack([decode(data, backbone.spec.preprocessing).pixels for data in PHOTOS])
    return torch_features(backbone, pixels)


def input_of(network: nn.Module, layer: str, images: torch.Tensor) -> np.ndarray:
    seen: list[torch.Tensor] = []
    network.get_submodule(layer).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        network(images)
    (features,) = seen
    return (features.mean(dim=(2, 3)) if features.dim() == 4 else features).numpy()


def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return (ours * theirs).sum(axis=1) / norms


def assert_equal_features(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    assert cosines(ours, theirs).min() > 0.99999
    # Random networks see all images as nearly the same one; what is left when their mean is gone tells them apart.
    apart_ours, apart_theirs = ours - ours.mean(axis=0), theirs - theirs.mean(axis=0)
    assert cosines(apart_ours, np.roll(apart_theirs, 1, axis=0)).max() < 0.9
    assert cosines(apart_ours, apart_theirs).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1), rtol=5e-4)


def test_features_of_resnet18_are_those_of_torchvision():
    extractor = create_feature_extractor(torchvisions("resnet18"), ["flatten"])
    with torch.inference_mode():
        theirs = extractor(official_pixels("resnet18"))["flatten"].numpy()
    backbone = randomly("resnet18")

    assert_equal_features(our_features(backbone), theirs)
    assert backbone.dim == 512
    assert (backbone.spec.layer, backbone.spec.pooling) == ("fc:input", "none")


@pytest.mark.slow
@each("name", CASES)
def test_features_are_the_input_of_torchvisions_classifier(name):
    layer, dim = CASES[name]
    backbone = randomly(name)
    network = with_tensors(name, backbone.network.state_dict())

    assert_equal_features(our_features(backbone), input_of(network, layer, official_pixels(name)))
    assert backbone.dim == dim
    assert layer.startswith(backbone.spec.layer.removesuffix(":input"))
    assert backbone.spec.pooling == "none"


@each("name, expected", [("resnet18", False), ("googlenet", True), ("inception_v3", True)])
def test_the_network_may_map_its_input(name, expected):
    assert build_without_numbers(Request(model=name, weights="none")).transform_input is expected


@each("seed, equal", [(5, True), (6, False)])
def test_random_weights_are_those_torchvision_gives_for_the_seed(seed, equal):
    network = torchvisions("resnet18", 5)
    network.fc = nn.Identity()

    assert (random_spec("resnet18", seed).weights == tensors_digest(network)) is equal


@each("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_the_preprocessing_is_that_of_the_default_weights(name):
    transforms = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    found = random_spec(name).preprocessing

    assert [found.resize, found.crop] == [*transforms.resize_size, *transforms.crop_size]
    assert found.interpolation == transforms.interpolation.value
    assert found.antialias is transforms.antialias
    assert found.mean == tuple(transforms.mean)
    assert found.std == tuple(transforms.std)


def test_decoded_and_normalised_pixels_are_those_of_the_transforms():
    preprocessing = random_spec("resnet18").preprocessing
    pixels = np.stack([decode(data, preprocessing).pixels for data in PHOTOS]).astype(np.float32) / 255
    ours = (pixels - np.float32(preprocessing.mean)) / np.float32(preprocessing.std)

    atol = 2 / 255 / min(preprocessing.std) + 1e-5  # two levels, see test_resize.py
    np.testing.assert_allclose(ours.transpose(0, 3, 1, 2), official_pixels("resnet18").numpy(), rtol=0, atol=atol)


def test_weights_that_do_not_exist_are_a_model_error_that_names_those_that_do():
    with pytest.raises(ModelError, match=r"weights of resnet50: DEFAULT, IMAGENET1K_V2, IMAGENET1K_V1, none.*'V7'"):
        load(Request(model="resnet50", weights="V7"))


def test_a_files_tensors_are_in_the_network(tmp_path):
    torch.save(torchvisions("resnet18", 5).state_dict(), tmp_path / "w.pth")

    assert load(Request(model="resnet18", weights=str(tmp_path / "w.pth"))).spec == random_spec("resnet18", 5)


def test_the_file_of_another_network_is_a_model_error(tmp_path):
    torch.save(torchvisions("resnet34").state_dict(), tmp_path / "w.pth")

    with pytest.raises(ModelError, match="do not fit"):
        load(Request(model="resnet50", weights=str(tmp_path / "w.pth")))


@pytest.mark.slow
def test_files_with_and_without_auxiliary_heads_fit(tmp_path):
    tensors = torchvisions("googlenet").state_dict()
    torch.save(tensors, tmp_path / "with.pth")
    torch.save({name: value for name, value in tensors.items() if "aux" not in name}, tmp_path / "without.pth")

    found = [load(Request(model="googlenet", weights=str(tmp_path / f"{kind}.pth"))) for kind in ("with", "without")]

    assert found[0].spec == found[1].spec


def test_old_names_of_densenets_tensors_are_understood(tmp_path):
    tensors = torchvisions("densenet121", 5).state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name): tensors[name] for name in tensors}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "w.pth")

    assert load(Request(model="densenet121", weights=str(tmp_path / "w.pth"))).spec == random_spec("densenet121", 5)


# --- weights from torchvision's address -------------------------------------------------------------------------


@pytest.fixture
def address(move_weights, torch_home) -> Callable[[str], None]:
    """Return a function that moves squeezenet1_1's weights to another address."""
    return lambda url: move_weights(OFFICIAL, url)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    content = b""
    claimed: int | None = None  # what Content-Length says, if not the truth
    status = 200

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/models/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(self.server.claimed or len(self.server.content)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(self.server.content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save(torchvisions("squeezenet1_1", 5).state_dict(), buffer)
    return buffer.getvalue()


def hashed(data: bytes) -> str:
    return f"squeezenet1_1-{hashlib.sha256(data).hexdigest()[:8]}.pth"


def fetch() -> Backbone:
    return load(Request(model="squeezenet1_1", weights="DEFAULT"))


@each("weights", ["DEFAULT", "IMAGENET1K_V1"])
def test_without_a_network_the_error_names_the_file_and_the_options_that_use_it(address, weights):
    url = f"{closed_address()}/models/squeezenet1_1-f37072fd.pth"
    address(url)

    with pytest.raises(WeightsUnavailable, match=r"expected squeezenet1_1-f37072fd\.pth") as caught:
        load(Request(model="squeezenet1_1", weights=weights))

    assert url in str(caught.value)
    assert "--weights PATH" in str(caught.value)


def test_weights_are_fetched_from_their_address(address, server, checkpoint, torch_home):
    server.content = checkpoint
    address(server.url(hashed(checkpoint)))

    assert fetch().spec == random_spec("squeezenet1_1", 5)
    assert (torch_home / hashed(checkpoint)).read_bytes() == checkpoint


def test_fetched_weights_are_kept(address, server, checkpoint):
    server.content = checkpoint
    address(server.url(hashed(checkpoint)))
    first = fetch()
    server.status, server.content = 500, b""

    assert fetch().spec == first.spec


def test_other_bytes_than_the_names_hash_are_weights_unavailable(address, server, checkpoint, torch_home):
    server.content = checkpoint[:-1] + bytes([checkpoint[-1] ^ 1])
    address(server.url(hashed(checkpoint)))

    with pytest.raises(WeightsUnavailable, match=hashed(checkpoint)):
        fetch()

    assert not [path for path in torch_home.parents[1].rglob("*") if path.is_file()]


def test_a_download_that_breaks_off_is_weights_unavailable(address, server, checkpoint, torch_home):
    server.content, server.claimed = checkpoint[:100_000], len(checkpoint)
    address(server.url(hashed(checkpoint)))

    with pytest.raises(WeightsUnavailable, match=hashed(checkpoint)):
        fetch()

    assert not [path for path in torch_home.parents[1].rglob("*") if path.is_file()]


def test_a_connection_that_is_reset_is_weights_unavailable(address, checkpoint):
    def reset() -> None:
        with listening.accept()[0] as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        address(f"http://127.0.0.1:{listening.getsockname()[1]}/{hashed(checkpoint)}")
        thread = threading.Thread(target=reset)
        thread.start()
        with pytest.raises(WeightsUnavailable, match="reset by peer"):
            fetch()
        thread.join()


@each("status", [404, 503])
def test_an_address_that_answers_with_an_error_is_weights_unavailable(address, server, checkpoint, status):
    server.status = status
    address(server.url(hashed(checkpoint)))

    with pytest.raises(WeightsUnavailable, match=r"--weights PATH"):
        fetch()


def test_the_tensors_of_another_network_at_the_address_are_a_model_error(address, server):
    buffer = io.BytesIO()
    torch.save({"fc.weight": torch.ones(3)}, buffer)
    server.content = buffer.getvalue()
    address(server.url(hashed(server.content)))

    with pytest.raises(ModelError):
        fetch()


@each("part", [0.0, 0.3, 0.999])
def test_a_damaged_file_in_the_cache_of_torch_is_a_model_error_that_names_it(address, checkpoint, torch_home, part):
    kept = torch_home / hashed(checkpoint)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(checkpoint[: int(part * len(checkpoint))])
    address(f"{closed_address()}/{hashed(checkpoint)}")

    with pytest.raises(ModelError, match=hashed(checkpoint)) as caught:
        fetch()

    assert str(kept) in str(caught.value)


def test_a_file_with_other_values_in_the_cache_of_torch_is_refused(address, checkpoint, torch_home):
    kept = torch_home / hashed(checkpoint)
    kept.parent.mkdir(parents=True, exist_ok=True)
    torch.save(torchvisions("squeezenet1_1", 6).state_dict(), kept)
    address(f"{closed_address()}/{hashed(checkpoint)}")

    with pytest.raises(ModelError, match=hashed(checkpoint)):
        fetch()


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_pickle_in_the_cache_of_torch_runs_no_code(address, checkpoint, torch_home, tmp_path):
    kept = torch_home / hashed(checkpoint)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(pickle.dumps(Bomb(tmp_path / "it ran"), protocol=2))
    address(f"{closed_address()}/{hashed(checkpoint)}")

    with contextlib.suppress(Exception):
        fetch()

    assert not (tmp_path / "it ran").exists()


@each("form", ["pickle", "archive", "old format"])
@each("kept", [True, False])
def test_a_file_made_to_have_the_hash_of_its_name_runs_no_code(
    address, server, torch_home, tmp_path, monkeypatch, form, kept
):
    content = io.BytesIO()
    bomb = {"conv1.weight": torch.zeros(1), "x": Bomb(tmp_path / "it ran")}
    if form == "pickle":
        content.write(pickle.dumps(bomb, protocol=2))
    else:
        torch.save(bomb, content, _use_new_zipfile_serialization=form == "archive")
    server.content, name = content.getvalue(), hashed(content.getvalue())
    address(server.url(name))
    if kept:
        place = torch_home / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(server.content)

    with pytest.raises(ModelError, match=name):
        fetch()

    assert not (tmp_path / "it ran").exists()


@each("model", ["googlenet", "inception_v3", "densenet121", "squeezenet1_0", "vit_b_16"])
def test_kept_weights_are_those_torchvision_would_load(torch_home, move_weights, model):
    move_weights(torchvision.models.get_model_weights(model).DEFAULT, f"{closed_address()}/{model}.pth")
    with torch.device("meta"):
        shapes = torchvision.models.get_model(model, weights=None).state_dict()
    kept = {key: torch.full(shapes[key].shape, n, dtype=shapes[key].dtype) for n, key in enumerate(shapes)}
    torch_home.mkdir(parents=True, exist_ok=True)
    torch.save(kept, torch_home / f"{model}.pth")

    found = load(Request(model=model)).network.state_dict()

    assert all(torch.equal(value, kept[name]) for name, value in found.items())
    assert {name.partition(".")[0] for name in kept.keys() - found.keys()} <= {
        *("fc", "classifier", "heads"),
        *("aux1", "aux2", "AuxLogits"),
    }
