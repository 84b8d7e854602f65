"""Loaders of batches: from cached activations, or from images that are decoded and augmented in each epoch."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bottleneck.cache.store import Store
from bottleneck.engines.hardware import cores
from bottleneck.errors import ImageError, TuningError
from bottleneck.extraction.loading import Loader
from bottleneck.extraction.memory import MemoryBudget, usual_memory
from bottleneck.images.dataset import Dataset
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.images.view import View

Rows = NDArray[np.intp]
Batch = tuple[Rows, Tensor]
ALL = slice(None)
_AHEAD = 3  # batches that are decoded while one is computed


class BatchLoader(Protocol):
    """Yields the input of the trained part of a network, batch by batch."""

    def batches(self, epoch: int, size: int, random: np.random.Generator | None, share: slice) -> Iterator[Batch]:
        """Yield each image once.

        Parameters
        ----------
        epoch : int
            Selects the augmented views, from 1; 0 is for images without augmentation.
        size : int
            Images in a batch; the last batch may have fewer.
        random : numpy.random.Generator, optional
            Draws the order; by default it is that of the dataset.
        share : slice
            The rows of each batch that this process takes.

        Yields
        ------
        rows, values
            Rows of the dataset, and their ``float32 (b, ...)``.
        """


class ActivationLoader:
    """Loads cached activations: held in memory if they fit, else read from the cache in each epoch.

    Parameters
    ----------
    stores : sequence of Store
        The augmented views; epoch e reads store ``(e - 1) mod n``.
    dataset : Dataset
        Each image once.
    shape : tuple of int
        Of the activations of one image.
    memory : float
        The largest size in memory, in bytes.
    """

    def __init__(self, stores: Sequence[Store], dataset: Dataset, shape: tuple[int, ...], memory: float) -> None:
        self._stores = tuple(stores)
        self._digests = dataset.digests
        self._shape = shape
        size = _width(stores) * len(dataset) * int(np.prod(shape))
        self._is_streamed = size > memory
        self._max_stores = max(1, int(memory // max(1, size)))  # held in memory at once
        self._in_memory: dict[int, NDArray[Any]] = {}

    def batches(self, epoch: int, size: int, random: np.random.Generator | None, share: slice) -> Iterator[Batch]:
        """See `BatchLoader`."""
        number = max(0, epoch - 1) % len(self._stores)
        if self._is_streamed:
            for rows, values in self._streamed(self._stores[number], size, random):
                yield rows[share], self._tensor(values[share])
            return
        values = self._read(number)
        order = np.arange(len(values)) if random is None else random.permutation(len(values))
        for start in range(0, len(order), size):
            rows = order[start : start + size][share]
            yield rows, self._tensor(values[rows])

    def _streamed(
        self, store: Store, size: int, random: np.random.Generator | None
    ) -> Iterator[tuple[Rows, NDArray[Any]]]:
        stream = store.stream(self._digests)
        if random is not None:
            yield from stream.mixed(random, batch=size)
            return
        for rows, values in stream.blocks():
            for start in range(0, len(rows), size):
                yield rows[start : start + size], values[start : start + size]

    def _read(self, number: int) -> NDArray[Any]:
        if number not in self._in_memory:
            if len(self._in_memory) >= self._max_stores:
                self._in_memory.clear()
            self._in_memory[number] = self._stores[number].read(self._digests, as_stored=True)
        return self._in_memory[number]

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values)).float().reshape(-1, *self._shape)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _width(stores: Sequence[Store]) -> int:
    """Return the bytes of a number in memory; a store that is partly float32 is read as float32."""
    return max((np.dtype(entry.dtype).itemsize for one in stores for entry in one.index().entries.values()), default=2)


class ImageLoader:
    """Reads, decodes and augments images in threads, again in each epoch.

    Parameters
    ----------
    dataset : Dataset
        Each image once.
    preprocessing : Preprocessing
    augment : str
    seed : int
    memory : MemoryBudget, optional
        For files and pixels; by default that of `bottleneck.extraction.memory.usual_memory`.
    """

    def __init__(
        self,
        dataset: Dataset,
        preprocessing: Preprocessing,
        augment: str = "none",
        seed: int = 0,
        memory: MemoryBudget | None = None,
    ) -> None:
        self._dataset = dataset
        self._memory = memory or MemoryBudget(usual_memory())
        self._preprocessing = preprocessing
        self._augment, self._seed = augment, seed
        self._mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std).view(1, 3, 1, 1)

    def batches(self, epoch: int, size: int, random: np.random.Generator | None, share: slice) -> Iterator[Batch]:
        """Yield normalised pixels ``(b, 3, h, w)``; see `BatchLoader`.

        Raises
        ------
        TuningError
            If an image cannot be read, or has changed.
        """
        for rows, pixels in self.pixels(epoch, size, random, share):
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32)
            yield rows, images.div_(255).sub_(self._mean).div_(self._std)

    def pixels(
        self, epoch: int, size: int, random: np.random.Generator | None = None, share: slice = ALL
    ) -> Iterator[tuple[Rows, NDArray[np.uint8]]]:
        """Yield the same batches as decoded pixels, ``uint8 (b, h, w, 3)``."""
        count = len(self._dataset)
        order = np.arange(count) if random is None else random.permutation(count)
        preprocessing = self._preprocessing
        if epoch and self._augment != "none":
            view = View(augmentation=self._augment, seed=self._seed, number=epoch)
            preprocessing = replace(preprocessing, view=view)
        loader = Loader(self._memory, preprocessing)
        ahead = min(_AHEAD, self._memory.waiting_pixels // (3 * size * math.prod(preprocessing.crop_size)))
        waiting: deque[tuple[Rows, list[Future[NDArray[np.uint8]]]]] = deque()
        pool = ThreadPoolExecutor(cores(), "bottleneck-decode")
        try:
            for start in range(0, count, size):
                rows = order[start : start + size][share]
                waiting.append((rows, [pool.submit(self._pixels, int(row), loader) for row in rows]))
                if len(waiting) > ahead:
                    yield self._stacked(*waiting.popleft())
            while waiting:
                yield self._stacked(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _stacked(self, rows: Rows, pixels: "list[Future[NDArray[np.uint8]]]") -> tuple[Rows, NDArray[np.uint8]]:
        if not pixels:
            return rows, np.empty((0, *self._preprocessing.crop_size, 3), np.uint8)
        return rows, np.stack([one.result() for one in pixels])

    def _pixels(self, row: int, loader: Loader) -> NDArray[np.uint8]:
        path, digest = self._dataset.paths[row], self._dataset.digests[row].tobytes()
        try:
            found = loader.load(path, lambda read: read == digest).found
            if isinstance(found, ImageError):
                raise found
        except ImageError as error:
            raise TuningError(
                f"expected to read {path}: {error}. Put it back, or extract and fit without it"
            ) from error
        if found is None:
            raise TuningError(f"{path} has changed since its features were extracted: extract and fit again")
        return found.pixels
