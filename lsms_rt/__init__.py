"""lsms-rt: an inference engine for LSMS, which segments the lesion that a sentence describes in a CT slice.

Not a medical device.

seg = lsms_rt.Segmenter("liver.engine")
result = seg.predict(img, "the low-density lesion in the right lobe of the liver")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .ct_slice import CtSlice
    from .errors import (
        EngineError,
        InputError,
        LsmsError,
        MachineError,
        MissingDependencyError,
        SentenceNotUnderstoodError,
    )
    from .segmentation import Segmentation
    from .segmenter import Segmenter

__version__ = "0.1.0"
__all__ = [
    "CtSlice",
    "EngineError",
    "InputError",
    "LsmsError",
    "MachineError",
    "MissingDependencyError",
    "Segmentation",
    "Segmenter",
    "SentenceNotUnderstoodError",
    "__version__",
    "demo_engine",
    "show_names",
]
# ONNX Runtime 1.29 and later report use, with an identifier of the machine, to their maker, unless this is set before
# the library is loaded.  Nothing may leave a hospital's machine that nobody asked for.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# public name -> module that defines it
_HOMES = {
    "Segmenter": "segmenter",
    "Segmentation": "segmentation",
    "CtSlice": "ct_slice",
    "LsmsError": "errors",
    "InputError": "errors",
    "MachineError": "errors",
    "MissingDependencyError": "errors",
    "EngineError": "errors",
    "SentenceNotUnderstoodError": "errors",
    "EnvironmentProblem": "errors",
    "demo_engine": "data",
    "show_names": "privacy",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``import lsms_rt`` is fast."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
