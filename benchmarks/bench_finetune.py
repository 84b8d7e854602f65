"""Compare fine-tuning from a fitted head with PyTorch's tutorial: a random layer, and the whole network in each step.

``python benchmarks/bench_finetune.py [IMAGES]`` prints Markdown tables; ``--only speed`` or ``--only accuracy`` runs
one part, ``--picture FILE`` draws the curves. IMAGES is a folder with ``train/`` and ``val/``; by default
scikit-learn's handwritten digits. The speed is compared with PyTorch's tutorial on transfer learning: a DataLoader with
two workers, RandomResizedCrop and flip, SGD with momentum, and the network in training mode, here with all layers
frozen except the named one. The accuracy compares two initial last layers, a random one and a fitted head, in the
training loop of `finetune`.
"""

import argparse
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SEEDS = (0, 1, 2, 3, 4)
SPEED = (("resnet18", "layer4"), ("resnet50", "layer4"))
ACCURACY = ("blocks.5", "blocks.6")  # of efficientnet_lite0 with pretrained weights
BATCH = 16
LIMIT = (240, 160)  # images of train and val for measuring speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="?", type=Path)
    parser.add_argument("--only", choices=["speed", "accuracy"])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--augment", default="standard")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        images = arguments.images or digits(home / "digits")
        if arguments.only != "accuracy":
            speed(images, home)
        if arguments.only != "speed":
            accuracy(images, home, arguments)


def digits(folder: Path) -> Path:
    """Write the digits, with the last ones of each class in val."""
    from PIL import Image
    from sklearn.datasets import load_digits

    found = load_digits()
    for number, (pixels, label) in enumerate(zip(found.images, found.target, strict=True)):
        split = "val" if number >= 0.8 * len(found.images) else "train"
        path = folder / split / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).resize((64, 64), Image.Resampling.BICUBIC).save(path)
    return folder


def some_of(images: Path, folder: Path) -> Path:
    """Copy the images for measuring speed, equally many of each class."""
    for split, count in zip(("train", "val"), LIMIT, strict=True):
        files = [
            sorted(path for path in label.iterdir()) for label in sorted((images / split).iterdir()) if label.is_dir()
        ]
        turns = [path for rank in range(max(map(len, files))) for own in files for path in own[rank : rank + 1]]
        for path in [path for path in turns if path.suffix.lower() in (".jpg", ".jpeg", ".png")][:count]:
            target = folder / split / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return folder


# --- duration of an epoch -----------------------------------------------------------------------------------------


def speed(images: Path, home: Path) -> None:
    some = some_of(images, home / "some")
    print("\n| model | trained | method | s per epoch | speed-up | caching once, s | activations, MB |")
    print("|---|---|---|---|---|---|---|")
    for model, layer in SPEED:
        plain = statistics.median(list(tutorial(model, layer, some, epochs=3))[1:])
        print(f"| {model} | {layer} | tutorial, fp32, whole network | {plain:.2f} | 1.0 | | |", flush=True)
        for precision in ("fp32", "bf16"):
            seconds, filled, size = tail(model, layer, some, home, precision)
            print(
                f"| {model} | {layer} | from cached activations, {precision} | {seconds:.2f} | {plain / seconds:.1f} | "
                f"{filled:.1f} | {size / 1e6:.0f} |",
                flush=True,
            )


def tutorial(model: str, layer: str, images: Path, epochs: int) -> Iterator[float]:
    """Yield the seconds of each epoch, including validation."""
    import torch
    import torchvision
    from torch import nn
    from torchvision import transforms

    torch.manual_seed(0)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    last = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    augmented = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), *last])
    plain = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *last])
    sets = {"train": augmented, "val": plain}
    loaders = {
        name: torch.utils.data.DataLoader(
            torchvision.datasets.ImageFolder(str(images / name), transform),
            batch_size=BATCH,
            shuffle=name == "train",
            num_workers=2,
        )
        for name, transform in sets.items()
    }
    network: Any = torchvision.models.get_model(model, weights=None)
    network.requires_grad_(False)
    network.get_submodule(layer).requires_grad_(True)
    network.fc = nn.Linear(network.fc.in_features, len(loaders["train"].dataset.classes))
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    for _ in range(epochs):
        started = time.perf_counter()
        network.train()
        for pixels, labels in loaders["train"]:
            optimizer.zero_grad()
            loss = criterion(network(pixels), labels)
            loss.backward()
            optimizer.step()
            loss.item()
        network.eval()
        with torch.no_grad():
            for pixels, labels in loaders["val"]:
                (network(pixels).argmax(1) == labels).sum().item()
        yield time.perf_counter() - started


