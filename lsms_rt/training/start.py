"""What a training begins with: given weights, or a new network with a pretrained text encoder or backbone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from lsms_rt.data import demo_checkpoint
from lsms_rt.errors import EngineInvalidError, InputError
from lsms_rt.model import LSMS, LsmsConfig, TextConfig, preset
from lsms_rt.model.config import MAX_TOKENS, OWN_TOKENS
from lsms_rt.model.lsms import TOKENIZER
from lsms_rt.tokenizer import Tokenizer

from .backbone import read_backbone, take_over
from .bert import read_bert
from .options import DEFAULT_CROP, DEFAULT_PRESET, DEFAULT_SIZE, DEMO, TrainOptions
from .recipe import Recipe
from .vocabulary import vocabulary_of

# The text encoder of a new network: small, since a data set's sentences have few words.
OWN_TEXT = TextConfig(hidden_size=128, layers=2, heads=2, intermediate_size=512, max_tokens=OWN_TOKENS)


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
    except (OSError, ValueError, TypeError) as error:
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


@dataclass(frozen=True)
class Start:
    """What a training begins with.

    Attributes:
        model: the network.
        tokenizer: content of its ``tokenizer.json``.
    """

    model: LSMS
    tokenizer: bytes


def begin(
    options: TrainOptions, sentences: Collection[str], status: Callable[[str], None], *, held_out: Collection[str] = ()
) -> Start:
    """Load the weights that a new run begins with, or make a new network.

    Args:
        options: of the training.
        sentences: of the training split; their words are the vocabulary of a new network without a text encoder.
        status: receives what was taken over.
        held_out: of the validation split; such a network reads them too, however long they are.

    Raises:
        InputError: weights cannot be read or do not fit.
    """
    torch.manual_seed(options.seed)
    if not options.is_new:
        return _from_init(options)
    bert = None if options.text_encoder is None else read_bert(options.text_encoder)
    tensors = None if options.backbone is None else read_backbone(options.backbone)
    data = vocabulary_of(sentences).encode() if bert is None else bert.tokenizer
    text = _own_text(data, {*sentences, *held_out}) if bert is None else bert.config
    config = preset(
        options.preset or DEFAULT_PRESET,
        image_size=options.image_size or DEFAULT_SIZE,
        crop=options.crop or DEFAULT_CROP,
        text=text,
        presence=True,
        subpixel=2,
    )
    model = new_model(config, Recipe.layer_scale)
    if bert is not None:
        model.text_encoder.load_state_dict(bert.state)
        sizes = f"{text.layers} layers of width {text.hidden_size}, {text.vocab_size} words"
        status(f"--text-encoder: {sizes}; sentences of at most {text.max_tokens} tokens")
    if tensors is not None and options.backbone is not None:
        for line in take_over(model.encoder, tensors, options.backbone).summary(options.backbone):
            status(line)
    return Start(model, data)


def _own_text(data: bytes, sentences: Collection[str]) -> TextConfig:
    tokenizer = Tokenizer(data, MAX_TOKENS)
    longest = max(map(tokenizer.count, sentences), default=0)
    tokens = OWN_TOKENS if longest <= OWN_TOKENS else MAX_TOKENS
    return replace(OWN_TEXT, vocab_size=tokenizer.vocab_size, max_tokens=tokens)


def _from_init(options: TrainOptions) -> Start:
    folder = demo_checkpoint() if options.init == DEMO else Path(options.init)
    wanted = {"image_size": options.image_size, "crop": options.crop}
    model = from_checkpoint(folder, presence=True, **{n: value for n, value in wanted.items() if value is not None})
    try:
        data = (folder / TOKENIZER).read_bytes()
        words = Tokenizer(data, model.config.text.max_tokens).vocab_size
    except (OSError, EngineInvalidError) as error:
        raise InputError(f"--init {options.init}: its {TOKENIZER} cannot be read; restore it") from error
    if words > model.config.text.vocab_size:
        raise InputError(
            f"--init {options.init}: its {TOKENIZER} has {words} words, its weights {model.config.text.vocab_size}; "
            "restore the tokenizer that belongs to the weights"
        )
    return Start(model, data)
