"""What a manifest says of the model and its checkpoint, whichever backend runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lsms_rt
from lsms_rt.data import DEMO_NOTE, demo_checkpoint
from lsms_rt.digest import sha256_of_file
from lsms_rt.engine.manifest import Manifest
from lsms_rt.model import LsmsConfig
from lsms_rt.model.lsms import WEIGHTS

ORIENTATION = "rows: anterior to posterior; columns: patient's right to left"


def weights_digest(checkpoint: Path) -> str:
    """sha256 of a checkpoint's weights."""
    return sha256_of_file(checkpoint / WEIGHTS)


def manifest_of(config: LsmsConfig, checkpoint: Path, profile: tuple[int, int, int], **rest: Any) -> Manifest:
    """A manifest with all that follows from a checkpoint.

    ``profile`` is (min, opt, max) batch, ``rest`` are the fields of the engine.
    """
    digest, demo = weights_digest(checkpoint), weights_digest(demo_checkpoint())
    return Manifest(
        preset=config.preset,
        weights_digest=digest,
        weights_note=DEMO_NOTE if digest == demo else "weights brought by the user",  # wherever they were copied to
        image_size=config.image_size,
        channels=config.in_channels,
        hu_window=config.hu_window,
        orientation=ORIENTATION,
        max_tokens=config.text.max_tokens,
        max_batch=profile[2],
        profile=profile,
        threshold=config.threshold,
        confidence=config.confidence,
        built_by=f"lsms-rt {lsms_rt.__version__}",
        **rest,
    )
