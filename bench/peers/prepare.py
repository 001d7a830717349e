"""Prepare a folder for the contenders: a checkpoint, naive graphs of it, and our engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lsms_rt.bench.unjudged import unjudged
from lsms_rt.data import demo_checkpoint
from lsms_rt.engine.backend import FEATURES, STAGES
from lsms_rt.engine.manifest import batch_profile
from lsms_rt.engine.tensorrt.variant import VARIANTS
from lsms_rt.export.build import build_engine
from lsms_rt.export.onnx_export import ImageGraph, TextGraph, export_module
from lsms_rt.export.options import BuildOptions, PlanOptions
from lsms_rt.export.plans import convert_engine
from lsms_rt.model import LSMS, TextConfig, preset
from lsms_rt.model.lsms import TOKENIZER

from .contenders import CONTENDERS

SEED = 0


def prepare(
    folder: Path, checkpoint: Path | None, preset_name: str, image_size: int, names: Collection[str] | None = None
) -> dict[str, Any]:
    """Fill a folder with what the contenders need that are not absent, and describe the weights.

    Args:
        folder: The folder to fill.
        checkpoint: Weights; None means random ones with BERT-base, since speed does not depend on the values.
        preset_name: Preset of random weights.
        image_size: Side of the image in pixels.
        names: The contenders to prepare for; None for all.

    Returns:
        "weights", "image_size", "max_tokens" and "vocabulary".
    """
    target = folder / "checkpoint"
    if checkpoint is None:
        torch.manual_seed(SEED)
        model = LSMS(preset(preset_name, image_size=image_size, text=TextConfig()), "reference").eval()
        weights = f"random ({preset_name}, BERT-base)"
        model.save_pretrained(target, tokenizer=demo_checkpoint() / TOKENIZER)
    else:
        shutil.copytree(checkpoint, target)
        config = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(json.dumps(config | {"image_size": image_size}))
        model = LSMS.from_pretrained(target, "reference")
        weights = f"{checkpoint.name} ({model.config.preset})"
    text = model.config.text
    present = [one for one in CONTENDERS if not one.absent and (names is None or one.name in names)]
    _naive_graphs(model, folder, {graph for contender in present for graph in contender.graphs})
    del model
    fp32 = folder / "ours.engine"
    build_engine(BuildOptions(checkpoint=target, verify_slices=0), fp32)
    for contender in present:
        if contender.variant:
            variant, output = VARIANTS[contender.variant], folder / f"{contender.variant}.engine"
            convert_engine(fp32, variant, batch_profile(8), PlanOptions(), output)
        if contender.precision:
            options = unjudged("openvino", contender.precision, target, fp32)
            build_engine(options, folder / f"openvino-{contender.precision}.engine")
    return {"weights": weights, "image_size": image_size, "max_tokens": text.max_tokens, "vocabulary": text.vocab_size}


class WholeGraph(nn.Module):
    """The whole model in one graph, from image, tokens and mask to logits, as most would export it."""

    def __init__(self, model: LSMS) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.model(image, tokens, mask)


class PlainImageGraph(ImageGraph):
    """The image half as defined, with features that are not folded."""

    def forward(self, image: Tensor, mask: Tensor, *features: Tensor) -> Tensor:
        from lsms_rt.model.encoder import TextFeatures

        return self.model.segment(image, TextFeatures(features[:STAGES], features[STAGES:], mask, folded=False))


def _naive_graphs(model: LSMS, folder: Path, wanted: set[str]) -> None:
    model = model.eval().requires_grad_(False)
    size, count = model.config.image_size, model.config.text.max_tokens
    image, mask = torch.zeros(2, 1, size, size), torch.ones(2, count)
    tokens = torch.ones(2, count, dtype=torch.int64)
    text = model.encode_text(tokens, mask)
    features = (*text.keys, *text.values)
    batch = {0: torch.export.Dim("batch", min=1, max=1024)}
    many = tuple(batch for _ in features)
    whole, names = WholeGraph(model), list(FEATURES)
    exports: list[tuple[str, nn.Module, tuple[Any, ...], list[str], list[str], tuple[Any, ...]]] = [
        ("naive", whole, (image, tokens, mask), ["image", "tokens", "mask"], ["logits"], (batch, batch, batch)),
        ("naive_text", TextGraph(model), (tokens, mask), ["tokens", "mask"], names, (batch, batch)),
        (
            "naive_image",
            PlainImageGraph(model),
            (image, mask, *features),
            ["image", "mask", *names],
            ["logits"],
            (batch, batch, many),
        ),
    ]
    for name, module, inputs, input_names, output_names, dynamic in exports:
        if name in wanted:
            export_module(module, inputs, input_names, output_names, dynamic, folder / f"{name}.onnx")
