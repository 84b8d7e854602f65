"""Compare extraction with each engine with a plain PyTorch loop and img2vec, on the same images and weights.

``python benchmarks/bench_extract.py [IMAGES]`` prints Markdown tables; ``--readme`` writes the first into the manual.
IMAGES is any folder; by default photographs are generated. Each row is measured in a separate process. The time covers
everything from files to committed shards (for the plain loop, to features in memory), but not building the model and,
for OpenVINO, converting it.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

MODELS = ("efficientnet_lite0", "resnet50", "inception_v3")
ENGINES = (("torch", "fp32"), ("torch", "bf16"), ("openvino", "fp32"), ("openvino", "bf16"))
MARKS = ("<!-- bench_extract: written by benchmarks/bench_extract.py -->", "<!-- end of bench_extract -->")
README = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def weights(model: str) -> str:
    return "DEFAULT" if model.startswith("efficientnet_lite") else "none"


# --- images -----------------------------------------------------------------------------------------------------


def write_photographs(folder: Path, count: int) -> Path:
    """Write JPEGs of 500 x 375 and 375 x 500 pixels, about 100 KB each, with structures of all sizes."""
    from PIL import Image

    folder.mkdir(parents=True)
    for number in range(count):
        random = np.random.default_rng(number)
        size = (500, 375) if number % 3 else (375, 500)
        page = np.zeros((size[1], size[0], 3))
        for scale in (2, 8, 32, 128, 512):
            cells = random.normal(size=(max(2, size[1] // scale + 1), max(2, size[0] // scale + 1), 3))
            layer = [
                Image.fromarray(cells[:, :, colour].astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
                for colour in range(3)
            ]
            page += np.stack([np.asarray(part) for part in layer], axis=2) * scale**0.5
        page = 128 + 40 * page / page.std()
        Image.fromarray(page.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.jpg", quality=90)
    return folder


def write_copies(source: list[Path], folder: Path, count: int) -> Path:
    """Write `count` distinct JPEG files, by adding comments to copies of a few."""
    folder.mkdir(parents=True)
    for number in range(count):
        data = source[number % len(source)].read_bytes()
        comment = b"%08d" % number
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        (folder / f"{number:06}.jpg").write_bytes(data[:2] + segment + data[2:])
    return folder


# --- what is measured, each in a process of its own ----------------------------------------------------------------


def plain(model: str, paths: list[str]) -> dict[str, Any]:
    """Run the tutorial's loop: a DataLoader with two workers, the transforms of the weights, fp32, batches of 32."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    network, transform = reference(model)

    class Images(Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> torch.Tensor:
            return transform(Image.open(paths[index]).convert("RGB"))

    with torch.inference_mode():
        network(torch.zeros(2, *transform(Image.open(paths[0]).convert("RGB")).shape))
        started = time.perf_counter()
        rows = [network(batch) for batch in DataLoader(Images(), batch_size=32, num_workers=2)]
    return {"images": len(paths), "seconds": time.perf_counter() - started, "features": torch.cat(rows).tolist()}


def reference(model: str) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return the network without its classifier, and the transforms of its weights, by timm and torchvision alone."""
    import timm
    import torch
    import torchvision
    from timm.data import create_transform, resolve_model_data_config

    from bottleneck.backbones.registry import build
    from bottleneck.backbones.request import Request

    state = build(Request(model=model, weights=weights(model))).network.state_dict()
    if model.startswith("efficientnet_lite"):
        network = timm.create_model(f"tf_{model}", num_classes=0).eval()
        network.load_state_dict(state, strict=False)
        return network, create_transform(**resolve_model_data_config(network))
    options = {"init_weights": False} if model == "inception_v3" else {}
    network = torchvision.models.get_model(model, weights=None, **options).eval()
    if model == "inception_v3":
        network.transform_input = True  # as its weights require
    network.load_state_dict(state, strict=False)
    network.fc = torch.nn.Identity()
    return network, torchvision.models.get_model_weights(model)["DEFAULT"].transforms()


def img2vec(model: str, paths: list[str]) -> dict[str, Any]:
    """Run img2vec-pytorch as in its README: convert lists of 32 images to lists of vectors."""
    import torchvision
    from img2vec_pytorch import Img2Vec, img_to_vec
    from PIL import Image

    img_to_vec.resnet50 = lambda weights: torchvision.models.resnet50(
        weights=None
    )  # offline; the weights do not matter
    extractor = Img2Vec(model=model, layer_output_size=2048)
    extractor.get_vec([Image.open(paths[0]).convert("RGB")])
    started = time.perf_counter()
    for start in range(0, len(paths), 32):
        extractor.get_vec([Image.open(path).convert("RGB") for path in paths[start : start + 32]])
    return {"images": len(paths), "seconds": time.perf_counter() - started}


def ours(model: str, paths: list[str], engine: str, precision: str, folder: str, some: list[str]) -> dict[str, Any]:
    """Extract a folder, after extracting a few images to build, check and convert the model."""
    from bottleneck.extraction.extract import extract

    home = Path(tempfile.mkdtemp(prefix="bottleneck-bench-"))
    options: dict[str, Any] = {
        "model": model,
        "weights": weights(model),
        "engine": engine,
        "precision": precision,
        "labels": False,
        "cache": home,
        "remember": False,
    }
    try:
        few = home / "few"
        few.mkdir()
        for path in paths[:: max(1, len(paths) // 8)][:8]:
            shutil.copy(path, few)
        extract(few, **options)  # their features are then cached
        done = extract(folder, **options)
        rows = [done.dataset.paths.index(path) for path in some]
        features = done.store.read(done.dataset.digests[rows])
    finally:
        shutil.rmtree(home)
    return {
        "images": done.computed,
        "seconds": done.seconds,
        "features": features.tolist(),
        "engine": done.engine,
    }


def parts(model: str, paths: list[str], engine: str, precision: str) -> dict[str, Any]:
    """Measure decoding alone on one core, and the engine alone on all cores, in seconds of one core per image."""
    from dataclasses import replace

    from bottleneck.backbones.registry import load
    from bottleneck.backbones.request import Request
    from bottleneck.engines.choice import choose
    from bottleneck.engines.hardware import cores
    from bottleneck.engines.options import EngineOptions
    from bottleneck.images.decode import decode

    backbone = load(Request(model=model, weights=weights(model)))
    spec = replace(backbone.spec, precision=precision)
    files = [Path(path).read_bytes() for path in paths]
    decoding = []
    for _ in range(3):
        started = time.perf_counter()
        pixels = np.stack([decode(data, spec.preprocessing).pixels for data in files])
        decoding.append((time.perf_counter() - started) / len(files))
    with tempfile.TemporaryDirectory() as keep:
        runner = choose(EngineOptions(engine=engine), spec, lambda: backbone, Path(keep)).engine
        computing = []
        for _ in range(3):
            computing.append(cores() / rate(runner, pixels))
    return {"decode": min(decoding), "forward": min(computing), "cores": cores()}


def rate(engine: Any, pixels: NDArray[np.uint8], seconds: float = 3.0) -> float:
    """Return the images per second of an engine that never waits for the next batch."""
    size = min(engine.batch_size, len(pixels))
    counts = [0] * engine.parallel
    started = time.perf_counter()

    def go(number: int) -> None:
        while time.perf_counter() - started < seconds:
            engine(pixels[:size])
            counts[number] += size

    threads = [threading.Thread(target=go, args=(number,)) for number in range(engine.parallel)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


TASKS: dict[str, Callable[..., dict[str, Any]]] = {"plain": plain, "img2vec": img2vec, "ours": ours, "parts": parts}


def measured(task: str, **options: Any) -> dict[str, Any]:
    """Run a task in a separate process, and return its result with its peak memory in MB."""
    words = [sys.executable, "-W", "ignore", __file__, "--child"]
    done = subprocess.run(words, input=json.dumps({"task": task, **options}), capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"{task} {options.get('engine', '')} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def child() -> None:
    options = json.load(sys.stdin)
    found = TASKS[options.pop("task")](**options)
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found))


# --- tables -------------------------------------------------------------------------------------------------------


def lowest_cosine(features: list[list[float]], reference: list[list[float]]) -> float:
    a, b = np.array(features, np.float64), np.array(reference, np.float64)
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def compared(model: str, folder: Path, paths: list[str], count: int) -> tuple[list[str], list[str]]:
    """Return the rows of the first and the second table for a model."""
    some = paths[:: max(1, len(paths) // count)][:count]
    say(f"{model}: the plain loop, {len(some)} images")
    base = measured("plain", model=model, paths=some)
    slow = base["images"] / base["seconds"]
    rows = [f"| {model} | plain loop | {slow:.1f} | 1.0 | {base['peak']:.0f} | |"]
    details = []
    if model == "resnet50" and has_img2vec():
        say(f"{model}: img2vec")
        found = measured("img2vec", model=model, paths=some)
        speed = found["images"] / found["seconds"]
        rows.append(f"| {model} | img2vec-pytorch | {speed:.1f} | {speed / slow:.1f} | {found['peak']:.0f} | |")
    for engine, precision in ENGINES:
        say(f"{model}: {engine} {precision}, {len(paths)} images")
        try:
            found = measured(
                "ours", model=model, paths=paths, engine=engine, precision=precision, folder=str(folder), some=some
            )
            alone = measured("parts", model=model, paths=some, engine=engine, precision=precision)
        except click.ClickException as error:
            if "NoEngine" not in error.message:
                raise
            rows.append(f"| {model} | {engine} {precision} | not used: below the bound | | | |")
            continue
        speed = found["images"] / found["seconds"]
        limit = alone["cores"] / (alone["decode"] + alone["forward"])
        cosine = lowest_cosine(found["features"], base["features"])
        name = f"{model} | {engine} {precision}"
        rows.append(f"| {name} | {speed:.1f} | {speed / slow:.1f} | {found['peak']:.0f} | {cosine:.5f} |")
        details.append(
            f"| {name} | {1 / alone['decode']:.0f} | {alone['cores'] / alone['forward']:.0f} "
            f"| {limit:.0f} | {speed:.1f} | {speed / limit:.2f} |"
        )
        say(rows[-1])
        say(details[-1])
    return rows, details


def memory(paths: list[str], home: Path) -> list[str]:
    """Return the rows of the table of peak memory."""
    rows = []
    for count in (1000, 10_000):
        folder = write_copies([Path(path) for path in paths[:100]], home / str(count), count)
        found = sorted(str(path) for path in folder.iterdir())
        say(f"memory: {count} images")
        done = measured(
            "ours", model=MODELS[0], paths=found, engine="auto", precision="auto", folder=str(folder), some=found[:8]
        )
        rows.append(f"| {count} | {done['images'] / done['seconds']:.1f} | {done['peak']:.0f} |")
        shutil.rmtree(folder)
    return rows


def has_img2vec() -> bool:
    from importlib.util import find_spec

    return find_spec("img2vec_pytorch") is not None


def say(text: str) -> None:
    click.echo(text, err=True)


@click.command()
@click.argument("images", required=False)
@click.option("--models", default=",".join(MODELS), show_default=True)
@click.option("--count", default=400, show_default=True, help="Photographs to generate.")
@click.option("--plain-count", default=96, show_default=True, help="Images for the plain loop.")
@click.option("--memory", "with_memory", is_flag=True, help="Also measure peak memory with 1,000 and 10,000 images.")
@click.option("--readme", is_flag=True, help="Write the first table into docs/benchmarks.md.")
@click.option("--child", "is_child", is_flag=True, hidden=True)
def main(
    images: str | None, models: str, count: int, plain_count: int, with_memory: bool, readme: bool, is_child: bool
) -> None:
    """Measure extraction on IMAGES."""
    if is_child:
        child()
        return
    home = Path(tempfile.mkdtemp(prefix="bottleneck-bench-"))
    try:
        folder = Path(images).absolute() if images else write_photographs(home / "photographs", count)
        paths = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        found = [compared(model, folder, paths, plain_count) for model in models.split(",")]
        sizes = memory(paths, home) if with_memory else []
    finally:
        shutil.rmtree(home)
    first = "\n".join(
        [
            "| model | what | images/s | ratio | peak memory, MB | lowest cosine to the plain loop |",
            "|---|---|---|---|---|---|",
            *(row for rows, _ in found for row in rows),
        ]
    )
    click.echo(first)
    click.echo()
    click.echo("| model | engine | decode, images/s per core | forward, images/s | limit | reached | fraction |")
    click.echo("|---|---|---|---|---|---|---|")
    for _, details in found:
        click.echo("\n".join(details))
    if sizes:
        click.echo()
        click.echo("| images | images/s | peak memory, MB |")
        click.echo("|---|---|---|")
        click.echo("\n".join(sizes))
    if readme:
        text = README.read_text(encoding="utf-8")
        before, rest = text.split(MARKS[0])
        README.write_text(f"{before}{MARKS[0]}\n\n{first}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
