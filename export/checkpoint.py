"""A checkpoint for a build: its model, its digest, and the fields of a manifest that follow from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lsms_rt
from lsms_rt.data import DEMO_NOTE, demo_checkpoint
from lsms_rt.digest import sha256
from lsms_rt.engine.manifest import Manifest, format_of
from lsms_rt.engine.vocabulary import ORIENTATION
from lsms_rt.errors import InputError
from lsms_rt.model import LSMS, LsmsConfig
from lsms_rt.model.lsms import TOKENIZER, WEIGHTS


def load_model(checkpoint: Path, image_size: int | None, kernels: str = "stock") -> LSMS:
    """Load a checkpoint's model, in float32.

    Args:
        checkpoint: the folder.
        image_size: side of the input in pixels; None for the checkpoint's own.
        kernels: as in ``LSMS``; unless it is "reference", the decoder is folded.

    Raises:
        InputError: the folder is not a checkpoint, or the model cannot have that size.
    """
    try:
        model = LSMS.from_pretrained(checkpoint, kernels)
        if kernels != "reference":
            model.fold_decoder()
        if image_size is not None:
            model.config = replace(model.config, image_size=image_size)
    except (FileNotFoundError, ValueError, TypeError) as error:
        raise InputError(str(error)) from error
    if not (checkpoint / TOKENIZER).is_file():
        raise InputError(f"{checkpoint} is not a checkpoint: it has no {TOKENIZER}")
    return model


def weights_digest(checkpoint: Path) -> str:
    """Return the sha256 of a checkpoint's weights."""
    return sha256((checkpoint / WEIGHTS).read_bytes())


def manifest_of(config: LsmsConfig, checkpoint: Path, profile: tuple[int, int, int], **fields: Any) -> Manifest:
    """Return a manifest with all fields that follow from a checkpoint.

    Args:
        config: of the model.
        checkpoint: its folder.
        profile: (min, opt, max) batch.
        **fields: the fields that depend on the backend.
    """
    digest, demo = weights_digest(checkpoint), weights_digest(demo_checkpoint())
    return Manifest(
        preset=config.preset,
        weights_digest=digest,
        # Recognized by their digest, wherever they were copied to.
        weights_note=DEMO_NOTE if digest == demo else "weights supplied by the user",
        image_size=config.image_size,
        channels=config.in_channels,
        hu_window=config.hu_window,
        crop=config.crop,
        format=format_of(config.crop, fields["precision"], (fields.get("calibration") or {}).get("rest")),
        orientation=ORIENTATION,
        max_tokens=config.text.max_tokens,
        max_batch=profile[2],
        profile=profile,
        threshold=config.threshold,
        confidence=config.confidence,
        built_by=f"lsms-rt {lsms_rt.__version__}",
        **fields,
    )
