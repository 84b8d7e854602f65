"""The main job beside the plain PyTorch loop, in one run on the same images: ``python benchmarks/bench_main_job.py``.

Prints a Markdown table. IMAGES is a folder of class folders, or of train/val folders of them; by default the digits of
the demonstration.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

PLAIN_LOOP = 256  # images that the plain loop sees; its rate does not change with more


def plain_loop(paths: list[str]) -> tuple[float, np.ndarray]:
    """Return the seconds that a DataLoader and a frozen network in fp32 take, model built before, and the features."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    from bottleneck.backbones.registry import load
    from bottleneck.backbones.request import Request

    backbone = load(Request())
    import timm
    from timm.data import create_transform, resolve_model_data_config

    network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    network.load_state_dict(backbone.network.state_dict(), strict=False)
    transform = create_transform(**resolve_model_data_config(network))

    class Images(Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> torch.Tensor:
            return transform(Image.open(paths[index]).convert("RGB"))

    started = time.perf_counter()
    with torch.inference_mode():
        features = torch.cat([network(batch) for batch in DataLoader(Images(), batch_size=32, num_workers=2)])
    return time.perf_counter() - started, features.numpy()


def timed(*words: str) -> float:
    """Return the seconds that a bottleneck command takes as a process of its own, start-up included."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "bottleneck", *words], check=True, capture_output=True)
    return time.perf_counter() - started


@click.command()
@click.argument("images", required=False)
def main(images: str | None) -> None:
    """Measure the main job on IMAGES."""
    from bottleneck.demo.digits import write_digits
    from bottleneck.extraction import extract

    home = Path(tempfile.mkdtemp(prefix="bottleneck-bench-"))
    source = Path(images).absolute() if images else write_digits(home / "digits")
    common = ("--cache", str(home / "cache"), "--runs", str(home / "runs"))
    try:
        first = timed("extract", str(source), *common)
        again = timed("extract", str(source), *common)
        fits = {head: timed("fit", "--head", head, *common) for head in ("logistic", "svm", "softmax")}
        done = extract(source, cache=home / "cache")
        step = max(1, len(done.dataset) // PLAIN_LOOP)
        some = done.dataset.subset(range(0, len(done.dataset), step))
        seconds, reference = plain_loop(list(some.paths))
        fresh = extract(some, cache=home / "other")
        cached = done.store.read(some.digests)
    finally:
        shutil.rmtree(home)
    cosine = (cached * reference).sum(1) / np.linalg.norm(cached, axis=1) / np.linalg.norm(reference, axis=1)
    plain, ours = len(some) / seconds, len(some) / fresh.seconds
    print(f"{done.images} images of {source.name}, efficientnet_lite0, fp32\n")
    print("| what | seconds | images/s | ratio |\n|---|---|---|---|")
    print(f"| plain PyTorch loop, {len(some)} images, model built before | {seconds:.1f} | {plain:.1f} | 1.0 |")
    print(f"| `extract`, the same images, committed | {fresh.seconds:.1f} | {ours:.1f} | {ours / plain:.1f} |")
    print(f"| `extract` of all, as a process | {first:.1f} | {done.images / first:.1f} | |")
    print(f"| `extract` again | {again:.2f} | | {first / again:.0f}x faster than the first |")
    for head, taken in fits.items():
        print(f"| `fit --head {head}`, as a process | {taken:.1f} | | |")
    print(f"\nlowest cosine of a cached feature with the plain loop's: {cosine.min():.7f}")


if __name__ == "__main__":
    main()
