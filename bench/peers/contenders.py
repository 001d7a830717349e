"""The contenders: the same weights, images and tokens in several runtimes; ``ways`` has how each computes."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import partial

from lsms_rt.engine.tensorrt.variant import VARIANTS, TensorRtVariant
from lsms_rt.machine.cpu import find
from lsms_rt.machine.gpu import query_driver

from .ways import (
    SERIES,
    SINGLE,
    Open,
    compiled,
    eager,
    engine,
    naive,
    naive_halves,
    openvino_halves,
    openvino_naive,
    runner,
)


@dataclass(frozen=True)
class Contender:
    """One way to run the model, in a process of its own.

    Attributes:
        name: Short name.
        what: Description for the table.
        needs: Modules it needs; without them it is listed as absent.
        open: Opens it.
        gpu: Whether it also needs an NVIDIA GPU.
        bf16: Whether it also needs a CPU that multiplies bf16.
        ours: Whether it is an engine of ours.
        forms: The forms that ``open`` returns, each a row of the table.
        variant: The TensorRT variant whose plans ``prepare`` builds for it.
        precision: The precision of the OpenVINO engine that ``prepare`` builds for it.
        graphs: The naive graphs that ``prepare`` exports for it.
    """

    name: str
    what: str
    needs: tuple[str, ...]
    open: Open
    gpu: bool = False
    bf16: bool = False
    ours: bool = False
    forms: tuple[str, ...] = (SERIES,)
    variant: str | None = None
    precision: str | None = None
    graphs: tuple[str, ...] = ()

    @property
    def absent(self) -> str | None:
        """The reason why it cannot run here, or None."""
        missing = [module for module in self.needs if importlib.util.find_spec(module) is None]
        if missing:
            return f"not installed: {', '.join(missing)}"
        if self.bf16 and not find().bf16:
            return f"this CPU does not multiply bf16 ({find()})"
        return query_driver().problem if self.gpu else None

    def row(self, form: str) -> str:
        """Return the name of the row of one of its forms."""
        return self.name if form == SERIES else f"{self.name}, {form}"


TORCH, ORT, OPENVINO = ("torch", "transformers"), ("onnxruntime",), ("openvino", "onnxruntime")
WHOLE, HALVES = ("naive",), ("naive_text", "naive_image")
# Ours, by which times are divided: in the default backend and precision.
OURS = "ours"
Ours = partial(Contender, ours=True, forms=(SERIES, SINGLE))


def _plans(variant: TensorRtVariant) -> Contender:
    return Ours(
        variant.title,
        f"the graphs of our engine as plans of {variant.title}, float32, CUDA graphs",
        ("pycuda", variant.modules[0]),
        engine(f"{variant.name}.engine", "cuda"),
        gpu=True,
        variant=variant.name,
    )


def _in_openvino(precision: str, what: str, bf16: bool = False) -> Contender:
    return Ours(
        f"ours in OpenVINO, {precision}",
        f"lsms-rt's engine on OpenVINO, {what}",
        OPENVINO,
        engine(f"openvino-{precision}.engine", "cpu"),
        bf16=bf16,
        precision=precision,
    )


CONTENDERS = (
    Ours(
        OURS, "lsms-rt's engine on ONNX Runtime, float32, the sentence encoded once", ORT, engine("ours.engine", "cpu")
    ),
    _in_openvino("fp32", "float32"),
    _in_openvino("bf16", "bfloat16", bf16=True),
    _in_openvino("int8", "the layers of the bundled recipe in INT8, the rest in bfloat16 where the CPU multiplies it"),
    Contender("eager", "PyTorch eager, called as model(image, tokens, mask)", TORCH, eager("reference", False)),
    Contender("eager, text once", "PyTorch eager, the sentence encoded once", TORCH, eager("reference", True)),
    Contender("torch.compile, text once", "the same through torch.compile (needs a C++ compiler)", TORCH, compiled()),
    Contender(
        "naive graph",
        "one graph of torch.onnx.export on ONNX Runtime, the sentence encoded with every slice",
        ORT,
        naive,
        graphs=WHOLE,
    ),
    Contender(
        "naive graph, text once",
        "the same as two graphs, the sentence encoded once",
        ORT,
        naive_halves,
        graphs=HALVES,
    ),
    Contender(
        "OpenVINO, as a user would try it",
        "the naive graph with OpenVINO's defaults (on a CPU with bfloat16 it chooses that), the sentence encoded with "
        "every slice",
        OPENVINO,
        openvino_naive,
        graphs=WHOLE,
    ),
    Contender(
        "OpenVINO, default precision",
        "the naive image graph with OpenVINO's defaults, the sentence encoded once",
        OPENVINO,
        openvino_halves(),
        graphs=HALVES,
    ),
    Contender(
        "OpenVINO",
        "the naive image graph, float32, latency hint, the sentence encoded once",
        OPENVINO,
        openvino_halves(INFERENCE_PRECISION_HINT="f32", PERFORMANCE_HINT="LATENCY"),
        graphs=HALVES,
    ),
    Contender(
        "OpenVINO, throughput",
        "the same with the throughput hint",
        OPENVINO,
        openvino_halves(INFERENCE_PRECISION_HINT="f32", PERFORMANCE_HINT="THROUGHPUT"),
        graphs=HALVES,
    ),
    Contender(
        "eager on a GPU, text once",
        "PyTorch eager on a GPU, float32 without TF32, copies included",
        TORCH,
        eager("reference", True, "cuda"),
        gpu=True,
    ),
    Contender(
        "eager on a GPU in float16, text once",
        "PyTorch eager on a GPU, float16, cuDNN's fastest convolutions, copies included",
        TORCH,
        eager("reference", True, "cuda", "float16"),
        gpu=True,
    ),
    Contender(
        "torch.compile on a GPU, text once",
        "torch.compile on a GPU, float32 without TF32, copies included",
        TORCH,
        compiled("cuda"),
        gpu=True,
    ),
    Contender(
        "torch.compile on a GPU in float16, text once",
        "torch.compile on a GPU, float16, cuDNN's fastest convolutions, copies included",
        TORCH,
        compiled("cuda", "float16"),
        gpu=True,
    ),
    Contender(
        "ours in PyTorch on a GPU, float16",
        "lsms-rt's checkpoint through PyTorch with the Triton kernels, a CUDA graph, copies included",
        (*TORCH, "triton"),
        runner(),
        gpu=True,
        ours=True,
    ),
    *map(_plans, VARIANTS.values()),
)
