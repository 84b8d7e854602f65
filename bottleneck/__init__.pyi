"""The public names and where they are defined, for type checkers and for `lazy_loader`."""

from . import errors as errors
from ._version import __version__ as __version__
from .auditing.audit import audit as audit
from .auditing.suggest import suggest as suggest
from .backbones.catalogue import models as models
from .backbones.describe import describe as describe
from .cache.feature_cache import FeatureCache as FeatureCache
from .comparison.compare import compare as compare
from .diagnostics.diagnose import diagnose as diagnose
from .extraction.extract import extract as extract
from .finetuning.finetune import finetune as finetune
from .finetuning.recipe import Recipe as Recipe
from .fitting.fit import fit as fit
from .images.scan import scan as scan
from .prediction.evaluate import evaluate as evaluate
from .prediction.predict import predict as predict
from .reporting.report import report as report
from .runs.run import load_run as load_run
