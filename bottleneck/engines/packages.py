"""OpenVINO, imported without its telemetry.

``import openvino`` reports to Google Analytics and makes ``~/intel``, if the package ``openvino_telemetry`` is there,
and does neither where it is not. Its one documented switch, ``opt_in_out --opt_out``, writes to the home folder and
reports that, too. So the package is hidden while OpenVINO is imported, which then takes its own stand-in for it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TELEMETRY = "openvino_telemetry"


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Let imports of the telemetry package fail with ImportError, as where it is not installed."""
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == _TELEMETRY}
    modules: dict[str, Any] = sys.modules  # in which None is Python's own sign of what cannot be imported
    modules.update(dict.fromkeys([_TELEMETRY, *before]))
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
        sys.modules.update(before)


with _without_telemetry():
    import openvino

__all__ = ["openvino"]
