"""timm's models, against timm itself; their weights come from a hub on this machine."""

import hashlib
import io
import pickle
import re
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save, save_file
from timm.data import create_transform, resolve_data_config
from torch import nn

from bottleneck.backbones import timm_models, timm_weights
from bottleneck.backbones.backbone import Backbone
from bottleneck.backbones.registry import build_without_numbers, load
from bottleneck.backbones.request import Request
from bottleneck.backbones.weights import tensors_digest
from bottleneck.errors import BottleneckWarning, ModelError, WeightsUnavailable
from bottleneck.images.decode import decode
from tests.backbones.conftest import torch_features
from tests.conftest import photo
from tests.variants import each

TINY = ["test_vit", "test_resnet", "test_efficientnet", "test_convnext", "test_byobnet"]
DISTILLED = ["deit_tiny_distilled_patch16_224", "levit_128s"]
REPOSITORY = "timm/test_vit.r160_in1k"


def randomly(model: str, seed: int = 0, **options: Any) -> Backbone:
    with pytest.warns(BottleneckWarning, match="random weights"):
        return load(Request(model=model, weights="none", seed=seed, **options))


def timms(name: str, seed: int = 0, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(name, **options).eval()


def from_file(model: str, path: Path, **options: Any) -> Backbone:
    return load(Request(model=model, weights=str(path), **options))


def features(backbone: Backbone, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return backbone.network(images)


# --- random weights and features ----------------------------------------------------------------------------------


@each("seed, equal", [(5, True), (6, False)])
@each("name", ["test_vit", "test_resnet"])
def test_random_weights_are_those_timm_gives_for_the_seed(name, seed, equal):
    network = timms(name, 5)
    network.reset_classifier(0)

    assert (randomly(f"timm/{name}", seed).spec.weights == tensors_digest(network)) is equal


@each("name", [*TINY, *DISTILLED])
def test_features_are_timms_pre_logits(name):
    network = timms(name, 3)
    backbone = randomly(f"timm/{name}", 3)
    images = torch.randn(2, 3, *backbone.spec.preprocessing.crop_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        theirs = network.forward_head(network.forward_features(images), pre_logits=True)

    assert theirs.shape == (2, backbone.dim)
    torch.testing.assert_close(features(backbone, images), theirs)


@each(
    "name, layer, dim",
    [
        ("test_vit", "head:input", 64),
        ("test_resnet", "fc:input", 96),
        ("test_efficientnet", "classifier:input", 256),
        ("test_convnext", "head.fc:input", 64),
        ("levit_128s", "pre_logits", 384),
        ("deit_tiny_distilled_patch16_224", "pre_logits", 192),
    ],
)
def test_the_layer_is_the_classifiers_input_where_there_is_one_classifier(name, layer, dim):
    whole = build_without_numbers(Request(model=f"timm/{name}", weights="none"))

    assert (whole.layer, whole.pooling, whole.dim) == (layer, "none", dim)


def test_no_classifier_is_left_in_a_backbone():
    assert not [
        name for name in randomly("timm/deit_tiny_distilled_patch16_224").network.state_dict() if "head" in name
    ]


def test_the_default_tag_can_be_given_or_omitted():
    assert randomly("timm/test_vit.r160_in1k").spec == randomly("timm/test_vit").spec


def test_the_spec_names_the_model_without_its_tag():
    assert randomly("timm/test_vit.r160_in1k").spec.backbone == "timm/test_vit"


def test_tags_with_another_preprocessing_have_another_fingerprint():
    one, other = (randomly(f"timm/resnet18.{tag}").spec for tag in ("a1_in1k", "tv_in1k"))

    assert one.weights == other.weights
    assert one.preprocessing.interpolation != other.preprocessing.interpolation
    assert one.fingerprint != other.fingerprint


def test_the_features_pass_the_engine_with_the_models_own_mean_and_std():
    backbone = randomly("timm/test_vit", 3)
    data = photo(1, (400, 300), "PNG")
    transform = create_transform(**resolve_data_config({}, model=timms("test_vit")))
    theirs = features(backbone, transform(Image.open(io.BytesIO(data)).convert("RGB"))[None])
    pixels = decode(data, backbone.spec.preprocessing).pixels[None]

    np.testing.assert_allclose(torch_features(backbone, pixels), theirs, rtol=1e-3, atol=1e-4)


@each("layer", [(), ("layer3",)])
def test_with_flip_the_features_are_the_mean_of_an_images_and_its_mirror_images(layer):
    plain, both = (randomly("timm/test_resnet", 3, layer=layer, flip=flip) for flip in (False, True))
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    one, other = features(plain, images), features(plain, images.flip(3))

    assert not torch.allclose(one, other)
    torch.testing.assert_close(features(both, images), (one + other) / 2)


class Encoder(nn.Module):
    """Gives four channels of a quarter of the height and width; has no classifier."""

    num_features = 4

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images, images[:, :1]], 1)[:, :, ::4, ::4]


def test_the_features_of_an_encoder_without_a_classifier_are_the_mean_over_its_positions():
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = timm_models.MeanFeatures(Encoder(), (32, 32))(images)

    torch.testing.assert_close(found[:, :3], images[:, :, ::4, ::4].mean(dim=(2, 3)))
    torch.testing.assert_close(found[:, 3], found[:, 0])


@pytest.mark.slow
def test_an_encoder_of_timm_without_a_classifier_gives_features():
    whole = build_without_numbers(Request(model="timm/mobilenetv5_300m_enc", weights="none"))
    with torch.no_grad():
        found = whole.remove_classifier()(torch.zeros(2, 3, *whole.preprocessing.crop_size, device="meta"))

    assert (whole.layer, whole.pooling) == ("forward_features", "avg")
    assert tuple(found.shape) == (2, whole.dim)


# --- preprocessing ------------------------------------------------------------------------------------------------

PICTURES = [photo(seed, size, "PNG") for seed, size in enumerate([(400, 300), (260, 500), (80, 60), (97, 301)])]
CONFIGS = {
    "center": {"crop_pct": 0.875, "interpolation": "bilinear"},
    "center, floor": {"crop_pct": 0.95, "interpolation": "bicubic", "input_size": (3, 236, 236)},
    "center, all of it": {"crop_pct": 1.0, "interpolation": "bicubic"},
    "center, more than all": {"crop_pct": 1.15, "interpolation": "bicubic", "input_size": (3, 192, 192)},
    "center, upright": {"crop_pct": 0.9, "input_size": (3, 128, 64)},
    "center, wide": {"crop_pct": 1.0, "input_size": (3, 64, 160)},
    "squash": {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bicubic"},
    "squash and crop": {"crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bilinear"},
    "squash, upright": {"crop_pct": 0.95, "crop_mode": "squash", "input_size": (3, 128, 96)},
    "border": {"crop_pct": 1.0, "crop_mode": "border", "interpolation": "bicubic"},
    "border and crop": {"crop_pct": 0.8, "crop_mode": "border", "interpolation": "bilinear"},
    "border, more than all": {"crop_pct": 1.2, "crop_mode": "border", "mean": (0.1, 0.5, 0.9)},
    "border, wide": {"crop_pct": 0.9, "crop_mode": "border", "input_size": (3, 96, 128)},
}
PUBLISHED = [  # one of each kind that timm has
    "test_resnet.r160_in1k",
    "resnet18.tv_in1k",
    "coat_lite_medium_384.in1k",
    "deepseek_vit_412m.deepseek_v4_1_flash",
    "vit_base_patch16_lingbot.robbyant",
    "vit_5b_patch16_sapiens2.fb",
    "volo_d4_448.sail_in1k",
]


def assert_timms_pixels(config: dict[str, Any]) -> None:
    """Compare all pixels, black and coloured borders included, with those of timm's own transform."""
    preprocessing = timm_models.preprocessing_of(config)
    transform = create_transform(**resolve_data_config({}, pretrained_cfg=config), is_training=False)
    mean, std = np.float32(preprocessing.mean), np.float32(preprocessing.std)
    for data in PICTURES:
        theirs = transform(Image.open(io.BytesIO(data)).convert("RGB")).numpy().transpose(1, 2, 0)
        ours = decode(data, preprocessing).pixels
        assert ours.shape[:2] == preprocessing.crop_size
        np.testing.assert_allclose(ours, np.rint((theirs * std + mean) * 255), rtol=0, atol=2)  # see test_resize.py


@each("kind", CONFIGS)
def test_the_preprocessing_is_what_timms_transform_does(kind):
    assert_timms_pixels({"input_size": (3, 224, 224), **CONFIGS[kind]})


@each("name", PUBLISHED)
def test_the_preprocessing_of_published_weights_is_what_timms_transform_does(name):
    assert_timms_pixels(timm_weights.config_of(*name.split(".", 1)))


def test_a_models_preprocessing_is_that_of_its_tag():
    found = randomly("timm/resnet18.tv_in1k").spec.preprocessing

    assert found == timm_models.preprocessing_of(timm_weights.config_of("resnet18", "tv_in1k"))
    assert (found.resize, found.crop, found.interpolation, found.mode) == (256, 224, "bilinear", "center")


# --- images of another size ---------------------------------------------------------------------------------------


def test_a_vision_transformer_is_built_for_the_crop(tmp_path):
    backbone = randomly("timm/test_vit", 3, crop=96)

    assert backbone.spec.preprocessing.crop == 96
    assert backbone.network.state_dict()["network.pos_embed"].shape == (1, 1 + (96 // 16) ** 2, 64)
    assert backbone.spec.fingerprint != randomly("timm/test_vit", 3).spec.fingerprint
    assert features(backbone, torch.zeros(2, 3, 96, 96)).shape == (2, 64)


def test_a_convolutional_network_takes_any_crop_with_the_weights_it_has():
    one, other = randomly("timm/test_resnet", 3), randomly("timm/test_resnet", 3, crop=96)

    assert one.spec.weights == other.spec.weights
    assert one.spec.fingerprint != other.spec.fingerprint


def test_a_checkpoint_of_another_size_is_adapted_as_in_timm_if_the_crop_requires_it(tmp_path):
    tensors = timms("test_vit", 5).state_dict()
    save_file(tensors, tmp_path / "w.safetensors")
    overlay = {"state_dict": dict(tensors)}
    wanted = timm.create_model("test_vit", pretrained=True, pretrained_cfg_overlay=overlay, img_size=96)
    wanted.reset_classifier(0)

    found = from_file("timm/test_vit", tmp_path / "w.safetensors", crop=96)

    assert found.spec.weights == tensors_digest(wanted)
    assert "pos_embed interpolated" in found.restored.summary()


def test_a_checkpoint_of_another_size_is_refused_without_a_crop(tmp_path):
    save_file(timms("test_vit", 5, img_size=96).state_dict(), tmp_path / "w.safetensors")

    with pytest.raises(ModelError, match=r"1 of another shape: pos_embed .*images of another size: see --crop"):
        from_file("timm/test_vit", tmp_path / "w.safetensors")


@pytest.mark.slow
def test_kernels_of_another_network_are_never_resampled(tmp_path):
    save_file(timms("vit_tiny_patch16_224", 5).state_dict(), tmp_path / "w.safetensors")
    wider = torch.nn.functional.interpolate(timms("vit_tiny_patch16_224", 5).patch_embed.proj.weight, size=32)
    tensors = {**timms("vit_tiny_patch16_224", 5).state_dict(), "patch_embed.proj.weight": wider.detach()}
    save_file(tensors, tmp_path / "wider.safetensors")

    assert from_file("timm/vit_tiny_patch16_224", tmp_path / "w.safetensors").restored.complete
    with pytest.raises(ModelError, match=r"1 of another shape: patch_embed\.proj\.weight"):
        from_file("timm/vit_tiny_patch16_224", tmp_path / "wider.safetensors")


def test_a_checkpoint_of_the_crops_size_is_taken_unchanged(tmp_path):
    save_file(timms("test_vit", 5, img_size=96).state_dict(), tmp_path / "w.safetensors")

    assert from_file("timm/test_vit", tmp_path / "w.safetensors", crop=96).spec.weights == (
        randomly("timm/test_vit", 5, crop=96).spec.weights
    )


def test_a_crop_that_the_network_cannot_take_is_a_model_error():
    with pytest.raises(ModelError, match=r"does not accept images of 100 x 100 pixels: .* divisible by"):
        load(Request(model="timm/test_maxvit", weights="none", crop=100))


# --- files, tags and names ----------------------------------------------------------------------------------------


@each("name", TINY)
def test_a_files_tensors_are_in_the_network(name, tmp_path):
    torch.save(timms(name, 5).state_dict(), tmp_path / "w.pth")

    assert from_file(f"timm/{name}", tmp_path / "w.pth").spec == randomly(f"timm/{name}", 5).spec


def test_the_file_of_another_network_is_a_model_error(tmp_path):
    torch.save(timms("test_vit").state_dict(), tmp_path / "w.pth")

    with pytest.raises(ModelError, match="do not fit"):
        from_file("timm/test_resnet", tmp_path / "w.pth")


@each(
    "request_",
    [
        Request(model="timm/resnet18.a9_in1k", weights="none"),
        Request(model="timm/resnet18.a9_in1k"),
        Request(model="timm/resnet18", weights="a9_in1k"),
    ],
)
def test_an_unknown_tag_names_the_nearest(request_):
    with pytest.raises(ModelError, match=r"weights of timm/resnet18 .* got 'a9_in1k'; did you mean .*\ba1_in1k\b"):
        load(request_)


def test_a_tag_without_similar_tags_names_all_tags():
    with pytest.raises(ModelError, match=r"got 'QQQQ'; there are r160_in1k"):
        load(Request(model="timm/test_vit", weights="QQQQ"))


def test_two_tags_that_differ_are_a_model_error():
    with pytest.raises(ModelError, match=r"'a1_in1k' in --model and 'tv_in1k' in --weights"):
        load(Request(model="timm/resnet18.a1_in1k", weights="tv_in1k"))


@each("misspelt, meant", [("timm/test_vitt", "timm/test_vit"), ("test_vit", "timm/test_vit")])
def test_a_misspelt_name_names_the_nearest(misspelt, meant):
    with pytest.raises(ModelError, match=rf"got '{misspelt}'; did you mean .*\b{meant}\b"):
        load(Request(model=misspelt, weights="none"))


@each("model", ["timm/test_mambaout", "timm/test_vit_relpos", "timm/test_vit_relpos.untrained"])
def test_a_model_without_published_weights_is_weights_unavailable(model):
    with pytest.raises(WeightsUnavailable, match=rf"timm has no weights of {model}.*--weights none"):
        load(Request(model=model))


def test_the_tags_begin_with_the_default():
    assert timm_weights.tags("resnet18")[0] == timm.get_pretrained_cfg("resnet18").tag
    assert "tv_in1k" in timm_weights.tags("resnet18")
    assert timm_weights.tags("test_vit_relpos") == []


# --- a hub on this machine ----------------------------------------------------------------------------------------


class Hub(ThreadingHTTPServer):
    """Speaks as much of the Hugging Face hub's protocol as a download needs."""

    daemon_threads = True
    files: dict[str, bytes]  # by repository/name
    claimed = ""  # the ETag, if not the truth
    agents: set[str]  # what clients say of themselves
    length: int | None = None  # Content-Length, if not the truth
    asked: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(None)

    def answer(self, body: bytes | None) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.agents.add(self.headers["User-Agent"])
        found = self.server.files.get(self.path.strip("/").replace("/resolve/main/", "/"))
        self.send_response(404 if found is None else 200)
        self.send_header("X-Repo-Commit", "c" * 40)
        if found is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", f'"{self.server.claimed or hashlib.sha256(found).hexdigest()}"')
        self.send_header("Content-Length", str(self.server.length or len(found or b"")))
        self.end_headers()
        self.wfile.write((found or b"") if body is None else body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(hub_cache, move_hub) -> Iterator[Hub]:
    """Return a running hub that has no files, with an empty cache on this side."""
    with Hub(("127.0.0.1", 0), Handler) as running:
        running.files, running.asked, running.agents = {}, [], set()
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        move_hub(running.url)
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def trained() -> dict[str, torch.Tensor]:
    return timms("test_vit", 5).state_dict()


@pytest.fixture(scope="module")
def spec_of_trained():
    return randomly("timm/test_vit", 5).spec


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def lay_out(hub_cache: Path, name: str, data: bytes, blob: str = "") -> Path:
    """Put a file into the hub's cache, and nothing else, as an earlier download would have left it."""
    shutil.rmtree(hub_cache, ignore_errors=True)
    folder = hub_cache / f"models--{REPOSITORY.replace('/', '--')}"
    kept = folder / "blobs" / (blob or hashlib.sha256(data).hexdigest())
    snapshot = folder / "snapshots" / ("c" * 40)
    for one in (kept.parent, snapshot, folder / "refs"):
        one.mkdir(parents=True)
    kept.write_bytes(data)
    (snapshot / name).symlink_to(kept)
    (folder / "refs" / "main").write_text("c" * 40)
    return kept


ASKED = [
    Request(model="timm/test_vit"),
    Request(model="timm/test_vit.r160_in1k"),
    Request(model="timm/test_vit", weights="r160_in1k"),
    Request(model="timm/test_vit.r160_in1k", weights="r160_in1k"),
]


@each("asked", ASKED)
def test_weights_are_fetched_from_the_hub(hub, trained, spec_of_trained, asked):
    hub.files[f"{REPOSITORY}/model.safetensors"] = save(trained)

    assert load(asked).spec == spec_of_trained
    assert f"GET /{REPOSITORY}/resolve/main/model.safetensors" in hub.asked


def test_a_download_requests_only_the_file_and_sends_nothing_about_this_machine(hub, trained, change_hub):
    hub.files[f"{REPOSITORY}/model.safetensors"] = save(trained)
    change_hub(HF_HUB_DISABLE_TELEMETRY=False)

    load(Request(model="timm/test_vit"))

    assert {asked.partition(" ")[2] for asked in hub.asked} == {f"/{REPOSITORY}/resolve/main/model.safetensors"}
    assert not [agent for agent in hub.agents if "torch" in agent]
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY is False


def test_nothing_is_requested_from_the_hub_offline(hub, trained, change_hub):
    hub.files[f"{REPOSITORY}/model.safetensors"] = save(trained)
    change_hub(HF_HUB_OFFLINE=True)

    with pytest.raises(WeightsUnavailable, match="HF_HUB_OFFLINE is set"):
        load(Request(model="timm/test_vit"))

    assert hub.asked == []


def test_tensors_are_read_from_a_hub_that_has_only_a_pickle(hub, trained, spec_of_trained):
    hub.files[f"{REPOSITORY}/pytorch_model.bin"] = pickled(trained)

    assert load(Request(model="timm/test_vit")).spec == spec_of_trained


def test_fetched_weights_are_kept_and_need_no_network(hub, trained):
    hub.files[f"{REPOSITORY}/model.safetensors"] = save(trained)
    first = load(Request(model="timm/test_vit")).spec
    hub.asked.clear()

    assert load(Request(model="timm/test_vit")).spec == first
    assert hub.asked == []


@each("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_that_other_programs_downloaded_are_used(hub_cache, trained, spec_of_trained, name):
    lay_out(hub_cache, name, save(trained) if name.endswith("safetensors") else pickled(trained))

    assert load(Request(model="timm/test_vit")).spec == spec_of_trained


def test_fetched_bytes_of_another_hash_than_the_hub_names_are_refused(hub, trained, hub_cache):
    hub.files[f"{REPOSITORY}/model.safetensors"] = save(trained)
    hub.claimed = "a" * 64

    for _ in range(2):
        with pytest.raises(ModelError, match=rf"SHA-256 begins with {'a' * 64} in .*/blobs/{'a' * 64}"):
            load(Request(model="timm/test_vit"))


def test_kept_bytes_of_another_hash_than_their_name_are_refused(hub_cache, trained):
    lay_out(hub_cache, "model.safetensors", save(trained), blob="b" * 64)

    with pytest.raises(ModelError, match=r"SHA-256 begins with b{64} in .*delete the file"):
        load(Request(model="timm/test_vit"))


def test_when_the_damaged_file_that_the_error_names_is_deleted_it_is_fetched_again(
    hub, hub_cache, trained, spec_of_trained
):
    good = save(trained)
    hub.files[f"{REPOSITORY}/model.safetensors"] = good
    lay_out(hub_cache, "model.safetensors", good[:-8], hashlib.sha256(good).hexdigest())
    with pytest.raises(ModelError, match="delete the file") as caught:
        load(Request(model="timm/test_vit"))

    Path(re.search(r" in (\S+), found other weights", str(caught.value))[1]).unlink()

    assert load(Request(model="timm/test_vit")).spec == spec_of_trained


def test_a_download_that_breaks_off_is_weights_unavailable(hub, trained, monkeypatch, change_hub):
    hub.files[f"{REPOSITORY}/model.safetensors"] = save(trained)[:100_000]
    hub.length = len(save(trained))
    change_hub(HF_HUB_DOWNLOAD_TIMEOUT=1)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the hub's client waits before it tries again

    with pytest.raises(WeightsUnavailable, match=r"model\.safetensors"):
        load(Request(model="timm/test_vit"))


def test_a_hub_without_the_file_is_weights_unavailable(hub):
    with pytest.raises(WeightsUnavailable, match=r"model\.safetensors.*--weights PATH"):
        load(Request(model="timm/test_vit"))


@each("asked", ASKED[:3])
def test_without_a_network_the_error_names_the_file_and_the_options_that_use_it(hub_cache, asked):
    with pytest.raises(
        WeightsUnavailable, match=r"expected model\.safetensors, the weights of timm/test_vit"
    ) as caught:
        load(asked)

    assert f"{huggingface_hub.constants.ENDPOINT}/{REPOSITORY}" in str(caught.value)
    assert re.search(rf"--model {asked.model}(\.r160_in1k)? --weights PATH", str(caught.value))


@each("kept", [True, False])
@each("kind", ["another network", "no tensors at all"])
def test_a_hubs_file_that_does_not_fit_is_a_model_error(request, hub_cache, kept, kind):
    content = save({"fc.weight": torch.ones(3)}) if kind == "another network" else b"<html>" * 100
    if kept:
        lay_out(hub_cache, "model.safetensors", content)
    else:
        shutil.rmtree(hub_cache)
        request.getfixturevalue("hub").files[f"{REPOSITORY}/model.safetensors"] = content

    with pytest.raises(ModelError, match=r"model\.safetensors|timm/test_vit"):
        load(Request(model="timm/test_vit"))


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@each("kept", [True, False])
@each("form", ["zip", "legacy"])
def test_a_pickle_of_the_hub_runs_no_code(request, hub_cache, tmp_path, kept, form):
    bomb = Bomb(tmp_path / "it ran")
    content = pickled({"pos_embed": bomb}) if form == "zip" else pickle.dumps(bomb, protocol=2)
    if kept:
        lay_out(hub_cache, "pytorch_model.bin", content)
    else:
        shutil.rmtree(hub_cache)
        request.getfixturevalue("hub").files[f"{REPOSITORY}/pytorch_model.bin"] = content

    with pytest.raises(ModelError):
        load(Request(model="timm/test_vit"))

    assert not (tmp_path / "it ran").exists()


def at_address(hub: Hub, name: str, content: bytes) -> dict[str, Any]:
    """Return a configuration of test_vit whose weights are at an address, not in a repository."""
    hub.files[name] = content
    return {**timm_weights.config_of("test_vit", ""), "hf_hub_id": None, "url": f"{hub.url}/{name}"}


def loaded_from(config: dict[str, Any]) -> tuple[dict[str, torch.Tensor], str]:
    network, published = timm_weights.pretrained("test_vit", config, {})
    return network.state_dict(), published.name


def test_weights_are_fetched_from_an_address_once(hub, trained, torch_home):
    name = f"vit-{hashlib.sha256(pickled(trained)).hexdigest()[:8]}.pth"
    config = at_address(hub, name, pickled(trained))

    for requests in (["HEAD", "GET"], []):
        hub.asked.clear()
        tensors, published = loaded_from(config)
        assert all(torch.equal(tensors[key], value) for key, value in trained.items())
        assert published == name
        assert hub.asked == [f"{method} /{name}" for method in requests]
    assert (torch_home / name).is_file()


def test_a_file_of_another_hash_than_in_its_name_is_not_kept(hub, trained, torch_home):
    with pytest.raises(WeightsUnavailable, match=r"did not return vit-00000000\.pth.*hash"):
        loaded_from(at_address(hub, "vit-00000000.pth", pickled(trained)))

    assert list(torch_home.iterdir()) == []


def test_300_epochs_are_not_a_hash(hub, trained):
    config = at_address(hub, "IN1K-vit.h.14-300e.pth.tar", pickled(trained))  # so timm's I-JEPA files are called

    for _ in ("fetched", "kept"):
        assert loaded_from(config)[0].keys() == trained.keys()


def test_a_kept_file_of_another_hash_than_in_its_name_is_refused(torch_home):
    kept = torch_home / "seresnet18-4bb0ce65.pth"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"others")

    with pytest.raises(ModelError, match=r"SHA-256 begins with 4bb0ce65 in .*seresnet18-4bb0ce65\.pth"):
        load(Request(model="timm/legacy_seresnet18"))
