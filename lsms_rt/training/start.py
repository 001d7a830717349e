"""What a training begins with: given weights, or a new network with a pretrained text encoder or backbone."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from lsms_rt.errors import InputError
from lsms_rt.model import LSMS, LsmsConfig


def new_model(config: LsmsConfig, layer_scale: float) -> LSMS:
    """A network with random weights and residual branches scaled by ``layer_scale``."""
    model = LSMS(config)
    for name, parameter in model.named_parameters():
        if name.endswith((".scale1", ".scale2")):
            nn.init.constant_(parameter, layer_scale)
    # Lesions are about a hundredth of the pixels: without this prior hundreds of updates go into learning that.
    assert isinstance(model.decoder.predict.bias, torch.Tensor)
    nn.init.constant_(model.decoder.predict.bias, -4.0)
    return model


def from_checkpoint(folder: Path, **changes: object) -> LSMS:
    """The weights of a checkpoint in a network with fields of the config changed.

    ``presence`` and ``subpixel`` may be added: a new presence head empties no mask, and the logits of a cell's pixels
    begin as the cell's.

    Args:
        folder: a checkpoint.
        **changes: fields of ``LsmsConfig``.

    Raises:
        InputError: the folder is not a checkpoint, or a change does not fit its weights.
    """
    try:
        source = LSMS.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: cannot be trained further ({error})") from error
    config = replace(source.config, **changes)  # type: ignore[arg-type]
    if config == source.config:
        return source
    model = LSMS(config)
    state, old = model.state_dict(), source.state_dict()
    for name, value in old.items():
        if name not in state:
            raise InputError(f"{folder}: its weights hold {name}, which the network asked for does not have")
        if name.startswith("decoder.predict.") and value.shape != state[name].shape:
            value = value.repeat(len(state[name]), *[1] * (value.ndim - 1))
        if value.shape != state[name].shape:
            raise InputError(
                f"{folder}: {name} has shape {tuple(value.shape)}, the network asked for {tuple(state[name].shape)}; "
                "leave out --preset, --text-encoder and --backbone with --init"
            )
        state[name] = copy.deepcopy(value)
    model.load_state_dict(state)
    return model
