"""A network of one block a stage, for tests of what does not depend on depth: an export takes half of the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lsms_rt.data import demo_checkpoint
from lsms_rt.model import LSMS, TextConfig, preset
from lsms_rt.model.config import LsmsConfig

# With the 64 tokens of BERT's vocabulary.
TEXT = TextConfig(hidden_size=128, layers=1, heads=2, intermediate_size=512)


def shallow(name: str, **changes: Any) -> LsmsConfig:
    """Return a preset with one block a stage; the parameters are those of ``lsms_rt.model.preset``."""
    return preset(name, depths=(1, 1, 1, 1), **changes)


def save_shallow(folder: Path) -> LSMS:
    """Save a checkpoint of 64x64; its weights are always the same, so that a session exports it once."""
    torch.manual_seed(0)
    model = LSMS(shallow("tiny", image_size=64, text=TEXT)).eval()
    model.save_pretrained(folder, tokenizer=demo_checkpoint() / "tokenizer.json")
    return model
