"""Bundled data: the demo checkpoint, and the engine that was built from it.  It was trained on synthetic CT only."""

from __future__ import annotations

from pathlib import Path

DATA = Path(__file__).parent
# What asks an engine whether it answers: a synthetic slice, and a sentence that every table of words has.
PROBE_IMAGE, PROBE_TEXT = DATA / "examples" / "phantom_1.dcm", "the lesion"
DEMO_NOTE = "demo weights trained on synthetic CT"


def demo_checkpoint() -> Path:
    """Return the folder of the demo checkpoint: config, weights, tokenizer and model card."""
    return DATA / "demo"


def demo_calibration() -> Path:
    """Return the folder of the demo weights' INT8 recipe, which ``--calibration demo`` names on the command line."""
    return DATA / "demo.calibration"


def demo_engine() -> Path:
    """Return the bundled engine of the demo weights, for ONNX Runtime: ``Segmenter(demo_engine())``."""
    return DATA / "demo.engine"
