"""Write scikit-learn's 1,797 handwritten digits as PNG files in class folders."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from bottleneck.utils.tree import Tree

SIDE = 128  # pixels
MARGIN = 20
PAPER, INK = 245, 25  # grey levels


def write_digits(folder: Path, *, labels: str = "0123456789", count: int | None = None) -> Path:
    """Write the digits to `folder`, one folder per class, and return it; keep existing files, and follow no link.

    The 8 x 8 originals are enlarged smoothly, as dark ink on a light page with a margin, so that a backbone trained on
    photographs sees strokes instead of blocks.

    Parameters
    ----------
    folder : Path
    labels : str
        Classes to write.
    count : int, optional
        Number of digits of each class; by default all.
    """
    digits, tree = load_digits(), Tree.above(folder, 1)
    for label in labels:
        for number in np.flatnonzero(digits.target == int(label))[:count]:
            path = folder / label / f"{number:04d}.png"
            if not tree.exists(path):
                tree.write(path, _png(digits.images[number]))
    return folder


def _png(levels: NDArray[np.float64]) -> bytes:
    """Return an 8 x 8 digit with levels from 0 to 16 as PNG."""
    page = np.full((SIDE, SIDE), PAPER, np.uint8)
    inner = SIDE - 2 * MARGIN
    ink = Image.fromarray((levels * 255 / 16).astype(np.uint8)).resize((inner, inner), Image.Resampling.BICUBIC)
    shade = PAPER + (INK - PAPER) * np.asarray(ink, np.float64) / 255
    page[MARGIN:-MARGIN, MARGIN:-MARGIN] = np.rint(shade).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(page).save(buffer, "PNG")
    return buffer.getvalue()
