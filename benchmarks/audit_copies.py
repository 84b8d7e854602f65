"""How many edited copies the near-duplicate check finds, and how many different images it names, by backbone and set.

A part of ``bench_audit.py``. Some images of each set are edited in six ways, and their features extracted. For each
seed, four fifths of the originals are training images and the others are held out. A copy is found if it is named as a
near duplicate of its original, which is a training image. No copies of the held-out images are made: a held-out image
that is named, and a pair of originals, counts as a false alarm, although a set may contain near copies of its own: the
solar cells of ELPV do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from selection_sets import features
from sklearn.datasets import load_sample_images

import bottleneck
from bottleneck.auditing.borders import find_border
from bottleneck.auditing.pictures import find_bad_pictures
from bottleneck.evaluation.near_duplicates import near_duplicates, near_duplicates_within
from bottleneck.evaluation.perceptual_hash import Hashes, close_pairs, hashes_of
from bottleneck.extraction.thumbnails import thumbnails
from bottleneck.images.dataset import Dataset

EDITS = {
    "brighter by 25 %": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "80 % of the size": lambda image: image.resize((round(0.8 * image.width), round(0.8 * image.height))),
    "5 % cropped": lambda image: image.crop((image.width // 20, image.height // 20, *image.size)),
    "mirrored": ImageOps.mirror,
    "rotated by 3°": lambda image: image.rotate(3, Image.Resampling.BICUBIC),
    "JPEG 50": lambda image: image,
}
NETWORKS = {"efficientnet_lite0": "DEFAULT", "resnet50": "none", "inception_v3": "none"}
SETS = ("ants", "tiles", "digits", "elpv")
EDITED = 100  # images of each set
MOST_RANDOM = 500  # originals that networks with random weights see
TILE = (71, 80)  # height and width; parts of one photograph do not overlap


@dataclass(frozen=True)
class Measured:
    """Originals and copies of a set, with features of one network and hashes.

    Parameters
    ----------
    x : ndarray of float32, shape (n, d)
    hashes : Hashes
    copies : dict of str to (ndarray, Hashes)
        Features and hashes of the copies of each kind.
    sources : ndarray of int
        The original of each copy.
    """

    x: np.ndarray
    hashes: Hashes
    copies: dict[str, tuple[np.ndarray, Hashes]]
    sources: np.ndarray


def section(work: Path, images: Path | None, *, quick: bool) -> Iterator[str]:
    """Yield the lines of the tables as they are measured."""
    seeds = range(2 if quick else 5)
    yield f"found: mean and standard deviation over {len(seeds)} seeds of training images, in %"
    yield ""
    yield "| network | set | n | threshold | " + " | ".join(EDITS) + " | all | features alone | thumbnails alone |"
    yield "|---" * (len(EDITS) + 7) + "|"
    alarms = []
    for network, weights in NETWORKS.items():
        for name in SETS if weights == "DEFAULT" else SETS[:3]:
            paths = originals(name, work, images)
            if paths is None:
                yield f"| {network} | {name}: not available |" + " |" * (len(EDITS) + 5)
                continue
            measured = measure(name, paths, network, weights, work)
            row, alarm = rates(measured, seeds)
            yield f"| {network}{' (random)' * (weights == 'none')} | {name} | {len(measured.x)} | {row} |"
            alarms.append(f"| {network} | {name} | {alarm} |")
    yield ""
    yield "| network | set | held-out images named, of (seeds together) | pairs named, of all pairs of originals |"
    yield "|---|---|---|---|"
    yield from alarms
    yield ""
    yield from _other_findings(work, images)


def rates(measured: Measured, seeds: range) -> tuple[str, str]:
    """Return the cells of a network and set in both tables."""
    found: dict[str, list[float]] = {kind: [] for kind in (*EDITS, "all", "features", "thumbnails")}
    thresholds, named, held = [], 0, 0
    n = len(measured.x)
    for seed in seeds:
        order = np.random.default_rng([7, seed]).permutation(n)
        train, heldout = np.sort(order[n // 5 :]), np.sort(order[: n // 5])
        place = np.full(n, -1)
        place[train] = np.arange(len(train))
        both = []
        for kind, (copies, hashes) in measured.copies.items():
            rows = np.flatnonzero(place[measured.sources] >= 0)
            expected = set(zip(place[measured.sources[rows]].tolist(), range(len(rows)), strict=True))
            by_features = near_duplicates(measured.x[train], copies[rows])
            thresholds.append(by_features.threshold)
            by_hash = _across(measured.hashes.take(train), hashes.take(rows))
            hits = [set(map(tuple, by_features.rows.tolist())) & expected, by_hash & expected]
            found[kind].append(len(hits[0] | hits[1]) / len(rows))
            both.append([len(part) / len(rows) for part in (hits[0] | hits[1], *hits)])
        for column, share in zip(("all", "features", "thumbnails"), np.mean(both, axis=0), strict=True):
            found[column].append(float(share))
        alarms = {row for _, row in near_duplicates(measured.x[train], measured.x[heldout]).rows.tolist()}
        alarms |= {row for _, row in _across(measured.hashes.take(train), measured.hashes.take(heldout))}
        named, held = named + len(alarms), held + len(heldout)
    pairs = {tuple(pair) for pair in near_duplicates_within(measured.x).rows.tolist()}
    thumbs = {tuple(pair) for pair in close_pairs(measured.hashes).rows.tolist()}
    cells = " | ".join(f"{100 * np.mean(share):.1f} ± {100 * np.std(share):.1f}" for share in found.values())
    return (
        f"{np.mean(thresholds):.2f} | {cells}",
        f"{named} of {held} ({named / held:.2%}) | {len(pairs | thumbs)} of {n * (n - 1) // 2:,} "
        f"({len(pairs)} by features, {len(thumbs)} by thumbnails)",
    )


def measure(name: str, paths: list[Path], network: str, weights: str, work: Path) -> Measured:
    """Return the features and hashes of the originals and their copies."""
    random = np.random.default_rng(0)
    if weights == "none" and len(paths) > MOST_RANDOM:
        paths = [paths[row] for row in np.sort(random.permutation(len(paths))[:MOST_RANDOM])]
    sources = np.sort(np.random.default_rng(1).permutation(len(paths))[:EDITED])
    copies = {kind: [_edited(paths[row], kind, work / "copies" / name) for row in sources] for kind in EDITS}
    everything = [str(path) for path in (*paths, *(path for some in copies.values() for path in some))]
    extracted = bottleneck.extract(
        paths=everything, labels=False, model=network, weights=weights, cache=work / "cache", remember=False
    )
    dataset = extracted.dataset
    x = extracted.store.read(dataset.digests).astype(np.float32)
    small = thumbnails(dataset, work / "cache")
    hashes = hashes_of(small.pixels, small.known)
    at = {path: row for row, path in enumerate(dataset.paths)}
    rows = np.array([at[str(path)] for path in paths])
    of_kind = {kind: np.array([at[str(path)] for path in some]) for kind, some in copies.items()}
    return Measured(
        x[rows], hashes.take(rows), {kind: (x[some], hashes.take(some)) for kind, some in of_kind.items()}, sources
    )


def originals(name: str, work: Path, images: Path | None) -> list[Path] | None:
    """Return the images of a set, each once; None if they are not available."""
    if name == "tiles":
        return _tiles(work / "tiles")
    dataset = _scanned(name, work, images)
    return None if dataset is None else [Path(dataset.paths[row]) for row in dataset.first_rows()]


def _scanned(name: str, work: Path, images: Path | None) -> Dataset | None:
    if features(name, work, images) is None:
        return None
    source = {"ants": images, "elpv": work / "elpv.csv"}.get(name, work / name)
    return bottleneck.scan(source, cache=work / "cache")


def _other_findings(work: Path, images: Path | None) -> Iterator[str]:
    """Yield what the checks of pictures and of borders say of sets that are known to be good."""
    yield "| set | n | bad pictures | balanced accuracy of the border | chance | p | finding |"
    yield "|---|---|---|---|---|---|---|"
    for name in ("ants", "digits", "elpv"):
        dataset = _scanned(name, work, images)
        if dataset is None:
            continue
        small = thumbnails(dataset, work / "cache")
        border = find_border(dataset, small)
        if border is not None:
            yield (
                f"| {name} | {border.n} | {len(find_bad_pictures(dataset, small))} | {border.balanced_accuracy:.1%} | "
                f"{border.chance:.1%} | {border.p_value:.3f} | {'yes' if border.is_finding else 'no'} |"
            )


def _across(train: Hashes, others: Hashes) -> set[tuple[int, int]]:
    """Return the pairs of a training row and another row that are copies by their thumbnails."""
    n = len(train)
    return {(a, b - n) for a, b in close_pairs(train.joined(others), basis=n).rows.tolist() if a < n <= b}


def _edited(path: Path, kind: str, folder: Path) -> Path:
    """Return the path of an edited copy, which is written if necessary."""
    ending = ".jpg" if kind.startswith("JPEG") else ".png"
    target = folder / kind.replace(" ", "_") / f"{path.parent.name}-{path.stem}{ending}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        EDITS[kind](image).save(target, **({"quality": 50} if ending == ".jpg" else {}))
    return target


def _tiles(folder: Path) -> list[Path]:
    height, width = TILE
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, photo in enumerate(load_sample_images().images):
        for top in range(0, photo.shape[0] - height + 1, height):
            for left in range(0, photo.shape[1] - width + 1, width):
                path = folder / f"{number}-{top:03d}-{left:03d}.png"
                if not path.exists():
                    Image.fromarray(photo[top : top + height, left : left + width]).save(path)
                paths.append(path)
    return paths
