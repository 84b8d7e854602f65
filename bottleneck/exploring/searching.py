"""The features of a picture that is dropped on the page. Its network is built when the first one comes."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.request import Request
from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckError, BottleneckWarning, ImageError, ModelError
from bottleneck.extraction.loading import Loader
from bottleneck.extraction.memory import MemoryBudget
from bottleneck.images.decode import Decoded
from bottleneck.runs.backbone_request import located_request
from bottleneck.runs.run import Run
from bottleneck.utils.gc_paused import no_collection
from bottleneck.utils.process_settings import ignored_warnings

_MEMORY = 512 << 20  # bytes for the file and its pixels


class PictureEmbedder:
    """Computes features as those of a store, with torch in fp32 on the CPU, and keeps none.

    Parameters
    ----------
    store : Store
    run : Run or None
        The run that names the weights, if they are not where the store's request says.
    cache : Path
    """

    def __init__(self, store: Store, run: Run | None, cache: Path) -> None:
        self._store, self._run, self._cache = store, run, cache
        self._loader = Loader(MemoryBudget(_MEMORY), store.spec.preprocessing)
        self._lock = threading.Lock()
        self._engine: Any = None

    def __call__(self, data: bytes) -> NDArray[np.float32]:
        """Return the features ``(d,)`` of the bytes of a picture.

        Raises
        ------
        ImageError
            If they are not a picture that can be decoded.
        ModelError
            If the network cannot be built on this machine.
        """
        found = self._loader.decode(data)
        if isinstance(found, ImageError):
            raise found
        if not isinstance(found, Decoded):
            raise ImageError("not-an-image", "expected a picture")
        with self._lock, ignored_warnings(".*random", BottleneckWarning):
            if self._engine is None:
                self._engine = self._started()
            features: NDArray[np.float32] = self._engine(found.pixels[None].copy())[0]
        return features

    def close(self) -> None:
        """Close the engine, which restores torch's settings; a process that ends need not do that."""
        with self._lock:
            if self._engine is not None:
                self._engine.close()
                self._engine = None

    def _started(self) -> Any:
        """Return an engine of the network whose features the store has."""
        with no_collection():
            from bottleneck.backbones.registry import load
            from bottleneck.engines.torch_engine import TorchEngine

        spec, problem = self._store.spec, ModelError("its request is not recorded")
        for request in self._requests():
            try:
                backbone = load(replace(request, precision="fp32"))
            except BottleneckError as error:
                problem = ModelError(str(error))
                continue
            if replace(backbone.spec, precision=spec.precision) == spec:
                return TorchEngine(backbone, batch_size=1, device="cpu", plain=True)
            problem = ModelError("the weights or the libraries have changed since")
        raise ModelError(f"cannot search by a picture, because the network {spec.backbone} cannot be built: {problem}")

    def _requests(self) -> Iterator[Request]:
        if self._run is not None:
            with suppress(BottleneckError):
                yield located_request(self._run.path, self._run.card, self._cache)
        asked = self._store.asked()
        if asked is not None:
            yield asked
