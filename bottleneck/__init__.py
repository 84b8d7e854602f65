"""Turn folders of images into tested classifiers, without a training cluster."""

import warnings as _warnings

import lazy_loader as _lazy

# pandas imports any module called `bottleneck`, takes it for PyPI's Bottleneck, and warns that its version is too old.
# The version stays below 1.5, so pandas does not use it; this filter silences the warning. See docs/getting-started.md.
_warnings.filterwarnings("ignore", message=r".*requires version .* of 'bottleneck'")

# The public names are those of `__init__.pyi`; each is imported when it is first used.
__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