def tail(model: str, layer: str, images: Path, home: Path, precision: str) -> tuple[float, float, int]:
    """Return the median seconds of an epoch, the seconds of caching, and the number of cached bytes."""
    from bottleneck import Recipe, extract, finetune, fit
    from bottleneck.finetuning.history import Epoch
    from bottleneck.finetuning.outline import Outline

    cache, runs = home / f"cache-{model}", home / f"runs-{model}"
    extract(images, model=model, weights="none", precision="fp32", cache=cache, runs=runs)
    fit(cache=cache, runs=runs)
    shutil.rmtree(cache / "activations", ignore_errors=True)
    events: list[tuple[float, object]] = []
    recipe = Recipe(
        unfreeze=(layer,), epochs=4, batch_size=BATCH, augment="standard", views=1, precision=precision, lr=1e-5
    )
    finetune(recipe=recipe, cache=cache, runs=runs, watch=lambda event: events.append((time.perf_counter(), event)))
    outline = next(event for _, event in events if isinstance(event, Outline))
    epochs = [event for _, event in events if isinstance(event, Epoch)]
    begun = next(when for when, event in events if not isinstance(event, Outline))
    filled = next(when for when, event in events if isinstance(event, Epoch)) - begun
    return statistics.median(epoch.seconds for epoch in epochs[1:]), filled, outline.bytes


# --- accuracy -------------------------------------------------------------------------------------------------------


def accuracy(images: Path, home: Path, arguments: Any) -> None:
    from bottleneck import Recipe, extract, fit

    cache, runs = home / "cache", home / "runs"
    extract(images, precision="fp32", cache=cache, runs=runs)
    began = time.perf_counter()
    head = fit(cache=cache, runs=runs)
    frozen = (head.metrics["accuracy"], time.perf_counter() - began)
    curves = {
        way: np.array(
            [
                curve(
                    Recipe(
                        unfreeze=ACCURACY,
                        epochs=arguments.epochs,
                        batch_size=BATCH,
                        augment=arguments.augment,
                        views=arguments.views,
                        lr=arguments.lr,
                        schedule="step",
                        clip=None,
                        seed=seed,
                    ),
                    begin,
                    cache,
                    runs,
                )
                for seed in SEEDS
            ]
        )
        for way, begin in (("tutorial style", "weights"), ("hand-back", "head"))
    }
    report(curves, frozen)
    if arguments.picture:
        draw(curves, frozen[0], arguments.picture)


def curve(recipe: Any, begin: str, cache: Path, runs: Path) -> list[tuple[float, float]]:
    """Return (seconds since the start of training, validation accuracy) of epochs 0, 1, ..."""
    from bottleneck import finetune
    from bottleneck.finetuning.history import Epoch

    found: list[tuple[float, float]] = []

    def watch(event: object) -> None:
        if isinstance(event, Epoch):
            found.append(((found[-1][0] if found else 0.0) + event.seconds, event.val_accuracy))

    shutil.rmtree(finetune(recipe=recipe, begin=begin, cache=cache, runs=runs, watch=watch).path)
    return found


def report(curves: dict[str, np.ndarray], frozen: tuple[float, float]) -> None:
    count = next(iter(curves.values())).shape[1]
    print(
        f"\nValidation accuracy, %, mean ± standard deviation of {len(SEEDS)} seeds; frozen + head: "
        f"{100 * frozen[0]:.1f}, searched and fitted in {frozen[1]:.1f} s\n"
    )
    print("| epoch | " + " | ".join(f"{way} | s" for way in curves) + " |")
    print("|---|" + "---|---|" * len(curves))
    for epoch in range(count):
        cells = []
        for found in curves.values():
            values = 100 * found[:, epoch, 1]
            cells.append(f"{values.mean():.1f} ± {values.std(ddof=1):.1f} | {found[:, epoch, 0].mean():.1f}")
        print(f"| {epoch} | " + " | ".join(cells) + " |")
    theirs, ours = (curves[way][:, :, 1] for way in ("tutorial style", "hand-back"))
    mean = theirs.mean(axis=0)
    target, needed = mean.max(), int(mean.argmax())
    reached = np.flatnonzero(ours.mean(axis=0) >= target)
    first = f"epoch {reached[0]}" if len(reached) else "none"
    print(
        f"\nThe tutorial style has the best mean accuracy at epoch {needed} ({100 * target:.1f}); the hand-back "
        f"reaches it at {first}."
    )
    best = [100 * values.max(axis=1) for values in (theirs, ours)]
    print("Best epoch of each seed: " + "; ".join(f"{value.mean():.1f} ± {value.std(ddof=1):.1f}" for value in best))


def draw(curves: dict[str, np.ndarray], frozen: float, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    by_epoch, by_second = figure.subplots(1, 2, sharey=True)
    for (way, found), colour in zip(curves.items(), ("#6b7a8f", "#0b6bcb"), strict=True):
        values = 100 * found[:, :, 1]
        mean, spread = values.mean(axis=0), values.std(axis=0, ddof=1)
        for axes, x in ((by_epoch, np.arange(len(mean))), (by_second, found[:, :, 0].mean(axis=0))):
            axes.plot(x, mean, color=colour, marker="o", markersize=3, label=way)
            axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
    for axes, label in ((by_epoch, "epoch"), (by_second, "seconds of training")):
        axes.axhline(100 * frozen, color="#c0392b", linestyle="--", linewidth=1, label="frozen + head")
        axes.set_xlabel(label)
        axes.grid(alpha=0.25)
    by_epoch.set_ylabel("validation accuracy, %")
    by_second.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main()
