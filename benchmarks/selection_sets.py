"""Five sets of images for the simulations: two public ones, the digits of the demo, and two that are generated here.

The features of each set are extracted once, by EfficientNet-Lite0, into a work folder. Training sets of any size are
drawn from them, and all other images are for testing.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_sample_images

NAMES = ("ants", "digits", "elpv", "glyphs", "crops")
LETTERS = "ABCDEGKMRS5"
EACH = 700  # generated images per class
MOST_TESTED = 2000


@dataclass(frozen=True)
class Features:
    """Features x, float32 ``(n, d)``, and the class of each row, ``(n,)``, from 0 to `count` - 1."""

    x: np.ndarray
    codes: np.ndarray
    count: int


@dataclass(frozen=True)
class Drawn:
    """A training set and other images of the same set, as rows of `Features`."""

    train: np.ndarray
    test: np.ndarray


def features(name: str, work: Path, images: Path | None = None) -> Features | None:
    """Return the features of a set, which are extracted if necessary; None if its images are not available.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    work : path
        Folder of images, cache and features.
    images : path, optional
        The ants and bees of PyTorch's transfer-learning tutorial, which no package contains.
    """
    file = work / f"{name}.npz"
    if not file.exists():
        source = _source(name, work, images)
        if source is None:
            return None
        x, labels = _extracted(source, work)
        np.savez(file, x=x, labels=labels)
    with np.load(file) as kept:
        names, codes = np.unique(kept["labels"], return_inverse=True)
        return Features(kept["x"], codes, len(names))


def thinned(given: Features, least: float) -> Features:
    """Return a set with fewer images of each class, in equal ratios, down to the fraction `least` for the last class.

    The same images are removed each time.
    """
    random, shares = np.random.default_rng(7), np.geomspace(1, least, given.count)
    of_class = [random.permutation(np.flatnonzero(given.codes == code)) for code in range(given.count)]
    rows = np.sort(
        np.concatenate([rows[: int(share * len(rows))] for rows, share in zip(of_class, shares, strict=True)])
    )
    return Features(given.x[rows], given.codes[rows], given.count)


def draw(codes: np.ndarray, count: int, per_class: int, seed: int, *, stratified: bool = False) -> Drawn:
    """Draw ``per_class * count`` training rows, at least two of each class, and at most 2,000 of the rest.

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
    count : int
        k.
    per_class : int
        The mean over the classes, which keep their relative frequencies in the set, as in the folders of a user.
    seed : int
    stratified : bool
        Whether the frequencies are kept as closely as possible; otherwise they vary at random.
    """
    order = np.random.default_rng(1000 + seed).permutation(len(codes))
    if stratified:
        share = np.bincount(codes, minlength=count) / len(codes)
        wanted = np.maximum(2, np.round(per_class * count * share).astype(int))
        first = np.concatenate([order[codes[order] == code][:most] for code, most in enumerate(wanted)])
        rest = order[~np.isin(order, first)]
        return Drawn(np.sort(first), np.sort(rest[:MOST_TESTED]))
    first = np.concatenate([order[codes[order] == code][:2] for code in range(count)])
    rest = order[~np.isin(order, first)]
    more = max(0, per_class * count - len(first))
    return Drawn(np.sort(np.concatenate([first, rest[:more]])), np.sort(rest[more:][:MOST_TESTED]))


def _extracted(source: Path, work: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return features and labels of each image once."""
    import bottleneck
    from bottleneck.fitting.inputs import select

    cache, runs = work / "cache", work / "runs"
    bottleneck.extract(source, cache=cache, runs=runs)
    found = select(source, model=None, cache=cache, runs=runs, labels=True)
    rows = np.unique(found.usable.digests, axis=0, return_index=True)[1]
    usable = found.usable.subset(sorted(rows.tolist()))
    return found.store.read(usable.digests).astype(np.float32), np.array(usable.labels)


def _source(name: str, work: Path, images: Path | None) -> Path | None:
    if name == "ants":
        return images
    if name == "elpv":
        return _elpv(work)
    folder = work / name
    if not folder.exists():
        _MAKERS[name](folder)
    return folder


def _digits(folder: Path) -> None:
    from bottleneck.demo.digits import write_digits

    write_digits(folder)


def _elpv(work: Path) -> Path | None:
    """Return a table of the solar cells of the package elpv-dataset: four degrees of damage, of unequal sizes."""
    found = importlib.util.find_spec("elpv_dataset")
    if found is None or found.origin is None:
        return None
    data, table = Path(found.origin).parent / "data", work / "elpv.csv"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    lines = [f"{data / path},damage {float(share):.2f}" for path, share, _ in rows]
    table.write_text("\n".join(["path,label", *lines]) + "\n")
    return table


def _glyphs(folder: Path) -> None:
    """Write images of rotated, faint, blurred and noisy letters on photographs."""
    random = np.random.default_rng(1)
    photos = [Image.fromarray(photo).convert("L") for photo in load_sample_images().images]
    for letter in LETTERS:
        (folder / letter).mkdir(parents=True)
        for number in range(EACH):
            ground = _piece(photos[random.integers(2)], random, 48, 160).resize((96, 96))
            place = tuple(48 + random.integers(-10, 10, 2))
            font = ImageFont.load_default(float(random.integers(30, 64)))
            mask = Image.new("L", (96, 96), 0)
            ImageDraw.Draw(mask).text(place, letter, fill=255, font=font, anchor="mm")
            mask = mask.rotate(random.uniform(-40, 40), resample=Image.Resampling.BILINEAR)
            tone = np.asarray(ground).mean() + random.choice([-1, 1]) * random.uniform(40, 90)
            ink = Image.new("L", (96, 96), int(np.clip(tone, 0, 255)))
            image = Image.composite(ink, ground, mask).filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.8)))
            pixels = np.asarray(image, float) + random.normal(0, random.uniform(2, 14), (96, 96))
            _save(pixels, folder / letter / f"{number:04d}.png")


def _crops(folder: Path) -> None:
    """Write small, dim, blurred, rotated crops of twelve parts of two photographs; each part is a class."""
    random = np.random.default_rng(2)
    for first, photo in zip((0, 6), load_sample_images().images, strict=True):
        height, width = photo.shape[0] // 2, photo.shape[1] // 3
        for part in range(6):
            top, left = part // 3 * height, part % 3 * width
            own = Image.fromarray(photo[top : top + height, left : left + width])
            home = folder / f"part {first + part:02d}"
            home.mkdir(parents=True)
            for number in range(EACH):
                piece = _piece(own, random, 24, 56).resize((80, 80)).convert("L").rotate(90 * int(random.integers(4)))
                blurred = np.asarray(piece.filter(ImageFilter.GaussianBlur(random.uniform(0.5, 2.5))), float)
                even = (blurred - blurred.mean()) / (blurred.std() + 3)
                noise = random.normal(0, random.uniform(3, 12), even.shape)
                _save(even * random.uniform(15, 40) + random.uniform(90, 160) + noise, home / f"{number:04d}.png")


def _piece(photo: Image.Image, random: np.random.Generator, least: int, most: int) -> Image.Image:
    """Return a random square crop of a photograph."""
    side = int(random.integers(least, most))
    left, top = random.integers(0, photo.width - side), random.integers(0, photo.height - side)
    return photo.crop((left, top, left + side, top + side))


def _save(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


_MAKERS = {"digits": _digits, "glyphs": _glyphs, "crops": _crops}
