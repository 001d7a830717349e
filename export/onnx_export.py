"""Export the two graphs of a model to ONNX: text (run once per sentence) and image (run once per slice)."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lsms_rt.engine.backend import FEATURES, STAGES
from lsms_rt.model import LSMS
from lsms_rt.model.encoder import TextFeatures

# 18 would decompose Gelu; TensorRT for RTX rejects the Attention of 23 in fp32.
OPSET = 20


class TextGraph(nn.Module):
    """``tokens`` int64 (B, T), ``mask`` float32 (B, T) -> keys1..4 then values1..4, (B, depth, T, C)."""

    def __init__(self, model: LSMS) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        features = self.model.encode_text(tokens, mask.to(_type(self.model)))
        return (*features.keys, *features.values)


class ImageGraph(nn.Module):
    """``image`` (B, 1, S, S) and ``mask`` (B, T) float32, keys1..4, values1..4 -> logits float32 (B, 1, S, S)."""

    def __init__(self, model: LSMS) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, mask: Tensor, *features: Tensor) -> Tensor:
        text = TextFeatures(features[:STAGES], features[STAGES:], mask)
        return self.model.segment(image.to(_type(self.model)), text).float()


def _type(model: LSMS) -> torch.dtype:
    return next(model.parameters()).dtype


def export_graphs(model: LSMS, folder: Path, kernel_nodes: dict[Any, Any] | None = None) -> tuple[Path, Path]:
    """Write ``text.onnx`` and ``image.onnx`` (opset 20, dynamic batch, static size and token count).

    A model in float16 makes graphs in float16: the graph defines the precision, as TensorRT's strongly typed networks
    require.  What the model computes in float32 anyway (statistics that would overflow, ``folded.wide``) stays float32.
    Images, masks and logits are float32 in both, so that a caller needs no distinction.

    Args:
        model: the model, in float32 or float16; it is set to eval mode, without gradients.
        folder: an existing folder.
        kernel_nodes: the translations for a model that runs our kernels (``kernel_nodes.translations``).

    Returns:
        The paths of the text and the image graph.
    """
    config = model.config
    model = model.eval().requires_grad_(False)
    tokens = torch.ones(2, config.text.max_tokens, dtype=torch.int64)
    mask = torch.ones(2, config.text.max_tokens)
    image = torch.zeros(2, config.in_channels, config.image_size, config.image_size)
    with torch.no_grad():
        text = model.encode_text(tokens, mask.to(_type(model)))
        if model.kernels == "plugins":
            # Packs the kernels' weights, which the exporter cannot do.
            model.segment(image.to(_type(model)), text)
    batch = torch.export.Dim("batch", min=1, max=1024)
    text_path, image_path = folder / "text.onnx", folder / "image.onnx"
    export_module(
        TextGraph(model),
        (tokens, mask),
        ["tokens", "mask"],
        list(FEATURES),
        ({0: batch}, {0: batch}),
        text_path,
    )
    features = (*text.keys, *text.values)
    dynamic = ({0: batch}, {0: batch}, tuple({0: batch} for _ in features))
    export_module(
        ImageGraph(model),
        (image, mask, *features),
        ["image", "mask", *FEATURES],
        ["logits"],
        dynamic,
        image_path,
        kernel_nodes,
    )
    return text_path, image_path


def export_module(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    names: list[str],
    outputs: list[str],
    dynamic: tuple[Any, ...],
    path: Path,
    translations: dict[Any, Any] | None = None,
) -> None:
    """Write one module as a graph that holds its weights; ``dynamic`` is ``dynamic_shapes`` of ``torch.export``."""
    with quiet(), no_garbage_collection(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(), inputs, dynamo=True, opset_version=OPSET, input_names=names, output_names=outputs,
            dynamic_shapes=dynamic, verbose=False, custom_translation_table=translations,
        )  # fmt: skip
    assert program is not None
    program.save(path, external_data=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter, which prints its progress and warns about its own internals."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.getLogger("torch.onnx").setLevel(level)


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Almost all objects of the exporter live until it ends; to search them for garbage takes an eighth of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
