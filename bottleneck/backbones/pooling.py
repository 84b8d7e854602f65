"""Pool the positions of a layer's output into one row of features."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from bottleneck.errors import ModelError

GEM_POWER = 3.0
GEM_SMALLEST = 1e-6
LARGEST_ROW = 131_072  # features; layer4 of ResNet-50 and Mixed_7c of Inception-v3 fit with all their positions


@dataclass(frozen=True)
class OutputLayout:
    """Which dimensions of a layer's output are positions.

    Parameters
    ----------
    positions : tuple of int
        Dimensions of the output that are positions: none for ``(b, d)``, ``(2, 3)`` for ``(b, c, h, w)``, ``(1, 2)``
        for ``(b, h, w, c)``, ``(1,)`` for ``(b, tokens, c)``.
    prefix : int
        Number of tokens before those of the positions: class token and registers.
    """

    positions: tuple[int, ...]
    prefix: int = 0


def layout_of(shape: Sequence[int], image: tuple[int, int], prefix: int) -> OutputLayout:
    """Find the positions in the shape of a layer's output.

    Parameters
    ----------
    shape : sequence of int
        Shape of the output for a batch.
    image : (int, int)
        Height and width of the network's images: the positions of a layer have the same proportions.
    prefix : int
        Number of tokens before those of the positions, if the network works on tokens.

    Raises
    ------
    ModelError
        If positions cannot be distinguished from channels.
    """
    if len(shape) == 2:
        return OutputLayout(())
    if len(shape) == 3:
        for before in dict.fromkeys((prefix, 0)):
            if _is_grid(shape[1] - before, image):
                return OutputLayout((1,), before)
        if _is_grid(shape[2], image):
            return OutputLayout((2,))
    if len(shape) == 4:
        first, last = _has_same_proportions(shape[2:4], image), _has_same_proportions(shape[1:3], image)
        if first or last:
            return OutputLayout((2, 3) if first else (1, 2))
    raise ModelError(
        f"its output has the shape {tuple(shape)}, in which positions cannot be distinguished from channels"
    )


def pooled(output: Tensor, layout: OutputLayout, pooling: str) -> Tensor:
    """Return ``(b, d)`` of a layer's output, as a copy.

    Parameters
    ----------
    output : Tensor
        With the shape that `layout` was computed for.
    layout : OutputLayout
    pooling : str
        ``avg``: the mean over the positions. ``max``: the largest. ``gem``: the generalised mean with the power 3 of
        values of at least 1e-6 (Radenović, Tolias and Chum 2019, "Fine-tuning CNN Image Retrieval with No Human
        Annotation"). ``none``: the values of all positions. ``cls``: the first token.
    """
    if pooling == "none" or not layout.positions:
        return output.flatten(1).clone()  # the next module may work in place
    if pooling == "cls":
        return output[:, 0].clone()
    if layout.prefix:
        output = output[:, layout.prefix :]
    if pooling == "avg":
        return output.mean(dim=layout.positions)
    if pooling == "max":
        return output.amax(dim=layout.positions)
    return output.float().clamp(min=GEM_SMALLEST).pow(GEM_POWER).mean(dim=layout.positions).pow(1 / GEM_POWER)


def _is_grid(count: int, image: tuple[int, int]) -> bool:
    """Return whether `count` positions can form a grid with the proportions of the image."""
    if count < 1:
        return False
    height = round(math.sqrt(count * image[0] / image[1]))
    return height > 0 and count % height == 0 and _has_same_proportions((height, count // height), image)


def _has_same_proportions(grid: Sequence[int], image: tuple[int, int]) -> bool:
    """Return whether a grid has the proportions of the image, up to one position of rounding in height or width."""
    (height, width), (image_height, image_width) = grid, image
    if image_height == image_width:
        return height == width
    too_tall, too_wide = height - width * image_height / image_width, width - height * image_width / image_height
    return min(abs(too_tall), abs(too_wide)) < 1.5
