"""The main job from images to three heads, in each precision, on the same images.

``python benchmarks/bench_main_job.py [IMAGES]``
Prints Markdown tables. IMAGES is a folder of class folders, or of train/val folders of them; by default the digits of
the demo. Each command runs in a separate process, whose start-up is included.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

HEADS = ("logistic", "svm", "softmax")


def timed(*words: str) -> tuple[float, dict[str, Any]]:
    """Return the seconds that a bottleneck command takes, and its JSON output."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "bottleneck", *words, "--json"], check=True, capture_output=True, text=True
    )
    return time.perf_counter() - started, json.loads(done.stdout)


def measure(source: Path, home: Path, precision: str) -> tuple[dict[str, float], dict[str, dict[str, Any]], str]:
    """Return the seconds of each command, the result of each fit, and the engine that computed the features."""
    common = ("--cache", str(home / precision), "--runs", str(home / f"runs-{precision}"))
    seconds: dict[str, float] = {}
    seconds["extract"], done = timed("extract", str(source), "--precision", precision, *common)
    fits = {}
    for head in HEADS:
        seconds[f"fit --head {head}"], fits[head] = timed("fit", "--head", head, *common)
    seconds["all four"] = sum(seconds.values())
    seconds["extract again"], _ = timed("extract", str(source), "--precision", precision, *common)
    for shards in (home / precision).glob("features/*/shards"):
        shutil.rmtree(shards)
    again, _ = timed("extract", str(source), "--precision", precision, *common)
    seconds["extract all again, with the conversion kept"] = again
    return seconds, fits, f"{done['engine']}, lowest cosine {done['cosine']:.5f}, {done['computed']} images"


@click.command()
@click.argument("images", required=False)
@click.option("--precisions", default="bf16,fp32", show_default=True)
def main(images: str | None, precisions: str) -> None:
    """Measure the main job on IMAGES."""
    from bottleneck.demo.digits import write_digits

    home = Path(tempfile.mkdtemp(prefix="bottleneck-bench-"))
    source = Path(images).absolute() if images else write_digits(home / "digits")
    names = precisions.split(",")
    try:
        found = {precision: measure(source, home, precision) for precision in names}
    finally:
        shutil.rmtree(home)
    columns = " | ".join(names)
    click.echo(f"| seconds, including start-up | {columns} |\n|---{'|---' * len(names)}|")
    for what in found[names[0]][0]:
        click.echo(f"| {what} | {' | '.join(f'{found[name][0][what]:.1f}' for name in names)} |")
    click.echo(f"\n| accuracy, cross-validated / held-out, % | {columns} |\n|---{'|---' * len(names)}|")
    for head in HEADS:
        cells = [
            f"{100 * found[name][1][head]['cv_accuracy']:.1f} / {100 * found[name][1][head]['accuracy']:.1f}"
            for name in names
        ]
        click.echo(f"| {head} | {' | '.join(cells)} |")
    for name in names:
        click.echo(f"\n{name}: {found[name][2]}")


if __name__ == "__main__":
    main()
