"""The Python API of an installed TensorRT, of the classes that we use: ``python dump.py MODULE > VERSION.json``.

The files beside this one were made from NVIDIA's own bindings of each version: names of classes, methods, enumerators.
"""

from __future__ import annotations

import importlib
import json
import sys

CLASSES = (
    "Builder", "BuilderFlag", "ComputeCapability", "CudaGraphStrategy", "DynamicShapesKernelSpecializationStrategy",
    "EngineInspector", "EngineInvalidityDiagnostics", "EngineValidity", "ExecutionContextAllocationStrategy",
    "HardwareCompatibilityLevel", "IBuilderConfig", "ICudaEngine",
    "IExecutionContext", "ILogger", "INetworkDefinition", "IOptimizationProfile", "IProgressMonitor", "IRuntimeCache",
    "IRuntimeConfig", "ITensor", "ITimingCache", "LayerInformationFormat", "MemoryPoolType",
    "NetworkDefinitionCreationFlag", "OnnxParser", "OnnxParserFlag", "ParserError", "ProfilingVerbosity", "Runtime",
    "TensorIOMode",
)  # fmt: skip


def names(library: object) -> dict[str, list[str]]:
    """Class -> its public names, for those of ``CLASSES`` that the library has."""
    found = {name: getattr(library, name) for name in CLASSES if hasattr(library, name)}
    return {name: sorted(n for n in dir(value) if not n.startswith("_")) for name, value in found.items()}


if __name__ == "__main__":
    print(json.dumps(names(importlib.import_module(sys.argv[1])), indent=0))
