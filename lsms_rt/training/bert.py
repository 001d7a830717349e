"""A Hugging Face folder with a BERT -> our text encoder: its sizes, weights and vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lsms_rt.errors import EngineInvalidError, InputError
from lsms_rt.model.config import TextConfig
from lsms_rt.model.text import TextEncoder
from lsms_rt.tokenizer import CLS, PAD, SEP, UNK, Tokenizer

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
# What our encoder computes; another value is another network.
FORM = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "layer_norm_eps": 1e-12,
    "is_decoder": False,
}
SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
}
POSITIONS, KINDS = "embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight"


@dataclass(frozen=True)
class Bert:
    """A text encoder that was read.

    Attributes:
        config: its sizes.
        state: weights by the names of our ``TextEncoder``, float32.
        tokenizer: content of its ``tokenizer.json``.
    """

    config: TextConfig
    state: dict[str, Tensor]
    tokenizer: bytes


def read_bert(folder: Path) -> Bert:
    """Read ``config.json``, ``model.safetensors`` and ``tokenizer.json``; poolers and heads are left out.

    Raises:
        InputError: a file is missing or damaged, or the network is not BERT-shaped.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in (CONFIG, WEIGHTS, TOKENIZER):
        if not (folder / name).is_file():
            raise InputError(
                f"--text-encoder {folder} has no {name}; save it with transformers: model.save_pretrained(DIR), "
                "AutoTokenizer.from_pretrained(NAME, use_fast=True).save_pretrained(DIR)"
            )
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS)
    except (ValueError, SafetensorError) as error:
        raise InputError(f"--text-encoder {folder} cannot be read ({error}); download it again") from error
    config = _config(folder, values)
    state = _renamed(folder, weights, config)
    data = (folder / TOKENIZER).read_bytes()
    _check_tokenizer(folder, data, config)
    return Bert(config, state, data)


def _config(folder: Path, values: Any) -> TextConfig:
    if not isinstance(values, dict) or "model_type" not in values:
        raise InputError(f"--text-encoder {folder}: {CONFIG} names no model_type; give the folder of a BERT")
    for name, needed in FORM.items():
        actual = values.get(name, needed)
        # A missing position_embedding_type is null in some files.
        if actual != needed and actual is not None:
            raise InputError(f"--text-encoder {folder} has {name} {actual!r}; only BERT's {needed!r} is supported")
    sizes = {n: v for n, name in SIZES.items() if isinstance(v := values.get(name), int) and v > 0}
    if wrong := [name for ours, name in SIZES.items() if ours not in sizes]:
        raise InputError(f"--text-encoder {folder}: {CONFIG} has no usable {', '.join(wrong)}; give a complete BERT")
    config = TextConfig(**sizes)
    if config.hidden_size % config.heads:
        raise InputError(f"--text-encoder {folder}: hidden_size {config.hidden_size} is no multiple of {config.heads}")
    return config


def _renamed(folder: Path, weights: Mapping[str, Tensor], config: TextConfig) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, value in weights.items():
        # Checkpoints of pretraining have a prefix, and old ones TensorFlow's names of a LayerNorm.
        short = name.removeprefix("bert.").replace(".gamma", ".weight").replace(".beta", ".bias")
        if short in (POSITIONS, KINDS):
            value = value[: config.max_tokens if short == POSITIONS else 2]
        state[f"bert.{short}"] = value.float()
    encoder = TextEncoder(config)
    expected = encoder.state_dict()
    wrong = [name for name, value in expected.items() if name not in state or state[name].shape != value.shape]
    if wrong:
        name = wrong[0]
        actual = f"has shape {tuple(state[name].shape)}" if name in state else "is missing"
        raise InputError(
            f"--text-encoder {folder}: {len(wrong)} tensors do not fit its {CONFIG}, {name} {actual}, needed is "
            f"{tuple(expected[name].shape)}; give a BERT with {config.max_tokens} positions or more and two token types"
        )
    return {name: state[name] for name in expected}


def _check_tokenizer(folder: Path, data: bytes, config: TextConfig) -> None:
    from tokenizers import Tokenizer as Fast

    try:
        size = Tokenizer(data, config.max_tokens).vocab_size
    except EngineInvalidError as error:
        raise InputError(f"--text-encoder {folder}: {TOKENIZER} is not a valid tokenizer file") from error
    vocabulary = Fast.from_buffer(data).get_vocab()
    missing = [piece for piece in (PAD, UNK, CLS, SEP) if piece not in vocabulary]
    if missing:
        raise InputError(f"--text-encoder {folder}: {TOKENIZER} has no {', '.join(missing)}; give BERT's own tokenizer")
    if size > config.vocab_size or max(vocabulary.values()) >= config.vocab_size:
        raise InputError(
            f"--text-encoder {folder}: {TOKENIZER} has {size} words, {CONFIG} {config.vocab_size}; give the tokenizer "
            "that belongs to the weights"
        )
