"""What is bundled: the demo checkpoint and an engine made of it.  Both were trained on synthetic CT."""

from __future__ import annotations

from pathlib import Path

DATA = Path(__file__).parent
DEMO_NOTE = "demo weights trained on synthetic CT"


def demo_checkpoint() -> Path:
    """Folder of the demo checkpoint: config, weights, tokenizer and model card."""
    return DATA / "demo"


def demo_calibration() -> Path:
    """Folder of the INT8 recipe of the demo weights: ``lsms-rt build-engine --precision int8 --calibration demo``."""
    return DATA / "demo.calibration"


def demo_engine() -> Path:
    """The bundled engine of the demo weights, for ONNX Runtime: ``Segmenter(demo_engine())``."""
    return DATA / "demo.engine"
