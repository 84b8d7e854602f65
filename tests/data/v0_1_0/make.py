"""Write the project beside this file. It was run once, with version 0.1.0; never run it with a newer version.

The files prove that newer versions read what 0.1.0 wrote, so only 0.1.0 can write them. This is how they were written,
at commit 3331e2b, in a folder whose path is stored in some of them::

    mkdir -p /data/flowers
    PYTHONPATH=. python tests/data/v0_1_0/make.py /data/flowers

It uses only the public functions and the commands. Large files of weights are kept compressed (.xz), and the picture of
the learning curves is left out because nothing reads it.
"""

import contextlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import bottleneck
from bottleneck import FeatureCache, Recipe, evaluate, extract, finetune, fit, load_run, predict, scan
from tests import interface
from tests.project_0_1_0 import HOME as HERE
from tests.project_0_1_0 import unpacked

COLOURS = {"daisy": (200, 160, 140), "rose": (180, 110, 130), "tulip": (140, 120, 160)}
SPLITS = {"train": 8, "val": 3, "test": 4}
NETWORK = "timm/test_convnext"
TINY = {"model": NETWORK, "weights": "./tiny.safetensors", "resize": 32, "crop": 32}
TORCH = {"precision": "fp32", "engine": "torch"}
BUNDLED = {"model": "efficientnet_lite0", "layer": ["blocks.1"], "resize": 32, "crop": 32}


def picture(seed: int, colour: tuple[int, int, int]) -> Image.Image:
    pixels = np.random.default_rng(seed).normal(colour, (40, 40, 40), (4, 5, 3)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((32, 24), Image.Resampling.BICUBIC)


def make_images() -> None:
    """Write photos/split/label/number in two formats, and new/, whose images are not in the cache."""
    seed = 0
    for split, count in SPLITS.items():
        for label, colour in COLOURS.items():
            folder = Path("photos", split, label)
            folder.mkdir(parents=True)
            for number in range(count):
                seed += 1
                name = f"{number}.png" if number == 0 else f"{number}.jpg"
                picture(seed, colour).save(folder / name)
    for label, colour in COLOURS.items():
        Path("new", label).mkdir(parents=True)
        seed += 1
        picture(seed, colour).save(Path("new", label, "0.jpg"))


def make_table() -> None:
    """Write a table of the photos whose columns must be named with --path-column, --label-column, --group-column."""
    rows = ["file,flower,plant,split"]
    for path in sorted(Path("photos").rglob("*.*")):
        _, split, label, name = path.parts
        rows.append(f"{path},{label},{label}-{split}-{int(name[0]) // 2},{split}")
    Path("flowers.csv").write_text("\n".join(rows) + "\n")


def make_weights() -> None:
    """Write weights that a compressor makes small: each matrix repeats the same 1009 random signs."""
    signs = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], 1009)).float()
    tensors = timm.create_model(NETWORK.removeprefix("timm/")).state_dict()
    for name, value in tensors.items():
        if name.startswith("head.fc"):
            tensors[name] = torch.zeros_like(value)  # of ImageNet's classes: no feature needs it
        elif value.ndim > 1:
            scale = value[0].numel() ** -0.5
            repeated = signs.repeat(value.numel() // len(signs) + 1)
            tensors[name] = (scale * repeated[: value.numel()]).reshape(value.shape).contiguous()
        elif name.endswith("gamma"):
            tensors[name] = torch.full_like(value, 0.5)
    save_file(tensors, "tiny.safetensors")


def command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "bottleneck", *words], check=True)


