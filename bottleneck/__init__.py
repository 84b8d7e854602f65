"""Folders of images to tested classifiers, without a training cluster."""

import warnings as _warnings
from typing import TYPE_CHECKING, Any

from bottleneck import errors
from bottleneck._version import __version__

# pandas uses PyPI's Bottleneck when a module of that name imports, and warns that ours is too old (it is another
# thing). Our version stays below 1.5, so pandas leaves us alone; this keeps it from saying so. See the README.
_warnings.filterwarnings("ignore", message=r".*requires version .* of 'bottleneck'")

if TYPE_CHECKING:
    from bottleneck.backbones.catalogue import models
    from bottleneck.backbones.describe import describe
    from bottleneck.cache.feature_cache import FeatureCache
    from bottleneck.comparison.compare import compare
    from bottleneck.extraction.extract import extract
    from bottleneck.finetuning.finetune import finetune
    from bottleneck.finetuning.recipe import Recipe
    from bottleneck.fitting.fit import fit
    from bottleneck.images.scan import scan
    from bottleneck.prediction.evaluate import evaluate
    from bottleneck.prediction.predict import predict
    from bottleneck.runs.run import load_run

__all__ = [
    "FeatureCache",
    "Recipe",
    "__version__",
    "compare",
    "describe",
    "errors",
    "evaluate",
    "extract",
    "finetune",
    "fit",
    "load_run",
    "models",
    "predict",
    "scan",
]

_HOMES = {
    "FeatureCache": "bottleneck.cache.feature_cache",
    "Recipe": "bottleneck.finetuning.recipe",
    "compare": "bottleneck.comparison.compare",
    "describe": "bottleneck.backbones.describe",
    "evaluate": "bottleneck.prediction.evaluate",
    "extract": "bottleneck.extraction.extract",
    "finetune": "bottleneck.finetuning.finetune",
    "fit": "bottleneck.fitting.fit",
    "load_run": "bottleneck.runs.run",
    "models": "bottleneck.backbones.catalogue",
    "predict": "bottleneck.prediction.predict",
    "scan": "bottleneck.images.scan",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import bottleneck`` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bottleneck' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
