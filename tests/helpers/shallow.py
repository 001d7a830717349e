"""Networks of one block a stage, for tests of what does not depend on depth: an export takes half of the time."""

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


def doubled(config: LsmsConfig) -> LSMS:
    """Return a network whose random weights are twice as large: a word changes logits by 0.02, which have both signs.

    As they are, a whole sentence changes them by 0.0001, less than what float32 is allowed.
    """
    model = LSMS(config)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights *= 2
    return model


def save_shallow(folder: Path) -> LSMS:
    """Save a checkpoint of 64x64; its weights are always the same, so that a session exports it once."""
    torch.manual_seed(0)
    model = doubled(shallow("tiny", image_size=64, text=TEXT)).eval()
    model.save_pretrained(folder, tokenizer=demo_checkpoint() / "tokenizer.json")
    return model