def make_runs() -> dict[str, str]:
    """Return the name of each run by what it is for."""
    extract("photos", **BUNDLED, **TORCH)
    lite = fit("photos", head="centroid")
    done = extract("photos", **TINY, **TORCH)
    model = done.store.name
    runs = {
        "centroid, bundled": lite,
        "logistic": fit("photos", head="logistic", model=model),
        "svm": fit("photos", head="svm", model=model),
        "softmax": fit("photos", head="softmax", model=model),
        "ridge": fit("photos", head="ridge", model=model),
        "knn": fit("photos", head="knn", model=model),
        "svm-rbf": fit("photos", head="svm", kernel="rbf", model=model),
        "logistic, final": fit("photos", head="logistic", model=model, final=True),
    }
    columns = ("--path-column", "file", "--label-column", "flower", "--group-column", "plant")
    command("extract", "flowers.csv", *columns, "--model", NETWORK, "--weights", "./tiny.safetensors", "--resize", "32",
            "--crop", "32", "--precision", "fp32", "--engine", "torch")  # fmt: skip
    runs["ridge, table"] = fit("flowers.csv", head="ridge", class_weight="balanced")
    extract("photos", **TINY, **TORCH)  # the last extraction of the folder
    recipe = Recipe(last=0, epochs=2, views=1, augment="none", lr=0.001)
    runs["fine-tuned"] = finetune(run=runs["logistic"], recipe=recipe)

    class Stopped(BaseException):
        pass

    def stop(event: object) -> None:
        if type(event).__name__ == "Epoch":
            raise Stopped

    with contextlib.suppress(Stopped):
        finetune(run=runs["svm"], recipe=recipe, watch=stop)
    names = {purpose: run.name for purpose, run in runs.items()}
    (names["fine-tuned, stopped"],) = {path.name for path in Path("runs").iterdir()} - set(names.values())
    return names


def expected(names: dict[str, str]) -> dict[str, object]:
    """Return what newer versions must find."""
    digests = scan("photos").digests
    features = {
        store.spec.backbone: {"fingerprint": store.spec.fingerprint, **summary(store.read(digests))}
        for store in FeatureCache("cache").stores()
    }
    runs = {purpose: expected_of(name) for purpose, name in names.items() if "stopped" not in purpose}
    return {"stopped": names["fine-tuned, stopped"], "features": features, "runs": runs}


def summary(features: np.ndarray) -> dict[str, object]:
    """Return the type, shape and hash of features, in the order of the photos."""
    return {
        "dtype": str(features.dtype), "shape": features.shape, "sha256": sha256(features.tobytes()).hexdigest()
    }  # fmt: skip


def expected_of(name: str) -> dict[str, object]:
    run = load_run(Path("runs", name))
    images = ["photos/test", "new"] if run.card["model"] == NETWORK else ["photos/test"]  # those in new/ take seconds
    found = evaluate("new" if run.is_final else "photos/test", run=name).to_json()
    metrics = run.card.get("metrics") or {}
    return {
        "name": name,
        "classes": list(run.card["classes"]),
        "score": run.score,
        "metrics": {key: value for key, value in metrics.items() if isinstance(value, (int, float))},
        "evaluation": {key: value for key, value in found.items() if isinstance(value, (int, float))},
        "predictions": {
            one.path: [round(probability, 9) for _, probability in sorted(one.top)]  # in the order of the classes
            for one in predict(images, run=name)
        },
    }


def keep(here: Path) -> None:
    """Copy the project beside this file, its weights compressed."""
    project = HERE / "project"
    shutil.rmtree(project, ignore_errors=True)
    shutil.copytree(here, project)
    for file in project.glob("runs/*/curves.png"):
        file.unlink()
    for file in project.rglob("*.safetensors"):
        if file.stat().st_size > 100_000:
            Path(f"{file}.xz").write_bytes(lzma.compress(file.read_bytes(), preset=9))
            file.unlink()


def interface_of_today(names: dict[str, str]) -> dict[str, object]:
    """Return what `tests.interface` reads, in a copy of the project."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(unpacked(Path(folder, "project")))
        some = [names["logistic"], names["knn"]]
        found = {
            "columns": interface.table_columns(some),
            "results": interface.result_attributes(some[0]),
            "names": interface.public_names(),
            "options": interface.options(),
            "json": interface.json_keys(some),
        }
        os.chdir(HERE)
    return found


def write(name: str, value: object) -> None:
    (HERE / name).write_text(json.dumps(value, indent=0, separators=(",", ":")) + "\n")


def main(here: str) -> None:
    assert bottleneck.__version__ == "0.1.0"
    os.chdir(here)
    make_images()
    make_table()
    make_weights()
    names = make_runs()
    keep(Path(here))  # before more is remembered in it
    write("expected.json", expected(names))
    write("interface.json", interface_of_today(names))


if __name__ == "__main__":
    main(*sys.argv[1:])
